"""The smallest model package: an ONNX graph with one Identity node, written byte by byte. Pure.

The appliance takes no package that brings its own Python code, so the model that is measured goes the way
of every other: ONNX weights, which the embedded runtime serves from Triton's Python backend.
Field numbers: onnx.proto of ONNX 1.16 (ModelProto, GraphProto, NodeProto, ValueInfoProto, TypeProto).
"""

from __future__ import annotations

import hashlib

NAME = "bench_identity"
INPUT, OUTPUT = "INPUT0", "OUTPUT0"
_FLOAT = 1  # TensorProto.DataType
CONFIGURATION = f"""name: "{NAME}"
backend: "onnxruntime"
max_batch_size: 64
input [ {{ name: "{INPUT}" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [ -1 ] }} ]
instance_group [ {{ kind: KIND_AUTO count: 1 }} ]
"""


def files() -> dict[str, bytes]:
    """The files of the package by their path in it."""
    return package_files(NAME, "Identity, for measuring", CONFIGURATION, graph())


def package_files(name: str, title: str, configuration: str, graph: bytes) -> dict[str, bytes]:
    """The files of a package with one ONNX graph and nothing else, by their path in it."""
    content = {"config.pbtxt": configuration.encode(), "1/model.onnx": graph}
    listed = "".join(
        f'[[files]]\npath = "{path}"\nsha256 = "{hashlib.sha256(data).hexdigest()}"\n'
        for path, data in content.items()
    )
    manifest = (
        f'format = 1\nname = "{name}"\ntitle = "{title}"\ntask = "other"\n'
        f'licence = "Apache-2.0"\n{listed}[objective]\np99_milliseconds = 100.0\n'
        "[embedded]\ninstances = 1\nthreads = 1\n"
    )
    return {**content, "package.toml": manifest.encode()}


def graph() -> bytes:
    """A ModelProto: OUTPUT0 = Identity(INPUT0), float32 of any batch and length."""
    node = text(1, INPUT) + text(2, OUTPUT) + text(4, "Identity")
    body = part(1, node) + text(2, NAME) + part(11, _tensor(INPUT)) + part(12, _tensor(OUTPUT))
    return number(1, 8) + part(7, body) + part(8, number(2, 13))


def _tensor(name: str) -> bytes:
    shape = b"".join(part(1, text(2, dimension)) for dimension in ("batch", "length"))
    return text(1, name) + part(2, part(1, number(1, _FLOAT) + part(2, shape)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def number(field: int, value: int) -> bytes:
    """A protobuf field that is a number."""
    return _varint(field << 3) + _varint(value)


def part(field: int, content: bytes) -> bytes:
    """A protobuf field that is a message, or bytes."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def text(field: int, content: str) -> bytes:
    """A protobuf field that is a text."""
    return part(field, content.encode())
