"""JSON in exactly one spelling, and JSON read without the ways it can be read twice. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

# A whole string (even one that never ends), or one bracket. Possessive, so that time stays linear.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN; floats are refused: signed documents hold integers and strings.

    Raises ValueError for a float anywhere inside.
    """
    _refuse_floats(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def strict_json(data: bytes | str, *, max_depth: int = 32) -> Any:
    """Read JSON; duplicate keys, NaN and Infinity, and nesting beyond `max_depth` are ValueErrors."""
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        if match[0] in "[{":
            depth += 1
            if depth > max_depth:
                raise ValueError(f"nested deeper than {max_depth}")
        elif match[0] in "]}":
            depth -= 1
    return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_refuse_constant)


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise ValueError("a signed document holds no floating-point numbers")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError("keys must be strings")
            _refuse_floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
