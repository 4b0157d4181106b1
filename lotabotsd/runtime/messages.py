"""What daemon and helper say to each other: one JSON line each way, six verbs, no arguments. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from lotabotsd.foundation.canonical import strict_json
from lotabotsd.foundation.errors import Code, LotaBotsError

MAX_LINE_BYTES = 64 * 1024


class Verb(StrEnum):
    """Everything the helper can be asked (frozen; ARCHITECTURE.md, "The runtime helper")."""

    ENSURE = "ensure"  # is what is needed here, and of which version
    START = "start"  # start Triton; when it runs already, only say so
    STOP = "stop"  # end it: SIGTERM, wait, SIGKILL; what is on trial is ended first, and refused
    PROMOTE = "promote"  # what is on trial has proven itself: it serves from now on
    INSPECT = "inspect"  # is it running, and how did it end
    LOGS = "logs"  # its last lines


class ExitKind(StrEnum):
    """Why Triton is no longer there."""

    STOPPED = "stopped"  # it was told to
    CONFIGURATION = "configuration"  # it refused its options: trying again cannot help
    FAILED = "failed"  # it gave up by itself
    CRASHED = "crashed"  # native crash
    KILLED = "killed"  # SIGKILL from outside: out of memory, an administrator, its helper's death


@dataclass(frozen=True, slots=True)
class ExitFacts:
    """How a run of Triton ended; `code` is negative for a signal, as in subprocess."""

    code: int
    kind: ExitKind
    text: str


GIVEN_UP = "lotabotsd gave it up"  # the helper knows no more; the daemon remembers why


class TrialKind(StrEnum):
    """How an image that is not known to be good gets, or got, its trial."""

    BESIDE = "beside"  # in a container of its own, while the good one serves
    IN_PLACE = "in_place"  # it is the run itself: there was no room, or nothing ran
    REPLACE = "replace"  # to be in place: the good one must be ended first
    REFUSED = "refused"  # it had its trial


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """The configured image where it is not the one that is known to be good."""

    kind: TrialKind
    image: str
    run_id: str = ""  # beside: of its own run; empty until it was started
    secret: str = ""  # beside: of its own run
    why: str = ""  # refused, or replace: the reason


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run of Triton as the helper sees it; `run_id` is empty when there was none yet."""

    run_id: str
    running: bool
    pid: int
    secret: str  # for the restricted APIs of this run; empty when not running
    exit: ExitFacts | None = None
    proven: bool = True  # `promote` has nothing to say: its image is known to be good, or there is only one
    trial: TrialFacts | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, the shape that `from_dict` reads."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> RunFacts:
        """Raises KeyError, TypeError or ValueError when it is not what `to_dict` gives."""
        ended, trial = value["exit"], value.get("trial")
        return cls(
            run_id=str(value["run_id"]),
            running=bool(value["running"]),
            pid=int(value["pid"]),
            secret=str(value["secret"]),
            exit=None
            if ended is None
            else ExitFacts(int(ended["code"]), ExitKind(ended["kind"]), str(ended["text"])),
            proven=bool(value.get("proven", True)),
            trial=None
            if trial is None
            else TrialFacts(
                TrialKind(trial["kind"]),
                *(str(trial[name]) for name in ("image", "run_id", "secret", "why")),
            ),
        )


NO_RUN = RunFacts(run_id="", running=False, pid=0, secret="")


def request_line(verb: Verb) -> bytes:
    """`{"verb":"start"}` and a newline."""
    return json.dumps({"verb": verb.value}, separators=(",", ":")).encode() + b"\n"


def parse_request(line: bytes) -> Verb:
    """The verb of a request. Raises HELPER_REFUSED for anything but exactly one known verb."""
    try:
        request = strict_json(line, max_depth=2)
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise LotaBotsError(Code.HELPER_REFUSED, "the request is not one JSON object") from error
    if not isinstance(request, dict) or set(request) != {"verb"}:
        raise LotaBotsError(Code.HELPER_REFUSED, 'the request must hold "verb" and nothing else')
    try:
        return Verb(request["verb"])
    except ValueError as error:
        raise LotaBotsError(Code.HELPER_REFUSED, f"there is no verb {str(request['verb'])[:40]!r}") from error


def answer_line(answer: dict[str, Any]) -> bytes:
    """`{"ok":{…}}` and a newline."""
    return json.dumps({"ok": answer}, separators=(",", ":")).encode() + b"\n"


def error_line(error: LotaBotsError) -> bytes:
    """`{"error":{…}}`, the problem, and a newline."""
    return json.dumps({"error": error.problem()}, separators=(",", ":")).encode() + b"\n"


def parse_answer(line: bytes) -> dict[str, Any]:
    """The answer inside a line. Raises the helper's own failure, or HELPER_UNAVAILABLE for a bad line."""
    try:
        answer = strict_json(line)
        if isinstance(answer, dict) and isinstance(answer.get("ok"), dict):
            found: dict[str, Any] = answer["ok"]
            return found
        problem = answer["error"]
        code, detail, hint = Code(problem["code"]), str(problem["detail"]), str(problem["hint"])
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise LotaBotsError(Code.HELPER_UNAVAILABLE, "its answer cannot be read") from error
    raise LotaBotsError(code, detail, hint=hint)


def fit_lines(lines: list[str]) -> list[str]:
    """The last of `lines` whose answer fits into one line of the protocol."""
    room = MAX_LINE_BYTES - 256
    kept: list[str] = []
    for line in reversed(lines):
        room -= len(json.dumps(line)) + 1
        if room < 0:
            break
        kept.append(line)
    return kept[::-1]
