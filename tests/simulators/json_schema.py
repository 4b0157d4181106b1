"""A stand-in for a JSON Schema validator: the keywords of 2020-12 that docs/formats uses, and no others.

An unknown keyword is an error of the schema, not something to pass over. Two things are stricter than the
standard, as our readers are: 1.0 is no integer, and `format` is not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

Schema = dict[str, Any]
ANNOTATIONS = frozenset(
    {"$schema", "$id", "$defs", "$comment", "title", "description", "x-lotabots-unit", "x-lotabots-since",
     "x-lotabots-rules", "x-lotabots-unchecked"}
)  # fmt: skip
KINDS: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: type(v) is int,
    "null": lambda v: v is None,
}


class Validator:
    """Validates against one schema; `others` are those that it may point to, by their `$id`."""

    def __init__(self, schema: Schema, others: Mapping[str, Schema] | None = None) -> None:
        self._root = schema
        self._others = {} if others is None else others

    def conforms(self, value: Any, schema: Schema | None = None) -> bool:
        """Whether a value is what the schema says."""
        schema = self._root if schema is None else schema
        unknown = set(schema) - set(CHECKS) - ANNOTATIONS
        if unknown:
            raise ValueError(f"keywords that this validator does not know: {sorted(unknown)}")
        return all(
            CHECKS[word](self, value, argument, schema) for word, argument in schema.items() if word in CHECKS
        )

    def follow(self, ref: str) -> tuple[Validator, Schema]:
        """What a `$ref` points to, and the validator in whose document it lies."""
        if not ref.startswith("#"):
            other = Validator(self._others[ref], self._others)
            return other, self._others[ref]
        found: Any = self._root
        for step in ref.removeprefix("#/").split("/"):
            found = found[step]
        return self, found


def subschemas(schema: Schema) -> Iterator[Schema]:
    """A schema and everything inside it that is a schema too."""
    yield schema
    for word in ("properties", "$defs"):
        for one in schema.get(word, {}).values():
            yield from subschemas(one)
    for word in ("anyOf", "allOf", "prefixItems"):
        for one in schema.get(word, ()):
            yield from subschemas(one)
    for word in ("items", "additionalProperties", "propertyNames"):
        if isinstance(schema.get(word), dict):
            yield from subschemas(schema[word])


def _is(value: Any, kinds: str | list[str]) -> bool:
    return any(KINDS[kind](value) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _same(value: Any, expected: Any) -> bool:
    return type(value) is type(expected) and bool(value == expected)


@lru_cache(maxsize=1_000)
def _pattern(pattern: str) -> re.Pattern[str]:
    """As ECMA-262 reads it: `$` is the end, not the place before a last line end."""
    return re.compile(f"{pattern[:-1]}\\Z" if pattern.endswith("$") else pattern)


def _ref(validator: Validator, value: Any, ref: str) -> bool:
    other, schema = validator.follow(ref)
    return other.conforms(value, schema)


def _more(validator: Validator, value: Any, argument: bool | Schema, schema: Schema) -> bool:
    if not isinstance(value, dict):
        return True
    more = [value[name] for name in value if name not in schema.get("properties", {})]
    return not more if argument is False else all(validator.conforms(one, argument) for one in more)  # type: ignore[arg-type]


def _items(validator: Validator, value: Any, argument: bool | Schema, schema: Schema) -> bool:
    if not isinstance(value, list):
        return True
    rest = value[len(schema.get("prefixItems", ())) :]
    return not rest if argument is False else all(validator.conforms(one, argument) for one in rest)  # type: ignore[arg-type]


def _first_items(validator: Validator, value: Any, argument: list[Schema], _: Schema) -> bool:
    if not isinstance(value, list):
        return True
    return all(validator.conforms(one, schema) for one, schema in zip(value, argument, strict=False))


Check = Callable[[Validator, Any, Any, Schema], bool]
CHECKS: dict[str, Check] = {
    "$ref": lambda s, v, ref, _: _ref(s, v, ref),
    "const": lambda s, v, const, _: _same(v, const),
    "enum": lambda s, v, enum, _: any(_same(v, one) for one in enum),
    "anyOf": lambda s, v, schemas, _: any(s.conforms(v, one) for one in schemas),
    "allOf": lambda s, v, schemas, _: all(s.conforms(v, one) for one in schemas),
    "type": lambda s, v, kinds, _: _is(v, kinds),
    "required": lambda s, v, names, _: not isinstance(v, dict) or set(names) <= set(v),
    "properties": lambda s, v, named, _: (
        not isinstance(v, dict) or all(s.conforms(v[name], one) for name, one in named.items() if name in v)
    ),
    "additionalProperties": _more,
    "propertyNames": lambda s, v, one, _: not isinstance(v, dict) or all(s.conforms(name, one) for name in v),
    "minProperties": lambda s, v, low, _: not isinstance(v, dict) or len(v) >= low,
    "maxProperties": lambda s, v, high, _: not isinstance(v, dict) or len(v) <= high,
    "prefixItems": _first_items,
    "items": _items,
    "minItems": lambda s, v, low, _: not isinstance(v, list) or len(v) >= low,
    "maxItems": lambda s, v, high, _: not isinstance(v, list) or len(v) <= high,
    "uniqueItems": lambda s, v, on, _: not isinstance(v, list) or len({repr(one) for one in v}) == len(v),
    "minimum": lambda s, v, low, _: type(v) is not int or v >= low,
    "maximum": lambda s, v, high, _: type(v) is not int or v <= high,
    "minLength": lambda s, v, low, _: not isinstance(v, str) or len(v) >= low,
    "maxLength": lambda s, v, high, _: not isinstance(v, str) or len(v) <= high,
    "pattern": lambda s, v, pattern, _: not isinstance(v, str) or _pattern(pattern).search(v) is not None,
}
