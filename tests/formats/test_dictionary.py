"""docs/formats/README.md: its tables are made from the schemas, its example verifies the golden licence."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from .documents import FORMATS, ROOT, SCHEMAS, load

dictionary = load("scripts/formats_dictionary.py")
PAGE = (FORMATS / "README.md").read_text()
EXAMPLE = re.compile(
    r"<!-- test: python -->\n```python\n(.*?)```\n<!-- test: expect -->\n```\n(.*?)```\n", re.DOTALL
)


def test_the_tables_are_those_of_the_schemas() -> None:
    assert dictionary.page(PAGE) == PAGE, "run scripts/formats_dictionary.py"


@pytest.mark.parametrize("arguments", [["--check"], ["--more"], ["--check", "--check"]])
def test_the_check_says_what_it_found(arguments: list[str]) -> None:
    assert dictionary.main(arguments) == (0 if arguments == ["--check"] else 2)


def test_a_table_that_was_changed_by_hand_is_found() -> None:
    changed = PAGE.replace("| `customer` | text |", "| `customer` | number |", 1)
    assert changed != PAGE
    assert dictionary.page(changed) == PAGE


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_document_has_its_tables_on_the_page(name: str) -> None:
    parts = {"fields"} | ({"rules"} if SCHEMAS[name].get("x-lotabots-rules") else set())
    parts |= {"refusals"} if name != "bill-line" else set()
    assert {
        part for part in ("fields", "rules", "refusals") if f"<!-- made: {part} {name} -->" in PAGE
    } == parts


def test_every_member_of_a_licence_has_one_line() -> None:
    paths = [field.path for field in dictionary.fields(SCHEMAS["licence"])]
    assert len(set(paths)) == len(paths)
    assert {"limits.inferences_per_month.soft", "fingerprint.components.first-mac", "features[]"} <= set(
        paths
    )
    [ends] = [field for field in dictionary.fields(SCHEMAS["licence"]) if field.path == "terminates_at"]
    assert (ends.kind, ends.bound) == ("text or null", "as in 2026-11-23T04:05:06Z, years 2000 to 2200")


def test_a_member_of_a_later_format_says_since_when() -> None:
    later = {"properties": {"more": {"type": "integer", "minimum": 0, "maximum": 9, "x-lotabots-since": 2,
                                     "description": "More.", "x-lotabots-unit": "pieces"}}}  # fmt: skip
    assert [field.row() for field in dictionary.fields(later)] == [
        "| `more` | whole number | pieces | 0 to 9 | May be left out. More. | 2 |"
    ]


def test_the_example_verifies_the_golden_licence_with_nothing_of_ours() -> None:
    [(program, expected)] = EXAMPLE.findall(PAGE)
    assert "lotabotsd." not in program
    run = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.stdout, run.stderr) == (expected, "")


def test_the_example_refuses_a_licence_that_was_changed() -> None:
    [(program, _)] = EXAMPLE.findall(PAGE)
    cheated = program.replace("licence, signers =", 'envelope["payload"] = "e30="\nlicence, signers =')
    run = subprocess.run(
        [sys.executable, "-I", "-c", cheated],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    assert "InvalidSignature" in run.stderr
