"""Lists in pages: a cursor names the last thing seen, so that a page never shifts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar

from fastapi import Query

from lotabotsd.foundation.errors import Code, LotaBotsError

MAX_PAGE = 1_000

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items in this page.")]
Cursor = Annotated[str | None, Query(max_length=256, description="`next` of the page before.")]
Place = tuple[int, str]  # when it was made (0: does not matter), and its id

Item = TypeVar("Item")


def page(
    items: Iterable[Item],
    *,
    place: Callable[[Item], Place],
    shape: Callable[[Item], dict[str, Any]],
    limit: int,
    cursor: str | None,
) -> dict[str, Any]:
    """`{"items": …, "next": cursor or null}`: at most `limit` items after the cursor, in order of place."""
    start = None if cursor is None else _place_of(cursor)
    placed = sorted((place(item), index, item) for index, item in enumerate(items))
    rest = [(at, item) for at, _, item in placed if start is None or at > start]
    shown = rest[:limit]
    following = f"{shown[-1][0][0]}.{shown[-1][0][1]}" if len(rest) > limit else None
    return {"items": [shape(item) for _, item in shown], "next": following}


def _place_of(cursor: str) -> Place:
    number, dot, identity = cursor.partition(".")
    if not dot or not number.isascii() or not number.isdigit():
        raise LotaBotsError(Code.VALUE_INVALID, "this is no cursor", hint="give `next` of the page before")
    return int(number), identity
