"""Judge what a request asks of Triton's scheduler, and write what the key's terms make of it. Pure.

`sequence_id` is put into the key's own namespace, `priority` never comes before the key's band, `timeout`
never outlasts the gate's patience. Only these values change: every other byte of the JSON stays as the client
wrote it, the digits of its numbers too. Meanings: Triton's sequence, schedule policy and generate extensions.
Triton 2.51 does not repeat a sequence's id in its answers, so nothing has to be turned back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.models.facts import ModelFacts

MAX_NUMBER = (1 << 64) - 1  # Triton reads these as unsigned 64-bit numbers
MAX_TEXT_ID = 128  # characters, Triton's own bound
_SEQUENCE = frozenset({"sequence_id", "sequence_start", "sequence_end"})
#: What the gate lets through in its own terms; other parameters are none of the scheduler's business.
SCHEDULING = _SEQUENCE | {"priority", "timeout"}
_SECRET_LABEL = b"lotabots sequence namespace v1"
_BYTE_FOR_BYTE = "latin-1"  # so that positions are those of the bytes; what JSON is made of is ASCII
_BLANK = re.compile(r"[ \t\n\r]*")
_VALUES = json.JSONDecoder()
Edit = tuple[int, int, str]  # from and to, in bytes, and the ASCII that stands there instead


def namespace_secret(pepper: bytes) -> bytes:
    """The 32 bytes that keep sequence ids apart; every worker of an appliance derives the same."""
    return blake2b(_SECRET_LABEL, key=pepper, digest_size=32).digest()


@dataclass(frozen=True, slots=True)
class Namespace:
    """The sequences of one API key: its ids meet no other key's, and stay the same in every worker."""

    secret: bytes = field(repr=False)
    key_id: str

    def number(self, identifier: int) -> int:
        """Triton's id for a client's number: 1 to 2^63 - 1. The ids above are the canary's."""
        return int.from_bytes(self._hash("number", str(identifier), 8), "big") >> 1 or 1

    def text(self, identifier: str) -> str:
        """Triton's id for a client's text: 32 hexadecimal digits."""
        return self._hash("text", identifier, 16).hex()

    def _hash(self, kind: str, identifier: str, size: int) -> bytes:
        message = "\0".join((self.key_id, kind, identifier)).encode()
        return blake2b(message, key=self.secret, digest_size=size).digest()


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms the requests of one key run at Triton."""

    namespace: Namespace
    priority_band: int  # 1 comes first
    longest_microseconds: int  # the gate waits no longer for an answer

    def priority(self, asked: int, levels: int) -> int:
        """The priority that counts, 1 the first: never before the band, never beyond the model's `levels`.

        0 asks for nothing in particular; 0 `levels` means that the model knows none.
        """
        allowed = max(asked, self.priority_band)
        return min(allowed, levels) if levels else allowed


def parameter_edits(
    header: bytes, request: dict[str, Any], terms: Terms, model: ModelFacts
) -> tuple[Edit, ...]:
    """What to change in the JSON part of an infer request before Triton sees it.

    `request` is `header` parsed. A model with priority levels is always told one: who leaves it out must not
    come before the band. Raises PARAMETER_REFUSED, SEQUENCE_INVALID, JSON_INVALID.
    """
    parameters = request.get("parameters") or {}
    changes = _changes(parameters, terms, model, ())
    if model.sequences and not parameters.get("sequence_id"):
        raise LotaBotsError(Code.SEQUENCE_INVALID, f"{model.name} keeps state, and there is no sequence_id")
    if model.priority_levels and "priority" not in parameters:
        changes["priority"] = terms.priority(0, model.priority_levels)
    if not changes:
        return ()
    text = header.decode(_BYTE_FOR_BYTE)
    start = _skip(text, 0)
    if not isinstance(request.get("parameters"), dict):  # absent, or null
        return _edits(text, start, request, {"parameters": changes})
    (begin, _) = _spans(text, start, ["parameters"])["parameters"]
    return _edits(text, begin, parameters, changes)


def generate_edits(body: bytes, request: dict[str, Any], terms: Terms, model: ModelFacts) -> tuple[Edit, ...]:
    """What to change in a generate body before Triton sees it. Raises as `parameter_edits` does.

    There, members named like an input are that input, at the top and inside "parameters"; all others are
    parameters. Triton 2.51 passes them to the model's code and schedules by none of them.
    """
    inputs = [tensor.name for tensor in model.inputs]
    nested = request.get("parameters") or {}
    outer = _changes(request, terms, model, inputs)
    inner = _changes(nested, terms, model, inputs)
    if not outer and not inner:
        return ()
    text = body.decode(_BYTE_FOR_BYTE)
    start = _skip(text, 0)
    edits = _edits(text, start, request, outer)
    if inner:
        (begin, _) = _spans(text, start, ["parameters"])["parameters"]
        edits += _edits(text, begin, nested, inner)
    return edits


def edited(data: bytes, edits: Iterable[Edit]) -> bytes:
    """The data with the edits made; everything else stays as it is."""
    parts: list[bytes] = []
    position = 0
    for begin, end, instead in sorted(edits):
        parts += (data[position:begin], instead.encode("ascii"))
        position = end
    return b"".join([*parts, data[position:]])


def _changes(
    parameters: Mapping[str, Any], terms: Terms, model: ModelFacts, inputs: Iterable[str]
) -> dict[str, Any]:
    """The scheduling parameters that get another value. Raises for one that may not be there."""
    changes: dict[str, Any] = {}
    for name in SCHEDULING.intersection(parameters).difference(inputs):
        value = parameters[name]
        if name in _SEQUENCE and not model.sequences:
            raise LotaBotsError(Code.PARAMETER_REFUSED, f"{name!r}: the model keeps no state")
        if name == "sequence_id":
            judged: Any = _identifier(value, terms.namespace)
        elif name == "priority":
            judged = terms.priority(_number(name, value), model.priority_levels)
        elif name == "timeout":
            judged = min(_number(name, value), terms.longest_microseconds)
        elif isinstance(value, bool):
            judged = value
        else:
            raise LotaBotsError(
                Code.PARAMETER_REFUSED, f"{name!r} is neither true nor false", hint="send true or false"
            )
        if judged != value:
            changes[name] = judged
    return changes


def _identifier(value: Any, namespace: Namespace) -> int | str:
    """Triton's id for the client's; 0 and the empty text mean that there is none."""
    if isinstance(value, str) and len(value) <= MAX_TEXT_ID and value.isprintable():
        return namespace.text(value) if value else ""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER:
        return namespace.number(value) if value else 0
    raise LotaBotsError(
        Code.PARAMETER_REFUSED,
        "'sequence_id' is no usable id",
        hint=f"send a whole number from 1 to 2^64 - 1, or printable text of at most {MAX_TEXT_ID} characters",
    )


def _number(name: str, value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER:
        return value
    unit = "microseconds" if name == "timeout" else "1 for the first"
    raise LotaBotsError(
        Code.PARAMETER_REFUSED,
        f"{name!r} is no number that counts",
        hint=f"send a whole number, {unit}; 0 asks for nothing in particular",
    )


def _edits(text: str, start: int, members: Mapping[str, Any], changes: Mapping[str, Any]) -> tuple[Edit, ...]:
    """What to change in the object that begins at `start`: values of members, and members that are new."""
    spans = _spans(text, start, [name for name in changes if name in members])
    edits = [(begin, end, json.dumps(changes[name])) for name, (begin, end) in spans.items()]
    new = {name: value for name, value in changes.items() if name not in members}
    if new:
        added = json.dumps(new, separators=(",", ":"))[1:-1] + ("," if members else "")
        edits.append((start + 1, start + 1, added))
    return tuple(edits)


def _spans(text: str, start: int, wanted: list[str]) -> dict[str, tuple[int, int]]:
    """Where the values of the `wanted` members stand in the valid object that begins at `start`.

    json's own scanner steps over everything else, and no further than needed.
    """
    found: dict[str, tuple[int, int]] = {}
    position = start + 1
    try:
        while len(found) < len(wanted):
            name, position = _VALUES.raw_decode(text, _skip(text, position))
            begin = _skip(text, _skip(text, position) + 1)  # behind the colon
            _, end = _VALUES.raw_decode(text, begin)
            if name in wanted:
                found[name] = (begin, end)
            position = _skip(text, end) + 1  # behind the comma
    except (ValueError, RecursionError) as error:  # the stack is fuller than when it was parsed
        raise LotaBotsError(Code.JSON_INVALID, "nested too deeply") from error
    return found


def _skip(text: str, position: int) -> int:
    """The first position from here that holds no white space."""
    found = _BLANK.match(text, position)
    assert found is not None  # it matches nothing as well
    return found.end()
