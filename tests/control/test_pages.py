"""Lists in pages that neither lose nor repeat an item."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.control.pages import page
from lotabotsd.foundation.errors import Code, LotaBotsError


def _page(items, limit, cursor=None):
    return page(items, place=lambda item: item, shape=lambda item: {"n": item}, limit=limit, cursor=cursor)


@given(st.lists(st.tuples(st.integers(0, 5), st.text("abc.", max_size=3)), unique=True), st.integers(1, 4))
def test_the_pages_together_are_the_list_in_order_each_item_once(items, limit) -> None:
    seen = []
    cursor = None
    while True:
        answer = _page(items, limit, cursor)
        seen += [item["n"] for item in answer["items"]]
        cursor = answer["next"]
        if cursor is None:
            break
    assert seen == sorted(items)


def test_an_item_made_or_removed_between_two_pages_moves_no_other() -> None:
    first = _page([(1, "a"), (2, "b"), (3, "c")], 2)
    second = _page([(1, "a"), (3, "c"), (4, "d")], 2, first["next"])
    assert [item["n"] for item in second["items"]] == [(3, "c"), (4, "d")]


def test_a_page_that_ends_exactly_has_no_next_one() -> None:
    assert _page([(1, "a"), (2, "b")], 2)["next"] is None
    assert _page([], 2) == {"items": [], "next": None}


@pytest.mark.parametrize("cursor", ["", "x", "x.y", "-1.a", "²2.a"])
def test_something_else_than_a_cursor_is_refused(cursor) -> None:
    with pytest.raises(LotaBotsError) as failure:
        _page([(1, "a")], 2, cursor)
    assert failure.value.code is Code.VALUE_INVALID
