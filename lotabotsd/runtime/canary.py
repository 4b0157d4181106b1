"""A small inference that shows whether a model really answers: its request, and the verdict. Pure.

Floating-point inputs hold a fixed pattern, everything else zeros or empty texts. Where the package says what
comes out of the pattern, that is compared: an answer of the right shape can still be nonsense.

A model with sequences is asked in a sequence of its own, of one request. A decoupled model has no plain
inference over HTTP: it is asked for a stream, whose beginning shows whether it answers at all.
"""

from __future__ import annotations

import functools
import json
import math
import struct
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ELEMENT_BYTES = {
    "BOOL": 1, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "FP16": 2, "BF16": 2,
    "UINT32": 4, "INT32": 4, "FP32": 4, "UINT64": 8, "INT64": 8, "FP64": 8,
}  # fmt: skip
_FLOATS = {"FP32": "f", "FP64": "d"}
MAX_TENSOR_BYTES = 64 * 1024 * 1024
#: No client's: the gate gives them 63 bits or texts (gate/parameters.py).
SEQUENCE_ID = (1 << 64) - 1
_NO_JSON = ("FP16", "BF16")  # Triton takes them as bytes only
TOLERANCE = 0.02  # half precision and other kernels stay well within it


@dataclass(frozen=True, slots=True)
class CanaryTensor:
    """A tensor with its whole shape; -1 in an output is any size.

    `expected` are the first values of an FP32 output; empty where nobody said.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    expected: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Canary:
    """What to ask a model, and what must come back."""

    inputs: tuple[CanaryTensor, ...]
    outputs: tuple[CanaryTensor, ...]
    sequence: bool = False
    decoupled: bool = False


@dataclass(frozen=True, slots=True)
class CanaryAnswer:
    """What came back: `wrong` says what is wrong with it; of a stream the body is not kept."""

    wrong: str
    body: bytes = b""
    head_bytes: int = 0


def make_canary(
    inputs: tuple[CanaryTensor, ...],
    outputs: tuple[CanaryTensor, ...],
    *,
    batched: bool,
    sizes: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[float, ...]] | None = None,
    sequence: bool = False,
    decoupled: bool = False,
) -> Canary:
    """A canary of one row from dims without the batch dimension.

    `sizes` fills an input's dims of -1, else 1 does; `expected` are outputs' first values.
    """

    def whole(tensor: CanaryTensor, *, fill: bool) -> CanaryTensor:
        given = sizes.get(tensor.name, ())
        shape = tuple(
            (given[index] if index < len(given) else 1) if fill and size == -1 else size
            for index, size in enumerate(tensor.shape)
        )
        values = () if fill else (expected or {}).get(tensor.name, ())
        return CanaryTensor(tensor.name, tensor.datatype, (1, *shape) if batched else shape, values)

    return Canary(
        tuple(whole(tensor, fill=True) for tensor in inputs),
        tuple(whole(tensor, fill=False) for tensor in outputs),
        sequence,
        decoupled,
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
        # An empty text is its length of four zero bytes.
        parts.append(pattern(count) if tensor.datatype == "FP32" else bytes(count * size))
        inputs.append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": count * size},
            }
        )
    outputs = [{"name": tensor.name, "parameters": {"binary_data": True}} for tensor in canary.outputs]
    request: dict[str, Any] = {"inputs": inputs, "outputs": outputs}
    if canary.sequence:
        request["parameters"] = {"sequence_id": SEQUENCE_ID, "sequence_start": True, "sequence_end": True}
    head = json.dumps(request, separators=(",", ":")).encode()
    return b"".join([head, *parts]), len(head)


def stream_request(canary: Canary) -> bytes | None:
    """The body of a generate_stream request, or None where the inputs cannot be said in its flat JSON.

    Triton turns a number, a text or a list of them into a tensor of at most one dimension besides a batch of
    one. Raises ValueError for a tensor of more than 64 MiB.
    """
    flat: dict[str, Any] = {}
    for tensor in canary.inputs:
        count = math.prod(tensor.shape)
        if (
            tensor.datatype in _NO_JSON
            or any(size != 1 for size in tensor.shape[:-1])
            or len(tensor.shape) > 2
        ):
            return None
        if count * _ELEMENT_BYTES.get(tensor.datatype, 4) > MAX_TENSOR_BYTES:
            raise ValueError(f"the canary of {tensor.name} would have {count} elements")
        flat[tensor.name] = _json_values(tensor.datatype, count)
    return json.dumps(flat, separators=(",", ":")).encode()


def _json_values(datatype: str, count: int) -> list[Any]:
    if datatype == "FP32":
        return array("f", pattern(count)).tolist()
    return [{"BOOL": False, "BYTES": ""}.get(datatype, 0)] * count


@functools.lru_cache(maxsize=4)
def pattern(count: int) -> bytes:
    """FP32 values from -2 to 2, a slow wave: element i is |(i mod 1024) - 512| / 128 - 2."""
    return array("f", (abs((index & 1023) - 512) / 128 - 2 for index in range(count))).tobytes()


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
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        return f"the answer cannot be read ({type(error).__name__})"
    return one_line(next((problem for problem in problems if problem), ""))


def one_line(value: object) -> str:
    """What Triton says, for a person to read: one line of at most 1 000 characters, which UTF-8 can carry.

    JSON can hold halves of characters, which no file, log or answer takes. Empty for what is no text.
    """
    text = value if isinstance(value, str) else ""
    return " ".join(text.split())[:1_000].encode("utf-8", "replace").decode()


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
        found = list(numbers[: len(wanted.expected)])
        if len(found) < len(wanted.expected) or any(
            abs(ours - theirs) > TOLERANCE for ours, theirs in zip(wanted.expected, found, strict=True)
        ):
            return f"the output {wanted.name} begins {found[:8]}, expected {list(wanted.expected[:8])}"
    elif wanted.datatype == "FP16" and not all(math.isfinite(n) for (n,) in struct.iter_unpack("<e", data)):
        return f"the output {wanted.name} holds numbers that are not finite"
    return ""
