"""Read the inputs and outputs of an ONNX file without onnx or onnxruntime, and compare them. Pure.

Field numbers are those of onnx.proto3 (ModelProto, GraphProto, ValueInfoProto, TypeProto). Everything else
in the file is skipped unread, so that a large model costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .configuration import Configuration
from .facts import TensorFact

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_TENSOR_NAME = 8
_MAX_VALUES = 4_096
# TensorProto.DataType → KServe v2 datatype
_DATATYPES = {
    1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 8: "BYTES",
    9: "BOOL", 10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64", 16: "BF16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Graph:
    """The tensors that an ONNX graph takes and gives; dims with the batch dimension, -1 where free."""

    inputs: tuple[TensorFact, ...]
    outputs: tuple[TensorFact, ...]


def read_graph(data: bytes | memoryview) -> Graph:
    """Raises ValueError when the bytes are no ONNX model."""
    view = memoryview(data)
    graph = next((value for field, value in _fields(view) if field == _MODEL_GRAPH), None)
    if not isinstance(graph, memoryview):
        raise ValueError("there is no graph inside")
    inputs: list[TensorFact] = []
    outputs: list[TensorFact] = []
    constants: set[str] = set()
    for field, value in _fields(graph):
        if not isinstance(value, memoryview):
            continue
        if field == _GRAPH_INITIALIZER:
            constants.update(_text(v) for number, v in _fields(value) if number == _TENSOR_NAME)
        elif field == _GRAPH_INPUT:
            inputs.append(_value_info(value))
        elif field == _GRAPH_OUTPUT:
            outputs.append(_value_info(value))
        if len(inputs) + len(outputs) > _MAX_VALUES:
            raise ValueError("it has too many inputs and outputs")
    return Graph(tuple(t for t in inputs if t.name not in constants), tuple(outputs))


def compare(configuration: Configuration, graph: Graph) -> list[str]:
    """Everything in which a configuration does not fit the graph it serves."""
    batched = configuration.max_batch_size > 0
    problems = _compare_side("input", configuration.inputs, graph.inputs, batched)
    told = {tensor.name for tensor in configuration.inputs} | configuration.implied
    problems += [
        f"the graph also needs the input {tensor.name!r}"
        for tensor in graph.inputs
        if tensor.name not in told
    ]
    return problems + _compare_side("output", configuration.outputs, graph.outputs, batched)


def _compare_side(
    kind: str, configured: tuple[TensorFact, ...], present: tuple[TensorFact, ...], batched: bool
) -> list[str]:
    by_name = {tensor.name: tensor for tensor in present}
    problems = []
    for tensor in configured:
        found = by_name.get(tensor.name)
        if found is None:
            names = ", ".join(sorted(by_name)) or "none"
            problems.append(f"the graph has no {kind} {tensor.name!r} (it has: {names})")
            continue
        if found.datatype != tensor.datatype:
            problems.append(f"{kind} {tensor.name!r} is {found.datatype} in the graph, not {tensor.datatype}")
        if not found.dims:
            continue  # the graph keeps its shape to itself
        dims = found.dims[1:] if batched else found.dims
        if batched and found.dims[0] != -1:
            problems.append(f"{kind} {tensor.name!r} has a fixed batch of {found.dims[0]}: max_batch_size 0")
        elif len(dims) != len(tensor.dims) or any(
            -1 not in (ours, theirs) and ours != theirs
            for ours, theirs in zip(tensor.dims, dims, strict=True)
        ):
            problems.append(
                f"{kind} {tensor.name!r} has dims {list(dims)} in the graph, not {list(tensor.dims)}"
            )
    return problems


def _value_info(data: memoryview) -> TensorFact:
    """ValueInfoProto: name = 1, type = 2; TypeProto: tensor_type = 1; its elem_type = 1, shape = 2."""
    name, datatype = "", ""
    dims: list[int] = []
    for field, value in _fields(data):
        if field == 1:
            name = _text(value)
        elif field == 2:
            for tensor in _messages(value, 1):
                for inner, content in _fields(tensor):
                    if inner == 1 and isinstance(content, int):
                        datatype = _DATATYPES.get(content, f"type {content}")
                    elif inner == 2:
                        dims = [_dimension(item) for item in _messages(content, 1)]
    return TensorFact(name, datatype, tuple(dims))


def _dimension(data: memoryview) -> int:
    """TensorShapeProto.Dimension: dim_value = 1, dim_param = 2 (a name: free)."""
    sizes = [value for field, value in _fields(data) if field == 1 and isinstance(value, int)]
    return sizes[-1] if sizes and 0 < sizes[-1] < 1 << 31 else -1


def _messages(value: memoryview | int, wanted: int) -> Iterator[memoryview]:
    if isinstance(value, memoryview):
        for field, inner in _fields(value):
            if field == wanted and isinstance(inner, memoryview):
                yield inner


def _text(value: memoryview | int) -> str:
    if not isinstance(value, memoryview) or len(value) > 4_096:
        raise ValueError("a name is no text")
    return bytes(value).decode("utf-8")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of one protobuf message in order (protobuf encoding, "Message structure")."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        field, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _varint(data, position)
            yield field, value
            continue
        if wire == _BYTES:
            length, position = _varint(data, position)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} is not in use")
        if length > len(data) - position:
            raise ValueError("it ends too early")
        yield field, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("it ends too early")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is too long")
