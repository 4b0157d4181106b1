"""Who may use the control socket, and how a route learns who asks."""

from __future__ import annotations

import pwd
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from lotabotsd.foundation.sockets import Peer
from lotabotsd.identity.records import Actor

SCOPE_KEY = "lotabots.peer"
SOURCE = "control.sock"


@dataclass(frozen=True, slots=True)
class Admins:
    """The users of the control socket: root, the daemon's own user, and one group (None: no such group)."""

    own_uid: int
    group_id: int | None

    def includes(self, peer: Peer) -> bool:
        """Whether this peer is a platform administrator."""
        if peer.uid in (0, self.own_uid):
            return True
        return self.group_id is not None and self.group_id in peer.groups


def describe(peer: Peer) -> str:
    """How the audit trail names a peer: `uid:1000 (anna)`."""
    try:
        return f"uid:{peer.uid} ({pwd.getpwuid(peer.uid).pw_name})"
    except KeyError:
        return f"uid:{peer.uid}"


def _caller(request: Request) -> Actor:
    return Actor(describe(request.scope[SCOPE_KEY]), SOURCE)


Caller = Annotated[Actor, Depends(_caller)]
