"""What dies comes back, nobody waits in vain, and the ledger says once what became of each request."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
from gate_clients import (
    ANSWER_SECONDS,
    INFER,
    MODEL,
    Key,
    Load,
    outcomes_sum,
    send_on,
    tensor_body,
    wait_for,
)
from whole_appliance import READY_SECONDS, Appliance, running_appliance

pytestmark = pytest.mark.required

THREADS = 8
# How the ledger may call a request that came while Triton was away; none of them is charged.
AWAY = {"runtime_failed", "refused_unready", "model_error"}


@pytest.fixture
def parts() -> Iterator[Appliance]:
    """An appliance of which nothing runs yet: each process is started by itself, as systemd does."""
    for appliance in running_appliance(Appliance()):
        appliance.directories()
        yield appliance


def everybody_heard_soon(load: Load) -> None:
    """Every request was answered, or its connection closed, in time."""
    slowest = max(load.sent, key=lambda sent: sent.seconds)
    assert slowest.seconds <= ANSWER_SECONDS, slowest


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def answers(appliance: Appliance) -> bool:
    """Whether the daemon answers."""
    return appliance.command("lotabotsctl", "status", "--json").returncode == 0


# -- the order of a boot
def test_the_gate_says_starting_until_there_is_what_it_judges_by(parts: Appliance) -> None:
    gate = parts.start("gate")
    wait_for(lambda: _listens(parts), 20, "the gate listens")
    assert parts.ask("GET", "/healthz").status == 200
    body, headers = tensor_body()
    for method, path, data in (
        ("GET", "/readyz", b""),
        ("GET", "/v2/health/ready", b""),
        ("POST", INFER, body),
    ):
        answer = parts.ask(method, path, None, data, **(headers if data else {}))
        assert (answer.status, answer.json["code"]) == (503, "starting"), path
        assert answer.json["hint"]
        assert answer.headers["retry-after"].isdigit()

    daemon = parts.start("serve")
    wait_for(lambda: answers(parts), 20, "the daemon answers")
    parts.people()
    key = parts.key("first")
    assert parts.ask("GET", "/readyz").json["code"] == "runtime_unavailable"
    answer = parts.ask("POST", INFER, key, body, **headers)
    assert (answer.status, answer.json["code"]) == (503, "model_not_ready")
    parts.ctl("doctor", exit_code=3)  # it names the runtime helper, which does not answer

    helper = parts.start("runtime")
    parts.ready()
    assert parts.ask("POST", INFER, key, body, **headers).status == 200

    # The gate alone goes on; and Triton outlives both.
    triton = parts.pid("triton")
    assert parts.end(daemon) == 0
    assert parts.ask("POST", INFER, key, body, **headers).status == 200
    daemon = parts.start("serve")
    wait_for(lambda: answers(parts), 20, "the daemon answers")

    # Again, with a policy.db that its writer closed: whether a reader alone can open it is up to its rights.
    assert parts.end(gate) == 0
    assert parts.end(daemon) == 0
    parts.start("gate")
    wait_for(lambda: _listens(parts), 20, "the gate listens")
    readiness = parts.ask("GET", "/readyz")
    assert readiness.status == 200 or readiness.json["code"] == "starting"
    parts.start("serve")
    parts.ready()
    assert parts.ask("POST", INFER, key, body, **headers).status == 200
    assert parts.pid("triton") == triton
    assert helper.poll() is None
    wait_for(lambda: answers(parts), 20, "the daemon answers")
    parts.drained()
    assert parts.outcomes(key) == {"served": 3, "refused_unready": 1}


def _listens(appliance: Appliance) -> bool:
    with suppress(OSError):
        return appliance.ask("GET", "/healthz").status == 200
    return False


# -- one process killed while many ask
def test_triton_killed_under_load_comes_back_and_every_request_is_counted_once(busy: Appliance) -> None:
    key = busy.key("triton-killed")
    with Load(busy, key, threads=THREADS) as load:
        load.until(60)
        killed = busy.kill("triton")
        load.until(60)
    assert busy.pid("triton") != killed
    assert [(model["name"], model["ready"]) for model in busy.status()["models"]] == [(MODEL, True)]
    everybody_heard_soon(load)
    assert {sent.code for sent in load.sent} <= {"", "runtime_unavailable", "model_not_ready", "overloaded"}
    assert load.count(-1) == 0, "the gate listened all the time"
    busy.drained()
    outcomes = busy.outcomes(key)
    assert outcomes_sum(outcomes) == len(load.sent)
    assert outcomes.pop("served") == load.count(200)
    assert set(outcomes) <= AWAY
    assert len(load.sent) - load.count(200) >= 1, "some came while Triton was away"


def test_the_daemon_killed_twice_under_load_is_not_noticed_and_counts_nothing_twice(busy: Appliance) -> None:
    key = busy.key("daemon-killed")
    with Load(busy, key, threads=THREADS) as load:
        for _ in range(2):
            load.until(30)
            killed = busy.kill("serve")
            assert not answers(busy)
            load.until(10)
            wait_for(lambda: answers(busy), 30, "the daemon answers again")
            assert busy.pid("serve") != killed
        load.until(30)
    everybody_heard_soon(load)
    assert {sent.status for sent in load.sent} == {200}
    busy.drained()
    assert busy.outcomes(key) == {"served": len(load.sent)}
    busy.ctl("ledger", "verify")


def test_a_gate_worker_killed_under_load_is_replaced_and_every_open_has_one_outcome(busy: Appliance) -> None:
    key = busy.key("worker-killed", "--concurrency", str(THREADS))
    parent = busy.pid("gate")
    with Load(busy, key, threads=THREADS) as load:
        load.until(40)
        killed = busy.kill("worker")
        load.until(60)
    assert busy.pid("gate") == parent
    assert busy.pid("worker") != killed
    everybody_heard_soon(load)
    assert {sent.code for sent in load.sent} <= {"", "starting"}, (
        "what the dead one had reserved is free again"
    )
    assert load.count(-1) == 0, "the parent holds the socket"
    closed = load.count(0)
    assert closed <= 2 * THREADS  # one under way, and one on a connection that was dead already
    _each_open_has_one_outcome(busy, key, load)


def test_the_gates_parent_killed_under_load_takes_its_worker_along(busy: Appliance) -> None:
    key = busy.key("parent-killed", "--concurrency", str(THREADS))
    with Load(busy, key, threads=THREADS) as load:
        load.until(40)
        worker = busy.pid("worker")
        busy.kill("gate")
        wait_for(lambda: not is_alive(worker), 10, "the worker ends with its parent")
        load.until(40)
    assert len(busy.processes("worker")) == 1
    everybody_heard_soon(load)
    _each_open_has_one_outcome(busy, key, load)


def _each_open_has_one_outcome(appliance: Appliance, key: Key, load: Load) -> None:
    """What the clients saw is what the ledger says; a closed connection may have been counted or not."""
    appliance.drained()
    answered = sum(sent.status == 200 for sent in load.sent)
    closed = load.count(0)
    outcomes = appliance.outcomes(key)
    assert answered <= outcomes_sum(outcomes) <= answered + closed
    assert 0 <= outcomes["served"] - answered <= closed
    assert set(outcomes) <= {"served", "client_gone", "undelivered", "aborted"}
    assert appliance.status()["ledger"]["in_flight"] == 0
    appliance.ctl("ledger", "verify")


def test_clients_that_hang_up_while_triton_works_are_known_to_be_gone(busy: Appliance) -> None:
    key = busy.key("gone")
    body, headers = tensor_body()
    triton = busy.pid("triton")
    os.kill(triton, signal.SIGSTOP)  # so that every one of them is gone before there is an answer
    try:
        for _ in range(3):
            connection = busy.connection()
            send_on(connection, "POST", INFER, key, body, **headers)
            connection.close()
        assert busy.ask("GET", "/healthz").status == 200  # the one worker has seen it all
    finally:
        os.kill(triton, signal.SIGCONT)
    wait_for(lambda: outcomes_sum(busy.outcomes(key)) == 3, 20, "all are counted")
    assert busy.outcomes(key) == {"client_gone": 3}


def test_the_helper_killed_takes_triton_along_and_both_come_back_alone(busy: Appliance) -> None:
    key = busy.key("helper-killed")
    triton = busy.pid("triton")
    helper = busy.kill("runtime")
    wait_for(lambda: not is_alive(triton), 10, "Triton ends with the helper")
    wait_for(lambda: _another(busy, triton), READY_SECONDS, "another Triton")
    busy.ready()
    body, headers = tensor_body()
    assert busy.ask("POST", INFER, key, body, **headers).status == 200
    assert busy.pid("runtime") != helper
    assert len(busy.processes("triton")) == 1
    stubs = busy.processes("triton_python_backend_stub")
    assert len(stubs) == 1
    assert len(busy.shared_memory()) == 1, "shared memory of this run only"


def _another(appliance: Appliance, before: int) -> bool:
    return any(process.pid != before for process in appliance.processes("triton"))


def test_up_itself_killed_leaves_nobody_behind(busy: Appliance) -> None:
    busy.kill("up")
    wait_for(lambda: not busy.processes(), 60, "everybody ends")
