"""A small model package on disk, whole and right, for tests to damage."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

CONFIGURATION = """
name: "tiny"
backend: "onnxruntime"
max_batch_size: 8
input [{ name: "pixels" data_type: TYPE_FP32 dims: [ 3, 4, 4 ] }]
output [{ name: "scores" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" }]
dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 100 }
"""
MANIFEST_HEAD = """
format = 1
name = "tiny"
title = "A tiny model"
task = "image-classification"
licence = "Apache-2.0"
[predict]
input = "pixels"
output = "scores"
width = 4
height = 4
[objective]
p99_milliseconds = 20
"""


def varint(number: int) -> bytes:
    """A protobuf varint."""
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, content: bytes | int) -> bytes:
    """A protobuf field: length-delimited for bytes, else a varint."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def value_info(name: str, element: int, dims: list[int | str]) -> bytes:
    """An ONNX ValueInfoProto."""
    shape = b"".join(
        field(1, field(2, size.encode()) if isinstance(size, str) else field(1, size)) for size in dims
    )
    return field(1, name.encode()) + field(2, field(1, field(1, element) + field(2, shape)))


def onnx_bytes(
    inputs: dict[str, tuple[int, list[int | str]]],
    outputs: dict[str, tuple[int, list[int | str]]],
    initializers: tuple[str, ...] = (),
) -> bytes:
    """An ONNX file with these tensors and no nodes; enough for whoever reads only its edges."""
    graph = b"".join(field(5, field(8, name.encode()) + field(9, b"\0" * 64)) for name in initializers)
    graph += b"".join(field(11, value_info(name, *tensor)) for name, tensor in inputs.items())
    graph += b"".join(field(12, value_info(name, *tensor)) for name, tensor in outputs.items())
    double = varint(99 << 3 | 1) + struct.pack("<d", 1.0)  # an unknown field, skipped
    return field(1, 8) + double + field(7, graph)


TINY_ONNX = onnx_bytes({"pixels": (1, ["N", 3, 4, 4])}, {"scores": (1, ["N", 2])})


def seal(directory: Path, head: str = MANIFEST_HEAD) -> None:
    """Write package.toml with the right digest of every file that is there."""
    text = head
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = path.relative_to(directory).as_posix()
        if name != "package.toml":
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            text += f'[[files]]\npath = "{name}"\nsha256 = "{digest}"\n'
    (directory / "package.toml").write_text(text, encoding="utf-8")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The directory of a right package."""
    directory = tmp_path / "repository" / "tiny"
    (directory / "1").mkdir(parents=True)
    (directory / "config.pbtxt").write_text(CONFIGURATION, encoding="utf-8")
    (directory / "labels.txt").write_text("cat\ndog\n", encoding="utf-8")
    (directory / "1" / "model.onnx").write_bytes(TINY_ONNX)
    seal(directory)
    return directory


@pytest.fixture
def sealed() -> Callable[..., None]:
    """`seal` for tests that changed a file on purpose."""
    return seal


@pytest.fixture
def make_onnx() -> Callable[..., bytes]:
    """`onnx_bytes`."""
    return onnx_bytes


@pytest.fixture
def configuration_text() -> str:
    """A right config.pbtxt."""
    return CONFIGURATION


@pytest.fixture
def manifest_text() -> str:
    """A right package.toml, but for its files."""
    return MANIFEST_HEAD
