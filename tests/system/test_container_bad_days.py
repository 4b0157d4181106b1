"""The container runtime with everything killed in turn under load, and with images that are no good."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from container_appliance import ContainerAppliance, make_image
from container_bench import GATE_GROUP
from container_engine import ContainerEngine
from gate_clients import ANSWER_SECONDS, MODEL, Key, Load, outcomes_sum, wait_for
from image_build import Saved
from whole_appliance import running_appliance

pytestmark = pytest.mark.required

THREADS = 4
SOCKETS = ("http.sock", "grpc.sock:8001", "metrics.sock")
BACK_SECONDS = 90.0
# How the ledger may call a request that came while Triton was away; none of them is charged.
AWAY = {"runtime_failed", "refused_unready", "model_error"}


@pytest.fixture(scope="module")
def contained(engine: ContainerEngine, image: Saved) -> Iterator[ContainerAppliance]:
    """Ready, with a licence that does not stand in the way of a load."""
    appliance = ContainerAppliance(engine, image)
    for _ in running_appliance(appliance):
        appliance.start()
        appliance.ready()
        appliance.people()
        appliance.ctl("licence", "install", str(appliance.licence("enterprise")))
        wait_for(lambda: _settled(appliance), BACK_SECONDS, "the image is known to be good")
        yield appliance


def _settled(appliance: ContainerAppliance) -> bool:
    """Everything answers, and the image that serves was promoted."""
    runtime = appliance.status()["runtime"]
    known = appliance.state / "images" / "known.json"
    return runtime["state"] == "ready" and known.is_file() and appliance.serving() in known.read_text()


def _back(appliance: ContainerAppliance, before: int) -> bool:
    """Another Triton is ready."""
    status = appliance.status()
    return status["runtime"]["pid"] not in (0, before) and all(model["ready"] for model in status["models"])


def _answers(appliance: ContainerAppliance) -> bool:
    done = appliance.command("lotabotsctl", "status", "--json")
    return done.returncode == 0


def _refusal(appliance: ContainerAppliance, image: str) -> str:
    """Why an image was refused; empty as long as it is not."""
    upgrade = appliance.status()["runtime"]["upgrade"]
    refused = upgrade is not None and (upgrade["kind"], upgrade["image"]) == ("refused", image)
    return str(upgrade["why"]) if refused else ""


def test_container_helper_daemon_and_engine_killed_under_load_come_back_and_all_is_counted_once(
    contained: ContainerAppliance,
) -> None:
    key = contained.key("killed", "--concurrency", str(THREADS))
    with Load(contained, key, threads=THREADS) as load:
        load.until(30)
        before = contained.run_pid()
        contained.engine.client.kill(contained.name, "SIGKILL")
        wait_for(lambda: _back(contained, before), BACK_SECONDS, "another container")
        load.until(30)

        # The helper: Triton goes on without it, and the next one adopts it.
        before, helper = contained.run_pid(), contained.kill("runtime")
        load.until(30)
        wait_for(
            lambda: contained.processes("runtime") and contained.status()["runtime"]["helper_answers"],
            BACK_SECONDS,
            "another helper",
        )
        assert (contained.pid("runtime") != helper, contained.run_pid()) == (True, before)

        contained.kill("serve")
        load.until(30)
        wait_for(lambda: _answers(contained), BACK_SECONDS, "the daemon answers again")
        wait_for(lambda: contained.run_pid() == before, BACK_SECONDS, "the daemon finds Triton")

        # The engine: its containers live until it comes back.
        contained.engine.kill()
        load.until(10)
        contained.engine.start()
        wait_for(lambda: _back(contained, before), BACK_SECONDS, "another container")
        load.until(30, seconds=60)
    slowest = max(load.sent, key=lambda sent: sent.seconds)
    assert slowest.seconds <= ANSWER_SECONDS, slowest
    assert {sent.code for sent in load.sent} <= {"", "runtime_unavailable", "model_not_ready", "overloaded"}
    assert load.count(0) == load.count(-1) == 0, "the gate was there all the time"
    contained.drained()
    outcomes = contained.outcomes(key)
    assert outcomes_sum(outcomes) == len(load.sent)
    assert outcomes.pop("served") == load.count(200)
    assert set(outcomes) <= AWAY
    assert contained.status()["ledger"]["in_flight"] == 0
    contained.ctl("ledger", "verify")
    _all_places_are_free(contained, key)


def _all_places_are_free(contained: ContainerAppliance, key: Key) -> None:
    """As many at once as the key may: none of the places of those that died is still held."""
    with Load(contained, key, threads=THREADS) as load:
        load.until(20)
    assert {sent.status for sent in load.sent} == {200}


def test_a_good_image_takes_over_under_load_without_one_failed_request(
    contained: ContainerAppliance, image: Saved
) -> None:
    good = make_image(contained.engine, image.image, "good")
    key = contained.key("upgrade")
    before, failures = contained.run_pid(), contained.status()["runtime"]["failures"]
    with Load(contained, key, threads=THREADS) as load:
        load.until(20)
        contained.reload(good)
        wait_for(lambda: contained.serving() == good, BACK_SECONDS, "the good image serves")
        wait_for(lambda: contained.containers() == [contained.name], BACK_SECONDS, "the old one is gone")
        wait_for(lambda: _back(contained, before), BACK_SECONDS, "its models are ready")
        load.until(20)
    assert {sent.status for sent in load.sent} == {200}
    for name in SOCKETS:  # the gate may connect, nobody else
        status = (contained.run / "triton" / name).stat()
        assert (status.st_mode & 0o777, status.st_gid) == (0o770, GATE_GROUP), name
    assert contained.status()["runtime"]["upgrade"] is None
    assert contained.status()["runtime"]["failures"] <= failures
    contained.drained()
    assert contained.outcomes(key) == {"served": len(load.sent)}


@pytest.mark.parametrize(
    ("recipe", "upgrade", "why"),
    [
        ("exits", "beside", "unrecognized option"),
        ("other-answers", "beside", f"model {MODEL}: "),
        ("exits", "replace", "unrecognized option"),
    ],
)
def test_an_upgrade_to_a_broken_image_returns_by_itself_and_says_why(
    contained: ContainerAppliance, image: Saved, recipe: str, upgrade: str, why: str
) -> None:
    broken = make_image(contained.engine, image.image, recipe)
    serving, key = contained.serving(), contained.key(f"{recipe}-{upgrade}")
    with Load(contained, key, threads=2) as load:
        load.until(10)
        contained.reload(broken, upgrade)
        said = wait_for(lambda: _refusal(contained, broken), BACK_SECONDS, "it is refused")
        wait_for(lambda: contained.is_ready(), BACK_SECONDS, "the one before serves")
        load.until(10)
    assert why in said
    assert contained.serving() == serving
    assert contained.containers() == [contained.name]
    shown = " ".join(contained.ctl("status").split())
    assert "was refused, the one before serves" in shown
    assert why.strip() in shown
    if upgrade == "beside":
        assert {sent.status for sent in load.sent} == {200}, "nobody noticed"
    contained.drained()
    outcomes = contained.outcomes(key)
    assert outcomes_sum(outcomes) == len(load.sent)
    assert outcomes["served"] == load.count(200)
