"""What people type: names, model scopes, limits and life times at their edges."""

from __future__ import annotations

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.identity.limits_values import MAX_CONCURRENCY, ScopeLimits
from lotabotsd.identity.values import MAX_KEY_DAYS, checked_life_days, checked_models, checked_name, folded


@pytest.mark.parametrize("name", ["a", "x" * 64, "Zoë & Søn", "部门", "e\u0301"])
def test_a_readable_name_is_kept(name: str) -> None:
    assert checked_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        " a",
        "a ",
        "x" * 65,
        "x" * 10_000_000,
        "a\nb",
        "a\0",
        "\x1b[31m",
        "\u202eevil",
        "\ud800",
        "a\u200bb",
    ],
    ids=range(12),
)
def test_a_name_that_nobody_can_read_is_refused(name: str) -> None:
    with pytest.raises(LotaBotsError) as caught:
        checked_name(name)
    assert caught.value.code is Code.VALUE_INVALID


def test_one_name_has_one_spelling() -> None:
    assert checked_name("Zoe\u0308") == "Zoë"
    assert folded("ＡＣＭＥ") == folded("Acme") == "acme"


def test_model_scopes_are_sorted_and_star_swallows_the_rest() -> None:
    assert checked_models(("b", "a", "b")) == ("a", "b")
    assert checked_models(("b", "*")) == ("*",)
    assert checked_models(("x" * 128,)) == ("x" * 128,)


@pytest.mark.parametrize(
    "models",
    [
        (),
        ("",),
        (".hidden",),
        ("a/b",),
        ("a*",),
        ("x" * 129,),
        ("ö",),
        ("a\n",),
        tuple(f"m{i}" for i in range(65)),
    ],
    ids=range(9),
)
def test_a_model_scope_that_is_no_model_name_is_refused(models: tuple[str, ...]) -> None:
    with pytest.raises(LotaBotsError) as caught:
        checked_models(models)
    assert caught.value.code is Code.VALUE_INVALID


@pytest.mark.parametrize("days", [0, -1, MAX_KEY_DAYS + 1, True])
def test_a_key_always_ends(days: int) -> None:
    with pytest.raises(LotaBotsError) as caught:
        checked_life_days(days, 0)
    assert caught.value.code is Code.VALUE_INVALID


def test_the_tier_caps_a_keys_life() -> None:
    assert checked_life_days(90, 90) == 90
    with pytest.raises(LotaBotsError) as caught:
        checked_life_days(91, 90)
    assert caught.value.code is Code.LICENCE_LIMIT


@pytest.mark.parametrize("value", [-1, MAX_CONCURRENCY + 1, True, 1.5, "7"])
def test_a_limit_that_is_no_whole_number_in_range_is_refused(value: object) -> None:
    with pytest.raises(LotaBotsError) as caught:
        ScopeLimits(concurrency=value).checked()  # type: ignore[arg-type]  # as it comes from JSON
    assert caught.value.code is Code.VALUE_INVALID
