"""Run the product's own probe in this process and answer questions about it, a line of JSON each way.

Started by tests with the stand-in library on LD_LIBRARY_PATH. Questions: `source`, `look`, `events`, `close`.
With the arguments `bounded SECONDS` it asks through a BoundedProbe; with `daemon` it also answers `value`,
which is what the daemon makes of a look.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from lotabotsd.daemon.gpus import Gpus
from lotabotsd.gpu.bounded import BoundedProbe
from lotabotsd.gpu.probe import Probe, choose_probe


def answer(probe: Probe, gpus: Gpus | None, question: str) -> Any:
    """What the probe says."""
    if question == "source":
        return probe.source
    if question == "look":
        return [dataclasses.asdict(facts) for facts in probe.look()]
    if question == "events":
        return [dataclasses.asdict(event) for event in probe.events()]
    if question == "value" and gpus is not None:
        gpus.look()
        return gpus.value()
    if question == "close":
        probe.close()
        return None
    raise ValueError(question)


def main() -> None:
    """Answer until standard input ends."""
    gpus = None
    if sys.argv[1:2] == ["bounded"]:
        probe: Probe = BoundedProbe(choose_probe, float(sys.argv[2]))
    else:
        probe = choose_probe()
        if sys.argv[1:] == ["daemon"]:
            gpus = Gpus(probe)
    for line in sys.stdin:
        print(json.dumps(answer(probe, gpus, line.strip())), flush=True)


if __name__ == "__main__":
    main()
