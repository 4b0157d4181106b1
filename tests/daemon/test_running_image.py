"""Which image Triton runs from: asked once per run, said of that run alone, and told to the gate."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lotabotsd.attestation.evidence import Image
from lotabotsd.daemon.evidence import runtime_evidence
from lotabotsd.daemon.rounds import Rounds
from lotabotsd.daemon.running_image import (
    RECEIPT_GPUS,
    RETRY_SECONDS,
    RunningImage,
    candidate_gpus,
    image_of,
    receipt_gpus,
    receipt_image,
)
from lotabotsd.daemon.wiring import open_gate
from lotabotsd.foundation.config import RuntimeConfig
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.sockets import bind_unix
from lotabotsd.policy.reader import PolicyReader
from lotabotsd.runtime.helper import serve_host
from lotabotsd.runtime.messages import NO_RUN, RunFacts
from lotabotsd.runtime.plan import Desired, Observed
from lotabotsd.runtime.seen import Seen, seen_from

ID, MANIFEST = f"sha256:{'ab' * 32}", f"sha256:{'cd' * 32}"
GPUS = tuple(f"GPU-00000000-1111-2222-3333-{number:012d}" for number in range(RECEIPT_GPUS + 1))
STOPPED = seen_from(Observed(), Desired(running=True, start_timeout_ns=1), "", None, 0)


def answer(image: str = ID, image_id: str = ID, kind: str = "container") -> dict[str, Any]:
    return {
        "kind": kind,
        "production": True,
        "versions": {"engine": "20.10", "image": image, "image_id": image_id},
    }


def running(run_id: str, state: str = "ready") -> Seen:
    return dataclasses.replace(STOPPED, state=state, pid=7, run_id=run_id, version="2.60.0")


@pytest.mark.parametrize(
    ("said", "image"),
    [
        (answer(), Image(ID, "", ID)),
        (answer(f"r.example/triton@{MANIFEST}"), Image(f"r.example/triton@{MANIFEST}", MANIFEST, ID)),
        # an engine that keeps images by their manifests
        (
            answer(f"r.example/triton@{MANIFEST}", MANIFEST),
            Image(f"r.example/triton@{MANIFEST}", MANIFEST, ""),
        ),
        (answer(kind="embedded"), None),
        ({"kind": "embedded", "versions": {"python": "3.11"}}, None),
        (answer(image_id="latest"), None),
        (answer(image_id=ID + "0"), None),
        ({"kind": "container"}, None),
        ({"kind": "container", "versions": "2"}, None),
        ({}, None),
    ],
)
def test_the_helpers_answer_names_the_image_by_what_is_known(
    said: dict[str, Any], image: Image | None
) -> None:
    assert image_of(said) == image


def test_a_receipt_names_the_configuration_or_else_the_manifest() -> None:
    assert receipt_image(Image("r", MANIFEST, ID)) == ID
    assert receipt_image(Image("r", MANIFEST, "")) == MANIFEST
    assert receipt_image(None) == ""


def test_the_candidates_are_the_gpus_that_triton_was_given() -> None:
    assert candidate_gpus(RuntimeConfig(kind="container", gpus=GPUS)) == GPUS
    assert candidate_gpus(RuntimeConfig(kind="embedded", gpus=GPUS)) == ()


def test_a_receipt_names_all_candidates_or_none() -> None:
    fitting = GPUS[:RECEIPT_GPUS]
    assert receipt_gpus(RuntimeConfig(kind="container", gpus=fitting)) == fitting
    assert receipt_gpus(RuntimeConfig(kind="container", gpus=GPUS)) == ()


def test_the_evidence_names_image_and_candidates_of_what_runs() -> None:
    config, image = RuntimeConfig(kind="container", gpus=GPUS), Image("r", MANIFEST, ID)
    found = runtime_evidence(config, running("r1"), image)
    assert (found.kind, found.running, found.version) == ("container", True, "2.60.0")
    assert (found.image, found.gpus) == (image, GPUS)
    assert runtime_evidence(config, running("r1", "backing_off"), image).image is None


class Helper:
    """Says what it is told to, and notes how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: LotaBotsError | None = None
        self.silent = False
        self.image_id = ID

    async def ensure(self) -> dict[str, Any]:
        self.asked += 1
        if self.silent:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        return answer(self.image_id, self.image_id)


def test_it_is_asked_once_for_each_run(clock) -> None:
    helper = Helper()
    image = RunningImage(helper.ensure, clock)

    async def looks() -> None:
        await image.look(STOPPED)
        assert (helper.asked, image.of("")) == (0, None)
        await image.look(running("r1", "starting"))
        await image.look(running("r1"))
        assert (helper.asked, image.of("r1")) == (1, Image(ID, "", ID))
        assert image.of("r2") is None, "another run may be of another image"
        helper.image_id = MANIFEST
        await image.look(running("r2"))
        assert (helper.asked, image.of("r2")) == (2, Image(MANIFEST, "", MANIFEST))
        assert image.of("r1") is None

    asyncio.run(looks())


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "says nothing"])
def test_a_helper_that_cannot_say_is_told_once_and_asked_again_later(clock, caplog, silent) -> None:
    helper = Helper()
    helper.failure, helper.silent = LotaBotsError(Code.ENGINE_UNAVAILABLE, "no engine"), silent
    image = RunningImage(helper.ensure, clock, ask_seconds=0.01)

    async def looks() -> None:
        for _ in range(3):
            await image.look(running("r1"))
        assert helper.asked == 1
        clock.advance(RETRY_SECONDS)
        await image.look(running("r1"))
        assert (helper.asked, image.of("r1")) == (2, None)
        helper.failure, helper.silent = None, False
        clock.advance(RETRY_SECONDS)
        await image.look(running("r1"))
        assert image.of("r1") == Image(ID, "", ID)

    asyncio.run(looks())
    assert len([record for record in caplog.records if "is not known" in record.message]) == 1


class Host(Helper):
    """A helper's other side, whose Triton never answers."""

    run = NO_RUN

    async def start(self) -> dict[str, Any]:
        self.run = RunFacts("r1", running=True, pid=7, secret="s")
        return self.run.to_dict()

    async def inspect(self) -> dict[str, Any]:
        return self.run.to_dict()

    async def stop(self) -> dict[str, Any]:
        return NO_RUN.to_dict()

    async def promote(self) -> dict[str, Any]:
        return self.run.to_dict()

    async def logs(self) -> dict[str, Any]:
        return {"lines": []}

    async def close(self) -> None:
        pass


def beside(appliance: Any, host: Host, story: Callable[[], Awaitable[None]]) -> None:
    """Tell a story while the helper answers on its socket."""

    async def both() -> None:
        stop = asyncio.Event()
        listener = bind_unix(appliance.config.paths.helper_socket)
        served = asyncio.create_task(serve_host(host, listener, frozenset({os.geteuid()}), stop))
        try:
            async with asyncio.timeout(60.0):
                await story()
        finally:
            stop.set()
            await served

    asyncio.run(both())


def test_the_gate_is_told_the_image_at_once_and_again_when_it_changes(appliance) -> None:
    open_gate(appliance, triton_runs=False)
    rounds, host = Rounds(appliance), Host()
    reader = PolicyReader(appliance.config.paths.policy_db)
    reader.open()

    def published() -> str:
        reader.refresh()
        return reader.instance().image

    async def story() -> None:
        assert published() == ""
        while not host.asked:
            await rounds.supervise()
        assert published() == ID
        generation = appliance.publishing.generation()
        await rounds.supervise()
        await rounds.keep_policy()
        assert appliance.publishing.generation() == generation, "nothing changed"
        # another run, of another image
        host.image_id, host.run = MANIFEST, dataclasses.replace(host.run, run_id="r2")
        while host.asked < 2:
            await rounds.supervise()
        assert published() == MANIFEST

    beside(appliance, host, story)
    reader.close()
