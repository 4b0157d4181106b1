"""The real Triton's counters against the ledger: under load, over restarts, and with one around the gate."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gate_clients import INFER, MODEL, Key, ask_on, tensor_body, wait_for
from whole_appliance import Appliance, running_appliance

from lotabotsd.usage.report import check_report

pytestmark = pytest.mark.required

CLIENTS = 4


@pytest.fixture(scope="module")
def appliance() -> Iterator[Appliance]:
    for made in running_appliance(Appliance()):
        made.start()
        made.ready()
        made.people()
        made.ctl("licence", "install", str(made.licence("enterprise")))
        yield made


@pytest.fixture(scope="module")
def key(appliance: Appliance) -> Key:
    return appliance.key("pages")


def serve(appliance: Appliance, key: Key, requests: int, rows: int = 1) -> None:
    """So many requests of several clients, each of which is answered."""
    body, headers = tensor_body(rows)

    def one(_: int) -> int:
        return appliance.ask("POST", INFER, key, body, **headers).status

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert set(pool.map(one, range(requests))) == {200}


def around_the_gate(appliance: Appliance, rows: int) -> None:
    """One request to Triton's own socket."""
    body, headers = tensor_body(rows)
    connection = http.client.HTTPConnection("triton", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(appliance.triton_http))
    assert ask_on(connection, "POST", INFER, None, body, Connection="close", **headers).status == 200


def exported(appliance: Appliance) -> Any:
    """A report up to now; None while the last one reaches that far."""
    done = appliance.command("lotabotsctl", "usage", "export", "--cut", "--json")
    return json.loads(done.stdout)[0] if done.returncode == 0 else None


def report(appliance: Appliance) -> tuple[dict[str, str], Any]:
    """The codes and details of what the vendor finds in a report up to now, and its model's numbers."""
    made = wait_for(lambda: exported(appliance), 20, "a report that begins in another second")
    check = check_report(Path(made["path"]).read_bytes())
    assert check.facts is not None
    assert check.facts.reconciliation is not None
    return {one.code: one.detail for one in check.findings}, check.facts.reconciliation.models[MODEL]


def test_through_the_gate_both_agree(appliance: Appliance, key: Key) -> None:
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(serve, appliance, key, 60, 2)
        wait_for(lambda: appliance.outcomes(key).get("served", 0) >= 5, 60, "some are served")
        codes, _ = report(appliance)  # while more are under way
        assert "unaccounted" not in codes
        load.result()
    serve(appliance, key, 3)
    appliance.drained()
    codes, seen = report(appliance)
    assert not codes.keys() & {"unaccounted", "not_compared", "compared_in_part"}
    assert (seen.compared, seen.certain.any) == ("all", False)
    assert seen.counted.requests >= 1


def test_a_triton_that_was_killed_and_a_daemon_that_was_make_no_difference(
    appliance: Appliance, key: Key
) -> None:
    for role in ("triton", "serve"):
        serve(appliance, key, 8)
        before = appliance.kill(role)
        wait_for(partial(another_one, appliance, role, before), 60, f"another {role}")
        wait_for(lambda: appliance.command("lotabotsctl", "status").returncode == 0, 60, "the daemon answers")
        wait_for(lambda: served(appliance, key), 60, f"it serves again after {role} was killed")
        serve(appliance, key, 8)
        codes, _ = report(appliance)
        assert "unaccounted" not in codes, (role, codes)


def another_one(appliance: Appliance, role: str, before: int) -> bool:
    return [process.pid != before for process in appliance.processes(role)] == [True]


def served(appliance: Appliance, key: Key) -> bool:
    body, headers = tensor_body()
    return appliance.ask("POST", INFER, key, body, **headers).status == 200


def test_a_request_around_the_gate_is_found(appliance: Appliance, key: Key) -> None:
    before = appliance.kill("triton")  # a model that was swapped while it served would leave some room
    wait_for(partial(another_one, appliance, "triton", before), 60, "another Triton")
    appliance.ready()
    serve(appliance, key, 3)
    report(appliance)
    around_the_gate(appliance, 5)
    wait_for(
        lambda: "unaccounted" in {one["code"] for one in appliance.status()["warnings"]}, 60, "it is found"
    )
    serve(appliance, key, 3)
    codes, seen = report(appliance)
    assert codes["unaccounted"] == (
        f"{MODEL}: Triton ran at least 1 requests with 5 inferences that the ledger does not hold"
    )
    assert (seen.certain.requests, seen.certain.inferences) == (1, 5)
    text = appliance.ctl("ledger", "verify", exit_code=3)
    assert "it ran at least 1 requests with 5 inferences that are not here" in text
    serve(appliance, key, 1)
    codes, _ = report(appliance)
    assert "unaccounted" not in codes, "each is told once"
