"""The listening sockets that were handed to this process by systemd or by `lotabotsd up`."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.sockets import inherited_sockets


def passed_on(options: Sequence[str]) -> list[tuple[str, socket.socket]]:
    """The sockets handed over by `lotabotsd up` (`NAME=DESCRIPTOR`) or by systemd. Raises VALUE_INVALID."""
    found = inherited_sockets(dict(os.environ), os.getpid())
    for option in options:
        name, _, number = option.partition("=")
        try:
            descriptor = int(number)
            os.set_inheritable(descriptor, False)
            found.append((name, socket.socket(fileno=descriptor)))
        except (ValueError, OSError) as error:
            raise LotaBotsError(Code.VALUE_INVALID, f"--inherited {option}: {error}") from error
    return found
