"""Check GPUs, Triton on a GPU, the gate before it and its supervision, and write one JSON file of results.

Started by scripts/gpu-check. With --simulated the same code runs over the stand-in for NVIDIA's library, and
the failures that nobody can order from a real GPU are added.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import checks
import machine
from gpu_rig import GpuRig
from rig import ROOT, RigError
from verdicts import NOT_RUN, OutOfTimeError, Result

WHOLE_SECONDS = 540  # a machine with a GPU is often lent for ten minutes
LIBRARY_VARIABLE = "LD_LIBRARY_PATH"
HERE = Path(__file__).resolve().parent
NVML = ROOT / "tests" / "simulators" / "nvml"
EVERY_CHECK = (*checks.NAMES, *checks.DRILLS)


def look(times: int = 1) -> dict[str, Any]:
    """What the product's probe sees, from a process of its own. Raises RigError."""
    command = [sys.executable, str(HERE / "look.py"), str(times)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise RigError(f"the probe ended with {done.returncode}: {done.stderr[-1_000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stand_in() -> ModuleType:
    """tests/simulators/nvml/host.py"""
    spec = importlib.util.spec_from_file_location("nvml_host", NVML / "host.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def simulated_host() -> Any:
    """Two GPUs that are not there, one of them divided. The library is only found by a process that
    begins with it, so the first call starts this program anew and does not return."""
    nvml = stand_in()
    library = ROOT / ".cache" / "nvml"
    library.mkdir(parents=True, exist_ok=True)
    state = os.environ.get(nvml.STATE_VARIABLE)
    if state is None:
        try:
            nvml.build(library)
        except nvml.NoCompilerError as missing:
            sys.exit(f"gpu-check: {missing}")
        state = str(library / f"gpus-{os.getpid()}.json")
        os.environ[nvml.STATE_VARIABLE] = state
        beside = os.environ.get(LIBRARY_VARIABLE)
        os.environ[LIBRARY_VARIABLE] = f"{library}:{beside}" if beside else str(library)
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - this very program
    parts = [nvml.mig_device(1, instance) for instance in (7, 8)]
    return nvml.Host(library, Path(state), nvml.gpu(0), nvml.gpu(1, mig=1, mig_devices=parts))


def measure(result: Result, seen: dict[str, Any], host: Any, *, quick: bool) -> None:
    """Every check, in an order in which each finds what the ones before have made."""
    (ROOT / ".cache").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="gpu-check-", dir=ROOT / ".cache"))
    sockets = Path(tempfile.mkdtemp(prefix="lotabots-"))  # the path of a Unix socket must be short
    rig = GpuRig(folder, sockets)
    on = checks.Checks(rig, result, seen, look, quick=quick)
    try:
        result.check("probe", on.probe)
        if not result.check("appliance starts", on.start):
            return
        for name, check in on.of_the_appliance():
            result.check(name, check)
        if host is None:
            result.skip(checks.DRILLS, "only with --simulated: nobody breaks a real GPU")
        else:
            for name, check in on.drills(host):
                result.check(name, check)
    finally:
        rig.stop()
        shutil.rmtree(sockets, ignore_errors=True)
        if result.failed:
            print(f"the logs are in {folder}")
        else:
            shutil.rmtree(folder)


def out_of_time(_number: int, _frame: FrameType | None) -> None:
    """SIGALRM: what was found so far is still written."""
    raise OutOfTimeError


def main() -> int:
    """Exit 0: nothing failed, 3: something did, or there is no GPU."""
    parser = argparse.ArgumentParser(prog="scripts/gpu-check", description=__doc__)
    parser.add_argument("--simulated", action="store_true", help="over the stand-in for NVIDIA's library")
    parser.add_argument("--quick", action="store_true", help="one short run of each measurement")
    parser.add_argument("--output", type=Path, help="the file of results (default: gpu-check.json)")
    chosen = parser.parse_args()
    output: Path = chosen.output or Path("gpu-check-simulated.json" if chosen.simulated else "gpu-check.json")
    host = simulated_host() if chosen.simulated else None
    begun = time.monotonic()
    seen = look(20)
    if not seen["items"]:
        print(f"gpu-check: no NVIDIA GPU on this machine: {seen['detail']}", file=sys.stderr)
        print("  fix: run it where nvidia-smi lists one, or try it out with --simulated", file=sys.stderr)
        return 3
    result = Result(
        {
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "gpus_are": "simulated" if chosen.simulated else "real",
            "commit": commit(),
            "machine": machine.describe(),
            "driver": seen["items"][0]["driver"],
            "gpus": [{k: v for k, v in item.items() if k != "serial"} for item in seen["items"]],
        }
    )
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(WHOLE_SECONDS)
    try:
        measure(result, seen, host, quick=chosen.quick)
    except OutOfTimeError:
        result.skip(EVERY_CHECK, f"the whole script's {WHOLE_SECONDS} s were spent")
    finally:
        signal.alarm(0)
        result.skip(EVERY_CHECK, "a check before it failed")
        result.facts["seconds"] = round(time.monotonic() - begun, 1)
        output.write_text(json.dumps(result.to_dict(), indent=1, ensure_ascii=False) + "\n")
        if host is not None:
            Path(os.environ["LOTABOTS_NVML_STATE"]).unlink(missing_ok=True)
    not_run = sum(verdict.result == NOT_RUN for verdict in result.checks)
    print(f"\nverdict: {result.to_dict()['verdict']} ({not_run} checks not run); written: {output}")
    return 3 if result.failed else 0


def commit() -> str:
    """Which state of the source was checked; empty outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
