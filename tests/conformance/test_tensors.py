"""Tensors of every kind, one by one and together: unmodified `tritonclient.http` sees no difference."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from doors import failure, post

pytestmark = pytest.mark.required

LEFT = np.array([[1, 2, 3, 4], [50, 60, -70, 80]], dtype=np.int32)
RIGHT = np.array([[4, 3, 2, 1], [-8, 0, 7, 2**31 - 100]], dtype=np.int32)
LABELS = {"north", "east", "south", "west"}
DATATYPES = {
    "BOOL": np.array([[True, False, True]]),
    "UINT8": np.array([[0, 1, 255]], dtype=np.uint8),
    "UINT16": np.array([[0, 1, 65_535]], dtype=np.uint16),
    "UINT32": np.array([[0, 1, 2**32 - 1]], dtype=np.uint32),
    "UINT64": np.array([[0, 1, 2**64 - 1]], dtype=np.uint64),
    "INT8": np.array([[-128, 0, 127]], dtype=np.int8),
    "INT16": np.array([[-(2**15), 0, 2**15 - 1]], dtype=np.int16),
    "INT32": np.array([[-(2**31), 0, 2**31 - 1]], dtype=np.int32),
    "INT64": np.array([[-(2**63), 0, 2**63 - 1]], dtype=np.int64),
    "FP16": np.array([[-65_504, 6e-8, np.inf]], dtype=np.float16),
    "FP32": np.array([[-1.5e38, 1e-45, 0.1]], dtype=np.float32),
    "FP64": np.array([[-1.5e308, 5e-324, 0.1]], dtype=np.float64),
}
MIXES = list(itertools.product([True, False], repeat=4))


def tensor(name: str, array: np.ndarray, datatype: str, *, binary: bool = True) -> triton.InferInput:
    """An input as the client library sends it."""
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def sides(left: np.ndarray = LEFT, right: np.ndarray = RIGHT, *binary: bool) -> list[triton.InferInput]:
    """Both inputs of add_sub."""
    first, second = binary or (True, True)
    return [tensor("left", left, "INT32", binary=first), tensor("right", right, "INT32", binary=second)]


def wanted(*names: str, **options: Any) -> list[triton.InferRequestedOutput]:
    """Outputs in this order."""
    return [triton.InferRequestedOutput(name, **options) for name in names]


def without_data(response: dict[str, Any]) -> dict[str, Any]:
    """A response without its numbers."""
    outputs = [{name: v for name, v in output.items() if name != "data"} for output in response["outputs"]]
    return {**response, "outputs": outputs}


# -- several inputs and outputs
@pytest.mark.parametrize(
    "mix", MIXES, ids=["".join("B" if binary else "J" for binary in mix) for mix in MIXES]
)
def test_each_tensor_travels_as_bytes_or_as_json_by_itself(answers: Any, mix: tuple[bool, ...]) -> None:
    outputs = [*wanted("sum", binary_data=mix[2]), *wanted("difference", binary_data=mix[3])]

    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        result = client.infer("add_sub", sides(LEFT, RIGHT, *mix[:2]), outputs=outputs, headers=headers)
        return result.get_response(), result.as_numpy("sum").tolist(), result.as_numpy("difference").tolist()

    bare, gated = answers(program)
    assert gated == bare
    assert gated[1:] == ((LEFT + RIGHT).tolist(), (LEFT - RIGHT).tolist())


@pytest.mark.parametrize(
    "names", [("sum",), ("difference",), ("sum", "difference"), ("difference", "sum"), ()], ids=str
)
def test_only_the_requested_outputs_come_in_the_order_that_triton_gives(
    answers: Any, names: tuple[str, ...]
) -> None:
    bare, gated = answers(
        lambda c, h: c.infer("add_sub", sides(), outputs=wanted(*names) or None, headers=h).get_response()
    )
    assert gated == bare
    assert {output["name"] for output in gated["outputs"]} == set(names or ("sum", "difference"))


def test_inputs_may_come_in_any_order(answers: Any) -> None:
    bare, gated = answers(
        lambda c, h: c.infer("add_sub", sides()[::-1], headers=h).as_numpy("difference").tolist()
    )
    assert gated == bare == (LEFT - RIGHT).tolist()


@pytest.mark.parametrize("inputs", [[0], [1], [0, 0]], ids=["no right", "no left", "left twice"])
def test_a_missing_and_a_repeated_input_are_refused_alike(answers: Any, inputs: list[int]) -> None:
    given = [sides()[index] for index in inputs]
    bare, gated = answers(lambda c, h: failure(lambda: c.infer("add_sub", given, headers=h)))
    assert bare[0] == gated[0] == "400"


def test_batches_of_two_sizes_in_one_request_are_refused_alike(answers: Any) -> None:
    bare, gated = answers(lambda c, h: failure(lambda: c.infer("add_sub", sides(LEFT, RIGHT[:1]), headers=h)))
    assert bare[0] == gated[0] == "400"


def test_an_empty_batch_is_refused_alike(answers: Any) -> None:
    empty = np.zeros((0, 4), dtype=np.int32)
    bare, gated = answers(lambda c, h: failure(lambda: c.infer("add_sub", sides(empty, empty), headers=h)))
    assert bare[0] == gated[0] == "400"
    assert "1 to 8" in gated[1]


def test_the_answers_of_several_tensors_are_the_same_byte_for_byte(both: Any) -> None:
    numbers = list(range(4))
    left = {"name": "left", "shape": [1, 4], "datatype": "INT32", "data": numbers}
    right = {
        "name": "right",
        "shape": [1, 4],
        "datatype": "INT32",
        "parameters": {"binary_data_size": 16},
    }
    outputs = [{"name": "sum", "parameters": {"binary_data": True}}, {"name": "difference"}]
    header = json.dumps({"id": "1", "inputs": [left, right], "outputs": outputs}).encode()
    body = header + np.array(numbers, dtype=np.int32).tobytes()
    length = {"Inference-Header-Content-Length": str(len(header))}
    bare, gated = (post(side, "/v2/models/add_sub/infer", body, length) for side in both.sides())
    assert gated[0] == bare[0] == 200
    assert gated[2] == bare[2]
    assert gated[1]["inference-header-content-length"] == bare[1]["inference-header-content-length"]


# -- classification
@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "JSON"])
@pytest.mark.parametrize("classes", [(2, 2), (4, 1), (0, 3)], ids=str)
def test_classes_of_several_outputs_are_named_alike(
    answers: Any, classes: tuple[int, int], binary: bool
) -> None:
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary, class_count=count)
        for name, count in zip(("sum", "difference"), classes, strict=True)
    ]

    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        result = client.infer("add_sub", sides(), outputs=outputs, headers=headers)
        return {name: result.as_numpy(name).tolist() for name in ("sum", "difference")}

    bare, gated = answers(program)
    assert gated == bare
    for name, count in zip(("sum", "difference"), classes, strict=True):
        rows = gated[name]
        assert [len(row) for row in rows] == [count or 4] * 2
        if count:
            found = {
                str(item.decode() if isinstance(item, bytes) else item).split(":")[2] for item in rows[0]
            }
            assert found <= LABELS


@pytest.mark.parametrize("classes", [5, 100], ids=str)
def test_more_classes_than_values_are_answered_alike(answers: Any, classes: int) -> None:
    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        outputs = wanted("sum", class_count=classes)
        return client.infer("add_sub", sides(), outputs=outputs, headers=headers).as_numpy("sum").tolist()

    bare, gated = answers(program)
    assert gated == bare


# -- datatypes
@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_comes_back_as_it_went(answers: Any, datatype: str) -> None:
    array = DATATYPES[datatype]
    given = [tensor(f"{datatype}_in", array, datatype)]
    name = f"{datatype}_out"

    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        result = client.infer("many", given, outputs=wanted(name), headers=headers)
        back = result.as_numpy(name)
        return result.get_response(), str(back.dtype), back.tobytes()

    bare, gated = answers(program)
    assert gated == bare
    assert gated[1:] == (str(array.dtype), array.tobytes())


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "FP16"])  # has no JSON form
def test_every_datatype_comes_back_as_json(answers: Any, datatype: str) -> None:
    array = DATATYPES[datatype]
    given = [tensor(f"{datatype}_in", array, datatype, binary=False)]
    name = f"{datatype}_out"

    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        result = client.infer("many", given, outputs=wanted(name, binary_data=False), headers=headers)
        return result.get_response(), result.as_numpy(name).tobytes()

    bare, gated = answers(program)
    assert gated == bare


def test_all_datatypes_at_once(answers: Any) -> None:
    given = [tensor(f"{datatype}_in", array, datatype) for datatype, array in DATATYPES.items()]
    names = [f"{datatype}_out" for datatype in DATATYPES]

    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        result = client.infer("many", given, outputs=wanted(*names), headers=headers)
        return result.get_response(), [result.as_numpy(name).tobytes() for name in names]

    bare, gated = answers(program)
    assert gated == bare
    assert gated[1] == [array.tobytes() for array in DATATYPES.values()]


def test_half_precision_as_json_is_refused_alike(both: Any) -> None:
    shape = {"name": "FP16_in", "datatype": "FP16", "shape": [1, 1], "data": [1]}
    body = json.dumps({"inputs": [shape]}).encode()
    bare, gated = (post(side, "/v2/models/many/infer", body, {}) for side in both.sides())
    assert bare[0] == gated[0] == 400


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 70_000)], ids=str)
def test_free_dimensions_have_any_size(answers: Any, shape: tuple[int, int]) -> None:
    array = np.arange(shape[0] * shape[1], dtype=np.int64).reshape(shape)
    given = [tensor("INT64_in", array, "INT64")]
    bare, gated = answers(
        lambda c, h: c.infer("many", given, outputs=wanted("INT64_out"), headers=h).as_numpy("INT64_out")
    )
    assert bare.tobytes() == gated.tobytes() == array.tobytes()
    assert bare.shape == gated.shape == shape


# -- versions
@pytest.mark.parametrize(("version", "found"), [("1", 11), ("3", 13), ("", 13)])
def test_each_version_answers_under_its_number_and_the_highest_without(
    answers: Any, version: str, found: int
) -> None:
    given = [tensor("value", np.array([10], dtype=np.int32), "INT32")]

    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        result = client.infer("versioned", given, model_version=version, headers=headers)
        return without_data(result.get_response()), int(result.as_numpy("value_and_version")[0])

    bare, gated = answers(program)
    assert gated == bare
    assert gated[1] == found
    assert gated[0]["model_version"] == (version or "3")


def test_versions_are_listed_and_the_others_are_not_there(answers: Any) -> None:
    bare, gated = answers(lambda c, h: c.get_model_metadata("versioned", headers=h))
    assert gated == bare
    assert gated["versions"] == ["1", "3"]
    for version, ready in (("1", True), ("2", False), ("3", True)):
        assert answers(lambda c, h, v=version: c.is_model_ready("versioned", v, headers=h)) == (ready, ready)


# -- compression
@pytest.mark.parametrize("response", [None, "gzip", "deflate"])
@pytest.mark.parametrize("request_", [None, "gzip", "deflate"])
def test_compression_changes_no_tensor_of_several(
    answers: Any, request_: str | None, response: str | None
) -> None:
    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        result = client.infer(
            "add_sub",
            sides(LEFT, RIGHT, False, True),
            headers=headers,
            request_compression_algorithm=request_,
            response_compression_algorithm=response,
        )
        return result.get_response(), result.as_numpy("sum").tolist(), result.as_numpy("difference").tolist()

    bare, gated = answers(program)
    assert gated == bare


# -- size
def test_64_mib_go_there_and_back_while_the_gate_holds_a_little_of_them(both: Any, appliance: Any) -> None:
    array = np.random.default_rng(0).integers(0, 256, size=(8, (1 << 23) - 1_024), dtype=np.uint8)
    (worker,) = appliance.processes("worker")
    answers = []
    for side in both.sides():
        Path(f"/proc/{worker.pid}/clear_refs").write_text("5")  # the peak begins anew
        before = memory_kib(worker.pid, "VmRSS")
        client = triton.InferenceServerClient(side.address, network_timeout=60.0, connection_timeout=60.0)
        result = client.infer(
            "many",
            [tensor("UINT8_in", array, "UINT8")],
            outputs=wanted("UINT8_out"),
            headers=dict(side.headers),
        )
        answers.append(result.as_numpy("UINT8_out"))
        client.close()
    grown = memory_kib(worker.pid, "VmHWM") - before
    assert np.array_equal(answers[1], answers[0])
    assert np.array_equal(answers[1], array)
    assert grown < 16 * 1024, f"{grown} KiB"


def memory_kib(pid: int, name: str) -> int:
    """A line of /proc/PID/status that is in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
