"""Write the tables of docs/formats/README.md out of the JSON Schemas beside it; --check only compares.

What lies between `<!-- made: fields NAME -->` and `<!-- made: end -->` is made from NAME.schema.json, `rules`
from its x-lotabots-rules, `refusals` from refusals.json; everything else on the page is written by hand.

usage: scripts/formats_dictionary.py [--check]
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Schema = dict[str, Any]
FOLDER = Path(__file__).resolve().parent.parent / "docs" / "formats"
PAGE = FOLDER / "README.md"
_MADE = re.compile(r"(<!-- made: (fields|rules|refusals) ([a-z-]+) -->\n).*?(<!-- made: end -->)", re.DOTALL)
_TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false", "array": "list"}


@dataclass(frozen=True, slots=True)
class Field:
    """One line of a document's table."""

    path: str
    kind: str
    unit: str
    bound: str
    meaning: str
    since: int

    def row(self) -> str:
        """The line as Markdown."""
        cells = (f"`{self.path}`", self.kind, self.unit, self.bound, self.meaning, str(self.since))
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def fields(root: Schema) -> Iterator[Field]:
    """Every member of a document, outermost first."""
    yield from _inside(root, root, "", 1)


def _inside(root: Schema, schema: Schema, path: str, since: int) -> Iterator[Field]:
    """What lies in an object or a list."""
    required = schema.get("required", ())
    for name, one in schema.get("properties", {}).items():
        yield from _field(root, one, f"{path}.{name}".lstrip("."), since, name not in required)
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        yield from _field(root, more, f"{path}.*", since, False)
    for number, one in enumerate(schema.get("prefixItems", ())):
        yield from _field(root, one, f"{path}.{one.get('title', number)}", since, False)
    if isinstance(schema.get("items"), dict):
        yield from _items(root, schema["items"], f"{path}[]", since)


def _items(root: Schema, one: Schema, path: str, since: int) -> Iterator[Field]:
    """A list's entries: a line of their own where they are no objects or lists."""
    resolved = _resolved(root, one)
    if "properties" in resolved or "prefixItems" in resolved:
        yield from _inside(root, resolved, path, since)
    else:
        yield Field(path, _kind(resolved), "", _bound(resolved), "", since)


def _field(root: Schema, one: Schema, path: str, since: int, optional: bool) -> Iterator[Field]:
    since = one.get("x-lotabots-since", since)
    choices = [_resolved(root, choice) for choice in one.get("anyOf", ()) if choice != {"type": "null"}]
    resolved = _resolved(root, one)
    kind = " or ".join(dict.fromkeys(map(_kind, choices or [resolved])))
    if {"type": "null"} in one.get("anyOf", ()):
        kind += " or null"
    unit, bound = one.get("x-lotabots-unit", ""), _bound(choices[0] if len(choices) == 1 else resolved)
    meaning = ("May be left out. " if optional else "") + one.get("description", "")
    yield Field(path, kind, unit, bound, meaning, since)
    for choice in choices or [resolved]:
        if "$ref" not in choice and choice.get("allOf", [{}])[0].get("$ref") is None:
            yield from _inside(root, choice, path, since)


def _resolved(root: Schema, one: Schema) -> Schema:
    """A schema with what it points to inside the same document laid under it."""
    ref = one.get("$ref", "")
    if ref.startswith("#/$defs/"):
        beside = {word: value for word, value in one.items() if word != "$ref"}
        return {**_resolved(root, root["$defs"][ref.removeprefix("#/$defs/")]), **beside}
    if "allOf" in one and all("$ref" not in part or part["$ref"].startswith("#") for part in one["allOf"]):
        merged: Schema = {}
        for part in one["allOf"]:
            merged |= {k: v for k, v in _resolved(root, part).items() if k not in merged or k != "pattern"}
        return {**merged, **{word: value for word, value in one.items() if word != "allOf"}}
    return one


def _kind(schema: Schema) -> str:
    remote = str(schema.get("$ref") or schema.get("allOf", [{}])[0].get("$ref", ""))
    if remote.startswith("urn:"):
        return remote.split(":")[3]
    kinds = schema.get("type", "")
    if not kinds:
        values = [schema["const"]] if "const" in schema else schema.get("enum", [""])
        kinds = {str: "string", int: "integer", list: "array", bool: "boolean"}[type(values[0])]
    listed = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_TYPES.get(kind, kind) for kind in listed)


def _bound(schema: Schema) -> str:
    """What a value is kept within."""
    said = []
    if "const" in schema:
        said.append(
            f"`{_plain(schema['const'])}`" if not isinstance(schema["const"], list) else "just this list"
        )
    if "enum" in schema:
        said.append(" ".join(f"`{_plain(one)}`" for one in schema["enum"]))
    if "minimum" in schema:
        said.append(f"{_spaced(schema['minimum'])} to {_spaced(schema['maximum'])}")
    for low, high, what in (
        ("minLength", "maxLength", "characters"), ("minItems", "maxItems", "entries"),
        ("minProperties", "maxProperties", "members"),
    ):  # fmt: skip
        if low in schema and schema.get(low) == schema.get(high):
            said.append(f"{schema[low]} {what}")
        elif low in schema and high in schema:
            said.append(f"{schema[low]} to {_spaced(schema[high])} {what}")
        elif high in schema:
            said.append(f"up to {_spaced(schema[high])} {what}")
        elif low in schema:
            said.append("not empty" if schema[low] == 1 else f"at least {schema[low]} {what}")
    if "pattern" in schema:
        said.append(schema.get("title", f"`{schema['pattern']}`"))
    return ", ".join(said)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def made(what: str, name: str) -> str:
    """The lines between two markers."""
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text())
    if what == "fields":
        head = ["| field | type | unit | bound | meaning | since |", "|---|---|---|---|---|---|"]
        return "\n".join([*head, *(field.row() for field in fields(schema))])
    if what == "rules":
        rules = schema.get("x-lotabots-rules", [])
        head = ["| what the schema cannot say | code |", "|---|---|"]
        return "\n".join(
            [*head, *(f"| {one['rule'].replace('|', chr(92) + '|')} | `{one['code']}` |" for one in rules)]
        )
    refusals = json.loads((FOLDER / "refusals.json").read_text())
    head = ["| wrong in this way | code | words in the detail |", "|---|---|---|"]
    rows = [
        f"| {one['text']} | `{one['code']}` | {one['says'] and '“' + one['says'].strip() + '”'} |"
        for one in refusals
        if one["document"] == name
    ]
    return "\n".join([*head, *rows])


def page(text: str) -> str:
    """The page with every made part made anew."""
    return _MADE.sub(lambda part: f"{part[1]}{made(part[2], part[3])}\n{part[4]}", text)


def main(arguments: list[str]) -> int:
    """0; 1 where the page is out of date; 2 for another option."""
    if arguments not in ([], ["--check"]):
        print("usage: scripts/formats_dictionary.py [--check]", file=sys.stderr)
        return 2
    old = PAGE.read_text()
    new = page(old)
    if arguments:
        if new != old:
            print(f"{PAGE} is out of date\n  fix: scripts/formats_dictionary.py", file=sys.stderr)
        return int(new != old)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
