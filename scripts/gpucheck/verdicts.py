"""The result of scripts/gpu-check: each check with its verdict, and the one JSON file."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from load import LoadError
from rig import RigError

FORMAT = 1
OK, FAILED, NOT_RUN = "ok", "failed", "not run"


class CheckError(Exception):
    """A check found what must not be; the text says what."""


class NotHereError(Exception):
    """A check means nothing on this machine; the text says why."""


class OutOfTimeError(Exception):
    """The whole script's time is spent."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one check ended."""

    name: str
    result: str
    detail: str
    seconds: float


@dataclass(slots=True)
class Result:
    """Everything that is written at the end, whatever happened before."""

    facts: dict[str, Any] = field(default_factory=dict)
    checks: list[Verdict] = field(default_factory=list)

    def check(self, name: str, function: Callable[[], str]) -> bool:
        """Run one check; its text is the detail. Whether it was not found to fail."""
        begun = time.monotonic()
        try:
            result, detail = OK, function()
        except NotHereError as reason:
            result, detail = NOT_RUN, str(reason)
        except (CheckError, RigError, LoadError, OSError, subprocess.SubprocessError, ValueError) as error:
            result, detail = FAILED, f"{type(error).__name__}: {error}"[:2_000]
        verdict = Verdict(name, result, detail, round(time.monotonic() - begun, 2))
        self.checks.append(verdict)
        print(f"{result:<8}{name:<28}{verdict.seconds:>7.1f} s  {detail[:300]}", flush=True)
        return result != FAILED

    def skip(self, names: tuple[str, ...], why: str) -> None:
        """Tell of checks that could not be reached."""
        done = {verdict.name for verdict in self.checks}
        for name in names:
            if name not in done:
                self.checks.append(Verdict(name, NOT_RUN, why, 0.0))
                print(f"{NOT_RUN:<8}{name:<28}           {why}", flush=True)

    @property
    def failed(self) -> bool:
        """Whether any check found what must not be."""
        return any(verdict.result == FAILED for verdict in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The file."""
        return {
            "format": FORMAT,
            "verdict": FAILED if self.failed else OK,
            **self.facts,
            "checks": [asdict(verdict) for verdict in self.checks],
        }
