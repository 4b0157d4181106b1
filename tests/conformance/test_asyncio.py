"""Unmodified `tritonclient.http.aio` programs: the gate answers them as bare Triton does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.required

MODEL = "page_orientation"
INPUT, OUTPUT = "x", "fetch_name_0"
Program = Callable[[triton.InferenceServerClient, dict[str, str]], Awaitable[Any]]


def answers(both: Any, program: Program) -> tuple[Any, Any]:
    """What a program gets from bare Triton and from the gate."""

    async def run(side: Any) -> Any:
        async with triton.InferenceServerClient(side.address) as client:
            return await program(client, dict(side.headers))

    return asyncio.run(run(both.triton)), asyncio.run(run(both.gate))


def given(rows: int, *, binary: bool = True) -> list[triton.InferInput]:
    """The same noise each time."""
    batch = np.random.default_rng(rows).normal(size=(rows, 3, 224, 224)).astype(np.float32)
    tensor = triton.InferInput(INPUT, list(batch.shape), "FP32")
    tensor.set_data_from_numpy(batch, binary_data=binary)
    return [tensor]


def test_a_newcomers_walk_through_the_server(both: Any) -> None:
    async def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        config = await client.get_model_config(MODEL, headers=headers)
        return [
            await client.is_server_live(headers=headers),
            await client.is_server_ready(headers=headers),
            await client.is_model_ready(MODEL, headers=headers),
            await client.get_model_metadata(MODEL, headers=headers),
            (config["name"], config["max_batch_size"], config["input"], config["output"]),
            sorted((await client.get_inference_statistics(MODEL, headers=headers))["model_stats"][0]),
            sorted(model["name"] for model in await client.get_model_repository_index(headers=headers)),
        ]

    bare, gated = answers(both, program)
    assert gated == bare


@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "JSON out"])
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary in", "JSON in"])
def test_tensors_travel_as_bytes_and_as_json(both: Any, binary_in: bool, binary_out: bool) -> None:
    async def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        wanted = [triton.InferRequestedOutput(OUTPUT, binary_data=binary_out)]
        result = await client.infer(MODEL, given(1, binary=binary_in), outputs=wanted, headers=headers)
        return result.as_numpy(OUTPUT)

    bare, gated = answers(both, program)
    np.testing.assert_allclose(gated, bare, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("response", ["gzip", "deflate"])
@pytest.mark.parametrize("request_", ["gzip", "deflate"])
def test_compression_changes_no_number(both: Any, request_: str, response: str) -> None:
    async def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        result = await client.infer(
            MODEL,
            given(1),
            headers=headers,
            request_compression_algorithm=request_,
            response_compression_algorithm=response,
        )
        return result.as_numpy(OUTPUT)

    bare, gated = answers(both, program)
    np.testing.assert_allclose(gated, bare, rtol=1e-5, atol=1e-7)


def test_requests_at_the_same_time_get_their_own_answers(both: Any) -> None:
    sizes = (1, 2, 3, 4, 16, 3, 2, 1)

    async def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        results = await asyncio.gather(
            *(client.infer(MODEL, given(rows), headers=dict(headers)) for rows in sizes)
        )
        return [result.as_numpy(OUTPUT) for result in results]

    bare, gated = answers(both, program)
    assert [len(scores) for scores in gated] == list(sizes)
    for one, other in zip(bare, gated, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)


def test_several_tensors_travel_in_every_mix_at_the_same_time(both: Any) -> None:
    left = np.arange(8, dtype=np.int32).reshape(2, 4)
    right = left[::-1].copy()
    mixes = [(one, other) for one in (True, False) for other in (True, False)]

    async def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        async def ask(mix: tuple[bool, bool]) -> Any:
            inputs, outputs = [], []
            for name, array, out, binary in zip(
                ("left", "right"), (left, right), ("sum", "difference"), mix, strict=True
            ):
                tensor = triton.InferInput(name, [2, 4], "INT32")
                tensor.set_data_from_numpy(array, binary_data=binary)
                inputs.append(tensor)
                outputs.append(triton.InferRequestedOutput(out, binary_data=not binary))
            result = await client.infer("add_sub", inputs, outputs=outputs, headers=dict(headers))
            return (
                result.get_response(),
                result.as_numpy("sum").tolist(),
                result.as_numpy("difference").tolist(),
            )

        return await asyncio.gather(*(ask(mix) for mix in mixes))

    bare, gated = answers(both, program)
    assert gated == bare
    assert all(found[1:] == ((left + right).tolist(), (left - right).tolist()) for found in gated)


def test_a_wrong_shape_is_an_error_that_says_the_right_one(both: Any) -> None:
    async def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        tensor = triton.InferInput(INPUT, [1, 2], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 2), dtype=np.float32))
        with pytest.raises(InferenceServerException) as caught:
            await client.infer(MODEL, [tensor], headers=headers)
        return caught.value

    bare, gated = answers(both, program)
    assert bare.status() == gated.status() == "400"
    assert "[batch, 3, 224, 224]" in gated.message()
