"""The pepper: 32 random bytes on this host that key the hashes of API-key secrets.

A copy of policy.db or state.db alone is therefore no list to try keys against. Losing the pepper makes
every API key unknown: it belongs into the backup. The gate imports this module.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically

PEPPER_LENGTH = 32


def load_pepper(path: Path) -> bytes:
    """Read the pepper. Raises FILE_UNREADABLE when it is missing or not 32 bytes long."""
    data = read_bounded(path, 64 * PEPPER_LENGTH)
    if len(data) != PEPPER_LENGTH:
        raise LotaBotsError(
            Code.FILE_UNREADABLE,
            f"{path} holds {len(data)} bytes, not {PEPPER_LENGTH}",
            hint="stop lotabotsd, put your own copy of that file in its place, start it again; without it "
            "every API key must be made anew",
        )
    return data


def load_or_create_pepper(path: Path) -> bytes:
    """Read the pepper, or make one where there is none (mode 0640: the gate's group reads it).

    Raises FILE_UNREADABLE for a damaged one, never replaces it; FILE_UNWRITABLE, DISK_FULL.
    """
    if not path.exists():
        write_atomically(path, secrets.token_bytes(PEPPER_LENGTH), mode=0o640)
    return load_pepper(path)
