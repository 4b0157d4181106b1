"""Sequences, priorities and timeouts: as at bare Triton, but no key meets another's sequence."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio
from doors import Side, failure, post

pytestmark = pytest.mark.required

ROW = np.array([[1, 2, 3, 4]], dtype=np.int32)


def value(number: int) -> list[triton.InferInput]:
    """The input of the counter."""
    tensor = triton.InferInput("value", [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[number]], dtype=np.int32))
    return [tensor]


def rows() -> list[triton.InferInput]:
    """The inputs of add_sub."""
    made = [triton.InferInput(name, [1, 4], "INT32") for name in ("left", "right")]
    for tensor in made:
        tensor.set_data_from_numpy(ROW)
    return made


def count(
    client: triton.InferenceServerClient, headers: dict[str, str], number: int, identifier: Any, **flags: bool
) -> int:
    """The sum of a sequence after one more value."""
    result = client.infer("counter", value(number), sequence_id=identifier, headers=headers, **flags)
    return int(result.as_numpy("sum")[0][0])


# -- sequences
@pytest.mark.parametrize(
    "identifier", [1, 42, 2**63 - 1, 2**64 - 2, "order-7", "7", "Grüße", "x" * 128], ids=str
)
def test_a_sequence_keeps_its_sum(answers: Any, identifier: Any) -> None:
    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> list[int]:
        return [
            count(client, headers, 1, identifier, sequence_start=True),
            count(client, headers, 20, identifier),
            count(client, headers, 300, identifier, sequence_end=True),
        ]

    assert answers(program) == ([1, 21, 321], [1, 21, 321])


def test_a_sequence_of_one_request_starts_and_ends_with_it(answers: Any) -> None:
    bare, gated = answers(lambda c, h: count(c, h, 5, 9, sequence_start=True, sequence_end=True))
    assert gated == bare == 5
    bare, gated = answers(lambda c, h: failure(lambda: count(c, h, 5, 9)))
    assert bare[0] == gated[0] == "400"


def test_a_started_sequence_begins_anew_when_it_is_started_again(answers: Any) -> None:
    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> list[int]:
        first = count(client, headers, 5, 11, sequence_start=True)
        return [first, count(client, headers, 6, 11, sequence_start=True, sequence_end=True)]

    assert answers(program) == ([5, 6], [5, 6])


def two_programs(first: Side, second: Side, identifier: Any) -> list[int]:
    """Two programs that know nothing of each other count under the same id, in turns."""
    clients = [triton.InferenceServerClient(side.address) for side in (first, second)]
    headers = [dict(side.headers) for side in (first, second)]
    found = [count(clients[0], headers[0], 10, identifier, sequence_start=True)]
    found.append(count(clients[1], headers[1], 100, identifier, sequence_start=True))
    found.append(count(clients[0], headers[0], 1, identifier))
    found.append(count(clients[1], headers[1], 1, identifier))
    for client, header in zip(clients, headers, strict=True):
        try:
            found.append(count(client, header, 0, identifier, sequence_end=True))
        except triton.InferenceServerException:
            found.append(-1)  # the other one ended it
        client.close()
    return found


@pytest.mark.parametrize("identifier", [77, "the same"], ids=str)
def test_the_same_id_of_two_keys_is_two_sequences(both: Any, identifier: Any) -> None:
    assert two_programs(both.triton, both.triton, identifier) == [10, 100, 101, 102, 102, -1]
    assert two_programs(both.gate, both.other, identifier) == [10, 100, 11, 101, 11, 101]
    assert two_programs(both.gate, both.gate, identifier) == [10, 100, 101, 102, 102, -1]  # one key's own


def test_a_number_and_its_digits_as_text_are_two_sequences(answers: Any) -> None:
    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> list[int]:
        found = [
            count(client, headers, one, identifier, sequence_start=True)
            for one, identifier in ((1, 5), (2, "5"))
        ]
        return found + [count(client, headers, 0, identifier, sequence_end=True) for identifier in (5, "5")]

    assert answers(program) == ([1, 2, 1, 2], [1, 2, 1, 2])


def test_a_sequence_that_was_not_started_is_an_error_that_says_so(answers: Any) -> None:
    bare, gated = answers(lambda c, h: failure(lambda: count(c, h, 1, 123_456)))
    assert bare[0] == gated[0] == "400"
    assert "the sequence cannot go on" in gated[1]
    assert "123456" not in gated[1]  # nor what became of it


def test_a_model_with_state_wants_to_know_which_sequence(answers: Any) -> None:
    bare, gated = answers(lambda c, h: failure(lambda: c.infer("counter", value(1), headers=h)))
    assert bare[0] == gated[0] == "400"
    assert "no sequence_id" in gated[1]


def test_a_model_without_state_says_that_it_keeps_none(answers: Any) -> None:
    client_and_status: list[Any] = []

    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        client_and_status.append(client)
        return client.infer("add_sub", rows(), headers=headers, sequence_id=5, sequence_start=True)

    with pytest.raises(triton.InferenceServerException, match="the model keeps no state"):
        answers(program)
    assert len(client_and_status) == 2  # bare Triton looks away instead


@pytest.mark.parametrize(
    "parameters",
    [
        {"sequence_id": -1, "sequence_start": True},
        {"sequence_id": True, "sequence_start": True},
        {"sequence_id": 1.5, "sequence_start": True},
        {"sequence_id": 2**64, "sequence_start": True},
        {"sequence_id": "x" * 129, "sequence_start": True},
        {"sequence_id": 1, "sequence_start": 1},
    ],
    ids=["negative", "true", "a float", "too large", "too long", "a number for a flag"],
)
def test_what_is_no_sequence_is_refused_alike(both: Any, parameters: dict[str, Any]) -> None:
    shape = {"name": "value", "datatype": "INT32", "shape": [1, 1], "data": [1]}
    body = json.dumps({"inputs": [shape], "parameters": parameters}).encode()
    bare, gated = (post(side, "/v2/models/counter/infer", body, {}) for side in both.sides())
    assert bare[0] in (500, 501)  # Triton takes the blame
    assert gated[0] == 400
    assert "sequence_" in json.loads(gated[2])["error"]


def test_two_sequences_from_one_loop_do_not_mix(both: Any) -> None:
    async def run(side: Side) -> Any:
        async with tritonclient.http.aio.InferenceServerClient(side.address) as client:

            async def sequence(identifier: Any, step: int) -> list[int]:
                sums = []
                for number in range(4):
                    result = await client.infer(
                        "counter",
                        value(step),
                        sequence_id=identifier,
                        sequence_start=number == 0,
                        sequence_end=number == 3,
                        headers=dict(side.headers),
                    )
                    sums.append(int(result.as_numpy("sum")[0][0]))
                return sums

            return await asyncio.gather(sequence(1, 1), sequence("one", 10), sequence(2, 100))

    bare, gated = (asyncio.run(run(side)) for side in both.sides())
    assert gated == bare == [[1, 2, 3, 4], [10, 20, 30, 40], [100, 200, 300, 400]]


def test_generate_knows_no_sequences_on_either_side(both: Any) -> None:
    body = json.dumps({"value": [1], "sequence_id": 5, "sequence_start": True}).encode()
    bare, gated = (post(side, "/v2/models/counter/generate", body, {}) for side in both.sides())
    assert bare[0] == gated[0] == 400
    assert json.loads(gated[2])["code"] == "sequence_invalid"


# -- priorities and timeouts
@pytest.mark.parametrize("model", ["add_sub", "page_orientation"])
@pytest.mark.parametrize(
    "options", [{"priority": 1}, {"priority": 2}, {"priority": 9}, {"timeout": 5_000_000}, {"timeout": 0},
                {"priority": 1, "timeout": 90_000_000, "parameters": {"who": "me"}}], ids=str,
)  # fmt: skip
def test_what_a_program_may_ask_of_the_scheduler_changes_no_answer(
    answers: Any, model: str, options: dict[str, Any]
) -> None:
    inputs = rows()
    if model == "page_orientation":
        inputs = [triton.InferInput("x", [1, 3, 224, 224], "FP32")]
        inputs[0].set_data_from_numpy(np.zeros((1, 3, 224, 224), dtype=np.float32))

    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        return client.infer(model, inputs, headers=headers, request_id="r", **options).get_response()

    bare, gated = answers(program)
    assert gated == bare


@pytest.mark.parametrize(
    "parameters", [{"priority": -1}, {"priority": "1"}, {"timeout": -5}, {"timeout": 1.5}], ids=str
)
def test_what_is_no_priority_or_timeout_is_refused_alike(both: Any, parameters: dict[str, Any]) -> None:
    inputs = [{"name": n, "datatype": "INT32", "shape": [1, 4], "data": [1] * 4} for n in ("left", "right")]
    body = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    bare, gated = (post(side, "/v2/models/add_sub/infer", body, {}) for side in both.sides())
    assert bare[0] in (400, 500)
    assert gated[0] == 400
    assert next(iter(parameters)) in json.loads(gated[2])["error"]


@pytest.mark.parametrize("path", ["generate", "generate_stream"])
def test_generate_takes_them_too(both: Any, path: str) -> None:
    body = json.dumps({"count": 1, "priority": 1, "parameters": {"timeout": 90_000_000, "n": 1}}).encode()
    bare, gated = (post(side, f"/v2/models/repeat/{path}", body, {}) for side in both.sides())
    assert gated[0] == bare[0] == 200
    assert gated[2] == bare[2]
