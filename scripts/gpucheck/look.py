"""Ask the product's probe once, bounded, in a process of its own, and print what it saw as JSON."""

from __future__ import annotations

import json
import sys
import time

from lotabotsd.daemon.gpus import Gpus
from lotabotsd.gpu.bounded import BoundedProbe
from lotabotsd.gpu.probe import choose_probe


def main() -> int:
    """`look.py [TIMES]`: the last look, and how long each took."""
    seconds = []
    begun = time.monotonic()
    gpus = Gpus(BoundedProbe(choose_probe))
    opened = time.monotonic() - begun
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
        begun = time.monotonic()
        gpus.look()
        seconds.append(time.monotonic() - begun)
    print(json.dumps({**gpus.value(), "source": gpus.source, "open_seconds": opened, "seconds": seconds}))
    gpus.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
