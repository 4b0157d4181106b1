"""Tables and numbers as people read them."""

from __future__ import annotations

from lotabotsd.cli.tables import cell_text, duration_text, grouped, limit_text, moment_text, pairs, table
from lotabotsd.foundation.clock import NANOSECONDS


def test_columns_are_aligned_numbers_to_the_right_and_texts_to_the_left() -> None:
    text = table(("NAME", "COUNT"), [("a", 5), ("longer", 1_234)])
    assert text == "NAME    COUNT\na           5\nlonger  1 234"


def test_an_empty_table_says_so_instead_of_printing_headings() -> None:
    assert table(("NAME",), []) == "(none)"
    assert table(("NAME",), [], empty="no keys yet") == "no keys yet"


def test_no_line_of_a_table_ends_in_spaces() -> None:
    text = table(("A", "B"), [("x", "long text"), ("y", None)])
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_missing_value_is_a_hyphen() -> None:
    assert cell_text(None) == "-"
    assert cell_text("") == "-"


def test_control_characters_cannot_reach_the_terminal() -> None:
    assert "\x1b" not in cell_text("\x1b[2Jname")
    assert "\n" not in cell_text("two\nlines")


def test_pairs_align_their_values() -> None:
    assert pairs([("a", 1), ("long", "x")], indent=2) == "  a     1\n  long  x"


def test_numbers_are_grouped_and_zero_limits_are_unlimited() -> None:
    assert grouped(1_234_567) == "1 234 567"
    assert limit_text(0) == "unlimited"
    assert limit_text(600) == "600"


def test_moments_are_utc_and_zero_is_none() -> None:
    assert moment_text(0) == "-"
    assert moment_text(None) == "-"
    assert moment_text(1_000 * NANOSECONDS) == "1970-01-01 00:16:40 UTC"


def test_durations_show_their_two_largest_units() -> None:
    second = NANOSECONDS
    assert duration_text(0) == "0 s"
    assert duration_text(-5 * second) == "0 s"
    assert duration_text(59 * second) == "59 s"
    assert duration_text(60 * second) == "1 min"
    assert duration_text(3_661 * second) == "1 h 1 min"
    assert duration_text((86_400 * 3 + 3_600 * 4 + 59) * second) == "3 d 4 h"
