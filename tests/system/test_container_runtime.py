"""Helper, supervisor and package with the real Triton in a container of a real engine, which dies in turn."""

from __future__ import annotations

import asyncio
import json
import pwd
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from container_bench import GATE_GROUP, USER, ContainerBench
from container_engine import ContainerEngine
from embedded_bench import request_of, scores, turned, until
from image_build import Saved
from whole_appliance import MODEL, wait_for

from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.client import TritonClient
from lotabotsd.runtime.seen import Seen
from lotabotsd.runtime.supervisor import Supervisor

pytestmark = pytest.mark.required
GPU = "GPU-00000000-1111-2222-3333-444444444444"
SOCKETS = ("http.sock", "grpc.sock:8001", "metrics.sock")


@pytest.fixture
def bench(folder: Path, engine: ContainerEngine, image: Saved) -> Iterator[ContainerBench]:
    bench = ContainerBench(folder, engine, image)
    try:
        bench.start_helper()
        yield bench
    finally:
        bench.clear()


def refused(folder: Path, engine: ContainerEngine, saved: Saved, /, **chosen: object) -> LotaBotsError:
    """What a helper with other settings says to `start`."""
    bench = ContainerBench(folder, engine, saved, **chosen)
    try:
        bench.start_helper()
        with pytest.raises(LotaBotsError) as failure:
            bench.ask_helper("start")
        return failure.value
    finally:
        bench.clear()


def pulls(engine: ContainerEngine) -> list[Any]:
    """What the engine did to get images from elsewhere, since it started."""
    events = engine.client.events(since=0, until=int(time.time()), decode=True, filters={"event": "pull"})
    return list(events)


@pytest.fixture
def empty(engine: ContainerEngine, image: Saved) -> ContainerEngine:
    """The engine without the image."""
    for found in engine.client.images(quiet=True):
        engine.client.remove_image(found, force=True)
    assert engine.client.images() == []
    return engine


def test_an_image_that_is_not_here_is_not_pulled(folder: Path, empty: ContainerEngine, image: Saved) -> None:
    for name in (image.image, f"registry.invalid/triton@{image.image}"):
        failure = refused(folder, empty, image, image=name, image_archive="", image_archive_sha256="")
        assert failure.code is Code.IMAGE_MISSING
        assert name in failure.detail
        shutil.rmtree(folder)
    allowed = f"registry.invalid/triton@{image.image}"
    failure = refused(
        folder, empty, image, image=allowed, image_archive="", image_archive_sha256="", allow_pull=True
    )
    assert failure.code is Code.ENGINE_REFUSED  # it tried: there is no such registry
    assert empty.client.images() == []


def test_an_archive_of_another_digest_or_with_another_image_is_not_loaded(
    folder: Path, empty: ContainerEngine, image: Saved
) -> None:
    other = "0" * 64
    failure = refused(folder, empty, image, image_archive_sha256=other)
    assert failure.code is Code.IMAGE_DIGEST_MISMATCH
    assert image.archive_sha256 in failure.detail
    shutil.rmtree(folder)
    failure = refused(folder, empty, image, image=f"sha256:{other}")
    assert failure.code is Code.IMAGE_DIGEST_MISMATCH
    assert image.image in failure.detail
    assert empty.client.images() == []


def test_loaded_from_its_archive_it_serves_and_nothing_was_pulled(
    bench: ContainerBench, image: Saved
) -> None:
    found = bench.ask_helper("ensure")
    assert (found["kind"], found["production"]) == ("container", False)
    assert found["versions"]["image_id"] == image.image

    async def story(supervisor: Supervisor) -> Seen:
        seen = await until(supervisor, "ready", "ready")
        tensors = [turned(degrees, bench.facts) for degrees in (0, 90, 180, 270)]
        rows = scores(await asyncio.to_thread(bench.ask, *request_of(tensors)))
        labels = [bench.facts.labels[row.index(max(row))] for row in rows]
        assert labels == ["0", "90", "180", "270"]
        return seen

    seen = bench.tell(story)
    assert seen.version == "2.51.0"
    assert pulls(bench.engine) == []
    _stands_in_its_walls(bench, image)
    _keeps_its_secret(bench)
    _shows_its_sockets_to_the_gate_alone(bench, seen.pid)
    assert bench.end_helper() == 0
    assert bench.engine.client.containers() == []  # told to stop, the helper ends Triton


def _stands_in_its_walls(bench: ContainerBench, image: Saved) -> None:
    """CIS Docker Benchmark 1.6, what is about one container; the number of each item stands beside it."""
    inspected = bench.engine.inspect(bench.name)
    host, config = inspected["HostConfig"], inspected["Config"]
    expected = {
        "CapAdd": None,
        "CapDrop": ["ALL"],  # 5.3
        "Privileged": False,  # 5.4
        "NetworkMode": "none",  # 5.7, 5.8, 5.9, 5.13: no port, no network of the host's, no address
        "PortBindings": None,
        "Memory": 2 << 30,  # 5.10
        "MemorySwap": 2 << 30,
        "ReadonlyRootfs": True,  # 5.12
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},  # 5.14
        "PidMode": "",  # 5.15
        "IpcMode": "private",  # 5.16
        "Devices": None,  # 5.17
        "DeviceRequests": None,
        "UTSMode": "",  # 5.20
        "SecurityOpt": ["no-new-privileges:true"],  # 5.21 (the default seccomp profile), 5.25
        "CgroupParent": "",  # 5.24
        "PidsLimit": 512,  # 5.28
        "UsernsMode": "",  # 5.30
        "Init": True,
        "AutoRemove": False,
        "ShmSize": 64 << 20,
        "OomScoreAdj": 500,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
    }
    assert {
        name: host[name] or None if host[name] in ([], {}) else host[name] for name in expected
    } == expected
    assert [(u["Name"], u["Soft"], u["Hard"]) for u in host["Ulimits"]] == [("core", 0, 0)]  # 5.18
    assert set(host["Tmpfs"]) == {"/tmp"}
    mounts = {(m["Source"], m["Destination"], m["RW"], m["Propagation"]) for m in inspected["Mounts"]}
    run_id = bench.facts_now().run_id
    assert mounts == {  # 5.5, 5.19, 5.31: nothing of the host's, no shared propagation, no engine's socket
        (str(bench.paths.live_models), "/lotabots/models", False, "rprivate"),
        (str(bench.paths.triton), "/lotabots/sockets", True, "rprivate"),
        (str(bench.paths.run_secrets / run_id), "/lotabots/secret", False, "rprivate"),
    }
    assert inspected["Image"] == config["Image"] == image.image  # 5.27: by digest
    assert config["User"] == "65534:65534"  # 4.1
    assert config["StopTimeout"] == 20
    assert config["Labels"]["lotabots.run"] == run_id
    assert set(inspected["NetworkSettings"]["Networks"]) == {"none"}


def _keeps_its_secret(bench: ContainerBench) -> None:
    secret = bench.facts_now().secret
    assert len(secret) > 40
    assert secret not in json.dumps(bench.engine.inspect(bench.name))
    assert secret not in bench.engine.client.logs(bench.name).decode()
    assert secret not in "\n".join(bench.ask_helper("logs"))
    assert secret not in bench.log.read_text()
    assert bench.paths.run_secrets.stat().st_mode & 0o777 == 0o700

    async def strangers() -> None:
        stranger = TritonClient(bench.paths.triton_http, lambda: "guess", load_timeout_seconds=5)
        for question in (stranger.index(), stranger.load(MODEL), stranger.unload(MODEL)):
            with pytest.raises(LotaBotsError, match="restricted"):
                await question

    asyncio.run(strangers())


def _shows_its_sockets_to_the_gate_alone(bench: ContainerBench, pid: int) -> None:
    uid = pwd.getpwnam(USER).pw_uid
    seen = {path.name: path.stat() for path in bench.paths.triton.iterdir()}
    assert set(seen) == set(SOCKETS)
    for name, status in seen.items():
        assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o770, uid, GATE_GROUP), name
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == [str(uid)] * 4
    assert (int(status["CapBnd"], 16), int(status["CapEff"], 16)) == (0, 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    cards = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in cards] == ["lo"]
    assert len(Path(f"/proc/{pid}/net/tcp").read_text().splitlines()) == 1  # the heading


def test_container_helper_and_engine_die_in_turn_and_it_recovers_by_itself(bench: ContainerBench) -> None:
    async def answers() -> None:
        assert scores(await asyncio.to_thread(bench.ask, *request_of([turned(90, bench.facts)])))

    async def story(supervisor: Supervisor) -> None:
        first = await until(supervisor, "ready", "ready")

        # the container
        bench.engine.client.kill(bench.name, "SIGKILL")
        fallen = await until(supervisor, "backing_off")
        assert "killed" in fallen.problem
        bench.clock.ahead_ns += NANOSECONDS
        second = await until(supervisor, "ready", "ready")
        assert (second.run_id != first.run_id, second.failures) == (True, 1)
        await answers()

        # the helper: Triton goes on without it, and the next one finds it
        bench.end_helper(signal.SIGKILL)
        await answers()
        blind = await supervisor.one_round()
        assert (blind.state, blind.helper_answers, blind.trouble) == ("ready", False, "helper_unavailable")
        await asyncio.to_thread(bench.start_helper)
        third = await until(supervisor, "ready", "ready")
        assert (third.run_id, third.pid, third.failures) == (second.run_id, second.pid, 1)
        assert supervisor.ready_models() == {MODEL}
        await answers()

        # the engine: what ran in it ends when it comes back (live-restore is off)
        bench.engine.kill()
        lost = await supervisor.one_round()
        assert (lost.helper_answers, lost.trouble) == (True, "engine_unavailable")
        assert lost.next_step == "start it: systemctl start docker"
        await answers()  # its containers live on until then
        bench.engine.start()  # in this thread: its death would end the engine
        await until(supervisor, "backing_off")
        bench.clock.ahead_ns += 2 * NANOSECONDS
        fourth = await until(supervisor, "ready", "ready")
        assert (fourth.run_id != third.run_id, fourth.trouble) == (True, "")
        await answers()

        # a person
        bench.engine.client.remove_container(bench.name, force=True)
        await until(supervisor, "backing_off")
        bench.clock.ahead_ns += 4 * NANOSECONDS
        await until(supervisor, "ready", "ready")
        await answers()

    bench.tell(story)
    assert pulls(bench.engine) == []


def test_a_container_of_other_settings_is_replaced_and_one_of_somebody_else_left_alone(
    folder: Path, bench: ContainerBench, engine: ContainerEngine, image: Saved
) -> None:
    async def ready(supervisor: Supervisor) -> Seen:
        return await until(supervisor, "ready", "ready")

    before = bench.tell(ready)
    bench.end_helper(signal.SIGKILL)
    bench.config_file.write_text(bench.text.replace("max_processes = 512", "max_processes = 600"))
    bench.start_helper()
    assert not bench.facts_now().running
    assert engine.client.containers(all=True) == []
    after = bench.tell(ready)
    assert after.run_id != before.run_id
    assert engine.inspect(bench.name)["HostConfig"]["PidsLimit"] == 600
    bench.ask_helper("stop")
    engine.client.remove_container(bench.name)
    bench.end_helper(signal.SIGKILL)

    theirs = engine.client.create_container_from_config(
        {"Image": image.image, "Cmd": ["/bin/sleep", "60"]}, bench.name
    )["Id"]
    engine.client.start(theirs)
    bench.start_helper()
    with pytest.raises(LotaBotsError) as failure:
        bench.ask_helper("start")
    assert failure.value.code is Code.ENGINE_REFUSED
    assert "docker rename" in failure.value.hint
    bench.ask_helper("stop")
    assert engine.inspect(theirs)["State"]["Running"]


def test_without_a_gpu_the_engine_receives_the_request_for_one_and_refuses(
    folder: Path, engine: ContainerEngine, image: Saved
) -> None:
    """No GPU here: what is proved is what the engine is asked for, not that a GPU arrives."""
    bench = ContainerBench(folder, engine, image, gpus=[GPU])
    try:
        bench.start_helper()
        with pytest.raises(LotaBotsError, match="device driver") as failure:
            bench.ask_helper("start")
        assert failure.value.code is Code.ENGINE_REFUSED
        requests = engine.inspect(bench.name)["HostConfig"]["DeviceRequests"]
        assert [(each["Driver"], each["DeviceIDs"]) for each in requests] == [("nvidia", [GPU])]
    finally:
        bench.clear()


def test_a_configuration_that_others_can_write_starts_nothing(
    folder: Path, engine: ContainerEngine, image: Saved
) -> None:
    bench = ContainerBench(folder, engine, image)
    bench.config_file.chmod(0o664)
    with pytest.raises(AssertionError, match="must belong to root, and nobody else may write it"):
        bench.start_helper()
    wait_for(lambda: not bench.paths.helper_socket.exists(), 1, "it never listened")
