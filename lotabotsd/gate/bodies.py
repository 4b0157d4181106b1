"""Judge the body of an inference request without changing a byte of it. Pure.

Only the JSON part is parsed; tensors behind it are measured, never read. What is refused and why:
docs/triton-advisories.md. Formats: KServe v2 REST protocol and Triton's binary tensor data extension.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.models.facts import ELEMENT_BYTES, ModelFacts, TensorFact

from .parameters import SCHEDULING, Edit, Terms, generate_edits, parameter_edits

MAX_TENSORS = 64
MAX_DIMENSIONS = 8
MAX_ID_LENGTH = 256
MAX_BINARY_HEADER_BYTES = 1 << 20
MAX_GENERATE_BYTES = 1 << 20
# Parameters that reach into the server (advisories 5535, 5687, 5691, 5816), or that the gate must put into
# the key's terms first: these are refused wherever it does not.
_REFUSED = SCHEDULING | {"headers"}


@dataclass(frozen=True, slots=True)
class InferFacts:
    """What admission and metering need to know of one inference body."""

    rows: int  # first dimension when the model batches, else 1
    binary_bytes: int = 0  # announced to follow the JSON part
    edits: tuple[Edit, ...] = ()  # what the key's terms make of the JSON part

    def with_binary(self, binary_bytes: int) -> InferFacts:
        """The same facts, when so many bytes follow. Raises TENSOR_INVALID when others were announced."""
        if binary_bytes != self.binary_bytes:
            raise LotaBotsError(
                Code.TENSOR_INVALID,
                f"binary_data_size adds up to {self.binary_bytes} bytes, "
                f"but {binary_bytes} follow the JSON part",
            )
        return self


def json_part_length(header_length: bytes) -> int:
    """What Inference-Header-Content-Length says. Raises REQUEST_MALFORMED."""
    if not header_length.isdigit() or len(header_length) > 9:
        raise LotaBotsError(Code.REQUEST_MALFORMED, "Inference-Header-Content-Length is not a number")
    length = int(header_length)
    if length > MAX_BINARY_HEADER_BYTES:
        raise _unfit_length()
    return length


def judge_infer(body: bytes, header_length: bytes | None, model: ModelFacts, terms: Terms) -> InferFacts:
    """Check a whole infer body. Raises REQUEST_MALFORMED, and what `judge_json_part` raises.

    `header_length` is the value of Inference-Header-Content-Length, when the request has one.
    """
    length = len(body) if header_length is None else json_part_length(header_length)
    if length > len(body):
        raise _unfit_length()
    return judge_json_part(body[:length], model, terms).with_binary(len(body) - length)


def judge_json_part(header: bytes, model: ModelFacts, terms: Terms) -> InferFacts:
    """Check the JSON part of an infer body against the model, and put it into the key's terms.

    The tensors behind it may still be on the way. Raises JSON_INVALID, TENSOR_INVALID, PARAMETER_REFUSED,
    SEQUENCE_INVALID or STREAM_NEEDED.
    """
    if model.decoupled:
        raise LotaBotsError(Code.STREAM_NEEDED, model.name)
    request = parse_object(header)
    _judge_id(request.get("id"))
    _judge_parameters(request.get("parameters"), "the request", SCHEDULING)
    inputs = _tensors(request, "inputs")
    if not inputs:
        raise LotaBotsError(Code.TENSOR_INVALID, "there are no inputs")
    rows, announced = _judge_inputs(inputs, model)
    if "outputs" in request:
        _judge_outputs(_tensors(request, "outputs"), model)
    return InferFacts(rows, announced, parameter_edits(header, request, terms, model))


def judge_generate(body: bytes, header_length: bytes | None, model: ModelFacts, terms: Terms) -> InferFacts:
    """Check a generate body, one flat JSON object, and put it into the key's terms.

    Raises JSON_INVALID, PARAMETER_REFUSED or SEQUENCE_INVALID.
    """
    if header_length is not None:
        raise LotaBotsError(Code.REQUEST_MALFORMED, "generate takes no binary tensors")
    if len(body) > MAX_GENERATE_BYTES:
        raise LotaBotsError(
            Code.BODY_TOO_LARGE,
            f"generate takes at most {MAX_GENERATE_BYTES} bytes of JSON",
            hint="send large inputs to infer, as binary tensors",
        )
    request = parse_object(body)
    _judge_id(request.get("id"))
    # One with the name of an input is that input, whatever else it means: the terms tell them apart.
    _judge_parameters(request, "the request", SCHEDULING)
    _judge_parameters(request.get("parameters"), "parameters", SCHEDULING)
    return InferFacts(1, edits=generate_edits(body, request, terms, model))


def parse_object(data: bytes) -> dict[str, Any]:
    """One JSON object; duplicate keys, NaN and deep nesting are refused. Raises JSON_INVALID."""
    try:
        value = _DECODER.decode(data.decode("utf-8"))  # RFC 8259, section 8.1: nothing but UTF-8
    except (ValueError, RecursionError) as error:
        raise LotaBotsError(Code.JSON_INVALID, _where(error)) from error
    if not isinstance(value, dict):
        raise LotaBotsError(Code.JSON_INVALID, "an object is needed")
    return value


def _judge_inputs(inputs: list[dict[str, Any]], model: ModelFacts) -> tuple[int, int]:
    """(rows, announced binary bytes) of the inputs."""
    known = {fact.name: fact for fact in model.inputs}
    rows = 0
    announced = 0
    for tensor in inputs:
        name = tensor["name"]
        fact = known.get(name)
        if fact is None:
            raise LotaBotsError(Code.TENSOR_INVALID, f"the model has no input {name[:128]!r}")
        shape = tensor.get("shape")
        if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(_is_size(n) for n in shape):
            raise LotaBotsError(Code.TENSOR_INVALID, f"input {name!r} needs a shape of whole numbers")
        _judge_shape(fact, tensor.get("datatype"), shape, model.max_batch_size)
        elements = _product(shape)
        parameters = tensor.get("parameters") or {}
        if "binary_data_size" in parameters:
            announced += _binary_size(name, parameters["binary_data_size"], fact, elements)
            if "data" in tensor:
                raise LotaBotsError(Code.TENSOR_INVALID, f"input {name!r} has both data and binary data")
        elif not isinstance(tensor.get("data"), list):
            raise LotaBotsError(Code.TENSOR_INVALID, f"input {name!r} has no data")
        if rows == 0:
            rows = shape[0] if model.max_batch_size > 0 and shape else 1
    return rows, announced


def _judge_shape(fact: TensorFact, datatype: Any, shape: list[int], max_batch_size: int) -> None:
    if datatype != fact.datatype:
        raise LotaBotsError(
            Code.TENSOR_INVALID,
            f"input {fact.name!r} has datatype {fact.datatype}, not {str(datatype)[:32]!r}",
        )
    dims = shape
    if max_batch_size > 0:
        if not shape or not 1 <= shape[0] <= max_batch_size:
            raise LotaBotsError(
                Code.TENSOR_INVALID,
                f"input {fact.name!r}: the first dimension is the batch, 1 to {max_batch_size}",
            )
        dims = shape[1:]
    fits = len(dims) == len(fact.dims) and all(
        want in (-1, have) for want, have in zip(fact.dims, dims, strict=True)
    )
    if not fits:
        batch = ["batch"] if max_batch_size > 0 else []
        wanted = ", ".join([*batch, *(str(n) for n in fact.dims)])
        raise LotaBotsError(Code.TENSOR_INVALID, f"input {fact.name!r} has shape [{wanted}], not {shape}")


def _binary_size(name: str, size: Any, fact: TensorFact, elements: int) -> int:
    if not _is_size(size):
        raise LotaBotsError(Code.TENSOR_INVALID, f"input {name!r}: binary_data_size is not a number of bytes")
    width = ELEMENT_BYTES.get(fact.datatype, 0)
    least = elements * 4 if width == 0 else elements * width  # each BYTES element has a 4-byte length
    if size < least or (width and size != least):
        raise LotaBotsError(
            Code.TENSOR_INVALID,
            f"input {name!r} of this shape has {least} bytes, binary_data_size says {size}",
        )
    return int(size)


def _judge_outputs(outputs: list[dict[str, Any]], model: ModelFacts) -> None:
    known = {fact.name for fact in model.outputs}
    for tensor in outputs:
        if tensor["name"] not in known:
            raise LotaBotsError(Code.TENSOR_INVALID, f"the model has no output {tensor['name'][:128]!r}")


def _tensors(request: dict[str, Any], part: str) -> list[dict[str, Any]]:
    """The list of tensors under `part`, with their names and parameters checked."""
    tensors = request.get(part)
    if not isinstance(tensors, list) or not all(isinstance(t, dict) for t in tensors):
        raise LotaBotsError(Code.TENSOR_INVALID, f"{part} must be a list of objects")
    if len(tensors) > MAX_TENSORS:
        raise LotaBotsError(Code.TENSOR_INVALID, f"there are more than {MAX_TENSORS} {part}")
    names = set()
    for tensor in tensors:
        name = tensor.get("name")
        if not isinstance(name, str) or not name:
            raise LotaBotsError(Code.TENSOR_INVALID, f"one of the {part} has no name")
        if name in names:
            raise LotaBotsError(Code.TENSOR_INVALID, f"{name[:128]!r} appears twice in {part}")
        names.add(name)
        _judge_parameters(tensor.get("parameters"), f"{name[:128]!r}")
    return tensors


def _judge_parameters(parameters: Any, owner: str, allowed: frozenset[str] = frozenset()) -> None:
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise LotaBotsError(Code.JSON_INVALID, f"the parameters of {owner} must be an object")
    for name in parameters:
        if name in _REFUSED - allowed or name.startswith(("shared_memory_", "triton_")):
            raise LotaBotsError(Code.PARAMETER_REFUSED, f"{name[:64]!r} in {owner}")


def _judge_id(identifier: Any) -> None:
    if identifier is None:
        return
    if not isinstance(identifier, str) or len(identifier) > MAX_ID_LENGTH or not identifier.isprintable():
        raise LotaBotsError(
            Code.JSON_INVALID, f"id must be printable text of at most {MAX_ID_LENGTH} characters"
        )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1 << 40


def _product(shape: list[int]) -> int:
    elements = 1
    for size in shape:
        elements *= size
    if elements > 1 << 40:
        raise LotaBotsError(Code.TENSOR_INVALID, f"a tensor of shape {shape} is too large")
    return elements


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _unfit_length() -> LotaBotsError:
    return LotaBotsError(Code.REQUEST_MALFORMED, "Inference-Header-Content-Length does not fit the body")


def _where(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at byte {error.pos}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
