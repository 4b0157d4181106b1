"""The arithmetic of the page: medians over runs, and ratios taken within a run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: a target under one kind of load in one of the alternating runs."""

    run: int
    target: str
    load: str
    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_us: float  # processor time per request of what stands in front of Triton; 0 where nothing does

    def to_dict(self) -> dict[str, Any]:
        """For the file of results."""
        return asdict(self)


class Figures:
    """All samples of one benchmark."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by: dict[tuple[str, str], dict[int, Sample]] = {}
        for sample in samples:
            self._by.setdefault((sample.target, sample.load), {})[sample.run] = sample

    def has(self, target: str, load: str) -> bool:
        """Whether this was measured at all."""
        return (target, load) in self._by

    def runs(self, target: str, load: str) -> list[Sample]:
        """The samples of one target under one load, in the order of the runs."""
        return [sample for _, sample in sorted(self._by.get((target, load), {}).items())]

    def median(self, target: str, load: str, value: Callable[[Sample], float]) -> float | None:
        """The median over the runs; None where nothing was measured."""
        found = [value(sample) for sample in self.runs(target, load)]
        return median(found) if found else None

    def compare(
        self,
        first: tuple[str, str],
        second: tuple[str, str],
        of: Callable[[Sample, Sample], float | None],
    ) -> float | None:
        """The median over runs of a number made of two samples of the same run; None without a common run."""
        mine, other = self._by.get(first, {}), self._by.get(second, {})
        found = [of(mine[run], other[run]) for run in sorted(mine.keys() & other.keys())]
        numbers = [number for number in found if number is not None]
        return median(numbers) if numbers else None

    def ratio(self, target: str, against: str, load: str, against_load: str = "") -> float | None:
        """How many times the requests per second: the median of the ratios within each run."""
        return self.compare((target, load), (against, against_load or load), throughput_ratio)

    def added_ms(self, target: str, base: str, load: str, value: Callable[[Sample], float]) -> float | None:
        """How much longer a request takes than at `base`: the median of the differences within each run."""
        return self.compare((target, load), (base, load), lambda mine, bare: value(mine) - value(bare))

    def failures(self) -> list[str]:
        """Loads in which requests failed: their figures say nothing."""
        return [
            f"{target}, {load}: {sum(s.failed for s in runs.values())} requests failed"
            for (target, load), runs in sorted(self._by.items())
            if any(s.failed for s in runs.values())
        ]


def throughput_ratio(mine: Sample, other: Sample) -> float | None:
    """None when the other answered nothing."""
    return mine.per_second / other.per_second if other.per_second else None


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers and stand to the right."""
    lines = [
        f"| {' | '.join(head)} |",
        f"|{'|'.join(['---', *['---:'] * (len(head) - 1)])}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines)


def number(value: float | None, digits: int = 2, sign: str = "") -> str:
    """A number for a table, or a dash where nothing was measured."""
    if value is None:
        return "–"
    if digits == 0:
        return f"{value:{sign},.0f}".replace(",", " ")
    return f"{value:{sign}.{digits}f}"
