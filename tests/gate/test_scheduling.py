"""What Triton sees of sequences, priorities and timeouts that came through a whole gate."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from typing import Any

import pytest

from lotabotsd.gate.parameters import Namespace, namespace_secret
from lotabotsd.identity.api_key import format_api_key, hash_secret
from lotabotsd.models.facts import ModelFacts, TensorFact

PEPPER = bytes(range(32))
NAMESPACE = Namespace(namespace_secret(PEPPER), "K" * 12)
OTHER_ID = "L" * 12
OTHER_KEY = format_api_key("live", OTHER_ID, "S" * 32)
X = TensorFact("x", "FP32", (2,))
COUNTER = ModelFacts("m", ("1",), "", 8, (X,), (X,), ready=True, sequences=True)
LEVELS = ModelFacts("m", ("1",), "", 8, (X,), (X,), ready=True, priority_levels=4)


def infer(parameters: dict[str, Any], *, binary: bool = False) -> tuple[bytes, dict[str, str]]:
    tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
    if not binary:
        return json.dumps({"inputs": [{**tensor, "data": [1.5, 2]}], "parameters": parameters}).encode(), {}
    tensor["parameters"] = {"binary_data_size": 8}
    header = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
    return header + b"\x01\x02\x03\x04\x05\x06\x07\x08", {"inference-header-content-length": str(len(header))}


def seen_parameters(seen: tuple[bytes, bytes, bytes]) -> Any:
    """The parameters of a request as Triton got it, by the length that it was told."""
    _, head, body = seen
    for line in head.split(b"\r\n"):
        if line.startswith(b"inference-header-content-length: "):
            length = int(line.rpartition(b" ")[2])
            assert body[length:] == b"\x01\x02\x03\x04\x05\x06\x07\x08"
            return json.loads(body[:length])["parameters"]
    return json.loads(body)["parameters"]


def test_a_sequence_reaches_triton_under_the_key_s_own_id_whatever_the_form(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        for binary in (False, True):
            body, headers = infer({"sequence_id": 7, "sequence_start": True}, binary=binary)
            assert (await rig.ask("POST", "/v2/models/m/infer", body, headers)).status == 200
        body, headers = infer({"sequence_id": 7}, binary=True)
        assert (await rig.ask("POST", "/v2/models/m/infer", body, headers, key=OTHER_KEY)).status == 200

    rig.models = (COUNTER,)
    other = replace(rig.keys[0], key_id=OTHER_ID, secrets=((hash_secret(PEPPER, OTHER_ID, "S" * 32), None),))
    rig.keys.append(other)
    rig.publish()
    rig.run(story)
    first, second, third = (seen_parameters(seen) for seen in rig.seen)
    assert first == second == {"sequence_id": NAMESPACE.number(7), "sequence_start": True}
    assert third["sequence_id"] not in (7, first["sequence_id"])


def test_the_band_and_the_gate_s_patience_reach_triton(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        for parameters in ({}, {"priority": 1}, {"priority": 4, "timeout": 1_000}, {"timeout": 6_000_000}):
            body, headers = infer(parameters, binary=True)
            assert (await rig.ask("POST", "/v2/models/m/infer", body, headers)).status == 200

    rig.models = (LEVELS,)
    assert rig.standing["priority_band"] == 3
    rig.publish()
    rig.run(story)
    assert [seen_parameters(seen) for seen in rig.seen] == [
        {"priority": 3},
        {"priority": 3},
        {"priority": 4, "timeout": 1_000},
        {"priority": 3, "timeout": 5_000_000},
    ]


def test_what_keeps_no_state_and_what_streams_say_so_before_triton_is_asked(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        body, _ = infer({"sequence_id": 7})
        stateless = await rig.ask("POST", "/v2/models/m/infer", body)
        assert (stateless.status, stateless.json()["code"]) == (400, "parameter_refused")
        stream = await rig.ask("POST", "/v2/models/s/infer", infer({})[0])
        assert (stream.status, stream.json()["code"]) == (400, "stream_needed")

    rig.models = (LEVELS, replace(LEVELS, name="s", decoupled=True))
    rig.publish()
    rig.run(story)
    assert rig.seen == []


def test_a_generate_body_is_put_into_the_key_s_terms_too(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        body = b'{"x": [1.50, 2], "timeout": 6000000, "parameters": {"priority": 1}}'
        assert (await rig.ask("POST", "/v2/models/m/generate", body)).status == 200

    rig.models = (LEVELS,)
    rig.publish()
    rig.run(story)
    assert rig.seen[0][2] == b'{"x": [1.50, 2], "timeout": 5000000, "parameters": {"priority": 3}}'


@pytest.mark.parametrize("form", ["JSON", "binary in parts"])
def test_a_large_body_is_put_into_the_terms_without_another_change(rig: Any, form: str) -> None:
    """Where only a part of it was looked at, the one value in the middle is still changed in its place."""
    count = 100_000
    tensor: dict[str, Any] = {"name": "x", "datatype": "UINT8", "shape": [count]}
    wide = TensorFact("x", "UINT8", (-1,))
    rig.models = (ModelFacts("m", ("1",), "", 0, (wide,), (wide,), ready=True),)
    if form == "JSON":
        tensor["data"] = [7] * count
        first = json.dumps({"id": "é", "inputs": [tensor]}, ensure_ascii=False).encode()[:-1]
        part, tail = first + b', "parameters": {"timeout": 99000000}, "outputs": [{"name": "x"}]}', b""
    else:
        tensor["parameters"] = {"binary_data_size": count}
        part = json.dumps({"parameters": {"timeout": 99_000_000}, "inputs": [tensor]}).encode()
        tail = os.urandom(count)
    length = f"inference-header-content-length: {len(part)}\r\n" if tail else ""
    body = part + tail

    async def story(rig: Any) -> None:
        await rig.ready()
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(
            f"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {rig.api_key}\r\n"
            f"connection: close\r\ncontent-length: {len(body)}\r\n{length}\r\n".encode()
        )
        for start in range(0, len(body), 40_000):
            writer.write(body[start : start + 40_000])
            await writer.drain()
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()

    rig.publish()
    rig.run(story)
    ((_, head, seen),) = rig.seen
    assert seen == body.replace(b"99000000", b"5000000")
    assert not tail or b"inference-header-content-length: %d" % (len(part) - 1) in head
    assert rig.sums() == (1, len(body))
