"""A virtual machine in qemu whose power can fail: no network, one disk, one channel on which it speaks.

The processor is qemu's own (TCG), so that it boots on every x86_64, in a container and in a machine too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from guest_root import SITE, environment_of_root, vmlinuz

BOOT_SECONDS = 240.0  # twenty times what it takes here
MEMORY_MIB = 640
_LINE_BYTES = 16 << 20


class Machine:
    """One machine, from its start to its end. `lines` is what it said, whole lines only."""

    def __init__(self, console: Path) -> None:
        self.lines: list[str] = []
        self.console = console
        self._news = asyncio.Event()
        self._heard = asyncio.Event()  # to its end
        self._process: asyncio.subprocess.Process | None = None
        self._connected = False
        self._ending: asyncio.Task[None] | None = None

    async def start(self, command: list[str], complaints: int) -> None:
        """Switch it on."""
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=complaints, stderr=complaints
        )
        self._ending = asyncio.create_task(self._end(self._process))

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self._news.set()

    async def said(self, count: int, seconds: float = BOOT_SECONDS) -> None:
        """Return when it has said so many lines. Fails the test when it ends before, or takes too long."""
        try:
            async with asyncio.timeout(seconds):
                while len(self.lines) < count:
                    assert self._ending is not None
                    assert not self._ending.done(), f"the machine has ended\n{self.last_words()}"
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"the machine says nothing\n{self.last_words()}") from None

    async def cut_power(self) -> None:
        """End it with SIGKILL; what it had said by then is in `lines`."""
        assert self._process is not None
        assert self._ending is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._ending
        if self._connected:
            await self._heard.wait()

    def last_words(self) -> str:
        """The end of its console."""
        return self.console.read_text(errors="replace")[-4_000:]

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hear it out."""
        self._connected = True
        with contextlib.suppress(ConnectionError):
            while (line := await reader.readline()).endswith(b"\n"):
                self.lines.append(line.decode().rstrip())
                self._news.set()
        writer.close()
        self._heard.set()
        self._news.set()


@contextlib.asynccontextmanager
async def running_machine(
    kernel: Path, root: Path, program: str, asked: dict[str, Any], disk: Path
) -> AsyncIterator[Machine]:
    """Boot; the disk is an NBD server on a Unix socket. At the end the machine is gone, whatever happened."""
    with tempfile.TemporaryDirectory(prefix="lotabots-vm-") as made:
        folder = Path(made)
        machine = Machine(folder / "console")
        server = await asyncio.start_unix_server(machine.listen, folder / "channel", limit=_LINE_BYTES)
        command = [*_QEMU, *_devices(folder, disk), "-kernel", str(vmlinuz(kernel)), "-initrd", str(root)]
        command += ["-append", _command_line(program, asked)]
        with machine.console.open("wb") as console:  # qemu's own complaints go there as well
            await machine.start(command, console.fileno())
        try:
            yield machine
        finally:
            await machine.cut_power()
            server.close()


_QEMU = (
    *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"),
    *("-m", str(MEMORY_MIB), "-smp", "2", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
)


def _devices(folder: Path, disk: Path) -> tuple[str, ...]:
    """The guest sees the disk's cache (`write-cache=on`), and qemu passes every flush on."""
    node = {
        "driver": "nbd",
        "node-name": "data",
        "server": {"type": "unix", "path": str(disk)},
        "cache": {"direct": False, "no-flush": False},
    }
    return (
        *("-blockdev", json.dumps(node), "-device", "virtio-blk-pci,drive=data,write-cache=on"),
        *("-serial", "chardev:console", "-device", "virtio-serial-pci"),
        *("-chardev", f"file,id=console,path={folder / 'console'},append=on"),
        *("-chardev", f"socket,id=channel,path={folder / 'channel'},server=off"),
        *("-device", "virtserialport,chardev=channel,name=channel"),
    )


def _command_line(program: str, asked: dict[str, Any]) -> str:
    """The kernel's: what stands behind "--" goes to the first process."""
    environment = " ".join(f"{name}={value}" for name, value in environment_of_root().items())
    given = json.dumps(asked, separators=(",", ":"))
    return (
        f"console=ttyS0 loglevel=7 panic=-1 random.trust_cpu=on rdinit=/python {environment} "
        f"-- -S {SITE}/{program}c {given}"
    )
