"""Fields of a usage report, believed only after a look. Pure."""

from __future__ import annotations

from typing import Any

from lotabotsd.foundation.clock import NANOSECONDS, from_ns, parse_rfc3339, rfc3339, to_ns

_MAX_COUNT = (1 << 63) - 1


def instant(second: int) -> str:
    """Unix seconds as they are written in reports."""
    return rfc3339(from_ns(second * NANOSECONDS))


def expect_object(value: Any, name: str, *keys: str) -> dict[str, Any]:
    """An object with exactly these keys. Raises ValueError, as the others do."""
    if not isinstance(value, dict) or set(value) != set(keys):
        raise ValueError(f"{name} must have exactly {', '.join(keys)}")
    return value


def expect_list(value: Any, name: str) -> list[Any]:
    """A list."""
    if not isinstance(value, list):
        raise ValueError(f"{name} is no list")
    return value


def expect_text(value: Any, name: str, *, limit: int = 255) -> str:
    """Printable text of at most `limit` characters."""
    if not isinstance(value, str) or len(value) > limit or not value.isprintable():
        raise ValueError(f"{name} is no short printable text")
    return value


def expect_count(value: Any, name: str) -> int:
    """A whole number that is not negative."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_COUNT:
        raise ValueError(f"{name} is no whole number from 0 to 2^63 - 1")
    return value


def expect_second(value: Any, name: str) -> int:
    """A moment in Unix seconds."""
    second = to_ns(parse_rfc3339(expect_text(value, name))) // NANOSECONDS
    if instant(second) != value:
        raise ValueError(f"{name} is not written as 2026-11-23T04:05:06Z")
    return second
