"""Draw the figures of a benchmark as SVG. Run by the benchmark's own environment, which has matplotlib.

usage: plots.py RESULTS.json FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.rcParams["svg.hashsalt"] = "lotabots"  # the same ids each time: small differences in git
INK, GATE, OTHER = "#333333", "#1f6f8b", "#b8c4cc"


def medians(samples: list[dict], load: str, value: str) -> dict[str, float]:
    """Target → median over the runs, in the order of the samples."""
    found: dict[str, list[float]] = {}
    for sample in samples:
        if sample["load"] == load:
            found.setdefault(sample["target"], []).append(sample[value])
    return {target: median(values) for target, values in found.items()}


def bars(path: Path, title: str, values: dict[str, float], unit: str) -> None:
    """Horizontal bars, the largest on top, the gate's own in colour."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    figure = Figure(figsize=(8, 0.42 * len(ordered) + 1.2))
    axes = figure.subplots()
    colours = [GATE if name.startswith("gate") else OTHER for name, _ in ordered]
    drawn = axes.barh([name for name, _ in ordered], [value for _, value in ordered], color=colours)
    axes.bar_label(drawn, fmt=lambda v: f"{v:,.0f}" if v >= 100 else f"{v:.2g}", padding=4, color=INK)
    axes.set_title(title, loc="left", color=INK)
    axes.set_xlabel(unit)
    axes.margins(x=0.12)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    save(figure, path)


def latencies(path: Path, samples: list[dict]) -> None:
    """p50 and p99 of every target at half load, side by side."""
    p50, p99 = medians(samples, "half load", "p50_ms"), medians(samples, "half load", "p99_ms")
    figure = Figure(figsize=(8, 3.2))
    axes = figure.subplots()
    places = range(len(p50))
    axes.bar([p - 0.2 for p in places], list(p50.values()), 0.38, color=GATE, label="p50")
    axes.bar([p + 0.2 for p in places], [p99[name] for name in p50], 0.38, color=OTHER, label="p99")
    axes.set_xticks(list(places), list(p50))
    axes.set_ylabel("ms")
    axes.set_title("Latency at half load", loc="left", color=INK)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write it without the date."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Draw all of them."""
    results = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    samples = results["samples"]
    bars(
        folder / "throughput.svg",
        "Small JSON, 64 clients",
        medians(samples, "small", "per_second"),
        "requests per second",
    )
    latencies(folder / "latency.svg", samples)
    steps = {step["step"]: step["microseconds"] for step in reversed(results["steps"])}
    bars(folder / "steps.svg", "What each step costs", steps, "processor time per request, µs")


if __name__ == "__main__":
    main()
