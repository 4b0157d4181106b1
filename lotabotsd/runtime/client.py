"""Ask Triton over its Unix socket: alive, index, load, unload, statistics, a canary inference.

One connection per request, closed after it: an idle kept-alive connection would hold up Triton's exit.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lotabotsd.foundation.errors import Code, LotaBotsError

from .canary import Canary, CanaryAnswer, canary_request, judge_canary, one_line, stream_request
from .command import SECRET_HEADER

MAX_HEAD_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_BEGINNING_BYTES = 16 * 1024
MAX_VERSIONS = 64  # of one model whose counters are read; a package holds 8
COUNTER_BITS = 48  # a million requests each second would take nine years to count beyond them
UNNAMED = ""  # stands for every live model whose name no package can have
_MODEL_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_VERSION = re.compile(r"[0-9]{1,18}")
_LENGTH = "content-length"
_JSON_LENGTH = "inference-header-content-length"


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True, slots=True)
class ModelState:
    """One line of Triton's index: `state` as in READY, LOADING, UNAVAILABLE; empty for "never loaded"."""

    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Counted:
    """What Triton counted of one version of a model since its counters began."""

    requests: int  # answered ones
    inferences: int  # the rows in them


class Asking(Protocol):
    """Who is told of what Triton will count although no client asked for it, before it does."""

    async def asks(self, model: str) -> None:
        """One inference is about to be sent."""

    async def loads(self, model: str) -> None:
        """The model is about to be loaded, with its warm-up, or unloaded; its counters may begin anew."""


class NobodyAsks:
    """Where nobody compares the counters."""

    async def asks(self, model: str) -> None:
        """Nothing."""

    async def loads(self, model: str) -> None:
        """Nothing."""


class TritonClient:
    """Triton's HTTP endpoint. `secret` gives the secret of the run in force for the restricted APIs."""

    def __init__(
        self,
        path: Path,
        secret: Callable[[], str],
        *,
        load_timeout_seconds: float,
        probe_timeout_seconds: float = 3.0,
        canary_timeout_seconds: float = 30.0,
        asking: Asking | None = None,
    ) -> None:
        self._path = path
        self._asking = asking or NobodyAsks()
        self._secret = secret
        self._load_seconds = load_timeout_seconds
        self._probe_seconds = probe_timeout_seconds
        self._canary_seconds = canary_timeout_seconds

    async def live(self) -> bool:
        """Whether it answers at all. Never raises: no answer is an answer."""
        try:
            return (await self._ask("GET", "/v2/health/live", self._probe_seconds)).status == 200
        except LotaBotsError:
            return False

    async def version(self) -> str:
        """Triton's version. Raises RUNTIME_UNAVAILABLE, RUNTIME_TIMEOUT."""
        found = _json(await self._ask("GET", "/v2", self._probe_seconds))
        return one_line(found.get("version")) if isinstance(found, dict) else ""

    async def index(self) -> dict[str, ModelState]:
        """Every model that Triton knows of, by a name that a package can have.

        Raises RUNTIME_UNAVAILABLE, RUNTIME_TIMEOUT.
        """
        rows = _json(await self._ask("POST", "/v2/repository/index", self._probe_seconds))
        found: dict[str, ModelState] = {}
        for row in rows if isinstance(rows, list) else []:
            if not isinstance(row, dict) or not (name := _model_name(row.get("name"))):
                continue
            state = ModelState(one_line(row.get("state")), one_line(row.get("reason")))
            if name not in found or state.state == "READY":  # a row per version: one that is ready counts
                found[name] = state
        return found

    async def load(self, name: str) -> None:
        """Load a model, or swap it for its newer files without a gap; done when it can answer.

        Raises MODEL_FAILED with Triton's own reason, RUNTIME_UNAVAILABLE, RUNTIME_TIMEOUT.
        """
        await self._asking.loads(name)
        _expect_ok(await self._ask("POST", f"/v2/repository/models/{name}/load", self._load_seconds))

    async def unload(self, name: str) -> None:
        """Take a model out of service. Raises MODEL_FAILED, RUNTIME_UNAVAILABLE, RUNTIME_TIMEOUT."""
        await self._asking.loads(name)
        _expect_ok(await self._ask("POST", f"/v2/repository/models/{name}/unload", self._load_seconds))

    async def statistics(self, name: str) -> dict[str, Any]:
        """Triton's own counts for a model. Raises MODEL_FAILED, RUNTIME_UNAVAILABLE, RUNTIME_TIMEOUT."""
        answer = await self._ask("GET", f"/v2/models/{name}/stats", self._probe_seconds)
        _expect_ok(answer)
        found: dict[str, Any] = _json(answer)
        return found

    async def counters(self) -> dict[str, dict[str, Counted]]:
        """Triton's counts of every model that is live, by version.

        What cannot be true is passed over: a name or version that no package has, more than 64 versions, a
        counter of more than 48 bits. Its model then stands here without versions, since it is live; `UNNAMED`
        stands for those without a name. Raises RUNTIME_UNAVAILABLE, RUNTIME_TIMEOUT.
        """
        answer = _json(await self._ask("GET", "/v2/models/stats", self._probe_seconds))
        found: dict[str, dict[str, Counted]] = {}
        try:
            for one in answer["model_stats"]:
                requests = _number(one["inference_stats"]["success"]["count"])
                counted = Counted(requests, _number(one["inference_count"]))
                name, version = _model_name(one["name"]), one["version"]
                versions = found.setdefault(name, {})
                if name and _is_version(version) and _is_believable(counted) and len(versions) < MAX_VERSIONS:
                    versions[version] = counted
        except (KeyError, TypeError, ValueError) as error:
            raise LotaBotsError(Code.RUNTIME_UNAVAILABLE, "its statistics cannot be read") from error
        return found

    async def canary(self, name: str, canary: Canary) -> str:
        """What is wrong with the answer to a canary inference, or nothing.

        Raises OVERLOADED when its queue is full, RUNTIME_UNAVAILABLE, RUNTIME_TIMEOUT.
        """
        return (await self.canary_answer(name, canary)).wrong

    async def canary_answer(self, name: str, canary: Canary) -> CanaryAnswer:
        """The same with the answer itself."""
        if canary.decoupled:
            return CanaryAnswer(await self._stream_canary(name, canary))
        body, head_bytes = canary_request(canary)
        await self._asking.asks(name)
        answer = await self._ask(
            "POST", f"/v2/models/{name}/infer", self._canary_seconds, body, {_JSON_LENGTH: str(head_bytes)}
        )
        if answer.status == 503:
            raise LotaBotsError(Code.OVERLOADED, _error_text(answer))
        if answer.status != 200:
            return CanaryAnswer(_error_text(answer))
        length = answer.headers.get(_JSON_LENGTH, "")
        # A longer number is no length, and one with too many digits no number to Python.
        head_bytes = int(length) if length.isdecimal() and len(length) < 16 else len(answer.body)
        return CanaryAnswer(judge_canary(canary, answer.body, head_bytes), answer.body, head_bytes)

    async def _stream_canary(self, name: str, canary: Canary) -> str:
        """Whether a stream begins well; the rest is cancelled by hanging up.

        Triton sends the status with the first event, or at the end of a stream without any. Where the inputs
        cannot be said in JSON, Triton's own word that the model is ready must do.
        """
        body = stream_request(canary)
        if body is None:
            answer = await self._ask("GET", f"/v2/models/{name}/ready", self._canary_seconds)
            return "" if answer.status == 200 else "it is not ready"
        await self._asking.asks(name)
        path = f"/v2/models/{name}/generate_stream"
        answer = await self._ask("POST", path, self._canary_seconds, body, beginning=True)
        if answer.status == 503:
            raise LotaBotsError(Code.OVERLOADED, _error_text(answer))
        return "" if answer.status == 200 else _error_text(answer)

    async def _ask(
        self,
        method: str,
        path: str,
        timeout_seconds: float,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        beginning: bool = False,
    ) -> Answer:
        """One request and its answer: whole, or of a stream the `beginning`, which may hold half an event."""
        sent = {"host": "triton", "connection": "close", _LENGTH: str(len(body)), **(headers or {})}
        if secret := self._secret():
            sent[SECRET_HEADER] = secret
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        try:
            async with asyncio.timeout(timeout_seconds):
                request = f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body
                return await self._exchange(request, beginning)
        except TimeoutError as error:
            raise LotaBotsError(
                Code.RUNTIME_TIMEOUT, f"{method} {path} had no answer in {timeout_seconds:g} s"
            ) from error
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise LotaBotsError(Code.RUNTIME_UNAVAILABLE, f"{method} {path}: {error}") from error

    async def _exchange(self, request: bytes, beginning: bool) -> Answer:
        reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_HEAD_BYTES)
        try:
            writer.write(request)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            status, headers = _parse_head(head)
            if beginning:
                return Answer(
                    status, headers, await reader.read(MAX_BEGINNING_BYTES) if status != 200 else b""
                )
            length = int(headers.get(_LENGTH, "0"))
            if not 0 <= length <= MAX_ANSWER_BYTES:
                raise ValueError(f"an answer of {length} bytes")
            return Answer(status, headers, await reader.readexactly(length))
        finally:
            writer.close()


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer that always has a Content-Length. Raises ValueError."""
    first, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError("this is not HTTP")
    headers = {}
    for line in rest:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(status[:3]), headers


def _json(answer: Answer) -> Any:
    if answer.status != 200:
        raise LotaBotsError(Code.RUNTIME_UNAVAILABLE, _error_text(answer))
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:  # the latter where it is nested too deeply
        raise LotaBotsError(Code.RUNTIME_UNAVAILABLE, "its answer is not JSON") from error


def _model_name(value: Any) -> str:
    """The name of a model as packages are called; `UNNAMED` for anything else."""
    return value if isinstance(value, str) and _MODEL_NAME.fullmatch(value) else UNNAMED


def _is_version(value: Any) -> bool:
    return isinstance(value, str) and _VERSION.fullmatch(value) is not None


def _is_believable(counted: Counted) -> bool:
    return max(counted.requests, counted.inferences) < 1 << COUNTER_BITS


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("no counter")
    return value


def _error_text(answer: Answer) -> str:
    """Triton's own words; they may name paths, so they are for the administrator only."""
    try:
        shape = answer.body[answer.body.find(b"{") : answer.body.rfind(b"}") + 1]  # without an event's frame
        text = str(json.loads(shape)["error"])
        return one_line(text.partition("\n\nAt:\n")[0])  # without a Python traceback
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"status {answer.status}"


def _expect_ok(answer: Answer) -> None:
    if answer.status != 200:
        raise LotaBotsError(Code.MODEL_FAILED, _error_text(answer))
