"""A model that multiplies rows by one fixed matrix: its package as ONNX, and what it must answer. Pure.

Field numbers: onnx.proto of ONNX 1.16. The matrix is a formula, so that the code that runs on the GPU
(`gpu_model.py`) has the same one without reading it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy
from identity import number, package_files, part, text

NAME, INPUT, OUTPUT = "gpu_matmul", "X", "Y"
SIDE = 1_024
MAX_ROWS = 64
_FLOAT = 1  # TensorProto.DataType
Array = Any
CONFIGURATION = f"""name: "{NAME}"
backend: "onnxruntime"
max_batch_size: {MAX_ROWS}
input [ {{ name: "{INPUT}" data_type: TYPE_FP32 dims: [ {SIDE} ] }} ]
output [ {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [ {SIDE} ] }} ]
instance_group [ {{ kind: KIND_AUTO count: 1 }} ]
"""


def matrix() -> Array:
    """SIDE × SIDE float32: small multiples of 1/512, so that sums come out nearly alike on any hardware."""
    row, column = numpy.indices((SIDE, SIDE))
    return (((row * 31 + column * 17) % 13 - 6) / 512).astype(numpy.float32)


def rows(count: int) -> Array:
    """An input of `count` rows."""
    values = numpy.arange(count * SIDE, dtype=numpy.float32) % 251 / 251
    return values.reshape(count, SIDE)


def body(count: int) -> tuple[bytes, int]:
    """A KServe v2 request of `count` rows with binary tensors, and the length of its JSON part."""
    data = rows(count).tobytes()
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": INPUT,
                    "shape": [count, SIDE],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(data)},
                }
            ],
            "outputs": [{"name": OUTPUT, "parameters": {"binary_data": True}}],
        }
    ).encode()
    return header + data, len(header)


def is_right(answer: bytes, json_bytes: int, count: int) -> bool:
    """Whether an answer holds the product, to a relative error that float32 on a GPU keeps."""
    data = answer[json_bytes:]
    if len(data) != count * SIDE * 4:
        return False
    got = numpy.frombuffer(data, dtype=numpy.float32).reshape(count, SIDE)
    return bool(numpy.allclose(got, rows(count) @ matrix(), rtol=1e-3, atol=1e-3))


def files() -> dict[str, bytes]:
    """The files of the package by their path in it."""
    return package_files(NAME, "Rows times a matrix, for gpu-check", CONFIGURATION, graph())


def graph() -> bytes:
    """A ModelProto: Y = MatMul(X, W), W a constant of the graph."""
    node = text(1, INPUT) + text(1, "W") + text(2, OUTPUT) + text(4, "MatMul")
    weights = b"".join(
        (number(1, SIDE), number(1, SIDE), number(2, _FLOAT), text(8, "W"), part(9, matrix().tobytes()))
    )
    body = b"".join(
        (
            part(1, node),
            text(2, NAME),
            part(5, weights),
            part(11, _tensor(INPUT)),
            part(12, _tensor(OUTPUT)),
        )
    )
    return number(1, 8) + part(7, body) + part(8, number(2, 13))


def _tensor(name: str) -> bytes:
    shape = part(1, text(2, "batch")) + part(1, number(1, SIDE))
    return text(1, name) + part(2, part(1, number(1, _FLOAT) + part(2, shape)))
