"""Samples where a gate worker spends processor time; only when the benchmark asks for it.

Python imports a module of this name at its start when its folder is on PYTHONPATH. The kernel's profiling
timer counts processor time alone, so that waiting, and being made to wait, is not seen.
"""

import atexit
import collections
import json
import os
import pathlib
import signal
import sys

if "BENCH_SAMPLES" in os.environ and "lotabotsd.gate.worker" in sys.orig_argv:
    seen = collections.Counter()

    def sample(_number, frame):
        stack = []
        while frame is not None:
            stack.append((frame.f_code.co_filename.rpartition("/")[2], frame.f_code.co_qualname))
            frame = frame.f_back
        seen[tuple(stack)] += 1

    def write():
        text = json.dumps([[stack, count] for stack, count in seen.items()])
        pathlib.Path(os.environ["BENCH_SAMPLES"]).write_text(text, encoding="utf-8")

    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    atexit.register(write)
