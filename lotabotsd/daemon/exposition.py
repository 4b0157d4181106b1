"""Write metrics as Prometheus reads them: text format 0.0.4. Pure.

Source of the format: Prometheus documentation, "Exposition formats".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
Kind = Literal["counter", "gauge"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number with its labels, in the order in which they are written."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: all samples of one name. One without samples is not written."""

    name: str
    kind: Kind
    help: str
    samples: tuple[Sample, ...]


def counter(name: str, text: str, samples: Iterable[Sample]) -> Family:
    """A number that only grows."""
    return Family(name, "counter", text, tuple(samples))


def gauge(name: str, text: str, samples: Iterable[Sample]) -> Family:
    """A number that goes both ways."""
    return Family(name, "gauge", text, tuple(samples))


def known(value: float | None, labels: Mapping[str, str] | None = None) -> tuple[Sample, ...]:
    """One sample, or none where the value is not known: a missing series says more than a wrong zero."""
    return () if value is None else (Sample(value, labels or {}),)


def one_of(label: str, values: Iterable[str], chosen: str) -> tuple[Sample, ...]:
    """A state as one series per possible value: 1 for the one that holds, else 0."""
    return tuple(Sample(float(value == chosen), {label: value}) for value in values)


def exposition(families: Iterable[Family]) -> str:
    """The whole text. Raises ValueError for a name that the format does not allow or that comes twice."""
    lines: list[str] = []
    seen: set[str] = set()
    for family in families:
        if not _NAME.fullmatch(family.name) or family.name in seen:
            raise ValueError(f"{family.name!r} is no name of a metric, or was used before")
        seen.add(family.name)
        if family.samples:
            lines.append(f"# HELP {family.name} {_escaped(family.help)}")
            lines.append(f"# TYPE {family.name} {family.kind}")
            lines += [f"{family.name}{_labels(s.labels)} {_number(s.value)}" for s in family.samples]
    return "\n".join([*lines, ""])


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    for name in labels:
        if not _LABEL.fullmatch(name) or name.startswith("__"):
            raise ValueError(f"{name!r} is no name of a label")
    quoted = (f'{name}="{_escaped(value, quote=True)}"' for name, value in labels.items())
    return "{" + ",".join(quoted) + "}"


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def _number(value: float) -> str:
    """Whole numbers without an exponent, others as Python writes them back exactly."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(value)
