"""One run of Triton as a child process: its own session, its output line by line, its end told once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

MAX_LINES = 400
MAX_LINE_CHARACTERS = 1_000
MAX_DESCRIPTORS = 65_536
_READ_BYTES = 64 * 1024
_LAUNCHER = Path(__file__).with_name("launch.py")


class Child:
    """A process group led by Triton. `ended` is done when the leader is gone and its group was cleared."""

    def __init__(self, process: subprocess.Popen[bytes], output: int, on_line: Callable[[str], None]) -> None:
        self._process = process
        self._output = output
        self._on_line = on_line
        self._partial = b""
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(process.pid)
        self.lines: deque[str] = deque(maxlen=MAX_LINES)
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._output, self._read)
        # The process is awaited, not the end of its output: Python stubs inherit that and may outlive it.
        self._loop.add_reader(self._pidfd, self._reap)

    @classmethod
    def start(
        cls, command: list[str], environment: dict[str, str], user: str, on_line: Callable[[str], None]
    ) -> Child:
        """Start a command through `launch.py`; `user` is whom it becomes, `-` for whom we are.

        Must be called on the main thread: the kernel ends the child when the thread that made it ends.
        Raises OSError.
        """
        output, inner = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(output, False)
        launcher = [sys.executable, "-I", "-S", "-B", str(_LAUNCHER), str(os.getpid()), user]
        try:
            process = subprocess.Popen(
                [*launcher, str(MAX_DESCRIPTORS), *command],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=inner,
                stderr=inner,
                start_new_session=True,
            )
        except OSError:
            os.close(output)
            raise
        finally:
            os.close(inner)
        return cls(process, output, on_line)

    @property
    def pid(self) -> int:
        """Of the leader, which is also the number of the group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the leader lives."""
        return not self.ended.done()

    def signal(self, number: signal.Signals) -> None:
        """Tell the leader something; nothing when it is gone."""
        if self.running:
            signal.pidfd_send_signal(self._pidfd, number)

    async def stop(self, timeout_seconds: float) -> int:
        """SIGTERM, wait, SIGKILL. Returns the exit code, negative for a signal."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await asyncio.shield(self.ended)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            return await asyncio.shield(self.ended)

    def _read(self) -> None:
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._output)
            return
        *whole, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > MAX_LINE_CHARACTERS:
            whole.append(self._partial)
            self._partial = b""
        for line in whole:
            self._keep(line)

    def _keep(self, line: bytes) -> None:
        text = line[:MAX_LINE_CHARACTERS].decode(errors="replace").rstrip()
        if text:
            self.lines.append(text)
            self._on_line(text)

    def _reap(self) -> None:
        """The leader ended: collect its code, end what is left of its group, read its last words."""
        self._loop.remove_reader(self._pidfd)
        code = self._process.wait()
        with contextlib.suppress(ProcessLookupError):  # it left nobody behind
            os.killpg(self.pid, signal.SIGKILL)
        self._read()
        self._loop.remove_reader(self._output)
        if self._partial:
            self._keep(self._partial)
        os.close(self._output)
        os.close(self._pidfd)
        self.ended.set_result(code)
