"""The catalogue is complete, and its problems have one shape."""

from __future__ import annotations

import json

import pytest

from lotabotsd.foundation.catalogue import CATALOGUE
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError, problem


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_a_message_a_next_step_a_status_and_an_exit_code(code: Code) -> None:
    entry = CATALOGUE[code]
    assert entry.message
    assert entry.hint
    assert entry.hint[-1] not in ".!", "a hint is a phrase, not a sentence"
    assert 400 <= entry.http_status <= 599
    assert isinstance(entry.exit_code, Exit)
    assert entry.exit_code is not Exit.OK


def test_the_catalogue_holds_nothing_else() -> None:
    assert set(CATALOGUE) == set(Code)


def test_codes_are_lower_case_words_and_all_different() -> None:
    values = [code.value for code in Code]
    assert len(set(values)) == len(values)
    assert all(value.replace("_", "").isalpha() and value.islower() for value in values)


def test_a_failure_says_what_why_and_what_to_do() -> None:
    failure = LotaBotsError(Code.KEY_EXPIRED, "key abc")
    assert str(failure) == "this API key has expired: key abc"
    assert failure.hint == CATALOGUE[Code.KEY_EXPIRED].hint
    assert (failure.http_status, failure.exit_code) == (401, Exit.CHECK_FAILED)
    assert str(LotaBotsError(Code.KEY_EXPIRED)) == "this API key has expired"


def test_a_failure_may_bring_its_own_next_step_and_facts() -> None:
    failure = LotaBotsError(Code.LICENCE_LIMIT, "two", hint="remove one", limit=1)
    assert failure.problem("0190")["hint"] == "remove one"
    assert failure.problem("0190")["limit"] == 1
    assert failure.problem("0190")["instance"] == "urn:lotabots:request:0190"


@pytest.mark.parametrize("code", list(Code))
def test_a_problem_has_the_members_of_rfc_9457_and_is_json(code: Code) -> None:
    shape = json.loads(json.dumps(problem(code)))
    assert set(shape) == {"type", "title", "status", "code", "detail", "hint"}
    assert shape["type"] == f"urn:lotabots:error:{code.value}"
    assert shape["status"] == CATALOGUE[code].http_status
    assert shape["detail"], "without a detail the message stands in"


def test_a_refused_signature_has_an_exit_code_of_its_own() -> None:
    assert LotaBotsError(Code.SIGNATURE_INVALID).exit_code is Exit.SIGNATURE == 6
