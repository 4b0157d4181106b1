"""The daemon's own two sockets: control for admins, attest for the gate."""

from __future__ import annotations

import os
import pwd
import socket

from lotabotsd.foundation.config import Config
from lotabotsd.foundation.sockets import bind_unix, group_id

GATE_USER = "lotabots-gate"


def control_listener(config: Config) -> socket.socket:
    """Open to the admins' group, where there is one and we may give it away."""
    return bind_unix(config.paths.control_socket, mode=0o660, group=_usable_group(config.control.group))


def attest_listener(config: Config) -> socket.socket:
    """Open to the gate's group."""
    return bind_unix(config.paths.attest_socket, mode=0o660, group=_usable_group(GATE_USER))


def gate_uids() -> frozenset[int]:
    """Whom the attest socket answers: the gate's user, and our own (all in one with `lotabotsd up`)."""
    try:
        return frozenset({os.geteuid(), pwd.getpwnam(GATE_USER).pw_uid})
    except KeyError:
        return frozenset({os.geteuid()})


def _usable_group(name: str) -> int | None:
    """A group that this process can give a file to; None leaves the file with our own."""
    number = group_id(name)
    if number is None or (os.geteuid() != 0 and number not in {os.getegid(), *os.getgroups()}):
        return None
    return number
