"""Ask the runtime helper: one line there, one line back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from lotabotsd.foundation.errors import Code, LotaBotsError

from .messages import MAX_LINE_BYTES, RunFacts, Verb, parse_answer, request_line

ANSWER_SECONDS = 10.0
ENSURE_SECONDS = 90.0  # it may have to ask a Python and a tritonserver what they are


class HelperClient:
    """The helper behind its socket. Every method raises HELPER_UNAVAILABLE, or the helper's own failure."""

    def __init__(self, path: Path, *, stop_timeout_seconds: float) -> None:
        self._path = path
        self._stop_seconds = stop_timeout_seconds + ANSWER_SECONDS

    async def ensure(self) -> dict[str, Any]:
        """The kind and versions of the runtime. Raises RUNTIME_MISSING too."""
        return await self._ask(Verb.ENSURE, ENSURE_SECONDS)

    async def start(self) -> RunFacts:
        """Start Triton unless it runs. Raises RUNTIME_MISSING, CONFIG_INVALID, FILE_UNWRITABLE too."""
        return _facts(await self._ask(Verb.START, ENSURE_SECONDS))

    async def stop(self) -> RunFacts:
        """End what is newest: a run on trial beside Triton, else Triton; returns when it is gone."""
        return _facts(await self._ask(Verb.STOP, self._stop_seconds))

    async def promote(self) -> RunFacts:
        """What is on trial has proven itself. Raises ENGINE_REFUSED too."""
        return _facts(await self._ask(Verb.PROMOTE, ENSURE_SECONDS))

    async def inspect(self) -> RunFacts:
        """Whether it runs, and how it ended."""
        return _facts(await self._ask(Verb.INSPECT, ANSWER_SECONDS))

    async def logs(self) -> list[str]:
        """Triton's last lines."""
        return [str(line) for line in (await self._ask(Verb.LOGS, ANSWER_SECONDS)).get("lines", [])]

    async def _ask(self, verb: Verb, timeout_seconds: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout_seconds):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE_BYTES)
                try:
                    writer.write(request_line(verb))
                    line = await reader.readuntil(b"\n")
                finally:
                    writer.close()
        except TimeoutError as error:
            raise LotaBotsError(
                Code.HELPER_UNAVAILABLE, f"no answer to {verb.value} in {timeout_seconds:.0f} s"
            ) from error
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise LotaBotsError(Code.HELPER_UNAVAILABLE, f"{self._path}: {error}") from error
        return parse_answer(line)


def _facts(answer: dict[str, Any]) -> RunFacts:
    try:
        return RunFacts.from_dict(answer)
    except (KeyError, TypeError, ValueError) as error:
        raise LotaBotsError(Code.HELPER_UNAVAILABLE, "its answer cannot be read") from error
