"""The edges of an ONNX graph are read without onnx, and compared with the configuration."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.models.configuration import Configuration
from lotabotsd.models.facts import TensorFact
from lotabotsd.models.onnx_graph import Graph, compare, read_graph


def configuration(
    inputs: tuple[TensorFact, ...], outputs: tuple[TensorFact, ...], batch: int = 8
) -> Configuration:
    return Configuration("m", "onnxruntime", batch, inputs, outputs, {}, "model.onnx", None)


X = TensorFact("x", "FP32", (3, -1))
Y = TensorFact("y", "FP32", (4,))
GRAPH = Graph((TensorFact("x", "FP32", (-1, 3, -1)),), (TensorFact("y", "FP32", (-1, 4)),))


def test_inputs_and_outputs_are_read_and_constants_are_not_inputs(make_onnx: Callable[..., bytes]) -> None:
    data = make_onnx(
        {"x": (1, ["N", 3, "width"]), "weights": (1, [5])}, {"y": (7, ["N", 4])}, initializers=("weights",)
    )
    graph = read_graph(data)
    assert graph.inputs == (TensorFact("x", "FP32", (-1, 3, -1)),)
    assert graph.outputs == (TensorFact("y", "INT64", (-1, 4)),)


def test_a_fitting_graph_has_no_problem() -> None:
    assert compare(configuration((X,), (Y,)), GRAPH) == []


@pytest.mark.parametrize(
    ("inputs", "outputs", "batch", "told"),
    [
        ((TensorFact("z", "FP32", (3, -1)),), (Y,), 8, "no input 'z' (it has: x)"),
        ((TensorFact("x", "INT32", (3, -1)),), (Y,), 8, "is FP32 in the graph, not INT32"),
        ((TensorFact("x", "FP32", (4, 1)),), (Y,), 8, "has dims [3, -1]"),
        ((TensorFact("x", "FP32", (3,)),), (Y,), 8, "has dims [3, -1]"),
        ((X,), (TensorFact("y", "FP32", (5,)),), 8, "has dims [4]"),
        ((X,), (TensorFact("q", "FP32", (4,)),), 8, "no output 'q'"),
        ((), (Y,), 8, "also needs the input 'x'"),
        ((X,), (TensorFact("y", "FP32", (-1, 4)),), 0, "has dims [-1, 3, -1]"),
    ],
)
def test_each_difference_is_named(
    inputs: tuple[TensorFact, ...], outputs: tuple[TensorFact, ...], batch: int, told: str
) -> None:
    problems = compare(configuration(inputs, outputs, batch), GRAPH)
    assert [problem for problem in problems if told in problem], problems


def test_a_fixed_batch_cannot_be_batched() -> None:
    fixed = Graph((TensorFact("x", "FP32", (1, 3, -1)),), GRAPH.outputs)
    assert compare(configuration((X,), (Y,)), fixed) == ["input 'x' has a fixed batch of 1: max_batch_size 0"]


def test_a_graph_that_keeps_its_shapes_to_itself_is_believed() -> None:
    quiet = Graph((TensorFact("x", "FP32", ()),), (TensorFact("y", "FP32", ()),))
    assert compare(configuration((X,), (Y,)), quiet) == []


def test_every_cut_of_a_model_is_refused_or_read_and_never_more(make_onnx: Callable[..., bytes]) -> None:
    data = make_onnx({"x": (1, ["N", 3])}, {"y": (1, ["N", 2])}, initializers=("w",))
    for length in range(len(data)):
        with pytest.raises(ValueError):
            read_graph(data[:length])


@given(st.binary(max_size=120))
def test_no_bytes_make_it_raise_anything_else(data: bytes) -> None:
    try:
        read_graph(data)
    except ValueError:
        return


def test_too_many_tensors_are_refused(make_onnx: Callable[..., bytes]) -> None:
    with pytest.raises(ValueError, match="too many"):
        read_graph(make_onnx({f"x{n}": (1, [1]) for n in range(4_097)}, {}))
