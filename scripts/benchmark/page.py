"""The page docs/benchmarks.md out of the figures. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Figures, number, table
from targets import HALF, IMAGE, ONE, SMALL, TENSOR

BARE, NGINX = "bare Triton", "nginx proxy"
GATE, GATE_POWER = "gate, process, 1 worker", "gate, power, 1 worker"
GATE_TWO, GATE_TWO_POWER = "gate, process, 2 workers", "gate, power, 2 workers"
GATE_RECEIPTS, GATE_POWER_RECEIPTS = "gate, process, 1 worker, receipts", "gate, power, 1 worker, receipts"
OTHERS = (
    BARE, NGINX, GATE, GATE_RECEIPTS, GATE_POWER, GATE_POWER_RECEIPTS, GATE_TWO, GATE_TWO_POWER,
    "nginx auth_request", "FastAPI + httpx", "Envoy", "KServe transformer", "LiteLLM pass-through",
)  # fmt: skip
PEER_RUNS = 3
NOTES = Path(__file__).resolve().parent / "notes.md"


@dataclass(frozen=True, slots=True)
class Aim:
    """One aim, and what was measured."""

    what: str
    wanted: float
    measured: float | None
    at_most: bool = False

    @property
    def word(self) -> str:
        """Whether it is met."""
        if self.measured is None:
            return "no figure"
        met = self.measured <= self.wanted if self.at_most else self.measured >= self.wanted
        return "met" if met else f"missed by {abs(self.wanted - self.measured):.2f}"


def aims(figures: Figures) -> list[Aim]:
    """The aims of the HTTP data plane without coalescing; every number is a ratio."""

    def added(load: str, value: Callable[[Any], float]) -> float | None:
        """The gate's added latency in units of nginx's; None where nginx added none that could be seen."""
        mine = figures.added_ms(GATE, BARE, load, value)
        other = figures.added_ms(NGINX, BARE, load, value)
        return mine / other if mine is not None and other is not None and other > 0 else None

    found = [
        Aim("small JSON, 64 clients: requests/s of bare Triton", 0.6, figures.ratio(GATE, BARE, SMALL)),
        Aim("the same: requests/s of an nginx that only proxies", 0.8, figures.ratio(GATE, NGINX, SMALL)),
        Aim("the same, against nginx auth_request", 1.0, figures.ratio(GATE, "nginx auth_request", SMALL)),
        Aim("the same, against FastAPI + httpx", 1.0, figures.ratio(GATE, "FastAPI + httpx", SMALL)),
        Aim("the same, against Envoy", 1.0, figures.ratio(GATE, "Envoy", SMALL)),
        Aim(
            "the same, against KServe's Python transformer",
            1.0,
            figures.ratio(GATE, "KServe transformer", SMALL),
        ),
        Aim(
            "the same, against LiteLLM pass-through", 50.0, figures.ratio(GATE, "LiteLLM pass-through", SMALL)
        ),
        Aim("durability power: requests/s of process", 0.85, figures.ratio(GATE_POWER, GATE, SMALL)),
        Aim("receipts on: requests/s of off", 0.8, figures.ratio(GATE_RECEIPTS, GATE, SMALL)),
        Aim(
            "requests per gate CPU-second: 2 workers of 1",
            0.85,
            figures.compare((GATE_TWO, SMALL), (GATE, SMALL), lambda two, one: one.cpu_us / two.cpu_us),
        ),
        Aim("602 KB binary, 8 clients: requests/s of nginx", 0.95, figures.ratio(GATE, NGINX, TENSOR)),
        Aim(
            "image through predict: requests/s of JSON floats to Triton",
            20.0,
            figures.ratio(GATE, BARE, IMAGE),
        ),
    ]
    for load in (ONE, HALF):
        found.append(
            Aim(f"added p50, {load}, in nginx's", 1.5, added(load, lambda s: s.p50_ms), at_most=True)
        )
        found.append(
            Aim(f"added p99, {load}, in nginx's", 2.0, added(load, lambda s: s.p99_ms), at_most=True)
        )
    return found


def aims_table(figures: Figures) -> str:
    """The aims as a table."""
    rows = [
        (aim.what, ("≤ " if aim.at_most else "≥ ") + number(aim.wanted), number(aim.measured), aim.word)
        for aim in aims(figures)
    ]
    return table(("what", "aim", "measured", ""), rows)


def throughput_table(figures: Figures, load: str) -> str:
    """Every target under one closed-loop load."""
    rows = [
        (
            target,
            number(figures.median(target, load, lambda s: s.per_second), 0),
            number(figures.ratio(target, BARE, load)),
            number(figures.ratio(target, NGINX, load)),
            number(figures.median(target, load, lambda s: s.p50_ms)),
            number(figures.median(target, load, lambda s: s.p99_ms)),
            number(figures.median(target, load, lambda s: s.cpu_us) or None, 0),
        )
        for target in OTHERS
        if figures.has(target, load)
    ]
    head = ("", "requests/s", "of bare Triton", "of nginx", "p50 ms", "p99 ms", "CPU µs/request")
    return table(head, rows)


def latency_table(figures: Figures, load: str) -> str:
    """What each target adds to bare Triton's latency."""
    rows = [
        (
            target,
            number(figures.median(target, load, lambda s: s.per_second), 0),
            number(figures.median(target, load, lambda s: s.p50_ms), 3),
            number(figures.median(target, load, lambda s: s.p99_ms), 3),
            number(figures.added_ms(target, BARE, load, lambda s: s.p50_ms), 3, "+")
            if target != BARE
            else "–",
            number(figures.added_ms(target, BARE, load, lambda s: s.p99_ms), 3, "+")
            if target != BARE
            else "–",
        )
        for target in (BARE, NGINX, GATE, GATE_POWER)
        if figures.has(target, load)
    ]
    return table(("", "requests/s", "p50 ms", "p99 ms", "added p50", "added p99"), rows)


def steps_table(steps: list[dict[str, Any]]) -> str:
    """What each step of a request costs."""
    rows = [
        (s["step"], number(s["microseconds"], 1), f"{s['share']:.0%}") for s in steps if s["share"] >= 0.001
    ]
    total = sum(s["microseconds"] for s in steps)
    return table(("step", "CPU µs", "share"), [*rows, ("all", number(total, 1), "100%")])


def summary(figures: Figures) -> str:
    """What is printed at the end."""
    return "\n\n".join([throughput_table(figures, SMALL), aims_table(figures)])


def write(figures: Figures, results: dict[str, Any]) -> str:
    """The whole page."""
    return preamble(figures, results) + sections(figures, results)


def preamble(figures: Figures, results: dict[str, Any]) -> str:
    """How it was measured, on what, and what failed."""
    machine, versions = results["machine"], results["versions"]
    failed = figures.failures()
    told = "\n".join(["Some requests failed, so these figures say nothing:", *[f"- {f}" for f in failed]])
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    place = ", ".join(
        (
            *(machine["processor"], f"{machine['cores']} cores", machine["memory"]),
            *(f"kernel {machine['kernel']}", machine["system"]),
        )
    )
    return f"""# Benchmarks

Written by `scripts/bench` on {results["date"]}; do not edit. `scripts/bench --peers` makes it again, and
`scripts/bench --quick` takes about two minutes and writes elsewhere.

All comparisons are ratios of targets measured side by side in one go: {results["runs"]} alternating
runs of every target, {results["seconds"]:g} s for each load, each run beginning with another target. Shown
are medians over the runs; a ratio is the median of the ratios within each run. Absolute numbers are worth
little: client, gate and Triton share {machine["cores"]} cores, so that whatever the gate spends is taken from
the other two. Before the benchmark began, other work gave the machine a load average of
{results["other_load"]:.1f}.
No test asserts any of these figures.

- Machine: {place}.
- Versions: {names}.
- The gate does everything it ever does: API key, roles, licence; rate, concurrency and quota of
  licence, organisation and key; RateLimit headers; a usage record before and after each request. *process*
  answers once the record is with the kernel, *power* once it is on the disk.
- Bare Triton listens on TCP; the gate, nginx and Envoy reach the same Triton over its Unix socket. The model
  gives back what it gets; it is served from ONNX weights by Triton's Python backend, like every model of the
  embedded runtime.
- nginx runs one process without a log, Envoy one thread with an API key and a local rate limit. Behind
  `auth_request` stands a raw ASGI program on uvicorn that only looks up a key. FastAPI + httpx checks a key
  and counts in memory. LiteLLM runs without its database: with its master key alone, and no limits. Their
  programs: `scripts/benchmark/peers/`. What `--peers` adds runs {PEER_RUNS} times.
{"" if not failed else chr(10) + told + chr(10)}"""


def sections(figures: Figures, results: dict[str, Any]) -> str:
    """The tables, from the aims to what each step costs."""
    return f"""
## Where it stands

{aims_table(figures)}

![Requests per second](benchmarks/throughput.svg)

{NOTES.read_text().strip()}

## Small JSON, 64 clients, closed loop

wrk, one thread, a tensor of 3 floats as JSON. CPU is that of what stands in front of Triton.

{throughput_table(figures, SMALL)}

## 602 KB binary tensor, 8 clients, closed loop

One FP32 tensor of 3 × 224 × 224 there and back, with the binary tensor extension.

{throughput_table(figures, TENSOR)}

## One client

wrk with one connection: nothing waits for anything else.

{latency_table(figures, ONE)}

## Half load

h2load at a fixed rate over 32 connections: half of what the gate with one worker answered at most. A
connection has one request under way at a time, so a late one delays the next of its own connection.

{latency_table(figures, HALF)}

![Latency at half load](benchmarks/latency.svg)

## An image, 4 clients

The gate gets a 224 × 224 PNG as base64 at `/v1/models/NAME/predict`; Triton gets that size as JSON floats.

{throughput_table(figures, IMAGE)}

## What each step costs

Processor time of one worker under the small load, sampled by the kernel's profiling timer, told apart by
function (`scripts/benchmark/hot_path.py`). The numbers are those of the straight line of one request in
ARCHITECTURE.md.

{steps_table(results["steps"])}

![The steps of a request](benchmarks/steps.svg)
"""
