"""The first and only program of the virtual machine that loses its power: `python3 power_cut_guest.py JSON`.

It mounts the disk, counts what the life before left there, tells what the ledger says, and serves until the
power fails. JSON: {"life", "seed", "spoiled", "options" (of mount), "serve"}.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import platform
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from power_cut_appliance import Appliance, Clients, configuration

DISK, CHANNEL = "/dev/vda", "/dev/vport*"
DEVICE_SECONDS = 20.0
_FINIT_MODULE = 313  # x86_64
_SIOCSIFFLAGS, _IFF_UP_RUNNING = 0x8914, 0x41


def mount(source: str, target: str, kind: str, options: str = "") -> None:
    """mount(2). Raises OSError."""
    Path(target).mkdir(exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), 0, options.encode()):
        raise OSError(ctypes.get_errno(), f"mount {source}: {os.strerror(ctypes.get_errno())}")


def load_modules() -> None:
    """Load what the kernel does not have built in; the names are in order."""
    libc = ctypes.CDLL(None, use_errno=True)
    for name in Path("/modules/order").read_text().split():
        descriptor = os.open(f"/modules/{name}", os.O_RDONLY)
        if libc.syscall(_FINIT_MODULE, descriptor, b"", 0):
            raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
        os.close(descriptor)


def wait_for_device(pattern: str) -> Path:
    """The device node of this pattern, when the kernel has made it."""
    deadline = time.monotonic() + DEVICE_SECONDS
    while time.monotonic() < deadline:
        for path in Path("/dev").glob(pattern.removeprefix("/dev/")):
            return path
        time.sleep(0.01)
    raise OSError(f"there is no {pattern}")


def bring_up_loopback() -> None:
    """The clients speak TCP with the gate."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING))


def boot() -> Callable[[str], None]:
    """Make a machine of it; returns what says a line to the host."""
    for source, target, kind in (
        ("proc", "/proc", "proc"),
        ("sysfs", "/sys", "sysfs"),
        ("devtmpfs", "/dev", "devtmpfs"),
        ("tmpfs", "/run", "tmpfs"),
        ("tmpfs", "/tmp", "tmpfs"),
    ):
        mount(source, target, kind)
    load_modules()
    bring_up_loopback()
    channel = os.open(wait_for_device(CHANNEL), os.O_WRONLY)

    def say(line: str) -> None:
        data = line.encode() + b"\n"
        while data:
            data = data[os.write(channel, data) :]

    return say


def main() -> None:
    """Boot, look, serve."""
    say = boot()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("a process of the appliance has ended"))
    asked: dict[str, Any] = json.loads(sys.argv[1])
    disk = wait_for_device(DISK)
    cache = Path(f"/sys/block/{disk.name}/queue/write_cache").read_text().strip()
    try:
        mount(str(disk), "/data", "ext4", asked["options"])
    except OSError as error:
        say(json.dumps({"unmountable": str(error)}))
        signal.pause()
    appliance = Appliance(
        configuration(Path("/data/state"), Path("/run/lotabots"), asked["spoiled"]),
        asked["life"],
        asked["seed"],
        asked["spoiled"],
    )
    mounted = next(line for line in Path("/proc/mounts").read_text().splitlines() if " /data " in line)
    facts = {"kernel": platform.release(), "python": platform.python_version(), "mounted": mounted}
    say(json.dumps({**appliance.look(), **facts, "cache": cache}))
    if asked["serve"]:
        appliance.begin()
        os.nice(-10)  # who was answered is heard at once
        asyncio.run(Clients(asked["life"], say).run(appliance.config.paths.triton_http))
    signal.pause()  # the first process never ends


if __name__ == "__main__":
    main()
