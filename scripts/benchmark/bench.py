"""Measure the gate beside what else could stand in front of Triton, and write docs/benchmarks.md.

Started by scripts/bench, which makes the environments. Every run measures every target once, each time
beginning with another one; the page shows medians over the runs and ratios taken within a run.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import identity
import machine
import page
from figures import Figures, Sample
from hot_path import costs
from load import LoadError, Measured, closed_loop, open_loop
from rig import IMAGE_MODEL, MODEL, ROOT, Rig, RigError
from targets import HALF, IMAGE, ONE, SMALL, TENSOR, Running, Target, Targets

SIDE = 224  # of the image, as the model takes it
TENSOR_LENGTH = 3 * SIDE * SIDE


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is measured."""

    runs: int
    seconds: float
    samples_seconds: float


QUICK = Shape(runs=3, seconds=1, samples_seconds=4)
FULL = Shape(runs=5, seconds=3, samples_seconds=20)


# Fewer than a hundred answers a second, and slower at first.
SLOW = frozenset({"FastAPI + httpx", "KServe transformer", "LiteLLM pass-through"})


class Bench:
    """One benchmark over one rig."""

    def __init__(self, rig: Rig, shape: Shape, folder: Path) -> None:
        self._rig = rig
        self._shape = shape
        self._folder = folder
        self._rate = 0.0
        self.samples: list[Sample] = []
        self._bodies = write_bodies(folder)

    def calibrate(self, target: Target) -> None:
        """Half load is half of what the gate with one worker answers."""
        running = target.start()
        try:
            self._rate = self._send(running, target.name, SMALL).per_second / 2
        finally:
            running.stop()

    def run(self, number: int, targets: list[Target]) -> None:
        """One alternating run: every target once, beginning with another one each time."""
        first = number * 3 % len(targets)
        for target in targets[first:] + targets[:first]:
            running = target.start()
            try:
                self._warm(running, target.name)
                for load in target.loads:
                    self._measure(number, running, target.name, load)
            finally:
                running.stop()

    def hot_path(self, targets: Targets) -> list[dict[str, Any]]:
        """Where the worker spends its time under the small load."""
        kept = self._folder / "samples.json"
        running = targets.gate_for_samples(kept)
        try:
            self._warm(running, "gate")
            before = running.cpu_seconds()
            seen = self._send(running, "gate", SMALL, seconds=self._shape.samples_seconds)
            microseconds = (running.cpu_seconds() - before) / seen.requests * 1e6
        finally:
            running.stop()
        samples = [
            ([(file, name) for file, name in stack], count) for stack, count in json.loads(kept.read_text())
        ]
        asked = [s for s in samples if any(name.startswith("Runner.run") for _, name in s[0])]
        return [
            {"step": cost.step, "share": cost.share, "microseconds": cost.microseconds}
            for cost in costs(asked, microseconds)
        ]

    def _warm(self, running: Running, name: str) -> None:
        self._send(running, name, SMALL, seconds=3 if name in SLOW else 1)

    def _measure(self, number: int, running: Running, name: str, load: str) -> None:
        before = running.cpu_seconds()
        seen = self._send(running, name, load)
        spent = running.cpu_seconds() - before
        cpu_us = spent / seen.requests * 1e6 if running.processes and seen.requests else 0.0
        self.samples.append(
            Sample(number, name, load, seen.per_second, seen.p50_ms, seen.p99_ms, seen.failed, cpu_us)
        )
        print(
            f"run {number + 1}  {name:<36}{load:<12}{seen.per_second:>9.0f}/s  p50 {seen.p50_ms:8.3f} ms  "
            f"p99 {seen.p99_ms:8.3f} ms  {cpu_us:6.0f} µs"
            + (f"  FAILED {seen.failed}" if seen.failed else ""),
            flush=True,
        )

    def _send(self, running: Running, name: str, load: str, *, seconds: float = 0) -> Measured:
        seconds = seconds or self._shape.seconds
        infer = f"{running.url}/v2/models/{MODEL}/infer"
        json_headers = {**running.headers, "Content-Type": "application/json"}
        small = self._bodies["small"]
        if name in SLOW:
            seconds = max(3.0, seconds)
        if load == HALF:
            return open_loop(
                self._folder, infer, json_headers, small, clients=32, seconds=seconds, per_second=self._rate
            )
        if load == TENSOR:
            body = self._bodies["tensor"]
            length = (self._folder / "tensor.length").read_text()
            headers = {
                **running.headers,
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": length,
            }
            return closed_loop(self._folder, infer, headers, body, clients=8, seconds=seconds)
        if load == IMAGE:
            floats = name == "bare Triton"
            path = f"/v2/models/{IMAGE_MODEL}/infer" if floats else f"/v1/models/{IMAGE_MODEL}/predict"
            body = self._bodies["floats" if floats else "image"]
            return closed_loop(
                self._folder, running.url + path, json_headers, body, clients=4, seconds=max(2.0, seconds)
            )
        clients = 1 if load == ONE else 64
        return closed_loop(self._folder, infer, json_headers, small, clients=clients, seconds=seconds)


def write_bodies(folder: Path) -> dict[str, Path]:
    """The four bodies: 3 floats as JSON, 602 KB binary, one image as base64, the same size as JSON floats."""
    from PIL import Image, ImageDraw

    chance = random.Random(1)  # noqa: S311 - noise for pictures, the same each time
    small = {
        "inputs": [{"name": identity.INPUT, "shape": [1, 3], "datatype": "FP32", "data": [1.5, 2.5, 3.5]}]
    }
    tensor = struct.pack(f"<{TENSOR_LENGTH}f", *(chance.random() for _ in range(TENSOR_LENGTH)))
    values = struct.unpack(f"<{TENSOR_LENGTH}f", tensor)  # float32 as JSON clients write them, to 17 digits
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": identity.INPUT,
                    "shape": [1, TENSOR_LENGTH],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(tensor)},
                }
            ],
            "outputs": [{"name": identity.OUTPUT, "parameters": {"binary_data": True}}],
        }
    ).encode()
    floats = {"inputs": [{"name": "x", "shape": [1, 3, SIDE, SIDE], "datatype": "FP32", "data": values}]}
    picture = folder / "image.png"
    page_of_text = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(page_of_text)
    for line in range(16):
        draw.text((12, 8 + 13 * line), "Every request carries a key, and a key belongs", fill="black")
    page_of_text.save(picture)
    image = {"image": base64.b64encode(picture.read_bytes()).decode()}
    contents = {
        "small": json.dumps(small).encode(),
        "tensor": header + tensor,
        "floats": json.dumps(floats).encode(),
        "image": json.dumps(image).encode(),
    }
    (folder / "tensor.length").write_text(str(len(header)))
    for name, content in contents.items():
        (folder / f"{name}.body").write_bytes(content)
    return {name: folder / f"{name}.body" for name in contents}


def main() -> int:
    """Measure, then write the page. Exit 3 when something could not be measured."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--environments", type=Path, required=True)
    chosen = parser.parse_args()
    shape = QUICK if chosen.quick else FULL
    output = chosen.output or (chosen.environments / "quick" if chosen.quick else ROOT / "docs")
    output.mkdir(parents=True, exist_ok=True)
    folder = chosen.environments / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sockets = Path(tempfile.mkdtemp(prefix="lotabots-"))  # the path of a Unix socket must be short
    begun = time.time()
    load_before = os.getloadavg()[0]
    rig = Rig(folder, sockets)
    try:
        rig.start()
        bench = Bench(rig, shape, folder)
        targets = Targets(rig, folder, chosen.environments)
        all_of_them = targets.all(with_peers=chosen.peers)
        bench.calibrate(next(t for t in all_of_them if t.name == "gate, process, 1 worker"))
        for number in range(shape.runs):
            bench.run(
                number,
                [t for t in all_of_them if not t.peer or number < (1 if chosen.quick else page.PEER_RUNS)],
            )
        steps = bench.hot_path(targets)
    except (RigError, LoadError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 3
    finally:
        rig.stop()
        shutil.rmtree(sockets, ignore_errors=True)
    results = {
        "samples": [sample.to_dict() for sample in bench.samples],
        "steps": steps,
        "machine": machine.describe(),
        "versions": machine.versions(chosen.environments, rig.versions(), peers=chosen.peers),
        "date": time.strftime("%Y-%m-%d", time.gmtime(begun)),
        "minutes": (time.time() - begun) / 60,
        "runs": shape.runs,
        "seconds": shape.seconds,
        "other_load": load_before,
    }
    (chosen.environments / "results.json").write_text(json.dumps(results, indent=1))
    text = page.write(Figures(bench.samples), results)
    (output / "benchmarks.md").write_text(text)
    plots = [str(chosen.environments / "base" / "bin" / "python"), str(Path(__file__).parent / "plots.py")]
    subprocess.run(
        [*plots, str(chosen.environments / "results.json"), str(output / "benchmarks")], check=True
    )
    print(f"\n{page.summary(Figures(bench.samples))}\n\nwritten: {output / 'benchmarks.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
