"""What the store remembers between licences: the highest sequence, when the current one came, time. Pure.

A file that is missing or damaged is an empty memory: whoever can damage it can also delete it, and neither
may keep a paid appliance from starting (SECURITY.md, "What an owner of the machine can still do").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lotabotsd.foundation.canonical import canonical_json, strict_json


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest licence of one issuing key."""

    sequence: int
    digest: str  # of its body, so that another licence with the same sequence is noticed


@dataclass(frozen=True, slots=True)
class Memory:
    """What stays when the licence is replaced."""

    highest: Mapping[str, Seen] = field(default_factory=dict)  # by issuing key id
    installed_at_ns: int = 0
    undone_to: str = ""  # digest of the one older licence that a rollback put back

    def newest(self, revoked: frozenset[str]) -> Seen:
        """The newest licence ever seen.

        One that a revoked key signed does not count: a thief who signed sequence 10^15 would otherwise lock
        the appliance out of every later licence (TUF's fast-forward attack).
        """
        seen = [entry for keyid, entry in self.highest.items() if keyid not in revoked]
        return max(seen, key=lambda entry: entry.sequence, default=Seen(0, ""))

    def with_licence(self, signer: str, seen: Seen, now_ns: int) -> Memory:
        """The memory after an installation; nothing is forgotten, and the same one again keeps its day."""
        known = self.highest.get(signer, Seen(0, ""))
        highest = {**self.highest, signer: seen if seen.sequence >= known.sequence else known}
        return Memory(highest, self.installed_at_ns if seen == known else now_ns, "")


def memory_bytes(memory: Memory) -> bytes:
    """The content of `memory.json`."""
    highest = {key: {"sequence": s.sequence, "digest": s.digest} for key, s in memory.highest.items()}
    return canonical_json(
        {"highest": highest, "installed_at_ns": memory.installed_at_ns, "undone_to": memory.undone_to}
    )


def parse_memory(data: bytes) -> Memory:
    """The memory in `memory.json`; an empty one where it is damaged."""
    try:
        value = strict_json(data)
        highest = {
            key: Seen(_number(seen["sequence"]), str(seen["digest"]))
            for key, seen in value["highest"].items()
        }
        return Memory(highest, _number(value["installed_at_ns"]), str(value["undone_to"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        return Memory()


def floor_bytes(floor_ns: int) -> bytes:
    """The content of `clock.json`."""
    return canonical_json({"floor_ns": floor_ns})


def parse_floor(data: bytes) -> int:
    """The floor in `clock.json`; 0 where it is damaged."""
    try:
        return _number(strict_json(data)["floor_ns"])
    except (ValueError, TypeError, KeyError):
        return 0


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a number")
    return value
