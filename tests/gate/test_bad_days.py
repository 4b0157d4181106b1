"""What a client, and the ledger, see when something fails; everything real but Triton."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from typing import Any

import pytest

from lotabotsd.foundation.clock import NANOSECONDS, SystemClock
from lotabotsd.identity.api_key import format_api_key
from lotabotsd.limits.lock import TableLock

PEPPER = bytes(range(32))
KEY_ID = "K" * 12
INFER = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}).encode()


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (400, b'{"error":"[request id: x] unexpected shape for input at /var/lib/secret"}', "tensor_invalid"),
        (400, b'{"error":"Request for unknown model: \'m\' is not found"}', "model_not_ready"),
        (503, b'{"error":"Exceeds maximum queue size"}', "overloaded"),
        (500, b"Traceback /opt/models/m/1/model.py", "model_failed"),
        (500, b'{"error":"Unable to parse \'data\': Shape does not match true shape"}', "tensor_invalid"),
    ],
)
def test_tritons_own_words_do_not_leak(rig: Any, status: int, text: bytes, code: str) -> None:
    async def wrong(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n" % (status, len(text)) + text)

    async def story(rig: Any) -> None:
        await rig.ready()
        rig.handler = wrong
        answer = await rig.infer()
        assert answer.json()["code"] == code
        assert b"/opt" not in answer.body
        assert b"secret" not in answer.body

    rig.publish()
    rig.run(story)
    assert rig.outcomes() == {"model_error": 1}


def test_without_triton_it_is_503_and_not_charged(rig: Any) -> None:
    async def story(rig: Any) -> None:
        while (answer := await rig.infer()).json()["code"] == "starting":
            await asyncio.sleep(0.01)
        assert (answer.status, answer.json()["code"]) == (503, "runtime_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert (await rig.ask("GET", "/readyz", key=None)).json()["components"]["runtime"] == "failed"

    rig.publish()
    rig.run(story, triton=False)
    assert rig.outcomes() == {"runtime_failed": 1}


def test_triton_dying_in_the_middle_is_one_outcome(rig: Any) -> None:
    async def die(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.transport.abort()

    async def story(rig: Any) -> None:
        await rig.ready()
        rig.handler = die
        assert (await rig.infer()).json()["code"] == "runtime_unavailable"

    rig.publish()
    rig.run(story)
    assert rig.outcomes() == {"runtime_failed": 1}


def test_a_client_that_hangs_up_is_measured_for_what_ran(rig: Any) -> None:
    release = asyncio.Event()

    async def slow(path: bytes, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async def story(rig: Any) -> None:
        await rig.ready()
        rig.handler = slow
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        key = format_api_key("live", KEY_ID, "S" * 32)
        head = f"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(INFER) + INFER)
        while not rig.seen:
            await asyncio.sleep(0.005)
        writer.transport.abort()
        await asyncio.sleep(0.05)
        release.set()
        while rig.outcomes() == {}:
            await asyncio.sleep(0.01)

    rig.publish()
    rig.run(story)
    assert rig.outcomes() == {"client_gone": 1}


def test_before_the_daemon_it_is_starting_and_then_well(rig: Any) -> None:
    async def story(rig: Any) -> None:
        for path in ("/readyz", "/v2/health/ready"):
            answer = await rig.ask("GET", path, key=None)
            assert (answer.status, answer.json()["code"]) == (503, "starting")
        assert (await rig.infer()).json()["code"] == "starting"
        assert (await rig.ask("GET", "/healthz", key=None)).status == 200
        rig.publish()
        await rig.ready()
        assert (await rig.infer()).status == 200

    rig.run(story)


def test_when_the_lease_ends_nothing_is_served(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        rig.publisher.renew_lease(SystemClock().wall_ns() - 3_600 * NANOSECONDS)
        while (await rig.ask("GET", "/readyz", key=None)).status == 200:
            await asyncio.sleep(0.01)
        assert (await rig.infer()).json()["code"] == "policy_lease_ended"
        rig.publisher.renew_lease(SystemClock().wall_ns())
        await rig.ready()
        assert (await rig.infer()).status == 200

    rig.publish()
    rig.run(story)


def test_attestation_without_the_daemon_is_503(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        answer = await rig.ask("POST", "/v1/attest", b'{"nonce": "abcdefghijklmnopqrstuv"}')
        assert (answer.status, answer.json()["code"]) == (503, "daemon_unavailable")
        assert b"sock" not in answer.body
        assert (await rig.ask("POST", "/v1/attest", b'{"nonse": 1}')).json()["code"] == "parameter_refused"

    rig.publish()
    rig.run(story)


def test_a_full_journal_refuses_before_anything_runs(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        rig.worker._journal._poison = "the disk is full"
        answer = await rig.infer()
        assert (answer.status, answer.json()["code"]) == (503, "journal_unavailable")
        assert rig.seen == []

    rig.publish()
    rig.run(story)


def test_the_gate_is_not_ready_while_no_model_is(rig: Any) -> None:
    async def story(rig: Any) -> None:
        while (readiness := await rig.ask("GET", "/readyz", key=None)).json()["components"]["policy"] != "ok":
            await asyncio.sleep(0.01)
        assert (readiness.status, readiness.json()["code"]) == (503, "starting")
        rig.models = (replace(rig.models[0], ready=True), rig.models[1])
        rig.publish()
        await rig.ready()

    rig.models = tuple(replace(model, ready=False) for model in rig.models)
    rig.publish()
    rig.run(story)


def test_a_version_that_is_not_there_is_404_and_nothing_to_try_again(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        answers = [
            await rig.ask("POST", "/v2/models/m/versions/7/infer", INFER),
            await rig.ask("GET", "/v2/models/m/versions/7/ready"),
            await rig.ask("GET", "/v2/models/m/versions/7"),
        ]
        assert [(answer.status, answer.json()["code"]) for answer in answers] == [(404, "model_unknown")] * 3
        assert rig.seen == []

    rig.publish()
    rig.run(story)
    assert rig.outcomes() == {"refused_policy": 1}


def test_a_lock_that_is_held_for_a_moment_refuses_nobody(rig: Any) -> None:
    async def story(rig: Any) -> None:
        await rig.ready()
        holder = await hold_the_lock(rig)
        asking = asyncio.create_task(rig.infer())
        await asyncio.sleep(0.01)
        holder.release()
        assert (await asking).status == 200
        holder = await hold_the_lock(rig)
        answer = await rig.infer()
        assert (answer.status, answer.json()["code"]) == (503, "limits_unavailable")
        holder.release()

    rig.publish()
    rig.run(story)


async def hold_the_lock(rig: Any) -> TableLock:
    """Hold the table's lock as another process would: through a descriptor of its own."""
    lock = TableLock(os.open(rig.config.paths.limits_table, os.O_RDWR | os.O_CLOEXEC))
    while not lock.acquire():
        await asyncio.sleep(0.001)
    return lock
