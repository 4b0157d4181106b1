"""templates/model.py with stand-ins for Triton's and onnxruntime's modules; the real ones: tests/system."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy
import pytest

CONFIGURATION = {
    "max_batch_size": 8,
    "input": [{"name": "x", "data_type": "TYPE_FP32"}],
    "output": [{"name": "y", "data_type": "TYPE_FP32"}],
    "parameters": {
        "weights": {"string_value": "model.onnx"},
        "intra_op_threads": {"string_value": "2"},
    },
}


class Session:
    """Doubles its input; refuses a row that begins with 13."""

    sizes: list[int]

    def __init__(self, path: str, sess_options: Any, providers: list[str]) -> None:
        self.path, self.options, self.providers = path, sess_options, providers
        self.sizes = []

    def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
        assert names == ["y"]
        self.sizes.append(len(feed["x"]))
        if (feed["x"][:, 0] == 13).any():
            raise RuntimeError("unlucky")
        return [feed["x"] * 2]


class Options(SimpleNamespace):
    def add_session_config_entry(self, name: str, value: str) -> None:
        setattr(self, name, value)


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self.name, self._array = name, array

    @classmethod
    def from_dlpack(cls, name: str, array: Any) -> Tensor:
        return cls(name, numpy.from_dlpack(array))

    def as_numpy(self) -> Any:
        return self._array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    hook = sys.unraisablehook
    triton = ModuleType("triton_python_backend_utils")
    vars(triton).update(
        Tensor=Tensor,
        TritonError=lambda text: text,
        InferenceResponse=lambda output_tensors, error=None: SimpleNamespace(
            outputs=output_tensors, error=error
        ),
        get_input_tensor_by_name=lambda request, name: request[name],
        triton_string_to_numpy=lambda name: {"TYPE_FP32": numpy.float32}[name],
    )
    onnxruntime = ModuleType("onnxruntime")
    vars(onnxruntime).update(InferenceSession=Session, SessionOptions=Options)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)
    monkeypatch.setitem(sys.modules, "onnxruntime", onnxruntime)
    path = Path(str(resources.files("lotabotsd.models").joinpath("templates/model.py")))
    spec = importlib.util.spec_from_file_location("live_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.TritonPythonModel()
    made.initialize(
        {"model_config": json.dumps(CONFIGURATION), "model_repository": "/live/m", "model_version": "1"}
    )
    yield made
    sys.unraisablehook = hook


def request(*rows: float) -> dict[str, Tensor]:
    return {"x": Tensor("x", numpy.array([[row, 0.0] for row in rows], dtype=numpy.float32))}


def first_column(response: Any) -> list[float]:
    return [float(row[0]) for row in response.outputs[0].as_numpy()]


def test_the_graph_is_loaded_from_its_version_on_the_processor(model: Any) -> None:
    assert model._session.path == "/live/m/1/model.onnx"
    assert model._session.providers == ["CPUExecutionProvider"]
    assert model._session.options.intra_op_num_threads == 2


def test_requests_that_wait_together_run_as_one_batch_and_get_their_own_rows(model: Any) -> None:
    responses = model.execute([request(1, 2), request(3), request(4, 5, 6)])
    assert model._session.sizes == [6]
    assert [first_column(response) for response in responses] == [[2, 4], [6], [8, 10, 12]]
    assert all(response.error is None for response in responses)


def test_one_request_alone_is_not_copied_together(model: Any) -> None:
    assert first_column(model.execute([request(7)])[0]) == [14]
    assert model._session.sizes == [1]


def test_an_error_belongs_to_the_request_that_caused_it(model: Any) -> None:
    good, bad, also_good = model.execute([request(1), request(13), request(3)])
    assert (first_column(good), first_column(also_good)) == ([2], [6])
    assert bad.error == "RuntimeError: unlucky"
    assert bad.outputs == []


def test_requests_of_different_widths_run_one_by_one(model: Any) -> None:
    wide = {"x": Tensor("x", numpy.ones((1, 5), dtype=numpy.float32))}
    responses = model.execute([request(1), wide])
    assert [response.error for response in responses] == [None, None]
    assert model._session.sizes == [1, 1]


def test_no_requests_have_no_answers(model: Any) -> None:
    assert model.execute([]) == []
