"""A small inference that shows whether a model really answers: its request, and the verdict. Pure."""

from __future__ import annotations

import json
import math
import struct
from array import array
from dataclasses import dataclass
from typing import Any

_ELEMENT_BYTES = {
    "BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2,
    "UINT32": 4, "INT32": 4, "FP32": 4, "UINT64": 8, "INT64": 8, "FP64": 8,
}  # fmt: skip
_FLOATS = {"FP32": "f", "FP64": "d"}
MAX_TENSOR_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CanaryTensor:
    """A tensor with its whole shape; -1 in an output is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Canary:
    """What to ask a model (zeros, or empty texts) and what must come back."""

    inputs: tuple[CanaryTensor, ...]
    outputs: tuple[CanaryTensor, ...]


def make_canary(
    inputs: tuple[CanaryTensor, ...],
    outputs: tuple[CanaryTensor, ...],
    *,
    batched: bool,
    sizes: dict[str, tuple[int, ...]],
) -> Canary:
    """A canary of one row from dims without the batch dimension; `sizes` fills dims of -1, else 1 does."""

    def whole(tensor: CanaryTensor, *, fill: bool) -> CanaryTensor:
        given = sizes.get(tensor.name, ())
        shape = tuple(
            (given[index] if index < len(given) else 1) if fill and size == -1 else size
            for index, size in enumerate(tensor.shape)
        )
        return CanaryTensor(tensor.name, tensor.datatype, (1, *shape) if batched else shape)

    return Canary(
        tuple(whole(tensor, fill=True) for tensor in inputs),
        tuple(whole(tensor, fill=False) for tensor in outputs),
    )


def canary_request(canary: Canary) -> tuple[bytes, int]:
    """The body of a KServe v2 infer request with binary tensors, and the length of its JSON part.

    Raises ValueError for a tensor of more than 64 MiB.
    """
    parts: list[bytes] = []
    inputs: list[dict[str, Any]] = []
    for tensor in canary.inputs:
        count = math.prod(tensor.shape)
        size = 4 if tensor.datatype == "BYTES" else _ELEMENT_BYTES[tensor.datatype]
        if count * size > MAX_TENSOR_BYTES:
            raise ValueError(f"the canary of {tensor.name} would have {count * size} bytes")
        parts.append(bytes(count * size))  # an empty text is its length of four zero bytes
        inputs.append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": count * size},
            }
        )
    outputs = [{"name": tensor.name, "parameters": {"binary_data": True}} for tensor in canary.outputs]
    head = json.dumps({"inputs": inputs, "outputs": outputs}, separators=(",", ":")).encode()
    return b"".join([head, *parts]), len(head)


def judge_canary(canary: Canary, body: bytes, head_bytes: int) -> str:
    """What is wrong with an answer, or nothing. Names, datatypes, shapes, sizes and finite numbers count."""
    try:
        outputs = json.loads(body[:head_bytes])["outputs"]
        rest = memoryview(body)[head_bytes:]
        found: dict[str, tuple[dict[str, Any], memoryview]] = {}
        for output in outputs:
            size = int(output["parameters"]["binary_data_size"])
            if not 0 <= size <= len(rest):
                return "the answer ends too early"
            found[output["name"]] = (output, rest[:size])
            rest = rest[size:]
        problems = [_judge_tensor(tensor, found.get(tensor.name)) for tensor in canary.outputs]
    except (ValueError, KeyError, TypeError) as error:
        return f"the answer cannot be read ({type(error).__name__})"
    return next((problem for problem in problems if problem), "")


def _judge_tensor(wanted: CanaryTensor, found: tuple[dict[str, Any], memoryview] | None) -> str:
    if found is None:
        return f"the output {wanted.name} is missing"
    output, data = found
    shape = tuple(output["shape"])
    if output["datatype"] != wanted.datatype:
        return f"the output {wanted.name} is {output['datatype']}, not {wanted.datatype}"
    if len(shape) != len(wanted.shape) or any(
        ours not in (-1, theirs) for ours, theirs in zip(wanted.shape, shape, strict=True)
    ):
        return f"the output {wanted.name} has shape {list(shape)}, not {list(wanted.shape)}"
    if wanted.datatype != "BYTES" and len(data) != math.prod(shape) * _ELEMENT_BYTES[wanted.datatype]:
        return f"the output {wanted.name} has {len(data)} bytes, which does not fit its shape"
    return _judge_numbers(wanted, data)


def _judge_numbers(wanted: CanaryTensor, data: memoryview) -> str:
    code = _FLOATS.get(wanted.datatype)
    if code is not None:
        numbers = array(code)
        numbers.frombytes(data)
        if not all(math.isfinite(number) for number in numbers):
            return f"the output {wanted.name} holds numbers that are not finite"
    elif wanted.datatype == "FP16" and not all(math.isfinite(n) for (n,) in struct.iter_unpack("<e", data)):
        return f"the output {wanted.name} holds numbers that are not finite"
    return ""
