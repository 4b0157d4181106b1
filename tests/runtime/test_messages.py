"""The helper's protocol: five verbs and nothing else, one line each way."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.messages import (
    MAX_LINE_BYTES,
    NO_RUN,
    ExitFacts,
    ExitKind,
    RunFacts,
    TrialFacts,
    TrialKind,
    Verb,
    answer_line,
    error_line,
    fit_lines,
    parse_answer,
    parse_request,
    request_line,
)


def test_the_verbs_are_frozen() -> None:
    assert [verb.value for verb in Verb] == ["ensure", "start", "stop", "promote", "inspect", "logs"]
    assert request_line(Verb.START) == b'{"verb":"start"}\n'


@pytest.mark.parametrize("verb", list(Verb))
def test_each_verb_arrives(verb: Verb) -> None:
    assert parse_request(request_line(verb)) is verb


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"start\n",
        b'"start"\n',
        b"[]\n",
        b"null\n",
        b"{}\n",
        b'{"verb":"exec"}\n',
        b'{"verb":"Start"}\n',
        b'{"verb":null}\n',
        b'{"verb":["start"]}\n',
        b'{"verb":{"start":1}}\n',
        b'{"verb":"start","image":"mine"}\n',
        b'{"verb":"start","verb":"stop"}\n',
        b'{"verb":"start"}{"verb":"stop"}\n',
        b"\xff\xfe\n",
        b"[" * 5_000 + b"\n",
    ],
)
def test_everything_else_is_refused(line: bytes) -> None:
    with pytest.raises(LotaBotsError) as refused:
        parse_request(line)
    assert refused.value.code is Code.HELPER_REFUSED


@given(st.binary(max_size=100))
def test_no_bytes_make_a_request_raise_anything_else(line: bytes) -> None:
    try:
        parse_request(line)
    except LotaBotsError as error:
        code = error.code
    else:
        return
    assert code is Code.HELPER_REFUSED


def test_run_facts_survive_the_way() -> None:
    ended = RunFacts(
        "abc", running=False, pid=0, secret="", exit=ExitFacts(-11, ExitKind.CRASHED, "it crashed")
    )
    trial = TrialFacts(TrialKind.BESIDE, "sha256:1", "def", "t", "why")
    tried = RunFacts("abc", running=True, pid=7, secret="s", proven=False, trial=trial)
    for facts in (NO_RUN, ended, tried, RunFacts("abc", running=True, pid=7, secret="s")):
        assert RunFacts.from_dict(parse_answer(answer_line(facts.to_dict()))) == facts


def test_a_failure_arrives_as_the_failure_it_was() -> None:
    failure = LotaBotsError(Code.RUNTIME_MISSING, "no nvidia-pytriton", hint="install it")
    with pytest.raises(LotaBotsError) as arrived:
        parse_answer(error_line(failure))
    assert (arrived.value.code, arrived.value.detail, arrived.value.hint) == (
        failure.code,
        failure.detail,
        failure.hint,
    )


@pytest.mark.parametrize(
    "line",
    [b"", b"{}\n", b'{"ok":1}\n', b'{"error":{"code":"nonsense"}}\n', b"[1]\n", b'{"ok":{}', b"\xff\n"],
)
def test_an_answer_that_cannot_be_read_means_the_helper_is_not_there(line: bytes) -> None:
    with pytest.raises(LotaBotsError) as refused:
        parse_answer(line)
    assert refused.value.code is Code.HELPER_UNAVAILABLE


def test_the_last_lines_are_kept_so_that_the_answer_fits() -> None:
    lines = [f"{number} " + "é" * 900 for number in range(400)]
    kept = fit_lines(lines)
    assert 0 < len(kept) < 400
    assert kept == lines[-len(kept) :]
    assert len(answer_line({"lines": kept})) <= MAX_LINE_BYTES
    assert fit_lines(["a", "b"]) == ["a", "b"]
    assert fit_lines(["x" * MAX_LINE_BYTES]) == []


def test_run_facts_that_are_damaged_are_errors() -> None:
    value = NO_RUN.to_dict()
    older = {name: each for name, each in value.items() if name not in ("proven", "trial")}
    assert RunFacts.from_dict(older) == NO_RUN  # a helper of before
    for damaged in ({}, {**value, "pid": "many"}, {**value, "exit": {"code": 1, "kind": "odd", "text": ""}}):
        with pytest.raises((KeyError, ValueError)):
            RunFacts.from_dict(json.loads(json.dumps(damaged)))
