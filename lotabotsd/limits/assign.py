"""Give every scope its slot in the limits table, and keep it there. Pure."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping

from lotabotsd.foundation.errors import Code, LotaBotsError

# The licence's scope has one constant name: a renewed licence must not start the month's quota anew.
LICENCE = "licence:appliance"
LICENCE_SLOT = 0


def scope_id(kind: str, identifier: str) -> str:
    """`key:4fTn…`: the name of a scope in an assignment."""
    return f"{kind}:{identifier}"


def tag_of(scope: str) -> int:
    """The owner mark of a scope: the first 8 bytes (big-endian) of SHA-256 of `kind:id`; never 0."""
    return int.from_bytes(hashlib.sha256(scope.encode()).digest()[:8], "big") or 1


def assign_slots(existing: Mapping[str, int], wanted: Iterable[str], slots: int) -> dict[str, int]:
    """Slots for all `wanted` scopes (`kind:id`) and the licence, out of `slots`.

    A scope that has a usable slot keeps it. New ones take free slots in ascending order, those that
    `existing` does not mention first: a slot just given up may still be asked for by a worker that has
    not read the new policy yet. Raises CONFLICT when there are not enough slots.
    """
    names = list(dict.fromkeys(name for name in wanted if name != LICENCE))
    if len(names) + 1 > slots:
        raise LotaBotsError(
            Code.CONFLICT,
            f"{len(names) + 1} scopes do not fit into {slots} slots of the limits table",
            hint="raise limits.slots in the configuration, then restart",
        )
    kept: dict[str, int] = {}
    taken = {LICENCE_SLOT}
    for name in names:
        slot = existing.get(name)
        if slot is not None and 0 < slot < slots and slot not in taken:
            kept[name] = slot
            taken.add(slot)
    given_up = {slot for slot in existing.values() if 0 < slot < slots} - taken
    unmentioned = (slot for slot in range(1, slots) if slot not in taken and slot not in given_up)
    free = itertools.chain(unmentioned, sorted(given_up))
    return {LICENCE: LICENCE_SLOT} | {name: kept[name] if name in kept else next(free) for name in names}
