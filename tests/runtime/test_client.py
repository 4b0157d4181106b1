"""The control client against a simulated Triton: every answer and every way of not answering."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.canary import Canary, CanaryTensor
from lotabotsd.runtime.client import UNNAMED, Counted, ModelState, TritonClient
from lotabotsd.runtime.command import SECRET_HEADER

T = TypeVar("T")
CANARY = Canary((CanaryTensor("x", "FP32", (1, 3)),), (CanaryTensor("scores", "FP32", (1, 4)),))
STATISTICS = {"inference_stats": {"success": {"count": 1}}}
MODELS = {"m": [["scores", "FP32", [-1, 4]]]}


class World:
    """A simulated Triton, a client of it, and the outcome of asking."""

    def __init__(self, simulator: ModuleType, directory: Path) -> None:
        self.simulator = simulator
        self.path = directory / "http.sock"
        self.script: dict[str, Any] = {"models": MODELS}
        self.asked: list[tuple[str, str]] = []
        self.streamed: list[Any] = []
        self.client = self.client_of(30)

    def client_of(self, patience_seconds: float) -> TritonClient:
        """A client that waits so long for any answer."""
        return TritonClient(
            self.path,
            lambda: "s3cret",
            load_timeout_seconds=patience_seconds,
            probe_timeout_seconds=patience_seconds,
            canary_timeout_seconds=patience_seconds,
        )

    def run(self, *questions: Coroutine[Any, Any, Any]) -> list[Any]:
        """Ask one after the other; a failure is its code."""

        async def ask() -> list[Any]:
            found: list[Any] = []
            triton = self.simulator.TritonSimulator(self.path, self.script, secret=(SECRET_HEADER, "s3cret"))
            async with triton:
                for question in questions:
                    try:
                        found.append(await question)
                    except LotaBotsError as error:
                        found.append((error.code, error.detail))
            self.asked = triton.asked
            self.streamed = triton.streamed
            return found

        return asyncio.run(ask())


@pytest.fixture
def world(simulator: ModuleType, short: Path) -> World:
    return World(simulator, short)


def test_a_model_is_loaded_listed_asked_and_unloaded(world: World) -> None:
    client = world.client
    live, version, loaded, index, canary, statistics, unloaded, after = world.run(
        client.live(),
        client.version(),
        client.load("m"),
        client.index(),
        client.canary("m", CANARY),
        client.statistics("m"),
        client.unload("m"),
        client.index(),
    )
    assert (live, version, loaded, canary, unloaded) == (True, "0.0-simulated", None, "", None)
    assert index["m"].state == "READY"
    assert statistics["model_stats"][0]["name"] == "m"
    assert (after["m"].state, after["m"].reason) == ("UNAVAILABLE", "unloaded")


class Told:
    """Who is told of our own requests, and in which order with them."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def asks(self, model: str) -> None:
        self.told.append(f"asks {model}")

    async def loads(self, model: str) -> None:
        self.told.append(f"loads {model}")


def test_what_triton_counts_is_read_for_all_models_at_once(world: World) -> None:
    client = world.client
    empty, *_, counted, _, anew = world.run(
        client.counters(),
        client.load("m"),
        client.canary("m", CANARY),
        client.canary("m", CANARY),
        client.counters(),
        client.load("m"),
        client.counters(),
    )
    assert empty == {}
    assert counted == {"m": {"1": Counted(2, 2)}}
    assert anew == {"m": {"1": Counted(0, 0)}}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"model_stats": [{"name": "m"}]},
        {"model_stats": [{"name": "m", "version": "1", "inference_count": -1, **STATISTICS}]},
        {"model_stats": [{"name": "m", "version": "1", "inference_count": "1", **STATISTICS}]},
        {"model_stats": [{"name": "m", "version": "1", "inference_count": True, **STATISTICS}]},
    ],
)
def test_statistics_of_another_form_are_no_numbers(world: World, answer: Any) -> None:
    world.script["statistics"] = answer
    (found,) = world.run(world.client.counters())
    assert found == (Code.RUNTIME_UNAVAILABLE, "its statistics cannot be read")


def row(name: Any = "m", version: Any = "1", rows: int = 1) -> dict[str, Any]:
    return {"name": name, "version": version, "inference_count": rows, **STATISTICS}


@pytest.mark.parametrize("name", ["\ud800", "", "m" * 129, "a/b", "m\n", "ä", 7, None, [[]]])
def test_a_model_by_a_name_that_no_package_has_is_live_and_counted_nowhere(world: World, name: Any) -> None:
    world.script["statistics"] = {"model_stats": [row(name), row("m" * 128)]}
    (found,) = world.run(world.client.counters())
    assert found == {UNNAMED: {}, "m" * 128: {"1": Counted(1, 1)}}


@pytest.mark.parametrize("version", ["", "\ud800", "-1", "9" * 19, "١", 1, None])
def test_a_version_that_is_no_short_number_is_passed_over(world: World, version: Any) -> None:
    world.script["statistics"] = {"model_stats": [row(version=version), row(version="2")]}
    (found,) = world.run(world.client.counters())
    assert found == {"m": {"2": Counted(1, 1)}}


def test_a_counter_beyond_48_bits_is_passed_over_and_its_model_is_live(world: World) -> None:
    world.script["statistics"] = {"model_stats": [row(rows=(1 << 48) - 1), row("n", rows=1 << 48)]}
    (found,) = world.run(world.client.counters())
    assert found == {"m": {"1": Counted(1, (1 << 48) - 1)}, "n": {}}


def test_of_one_model_no_more_than_64_versions_are_counted(world: World) -> None:
    world.script["statistics"] = {"model_stats": [row(version=str(number)) for number in range(65)]}
    (found,) = world.run(world.client.counters())
    assert list(found["m"]) == [str(number) for number in range(64)]


def test_whoever_counts_our_own_requests_is_told_before_each(world: World) -> None:
    told = Told()
    client = TritonClient(world.path, lambda: "s3cret", load_timeout_seconds=5, asking=told)
    stream = Canary(CANARY.inputs, CANARY.outputs, decoupled=True)
    unsayable = Canary((CanaryTensor("x", "FP16", (1, 3)),), CANARY.outputs, decoupled=True)
    world.run(
        client.load("m"),
        client.canary("m", CANARY),
        client.canary("m", stream),
        client.canary("m", unsayable),  # only asks whether the model is ready: Triton counts nothing
        client.unload("m"),
    )
    assert told.told == ["loads m", "asks m", "asks m", "loads m"]


def test_no_connection_is_kept_open(world: World) -> None:
    async def ask() -> int:
        async with world.simulator.TritonSimulator(world.path) as triton:
            await world.client.live()
            await world.client.version()
            for _ in range(20):  # the server's side closes when it has read our close
                await asyncio.sleep(0)
            return len(triton._writers)

    assert asyncio.run(ask()) == 0


def test_without_the_secret_nothing_is_told(world: World) -> None:
    stranger = TritonClient(world.path, lambda: "guess", load_timeout_seconds=1)
    (index, load) = world.run(stranger.index(), stranger.load("m"))
    assert index[0] is Code.RUNTIME_UNAVAILABLE
    assert load == (Code.MODEL_FAILED, f"This API is restricted, expecting header '{SECRET_HEADER}'")


def test_a_python_traceback_is_left_out_of_a_reason(world: World) -> None:
    world.script["load"] = {
        "m": ["error: InvalidProtobuf: parsing\nfailed.\n\nAt:\n  /x/model.py(38): initialize"]
    }
    assert world.run(world.client.load("m")) == [(Code.MODEL_FAILED, "InvalidProtobuf: parsing failed.")]


def test_a_failed_load_brings_triton_s_own_reason(world: World) -> None:
    world.script["load"] = {"m": ["error: failed to load 'm', no version is available"]}
    (load, index) = world.run(world.client.load("m"), world.client.index())
    assert load == (Code.MODEL_FAILED, "failed to load 'm', no version is available")
    assert index["m"].state == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        ("nan", "not finite"),
        ("cut", "ends too early"),
        ("error: Stub process is not healthy", "Stub process is not healthy"),
    ],
)
def test_a_wrong_canary_says_what_is_wrong(world: World, outcome: str, told: str) -> None:
    world.script["infer"] = {"m": [outcome]}
    _, wrong = world.run(world.client.load("m"), world.client.canary("m", CANARY))
    assert told in wrong


def test_a_full_queue_is_told_apart_from_a_broken_model(world: World) -> None:
    world.script["infer"] = {"m": ["busy"]}
    _, busy = world.run(world.client.load("m"), world.client.canary("m", CANARY))
    assert busy == (Code.OVERLOADED, "Exceeds maximum queue size")


STREAM = Canary(
    (CanaryTensor("count", "INT32", (1,)), CanaryTensor("text", "BYTES", (1,))), (), decoupled=True
)


def test_a_decoupled_model_is_asked_for_a_stream_and_its_beginning_counts(world: World) -> None:
    world.script["stream"] = {"m": ["ok", "error: Stub process is not healthy", "busy", "hang"]}
    ask = world.client.canary
    found = world.run(
        world.client.load("m"),
        *(ask("m", STREAM) for _ in range(3)),
        world.client_of(0.2).canary("m", STREAM),
    )
    assert found[1:3] == ["", "Stub process is not healthy"]
    assert found[3] == (Code.OVERLOADED, "Exceeds maximum queue size")
    assert found[4][0] is Code.RUNTIME_TIMEOUT
    assert world.streamed == [{"count": [0], "text": [""]}] * 4


def test_a_decoupled_model_whose_inputs_are_no_json_is_believed_when_triton_calls_it_ready(
    world: World,
) -> None:
    half = Canary((CanaryTensor("x", "FP16", (1,)),), (), decoupled=True)
    missing, _, ready = world.run(
        world.client.canary("m", half), world.client.load("m"), world.client.canary("m", half)
    )
    assert (missing, ready) == ("it is not ready", "")
    assert world.streamed == []


def test_a_server_that_hangs_is_given_up_in_time(world: World) -> None:
    world.script |= {"live": ["hang"], "load": {"m": ["ok", "hang"]}, "infer": {"m": ["hang"]}}
    hasty = world.client_of(0.2)
    live, _, canary, load = world.run(
        hasty.live(), world.client.load("m"), hasty.canary("m", CANARY), hasty.load("m")
    )
    assert live is False
    assert canary[0] is Code.RUNTIME_TIMEOUT
    assert load[0] is Code.RUNTIME_TIMEOUT
    assert "0.2 s" in load[1]


def test_a_server_that_dies_in_the_middle_is_unavailable(world: World) -> None:
    world.script["load"] = {"m": ["die"]}
    (load, live) = world.run(world.client.load("m"), world.client.live())
    assert load[0] is Code.RUNTIME_UNAVAILABLE
    assert live is False


def test_an_unhealthy_server_is_not_live(world: World) -> None:
    world.script["live"] = ["error"]
    assert world.run(world.client.live()) == [False]


def test_no_server_at_all_is_unavailable(world: World) -> None:
    async def ask() -> bool:
        with pytest.raises(LotaBotsError) as refused:
            await world.client.index()
        assert refused.value.code is Code.RUNTIME_UNAVAILABLE
        return await world.client.live()

    assert asyncio.run(ask()) is False


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{{{",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
)
def test_an_answer_that_is_none_is_unavailable_or_empty_and_never_a_crash(world: World, raw: bytes) -> None:
    assert answered(world, raw, world.client.index()) in (Code.RUNTIME_UNAVAILABLE, {})


def answered(world: World, raw: bytes, question: Coroutine[Any, Any, Any]) -> Any:
    """What becomes of a question to a Triton that answers these bytes; a failure is its code."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    async def ask() -> Any:
        server = await asyncio.start_unix_server(serve, world.path)
        try:
            return await question
        except LotaBotsError as error:
            return error.code
        finally:
            server.close()

    return asyncio.run(ask())


def http(body: bytes, status: int = 200, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


DEEP = b"[" * 100_000 + b"]" * 100_000


def test_json_that_is_nested_too_deeply_is_no_json(world: World) -> None:
    client = world.client
    for question in (client.counters(), client.index(), client.version(), client.statistics("m")):
        assert answered(world, http(DEEP), question) is Code.RUNTIME_UNAVAILABLE
    assert answered(world, http(b'{"error":' + DEEP + b"}", 500), client.load("m")) is Code.MODEL_FAILED
    assert answered(world, http(DEEP), client.canary("m", CANARY)) == (
        "the answer cannot be read (RecursionError)"
    )


def test_an_index_of_another_form_names_no_model(world: World) -> None:
    others = b'5, null, "m", {}, {"name": 7}, {"name": "\\ud800"}'
    rows = b"[" + others + b', {"name": "m", "reason": "a\\ud800", "state": 1}]'
    assert answered(world, http(rows), world.client.index()) == {"m": ModelState("", "a?")}


@pytest.mark.parametrize("body", [b"[]", b"5", b'"2.51"', b"null", b'{"version": 5}'])
def test_a_version_of_another_form_is_none(world: World, body: bytes) -> None:
    assert answered(world, http(body), world.client.version()) == ""


@pytest.mark.parametrize("length", ["\xb2", "9" * 5_000, "-1", ""])
def test_a_length_that_is_none_is_that_of_the_whole_answer(world: World, length: str) -> None:
    raw = http(b"{}", headers=f"Inference-Header-Content-Length: {length}\r\n")
    assert answered(world, raw, world.client.canary("m", CANARY)) == "the answer cannot be read (KeyError)"


def test_a_tensor_of_endless_size_is_no_answer(world: World) -> None:
    raw = http(b'{"outputs": [{"name": "scores", "parameters": {"binary_data_size": 1e999}}]}')
    assert answered(world, raw, world.client.canary("m", CANARY)) == (
        "the answer cannot be read (OverflowError)"
    )


def test_what_triton_says_of_a_failure_can_be_written_everywhere(world: World) -> None:
    raw = http(b'{"error": "out\\ud800 of\\nmemory"}', 500)
    assert answered(world, raw, world.client.canary("m", CANARY)) == "out? of memory"
