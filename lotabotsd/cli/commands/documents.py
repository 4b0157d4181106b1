"""The signed documents that the vendor sends: which is which, where each goes, in what order."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lotabotsd.foundation.envelope import PayloadType, parse_envelope
from lotabotsd.foundation.errors import Code, LotaBotsError

from .licence import change_text, read_document


@dataclass(frozen=True, slots=True)
class Document:
    """One of them, not verified: that is the daemon's to do."""

    kind: PayloadType
    data: bytes
    order: tuple[int, int]  # keyrings in their order, then revocations, then the licence

    @classmethod
    def read(cls, file: Path) -> Document:
        """Raises FILE_UNREADABLE, ENVELOPE_MALFORMED, ENVELOPE_TYPE."""
        data = read_document(file)
        envelope = parse_envelope(data)
        kind = envelope.payload_type
        if kind is PayloadType.ACKNOWLEDGEMENT:
            raise LotaBotsError(
                Code.ENVELOPE_TYPE,
                f"{file} is an acknowledgement",
                hint="install it with: lotabotsctl usage acknowledge FILE",
            )
        if kind not in _KINDS:
            raise LotaBotsError(Code.ENVELOPE_TYPE, f"{file} is a {kind.label.lower()}, no licence")
        return cls(kind, data, (list(_KINDS).index(kind), _version(envelope.body)))

    def superseded(self, trusted: int) -> bool:
        """Whether it is a keyring at or below the version that is trusted: nothing that it could change.

        One whose number cannot be read is left to the daemon.
        """
        return self.kind is PayloadType.KEYRING and 1 <= self.order[1] <= trusted

    @property
    def path(self) -> tuple[str, ...]:
        """Where it is put."""
        return _KINDS[self.kind][0]

    def words(self, change: dict[str, Any], *, check: bool) -> str:
        """What is said of the daemon's answer."""
        return _KINDS[self.kind][1](change, check)


def _version(body: bytes) -> int:
    """A keyring's number, to put several in their order; whether it is true is the daemon's to judge."""
    try:
        version = json.loads(body)["version"]
    except (ValueError, KeyError, TypeError):
        return 0
    return version if isinstance(version, int) else 0


def _keyring_words(change: dict[str, Any], check: bool) -> str:
    if change["before"] == change["version"]:
        return f"keyring {change['version']} was trusted before"
    return f"keyring {change['version']} {'would be' if check else 'is'} trusted (before: {change['before']})"


def _revocations_words(change: dict[str, Any], check: bool) -> str:
    number = f"{change['licences']} licence{'' if change['licences'] == 1 else 's'}"
    text = f"list {change['version']} of revoked licences {'would hold' if check else 'holds'}: {number}"
    return f"{text}\nthe licence of this appliance is one of them" if change["here"] else text


def _licence_words(change: dict[str, Any], check: bool) -> str:
    title = "this would change:" if check else "licence installed; changed:"
    return f"{title}\n{change_text(change)}"


# What the vendor sends, in the order in which it is installed: where to, and what is said of it.
_KINDS: dict[PayloadType, tuple[tuple[str, ...], Callable[[dict[str, Any], bool], str]]] = {
    PayloadType.KEYRING: (("licence", "keyring"), _keyring_words),
    PayloadType.REVOCATIONS: (("licence", "revocations"), _revocations_words),
    PayloadType.LICENCE: (("licence",), _licence_words),
}
