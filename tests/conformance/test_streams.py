"""`generate` and `generate_stream`: the same from both doors, each event as soon as the model gives it."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from doors import Side, failure, post
from gate_clients import Key, wait_for
from whole_appliance import Appliance

pytestmark = pytest.mark.required

GENERATE = "/v2/models/repeat/generate"
STREAM = "/v2/models/repeat/generate_stream"


def events(body: bytes) -> list[Any]:
    """The values of the events of a stream (HTML standard, "Server-sent events": one `data:` line each)."""
    parts = body.split(b"\n\n")
    assert parts.pop() == b""
    assert all(part.startswith(b"data: ") for part in parts)
    return [json.loads(part.removeprefix(b"data: ")) for part in parts]


@contextmanager
def stream(side: Side, **inputs: int) -> Iterator[http.client.HTTPResponse]:
    """A stream that was asked for, with its head read."""
    connection = http.client.HTTPConnection(side.address, timeout=15)
    connection.request("POST", STREAM, json.dumps(inputs), dict(side.headers))
    try:
        yield connection.getresponse()
    finally:
        connection.close()


def next_event(response: http.client.HTTPResponse) -> Any:
    """The next event; fails when none comes within the connection's timeout."""
    line = response.readline()
    assert line.startswith(b"data: "), line
    assert response.readline() == b"\n"
    return json.loads(line.removeprefix(b"data: "))


def give_signal(side: Side, topic: int) -> None:
    """Let the next answer of a held stream go."""
    status, _, body = post(side, GENERATE, json.dumps({"count": 1, "signal": topic}).encode(), {})
    assert status == 200, body


# -- generate
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (GENERATE, {"count": 1}),
        (GENERATE, {"count": [1]}),
        (GENERATE, {"count": [[1]]}),
        (GENERATE, {"parameters": {"count": 1}}),
        (GENERATE, {"count": 1, "id": "order-1"}),
        (GENERATE, {"count": 1, "temperature": 0.5, "parameters": {"who": "me", "often": True, "n": 3}}),
        ("/v2/models/repeat/versions/1/generate", {"count": 1}),
        ("/v2/models/versioned/generate", {"value": 10}),
        ("/v2/models/versioned/versions/1/generate", {"value": 10}),
        ("/v2/models/add_sub/generate", {"left": [1, 2, 3, 4], "right": [4, 3, 2, 1]}),
    ],
)
def test_one_answer_is_the_same_value(both: Any, path: str, body: dict[str, Any]) -> None:
    bare, gated = (post(side, path, json.dumps(body).encode(), {}) for side in both.sides())
    assert gated[0] == bare[0] == 200
    assert gated[2] == bare[2]
    assert gated[1]["content-type"] == bare[1]["content-type"]
    assert json.loads(gated[2])["model_name"] == path.split("/")[3]


@pytest.mark.parametrize(
    "body",
    [
        {"count": -1},
        {"count": "one"},
        {"count": None},
        {},
        {"count": 1, "other": [1]},
        {"count": 1, "other": None},
        {"count": 1, "parameters": {"count": 1}},
        {"count": 1, "parameters": {"deeper": {"other": 1}}},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("path", [GENERATE, STREAM])
def test_what_is_no_request_is_refused_alike(both: Any, path: str, body: dict[str, Any]) -> None:
    bare, gated = (post(side, path, json.dumps(body).encode(), {}) for side in both.sides())
    assert bare[0] in (400, 500)  # Triton takes the blame for some
    assert gated[0] == 400
    if bare[1]["content-type"].startswith("text/event-stream"):  # the model's own refusal
        bare = (*bare[:2], json.dumps(events(bare[2])[0]).encode())
    assert isinstance(json.loads(bare[2])["error"], str)
    assert isinstance(json.loads(gated[2])["error"], str)


@pytest.mark.parametrize("count", [0, 2])
def test_what_has_not_one_answer_is_a_failure_and_told_as_one(both: Any, count: int) -> None:
    body = json.dumps({"count": count}).encode()
    bare, gated = (post(side, GENERATE, body, {}) for side in both.sides())
    assert (bare[0], gated[0]) == (200, 400)  # Triton 2.51 tells it with a 200; nobody is charged for it
    assert "exactly 1 response" in json.loads(bare[2])["error"]
    assert "generate_stream" in json.loads(gated[2])["error"]


def test_a_stream_has_no_plain_inference(answers: Any) -> None:
    given = triton.InferInput("count", [1], "INT32")
    given.set_data_from_numpy(np.array([1], dtype=np.int32))
    bare, gated = answers(lambda c, h: failure(lambda: c.infer("repeat", [given], headers=h)))
    assert (bare[0], gated[0]) == ("501", "400")  # for a program, one exception
    assert "answers with a stream" in gated[1]


# -- streams
@pytest.mark.parametrize("count", [0, 1, 2, 150])
def test_a_stream_is_the_same_byte_for_byte(both: Any, count: int) -> None:
    body = json.dumps({"count": count}).encode()
    bare, gated = (post(side, STREAM, body, {}) for side in both.sides())
    assert gated[0] == bare[0] == 200
    assert gated[2] == bare[2]
    assert gated[1]["content-type"] == bare[1]["content-type"]
    if count:
        assert "content-length" not in gated[1]
        assert [event["index"] for event in events(gated[2])] == list(range(count))


@pytest.mark.parametrize(
    "path", ["/v2/models/versioned/generate_stream", "/v2/models/versioned/versions/1/generate_stream"]
)
def test_a_model_with_one_answer_streams_it(both: Any, path: str) -> None:
    bare, gated = (post(side, path, b'{"value": 10}', {}) for side in both.sides())
    assert gated[0] == bare[0] == 200
    assert gated[2] == bare[2]
    assert len(events(gated[2])) == 1


def test_an_error_inside_a_stream_is_an_event_on_both_sides(both: Any) -> None:
    body = b'{"count": 5, "fail_at": 3}'
    bare, gated = (post(side, STREAM, body, {}) for side in both.sides())
    assert gated[0] == bare[0] == 200
    for _, _, content in (bare, gated):
        found = events(content)
        assert [event.get("index") for event in found] == [0, 1, 2, None, 4]
        assert isinstance(found[3]["error"], str)


def test_an_error_that_comes_first_is_the_answer_on_both_sides(both: Any) -> None:
    bare, gated = (post(side, STREAM, b'{"count": -1}', {}) for side in both.sides())
    assert bare[0] == gated[0] == 400
    assert isinstance(events(bare[2])[0]["error"], str)
    assert isinstance(json.loads(gated[2])["error"], str)  # the gate's one shape of every refusal


@pytest.mark.parametrize("number", [0, 1], ids=["bare Triton", "gate"])
def test_each_event_arrives_before_the_next_one_exists(both: Any, number: int) -> None:
    # The model gives an answer only after the client, having read the one before it, sent a signal: if
    # anything on the way waited for more, both would wait for ever, and reading would time out.
    side, topic = both.sides()[number], 1_001 + number
    with stream(side, count=4, topic=topic) as response:
        assert next_event(response)["index"] == 0
        for index in (1, 2, 3):
            give_signal(side, topic)
            assert next_event(response)["index"] == index
        assert response.read() == b""


def test_streams_at_the_same_time_do_not_wait_for_each_other(both: Any) -> None:
    with stream(both.gate, count=2, topic=1_010) as first, stream(both.gate, count=2, topic=1_011) as second:
        assert (next_event(first)["index"], next_event(second)["index"]) == (0, 0)
        give_signal(both.gate, 1_011)
        assert next_event(second)["index"] == 1
        give_signal(both.gate, 1_010)
        assert next_event(first)["index"] == 1


def test_a_client_that_hangs_up_in_the_middle_is_on_record_and_disturbs_nobody(
    both: Any, appliance: Appliance
) -> None:
    key: Key = appliance.key("hangs-up")
    side = Side(both.gate.address, {"Authorization": f"Bearer {key.text}"})
    worker = appliance.pid("worker")
    connection = socket.create_connection(("127.0.0.1", appliance.port), timeout=15)
    body = b'{"count": 4, "topic": 1020}'
    head = f"POST {STREAM} HTTP/1.1\r\nHost: gate\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(f"{head}Authorization: Bearer {key.text}\r\n\r\n".encode() + body)
    arrived = b""
    while b'"index":0' not in arrived:
        part = connection.recv(4_096)
        assert part, arrived
        arrived += part
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    for _ in range(
        3
    ):  # the answer that the gate waits for at Triton, and those that come when it has given up
        give_signal(both.other, 1_020)
    wait_for(lambda: appliance.outcomes(key).get("client_gone") == 1, 20, "the ledger says client_gone")
    assert post(side, STREAM, b'{"count": 3}', {})[0] == 200
    assert appliance.pid("worker") == worker
