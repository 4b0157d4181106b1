"""docs/formats/refusals.json: each way in which a document can be wrong gets the code that stands there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lotabotsd.foundation.catalogue import CATALOGUE
from lotabotsd.foundation.codes import Code, Exit
from lotabotsd.foundation.errors import LotaBotsError

from . import refusal_makers, statement_makers
from .documents import FORMATS, SCHEMAS, Problems

REFUSALS = {(one["document"], one["way"]): one for one in json.loads((FORMATS / "refusals.json").read_text())}
MAKERS = {**refusal_makers.MAKERS, **statement_makers.MAKERS}


def told(document: str, way: str, folder: Path) -> Problems:
    try:
        return MAKERS[document][way](folder) or []
    except LotaBotsError as error:
        return [(error.code.value, error.detail)]


def test_every_entry_has_a_maker_and_every_maker_an_entry() -> None:
    assert set(REFUSALS) == {(document, way) for document, ways in MAKERS.items() for way in ways}
    assert {document for document, _ in REFUSALS} | {"bill-line"} == set(SCHEMAS)


@pytest.mark.parametrize(("document", "way"), REFUSALS)
def test_a_document_that_is_wrong_in_this_way_gets_this_code(document: str, way: str, tmp_path: Path) -> None:
    expected, found = REFUSALS[document, way], told(document, way, tmp_path)
    assert [(code, said) for code, said in found if code == expected["code"] and expected["says"] in said], (
        found
    )


def test_no_two_ways_of_one_document_look_the_same() -> None:
    # A later list of the same version and an older one: both are "not after" the one that is here.
    known = {("revocations", "other-of-same-version")}
    seen: dict[tuple[str, str, str], str] = {}
    for (document, way), one in REFUSALS.items():
        if (document, way) not in known:
            other = seen.setdefault((document, one["code"], one["says"]), way)
            assert other == way, (document, other, way)


def test_every_code_of_a_signed_document_is_in_the_table() -> None:
    told_of = {one["code"] for one in REFUSALS.values()} | {
        rule["code"] for schema in SCHEMAS.values() for rule in schema.get("x-lotabots-rules", [])
    }
    about_documents = {
        code.value for code, entry in CATALOGUE.items() if entry.exit_code is Exit.SIGNATURE
    } - {Code.DIGEST_MISMATCH, Code.IMAGE_DIGEST_MISMATCH, Code.TOKEN_INVALID}
    assert about_documents <= told_of
