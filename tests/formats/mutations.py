"""Systematic changes of a JSON document: each field dropped, added, of another type, out of its bounds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]
# Other types, and the edges of the bounds that our formats use.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 9, 10, 64, 65, 100, 365, 366, 367, 1024, 1025, 10_000, 10_001, 10**15,
    10**15 + 1, 2**40 - 1, 2**40, 2**63 - 1, 2**63, 4_102_444_800, 4_102_444_801, 1.0, 0.5, "", " ", "x",
    "0", "1", "X" * 43, "A" * 43, "é", "a b", "a\nb", "a\u200bb", "x\u00a0", "ab" * 32, "AB" * 32, "0" * 64,
    "[]", [], {}, [1], ["x"], ["b", "a"], ["a", "a"], {"x": 1}, "2026-11-23T04:05:06Z",
    "1999-12-31T23:59:59Z", "2200-12-31T23:59:59Z", "2201-01-01T00:00:00Z", "2026-02-29T00:00:00Z",
    "2028-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-11-23T04:05:06+00:00", "2026-11-23T24:00:00Z",
    "2026-11-23 04:05:06Z", "2026-11-23t04:05:06z", "2026-11-23T04:05:60Z", "2026-11-23", "2026-02-30",
    "x" * 100, "x" * 101, "x" * 200, "x" * 201, "x" * 255, "x" * 256, "x" * 300, "x" * 301, "x" * 1_024,
    "x" * 1_025, "lic_0123456789ABCDEF", "licence", "free", "most",
)  # fmt: skip


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every place in a document, itself first."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in inside:
        yield from places(child, (*path, name))


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def put(value: Any, path: Path, new: Any) -> Any:
    """The document with something else in one place; what is beside the way there is shared, not copied."""
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = new if len(path) == 1 else put(value[path[0]], path[1:], new)
    return changed


def drop(value: Any, path: Path) -> Any:
    """The document without one place."""
    changed = copy.copy(at(value, path[:-1]))
    del changed[path[-1]]
    return put(value, path[:-1], changed)


def mutations(value: Any, *, every: int = 1, inside: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each change and its place, in and below `inside`.

    Of VALUES only one in `every` is used, another share in each place.
    """
    for number, path in enumerate(list(places(value))):
        if path[: len(inside)] != inside:
            continue
        here = at(value, path)
        if path:
            yield path, drop(value, path)
        for new in (*VALUES[number % every :: every], *_near(here)):
            if not (type(new) is type(here) and new == here):
                yield path, put(value, path, new)
        if isinstance(here, dict):
            yield path, put(value, (*path, "more"), 1)
        if isinstance(here, list) and here:
            yield path, put(value, path, [*here, here[0]])
            yield path, put(value, path, here[::-1])
            yield path, put(value, path, [])


def _near(here: Any) -> tuple[Any, ...]:
    """What is almost the same."""
    if isinstance(here, bool) or here is None:
        return ()
    if isinstance(here, int):
        return (here + 1, here - 1, float(here), str(here))
    if isinstance(here, str):
        flipped = here[:-1] + ("A" if here[-1:] != "A" else "Q")
        return (
            here + "\n",
            "\n" + here,
            here + " ",
            here.upper(),
            here.lower(),
            here[:-1],
            here + "0",
            flipped,
            [here],
        )
    return ()
