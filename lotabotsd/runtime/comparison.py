"""Whether two Tritons answer a canary alike: what an image on trial is compared by. Pure."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from typing import Any

from .canary import TOLERANCE, Canary, CanaryAnswer

_FLOATS = {"FP16": "e", "FP32": "f", "FP64": "d"}
Output = tuple[str, tuple[int, ...], bytes]  # datatype, shape, elements


def difference(canary: Canary, before: CanaryAnswer, after: CanaryAnswer) -> str:
    """How `after` differs from `before`, or nothing. Both were judged right before (canary.py).

    Floating-point numbers may differ by the canary's tolerance, of 1 or of themselves where they are larger;
    everything else must be equal. Of a stream there is nothing to compare.
    """
    if canary.decoupled:
        return ""
    old, new = _outputs(before), _outputs(after)
    return next((text for each in canary.outputs if (text := _differs(each.name, old, new))), "")


def _outputs(answer: CanaryAnswer) -> dict[str, Output]:
    found: dict[str, Output] = {}
    place = answer.head_bytes
    for output in json.loads(answer.body[:place])["outputs"]:
        size = int(output["parameters"]["binary_data_size"])
        elements = answer.body[place : place + size]
        found[output["name"]] = (output["datatype"], tuple(output["shape"]), elements)
        place += size
    return found


def _differs(name: str, before: dict[str, Output], after: dict[str, Output]) -> str:
    datatype, shape, old = before[name]
    _, new_shape, new = after[name]
    if shape != new_shape:
        return f"the output {name} has shape {list(new_shape)}, before it was {list(shape)}"
    code = _FLOATS.get(datatype)
    if code is None:
        return "" if old == new else f"the output {name} is another one than before"
    pairs = zip(_numbers(code, old), _numbers(code, new), strict=True)
    for index, (ours, theirs) in enumerate(pairs):
        if not math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            return f"the output {name} has {theirs:.6g} at {index}, before it was {ours:.6g}"
    return ""


def _numbers(code: str, elements: bytes) -> Sequence[Any]:
    return struct.unpack(f"<{len(elements) // struct.calcsize(code)}{code}", elements)
