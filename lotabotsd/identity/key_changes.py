"""What a change does to API keys: the rules it must keep, and the rows of keys and secrets it writes.

Everything here runs inside the transaction of a `Change`, with its audit row.
"""

from __future__ import annotations

from collections.abc import Sequence

from lotabotsd.foundation.clock import from_ns, rfc3339
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.identifiers import random_base62

from . import queries
from .api_key import SECRET_LENGTH, format_api_key, hash_secret
from .audit import Change
from .records import KeyRecord
from .values import MAX_GRACE_SECONDS


def check_team(change: Change, team_id: str, member_id: str, organisation_id: str) -> None:
    """Whether a key of the team may be this member's. Raises NOT_FOUND; CONFLICT for one not in the team."""
    team = queries.team(change.connection, team_id, organisation_id)
    if queries.team_member(change.connection, team, member_id) is None:
        raise LotaBotsError(
            Code.CONFLICT,
            f"the member is not in team {team.name!r}",
            hint="put it into the team first: lotabotsctl team join TEAM MEMBER",
        )


def new_secret(change: Change, pepper: bytes, key_id: str, environment: str, now_ns: int) -> str:
    """Give the key one more secret, the newest; the text of the key with it."""
    secret = random_base62(SECRET_LENGTH)
    change.connection.execute(
        "INSERT INTO api_key_secrets VALUES"
        " (?, (SELECT 1 + ifnull(max(number), 0) FROM api_key_secrets WHERE key_id = ?), ?, ?, NULL)",
        (key_id, key_id, hash_secret(pepper, key_id, secret), now_ns),
    )
    return format_api_key(environment, key_id, secret)


def revoke(change: Change, key_ids: Sequence[str], now_ns: int) -> None:
    """Revoke keys for ever and drop their secrets' hashes; one that is revoked stays as it is."""
    for key_id in key_ids:
        change.connection.execute(
            "UPDATE api_keys SET revoked_ns = ? WHERE id = ? AND revoked_ns IS NULL", (now_ns, key_id)
        )
        change.connection.execute("DELETE FROM api_key_secrets WHERE key_id = ?", (key_id,))


def days_again(change: Change, key_id: str, cap: int) -> int:
    """As many days as the key was given last, or as the tier allows now."""
    days: int = change.connection.execute(
        "SELECT life_days FROM api_keys WHERE id = ?", (key_id,)
    ).fetchone()[0]
    return min(days, cap) if cap else days


def end_old_secrets(change: Change, key_id: str, end_ns: int, *, still_works: bool) -> None:
    """Keep the newest secret until `end_ns` if it still works; drop all others."""
    change.connection.execute(
        "DELETE FROM api_key_secrets WHERE key_id = ? AND (? OR expires_ns IS NOT NULL)",
        (key_id, int(not still_works)),
    )
    change.connection.execute("UPDATE api_key_secrets SET expires_ns = ? WHERE key_id = ?", (end_ns, key_id))


def check_rotation(key: KeyRecord, grace_seconds: int, now_ns: int) -> None:
    """Whether the key may have another secret. Raises VALUE_INVALID, CONFLICT."""
    if isinstance(grace_seconds, bool) or not 0 <= grace_seconds <= MAX_GRACE_SECONDS:
        raise LotaBotsError(Code.VALUE_INVALID, f"the grace time is from 0 to {MAX_GRACE_SECONDS} seconds")
    if key.revoked:
        raise LotaBotsError(Code.CONFLICT, "a revoked key cannot be rotated", hint="make a new key")
    running = [end for _, end in key.secrets if end is not None and end > now_ns]
    if running and grace_seconds:
        raise LotaBotsError(
            Code.CONFLICT,
            f"the secret before the last rotation still works until {rfc3339(from_ns(max(running)))}",
            hint="wait until then, or end it now with a grace time of 0",
        )
