"""Runs inside a unit's walls: tries what a program there could try, and prints what came of it as JSON.

Standard input: a list of attempts, each a list of words. Output: for each of them "ok", the name of the
error, or what was seen. Standard library only: it runs on the machine's own Python.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

CLONE_NEWUSER = 0x10000000


def read(path: str) -> None:
    with Path(path).open("rb") as file:
        file.read(1)


def write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))


def create(folder: str) -> None:
    path = Path(folder) / ".probe"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    path.unlink()


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def ask(path: str, line: str = "") -> object:
    """What a Unix socket answers to one line, or to somebody who only comes."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(path)
        if line:
            connection.sendall(line.encode() + b"\n")
        answer: object = json.loads(connection.makefile("rb").readline())
        return answer


def family(name: str) -> None:
    socket.socket(
        getattr(socket, name), socket.SOCK_RAW if name == "AF_NETLINK" else socket.SOCK_STREAM
    ).close()


def interfaces() -> list[str]:
    """The network cards of this network, from the kernel's table."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()
    return sorted(line.split(":")[0].strip() for line in lines if ":" in line)


def cards() -> list[str]:
    """The network cards that the file system shows."""
    return names("/sys/class/net")


def code_in_data() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def own_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def nice() -> None:
    os.nice(1)


def become_root() -> None:
    os.setuid(0)


def chown(path: str) -> None:
    os.chown(path, -1, os.getgid())


def seen_users() -> list[int]:
    """The users of the processes that can be seen."""
    return sorted({path.stat().st_uid for path in Path("/proc").iterdir() if path.name.isdigit()})


def capabilities() -> dict[str, str]:
    """What the kernel says of this process: capabilities, filters, privileges."""
    lines = Path("/proc/self/status").read_text().splitlines()
    facts = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {name: facts[name] for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}


def attempt(words: list[str]) -> object:
    what: Callable[..., object] = globals()[words[0]]
    try:
        seen = what(*words[1:])
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok" if seen is None else seen


if __name__ == "__main__":
    attempts: list[list[str]] = json.load(sys.stdin)
    print(json.dumps({" ".join(words): attempt(words) for words in attempts}))
