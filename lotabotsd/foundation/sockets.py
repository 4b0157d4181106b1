"""Sockets bound by ourselves, passed by systemd, and asked who is at the other end."""

from __future__ import annotations

import errno
import grp
import os
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from .errors import Code, LotaBotsError

SD_LISTEN_FDS_START = 3
WATCHDOG = "WATCHDOG=1"
NOTIFY_ATTEMPTS = 20
NOTIFY_PAUSE_SECONDS = 0.01
_SO_PEERGROUPS = 59  # Linux 4.13; not named by Python's socket module
_PEERGROUPS_BYTES = 1_024  # the most that Python's getsockopt takes: 256 groups


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected to a Unix socket, as the kernel says."""

    pid: int
    uid: int
    groups: frozenset[int]  # primary and supplementary


def peer_of(connection: socket.socket) -> Peer:
    """The peer of a connected Unix socket: SO_PEERCRED, and SO_PEERGROUPS for supplementary groups.

    Of a user with more than 256 groups only the primary one is seen: less is allowed, never more.
    """
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    groups = {gid}
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _PEERGROUPS_BYTES)
        groups.update(struct.unpack(f"{len(raw) // 4}I", raw))
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.ENODATA, errno.ERANGE):
            raise
    return Peer(pid, uid, frozenset(groups))


def group_id(name: str) -> int | None:
    """The id of a group, or None where there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def bind_unix(
    path: Path, *, mode: int = 0o660, group: int | None = None, backlog: int = 128
) -> socket.socket:
    """Listen on a Unix socket; a stale file is replaced, a living one is ADDRESS_IN_USE."""
    if path.exists():
        _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Bound under a private name with its final mode, then renamed: nobody can connect too early.
    private = path.with_name(f".{path.name}.{os.getpid()}")
    private.unlink(missing_ok=True)
    try:
        listener.bind(str(private))
        private.chmod(mode)
        # A directory with the s bit gave it already; under systemd every chown is refused.
        if group is not None and private.stat().st_gid != group:
            os.chown(private, -1, group)
        listener.listen(backlog)
        private.rename(path)
    except OSError as error:
        listener.close()
        private.unlink(missing_ok=True)
        raise LotaBotsError(Code.FILE_UNWRITABLE, f"{path}: {error.strerror or error}") from error
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; anything else stays and is an error."""
    if not path.is_socket():
        raise LotaBotsError(Code.FILE_UNWRITABLE, f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)  # a listener with a full backlog must not hold us up: it lives
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise LotaBotsError(Code.ADDRESS_IN_USE, f"{path} is served by another process")


def bind_tcp(host: str, port: int, *, reuse_port: bool, backlog: int = 1024) -> socket.socket:
    """Listen on TCP. Raises ADDRESS_IN_USE with the address named."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        code = Code.ADDRESS_IN_USE if error.errno == errno.EADDRINUSE else Code.VALUE_INVALID
        raise LotaBotsError(code, f"{host}:{port}: {error.strerror}") from error
    return listener


def inherited_sockets(environment: dict[str, str], pid: int) -> list[tuple[str, socket.socket]]:
    """The listening sockets that systemd passed to this process, with their names (sd_listen_fds(3))."""
    if environment.get("LISTEN_PID") != str(pid):
        return []
    count = int(environment.get("LISTEN_FDS", "0"))
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    passed = []
    for index in range(count):
        descriptor = SD_LISTEN_FDS_START + index
        os.set_inheritable(descriptor, False)
        name = names[index] if index < len(names) and names[index] else "unknown"
        passed.append((name, socket.socket(fileno=descriptor)))
    return passed


def sd_notify(state: str, environment: dict[str, str] | None = None) -> None:
    """Tell the service manager something (sd_notify(3)); silently nothing when there is none.

    Never waits: a service manager that does not read for a while must not stop the caller. A watchdog's
    sign of life comes again anyway; what is said once (READY, STOPPING) is tried for a moment.
    """
    address = (os.environ if environment is None else environment).get("NOTIFY_SOCKET", "")
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        notifier.setblocking(False)
        for _ in range(1 if state == WATCHDOG else NOTIFY_ATTEMPTS):
            try:
                notifier.sendto(state.encode(), target)
            except BlockingIOError:
                time.sleep(NOTIFY_PAUSE_SECONDS)  # its queue is full
            except OSError:
                return  # the service manager went away; there is nobody to tell
            else:
                return


def watchdog_seconds(environment: dict[str, str] | None = None) -> float | None:
    """The watchdog's period when the service manager set one for this process (sd_watchdog_enabled(3))."""
    found = os.environ if environment is None else environment
    microseconds = found.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or found.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1e6
