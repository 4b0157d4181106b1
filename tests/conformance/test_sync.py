"""Unmodified `tritonclient.http` programs: the gate answers them as bare Triton does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from doors import Program, failure

pytestmark = pytest.mark.required

MODEL = "page_orientation"
INPUT, OUTPUT = "x", "fetch_name_0"
MAX_BATCH = 16
# What the gate takes out of configurations: an owner of a key need not know it of the host.
PRIVATE = {
    "parameters",
    "model_repository_agents",
    "model_operations",
    "default_model_filename",
    "cc_model_filenames",
}


def pictures(rows: int) -> np.ndarray:
    """The same noise each time, of the order that normalised pixels have."""
    return np.random.default_rng(rows).normal(size=(rows, 3, 224, 224)).astype(np.float32)


def given(batch: np.ndarray, *, binary: bool = True) -> list[triton.InferInput]:
    """The batch as the client library sends it."""
    tensor = triton.InferInput(INPUT, list(batch.shape), "FP32")
    tensor.set_data_from_numpy(batch, binary_data=binary)
    return [tensor]


def same_numbers(bare: np.ndarray, gated: np.ndarray, shape: tuple[int, ...]) -> None:
    assert bare.shape == gated.shape == shape
    assert bare.dtype == gated.dtype
    np.testing.assert_allclose(gated, bare, rtol=1e-5, atol=1e-7)


# -- asking about the server and its models
@pytest.mark.parametrize(
    "program",
    [
        lambda c, h: c.is_server_live(headers=h),
        lambda c, h: c.is_server_ready(headers=h),
        lambda c, h: c.is_model_ready(MODEL, headers=h),
        lambda c, h: c.is_model_ready(MODEL, "1", headers=h),
    ],
    ids=["server live", "server ready", "model ready", "version ready"],
)
def test_what_is_up_is_up_on_both_sides(answers: Any, program: Program) -> None:
    assert answers(program) == (True, True)


@pytest.mark.parametrize(("name", "version"), [(MODEL, "7"), ("no_such_model", ""), ("no_such_model", "1")])
def test_what_is_not_there_is_not_ready_on_either_side(answers: Any, name: str, version: str) -> None:
    assert answers(lambda c, h: c.is_model_ready(name, version, headers=h)) == (False, False)


def test_no_key_is_needed_to_ask_whether_the_server_lives_and_is_ready(both: Any) -> None:
    client = triton.InferenceServerClient(both.gate.address)
    assert client.is_server_live()
    assert client.is_server_ready()
    client.close()


def test_the_server_says_who_it_is_and_no_extension_that_it_refuses(answers: Any) -> None:
    bare, gated = answers(lambda c, h: c.get_server_metadata(headers=h))
    assert set(gated) == set(bare) == {"name", "version", "extensions"}
    assert gated["name"] == "lotabots"
    # Triton 2.51 does not list `generate`, which it has.
    assert set(gated["extensions"]) - {"generate"} < set(bare["extensions"])
    assert not {"model_repository", "system_shared_memory", "cuda_shared_memory", "trace", "logging"} & set(
        gated["extensions"]
    )


@pytest.mark.parametrize("version", ["", "1"])
def test_model_metadata_is_the_same(answers: Any, version: str) -> None:
    bare, gated = answers(lambda c, h: c.get_model_metadata(MODEL, version, headers=h))
    assert gated == bare
    assert gated["inputs"] == [{"name": INPUT, "datatype": "FP32", "shape": [-1, 3, 224, 224]}]


@pytest.mark.parametrize("version", ["", "1"])
def test_model_configuration_is_the_same_but_for_what_is_of_the_host(answers: Any, version: str) -> None:
    bare, gated = answers(lambda c, h: c.get_model_config(MODEL, version, headers=h))
    assert gated == {name: value for name, value in bare.items() if name not in PRIVATE}
    assert gated["max_batch_size"] == MAX_BATCH


@pytest.mark.parametrize("version", ["", "1"])
def test_statistics_have_the_same_shape(answers: Any, version: str) -> None:
    bare, gated = answers(lambda c, h: c.get_inference_statistics(MODEL, version, headers=h))
    assert keys_of(gated) == keys_of(bare)
    assert gated["model_stats"][0]["name"] == MODEL


def test_statistics_of_all_models_have_the_same_shape(answers: Any) -> None:
    bare, gated = answers(lambda c, h: c.get_inference_statistics(headers=h))
    names = [(stats["name"], stats["version"]) for stats in gated["model_stats"]]
    assert names == [(stats["name"], stats["version"]) for stats in bare["model_stats"]]
    assert keys_of(gated) == keys_of(bare)


def keys_of(value: Any) -> Any:
    """A value without its numbers and texts; lists by their first item, for batch sizes come and go."""
    if isinstance(value, dict):
        return {name: keys_of(content) for name, content in value.items() if name != "batch_stats"}
    return [keys_of(value[0])] if isinstance(value, list) and value else None


def test_the_repository_index_lists_the_same_models(answers: Any) -> None:
    bare, gated = answers(lambda c, h: c.get_model_repository_index(headers=h))
    assert {"name": MODEL, "version": "1", "state": "READY"} in gated
    assert [model["version"] for model in gated if model["name"] == "versioned"] == ["1", "3"]
    shown = [{name: model.get(name) for name in gated[0]} for model in bare]
    assert sorted(shown, key=str) == sorted(gated, key=str)


# -- inference
@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "JSON out"])
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary in", "JSON in"])
def test_tensors_travel_as_bytes_and_as_json(answers: Any, binary_in: bool, binary_out: bool) -> None:
    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        wanted = [triton.InferRequestedOutput(OUTPUT, binary_data=binary_out)]
        result = client.infer(MODEL, given(pictures(1), binary=binary_in), outputs=wanted, headers=headers)
        return result.get_response(), result.as_numpy(OUTPUT)

    (bare, bare_scores), (gated, gated_scores) = answers(program)
    same_numbers(bare_scores, gated_scores, (1, 4))
    for response in (bare, gated):
        response["outputs"][0].pop("data", None)
    assert gated == bare


@pytest.mark.parametrize("rows", [1, 2, 7, MAX_BATCH])
def test_every_batch_up_to_the_largest(answers: Any, rows: int) -> None:
    bare, gated = answers(lambda c, h: c.infer(MODEL, given(pictures(rows)), headers=h).as_numpy(OUTPUT))
    same_numbers(bare, gated, (rows, 4))


def test_without_requested_outputs_all_come_as_bytes(answers: Any) -> None:
    bare, gated = answers(lambda c, h: c.infer(MODEL, given(pictures(1)), headers=h).get_response())
    assert gated == bare
    assert [output["name"] for output in gated["outputs"]] == [OUTPUT]
    assert gated["outputs"][0]["parameters"] == {"binary_data_size": 16}


@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "JSON out"])
@pytest.mark.parametrize("classes", [1, 4])
def test_the_classification_extension_names_the_same_classes(
    answers: Any, classes: int, binary_out: bool
) -> None:
    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        wanted = [triton.InferRequestedOutput(OUTPUT, binary_data=binary_out, class_count=classes)]
        return client.infer(MODEL, given(pictures(2)), outputs=wanted, headers=headers).as_numpy(OUTPUT)

    bare, gated = answers(program)
    assert bare.shape == gated.shape == (2, classes)
    for one, other in zip(bare.flat, gated.flat, strict=True):
        (score, *name), (other_score, *other_name) = (_text(value).split(":") for value in (one, other))
        assert name == other_name
        assert float(score) == pytest.approx(float(other_score), rel=1e-4)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def test_a_version_is_chosen_by_its_number(answers: Any) -> None:
    bare, gated = answers(
        lambda c, h: c.infer(MODEL, given(pictures(1)), model_version="1", headers=h).get_response()
    )
    assert gated == bare
    assert gated["model_version"] == "1"


def test_the_request_id_comes_back(answers: Any) -> None:
    bare, gated = answers(
        lambda c, h: c.infer(MODEL, given(pictures(1)), request_id="order-1", headers=h).get_response()
    )
    assert gated["id"] == bare["id"] == "order-1"


@pytest.mark.parametrize("response", [None, "gzip", "deflate"])
@pytest.mark.parametrize("request_", [None, "gzip", "deflate"])
def test_compression_changes_no_number(answers: Any, request_: str | None, response: str | None) -> None:
    bare, gated = answers(
        lambda c, h: c.infer(
            MODEL,
            given(pictures(1)),
            headers=h,
            request_compression_algorithm=request_,
            response_compression_algorithm=response,
        ).as_numpy(OUTPUT)
    )
    same_numbers(bare, gated, (1, 4))


def test_requests_in_parallel_get_their_own_answers(answers: Any) -> None:
    batches = [pictures(rows) for rows in (1, 2, 3, 4, 3, 2, 1)]

    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        waiting = [client.async_infer(MODEL, given(batch), headers=dict(headers)) for batch in batches]
        return [one.get_result().as_numpy(OUTPUT) for one in waiting]

    bare, gated = answers(program)
    for batch, one, other in zip(batches, bare, gated, strict=True):
        same_numbers(one, other, (len(batch), 4))


def test_query_parameters_do_no_harm(answers: Any) -> None:
    bare, gated = answers(
        lambda c, h: c.infer(MODEL, given(pictures(1)), headers=h, query_params={"a": "b"}).as_numpy(OUTPUT)
    )
    same_numbers(bare, gated, (1, 4))


# -- what is refused
@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 3, 224, 223), "[batch, 3, 224, 224]"),
        ((3, 224, 224), "[batch, 3, 224, 224]"),
        ((1, 3, 224, 224, 1), "[batch, 3, 224, 224]"),
        ((MAX_BATCH + 1, 3, 224, 224), "1 to 16"),
    ],
    ids=["another size", "no batch", "one dimension more", "one row too many"],
)
def test_a_wrong_shape_is_an_error_that_says_the_right_one(
    answers: Any, shape: tuple[int, ...], words: str
) -> None:
    batch = np.zeros(shape, dtype=np.float32)
    bare, gated = answers(lambda c, h: failure(lambda: c.infer(MODEL, given(batch), headers=h)))
    assert bare[0] == gated[0] == "400"
    assert INPUT in gated[1]
    assert words in gated[1]


def test_a_wrong_datatype_is_an_error_that_says_the_right_one(answers: Any) -> None:
    tensor = triton.InferInput(INPUT, [1, 3, 224, 224], "FP64")
    tensor.set_data_from_numpy(np.zeros((1, 3, 224, 224)))
    bare, gated = answers(lambda c, h: failure(lambda: c.infer(MODEL, [tensor], headers=h)))
    assert bare[0] == gated[0] == "400"
    assert "FP32" in gated[1]


@pytest.mark.parametrize(
    ("names", "words"),
    [(("y", OUTPUT), "no input 'y'"), ((INPUT, "nothing"), "no output 'nothing'")],
    ids=["input", "output"],
)
def test_an_unknown_tensor_is_an_error_that_names_it(
    answers: Any, names: tuple[str, str], words: str
) -> None:
    tensor = triton.InferInput(names[0], [1, 3, 224, 224], "FP32")
    tensor.set_data_from_numpy(pictures(1))
    wanted = [triton.InferRequestedOutput(names[1])]
    bare, gated = answers(lambda c, h: failure(lambda: c.infer(MODEL, [tensor], outputs=wanted, headers=h)))
    assert bare[0] == gated[0] == "400"
    assert words in gated[1]


@pytest.mark.parametrize(
    "program",
    [
        lambda c, h: c.infer(MODEL, given(pictures(1)), model_version="7", headers=h),
        lambda c, h: c.get_model_metadata(MODEL, "7", headers=h),
        lambda c, h: c.get_model_config(MODEL, "7", headers=h),
        lambda c, h: c.get_inference_statistics(MODEL, "7", headers=h),
        lambda c, h: c.infer("no_such_model", given(pictures(1)), headers=h),
        lambda c, h: c.get_model_metadata("no_such_model", headers=h),
    ],
    ids=["infer", "metadata", "configuration", "statistics", "infer no model", "metadata of no model"],
)
def test_what_is_not_there_is_an_error_and_nothing_to_try_again(answers: Any, program: Program) -> None:
    bare, gated = answers(lambda c, h: failure(lambda: program(c, h)))
    assert bare[0] in ("400", "404")
    assert gated[0] == "404"  # Triton says 400; a program sees the same exception
    assert "there is no such model" in gated[1]


@pytest.mark.parametrize(
    "program",
    [
        lambda c, h: c.load_model(MODEL, headers=h),
        lambda c, h: c.unload_model(MODEL, headers=h),
        lambda c, h: c.get_system_shared_memory_status(headers=h),
        lambda c, h: c.get_cuda_shared_memory_status(headers=h),
        lambda c, h: c.register_system_shared_memory("r", "/r", 16, headers=h),
        lambda c, h: c.unregister_system_shared_memory(headers=h),
        lambda c, h: c.get_trace_settings(headers=h),
        lambda c, h: c.update_trace_settings(settings={"trace_level": "OFF"}, headers=h),
        lambda c, h: c.get_log_settings(headers=h),
        lambda c, h: c.update_log_settings({"log_verbose_level": 1}, headers=h),
    ],
)
def test_control_of_the_server_has_no_route_at_the_gate(both: Any, program: Program) -> None:
    client = triton.InferenceServerClient(both.gate.address)
    status, message = failure(lambda: program(client, dict(both.gate.headers)))
    client.close()
    assert status == "404"
    assert "there is no such route" in message


def test_a_missing_and_a_wrong_key_are_errors_that_say_so(both: Any) -> None:
    client = triton.InferenceServerClient(both.gate.address)
    for headers, words in (({}, "an API key is needed"), ({"Authorization": "Bearer lb_x"}, "not known")):
        status, message = failure(lambda sent=headers: client.infer(MODEL, given(pictures(1)), headers=sent))
        assert status == "401"
        assert words in message
    client.close()
