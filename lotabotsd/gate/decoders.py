"""A bounded pool of image decoders: each its own process, ended at a deadline, started again when it dies."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.limits.counters import Counter
from lotabotsd.models.facts import PredictSpec

from . import decoder
from .counting import Counts

# Nothing of the gate's environment reaches a decoder; one thread each, or stacks use up the memory limit.
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(decoder.__file__).resolve().parent.parent.parent),
}
MAX_WAITING = 64


class Decoders:
    """Turns images into tensors, at most `count` at a time and MAX_WAITING in line."""

    def __init__(
        self, count: int, *, max_pixels: int, timeout_seconds: float, counts: Counts | None = None
    ) -> None:
        self._count = count
        self._max_pixels = max_pixels
        self._timeout_seconds = timeout_seconds
        self._free: asyncio.Queue[asyncio.subprocess.Process | None] = asyncio.Queue()
        self._counts = counts or Counts()
        self._waiting = 0
        for _ in range(count):
            self._free.put_nowait(None)

    async def decode(self, image: bytes, spec: PredictSpec) -> bytes:
        """The input tensor of one image. Raises IMAGE_INVALID or OVERLOADED."""
        if self._waiting >= MAX_WAITING:
            raise LotaBotsError(Code.OVERLOADED, "too many images wait to be decoded")
        self._waiting += 1
        try:
            process = await self._free.get()
        finally:
            self._waiting -= 1
        healthy: asyncio.subprocess.Process | None = None
        try:
            if process is None or process.returncode is not None:
                process = await self._start()
            answer = await self._ask(process, image, spec)
            healthy = process
        except (TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            raise LotaBotsError(
                Code.IMAGE_INVALID, f"it could not be decoded within {self._timeout_seconds:g} s and 2 GiB"
            ) from error
        finally:
            if healthy is None and process is not None:
                self._counts.add(Counter.DECODER_DEATHS)
                if process.returncode is None:
                    process.kill()
            self._free.put_nowait(healthy)
        status, payload = answer
        if status == decoder.REFUSED:
            raise LotaBotsError(Code.IMAGE_INVALID, payload.decode(errors="replace"))
        self._counts.add(Counter.DECODED_IMAGES)
        return payload

    async def warm(self) -> None:
        """Start every decoder, so that the first image does not wait for it."""
        for _ in range(self._count):
            process = await self._free.get()
            self._free.put_nowait(process or await self._start())

    async def close(self) -> None:
        """End the idle decoders."""
        while not self._free.empty():
            process = self._free.get_nowait()
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            decoder.__name__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_ENVIRONMENT,
            cwd="/",
        )

    async def _ask(
        self, process: asyncio.subprocess.Process, image: bytes, spec: PredictSpec
    ) -> tuple[int, bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        job = json.dumps({"predict": spec.to_dict(), "max_pixels": self._max_pixels}).encode()
        async with asyncio.timeout(self._timeout_seconds):
            process.stdin.write(decoder.JOB.pack(len(job), len(image)) + job)
            process.stdin.write(image)
            await process.stdin.drain()
            status, length = decoder.ANSWER.unpack(await process.stdout.readexactly(decoder.ANSWER.size))
            return status, await process.stdout.readexactly(length)
