"""The wire itself: the same request bytes give the same answer bytes from both doors."""

from __future__ import annotations

import gzip
import http.client
import json
import struct
import zlib
from typing import Any

import pytest
from doors import post

pytestmark = pytest.mark.required

MODEL = "page_orientation"
OUTPUT = "fetch_name_0"
ELEMENTS = 3 * 224 * 224
# Of Triton's answer headers a client reads these; the others speak of the connection.
TOLD = ("content-type", "inference-header-content-length")


def request_body(*, binary_out: bool, **more: Any) -> tuple[bytes, dict[str, str]]:
    """A picture of one grey as bytes behind the JSON part."""
    data = struct.pack("<f", 0.5) * ELEMENTS
    picture = {
        "name": "x",
        "datatype": "FP32",
        "shape": [1, 3, 224, 224],
        "parameters": {"binary_data_size": len(data)},
    }
    wanted = {"name": OUTPUT, "parameters": {"binary_data": binary_out}}
    header = json.dumps({"inputs": [picture], "outputs": [wanted], **more}).encode()
    return header + data, {"Inference-Header-Content-Length": str(len(header))}


@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "JSON out"])
@pytest.mark.parametrize("path", [f"/v2/models/{MODEL}/infer", f"/v2/models/{MODEL}/versions/1/infer"])
def test_an_answer_is_the_same_byte_for_byte(both: Any, path: str, binary_out: bool) -> None:
    body, headers = request_body(binary_out=binary_out, id="a-1")
    bare, gated = (post(side, path, body, headers) for side in (both.triton, both.gate))
    assert gated[0] == bare[0] == 200
    assert gated[2] == bare[2]
    assert {name: gated[1].get(name) for name in TOLD} == {name: bare[1].get(name) for name in TOLD}
    assert ("inference-header-content-length" in gated[1]) is binary_out


def test_the_gate_adds_the_request_id_and_the_limits_and_hides_the_server(both: Any) -> None:
    body, headers = request_body(binary_out=True)
    _, shown, _ = post(both.gate, f"/v2/models/{MODEL}/infer", body, headers)
    assert len(shown["lotabots-request-id"]) == 36
    assert "server" not in shown


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_request_gets_the_answer_of_a_plain_one(both: Any, encoding: str) -> None:
    body, headers = request_body(binary_out=True)
    # A random tail of the id keeps the ratio below the gate's bound against bombs.
    noise = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](body, 0)
    bare, gated = (
        post(side, f"/v2/models/{MODEL}/infer", noise, {**headers, "Content-Encoding": encoding})
        for side in (both.triton, both.gate)
    )
    assert gated[0] == bare[0] == 200
    assert gated[2] == bare[2]


def test_a_chunked_request_reaches_triton_with_its_length(both: Any) -> None:
    body, headers = request_body(binary_out=True)
    connection = http.client.HTTPConnection(both.gate.address, timeout=30)
    parts = iter([body[:1000], body[1000:400_000], body[400_000:]])
    connection.request(
        "POST", f"/v2/models/{MODEL}/infer", parts, {**both.gate.headers, **headers}, encode_chunked=True
    )
    response = connection.getresponse()
    assert response.status == 200
    assert response.read() == post(both.triton, f"/v2/models/{MODEL}/infer", body, headers)[2]
    connection.close()


def test_errors_have_the_one_field_that_clients_of_the_protocol_read(both: Any) -> None:
    for side, expected in ((both.triton, 500), (both.gate, 400)):  # Triton takes the blame for bad JSON
        status, _, body = post(side, f"/v2/models/{MODEL}/infer", b"{", {})
        assert status == expected
        assert isinstance(json.loads(body)["error"], str)


@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "JSON out"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_answer_is_the_same_from_both_doors(both: Any, encoding: str, binary_out: bool) -> None:
    body, headers = request_body(binary_out=binary_out)
    bare, gated = (
        post(side, f"/v2/models/{MODEL}/infer", body, {**headers, "Accept-Encoding": encoding})
        for side in (both.triton, both.gate)
    )
    told = (*TOLD, "content-encoding")
    assert gated[0] == bare[0] == 200
    assert {name: gated[1].get(name) for name in told} == {name: bare[1].get(name) for name in told}
    assert gated[1]["content-encoding"] == encoding
    plain = {"gzip": gzip.decompress, "deflate": zlib.decompress}[encoding]
    assert plain(gated[2]) == plain(bare[2])


def test_a_body_that_comes_in_parts_gets_the_answer_of_one_that_came_at_once(both: Any) -> None:
    body, headers = request_body(binary_out=True)
    connection = http.client.HTTPConnection(both.gate.address, timeout=30)
    connection.putrequest("POST", f"/v2/models/{MODEL}/infer")
    for name, value in {**both.gate.headers, **headers, "Content-Length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.sock is not None
    for start in range(0, len(body), 50_000):
        connection.sock.sendall(body[start : start + 50_000])
    response = connection.getresponse()
    assert response.status == 200
    assert response.read() == post(both.triton, f"/v2/models/{MODEL}/infer", body, headers)[2]
    connection.close()
