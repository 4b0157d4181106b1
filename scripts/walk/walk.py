"""The demo: one appliance from nothing to a usage report that the vendor verifies. See scripts/demo."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from appliance import (
    BIN,
    ROOT,
    Appliance,
    FolderInUseError,
    FolderUnusableError,
    claim_folder,
    free_port,
    port_problem,
)
from steps import STEPS, Walk
from telling import Telling, WrongResultError

OK, WRONG, USAGE, BUSY, INTERRUPTED = 0, 3, 2, 8, 130
DEFAULT_PORT = 8080
# What a step raises when an answer is not what it expects, beside what it says itself.
STEP_FAILURES = (WrongResultError, OSError, subprocess.SubprocessError, LookupError, TypeError, ValueError)


def main() -> int:
    """Walk; then stay up, or with --once end. Exit 0 only when every step did what it should."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--port", type=int)
    chosen = parser.parse_args()
    if chosen.port is not None and not 0 <= chosen.port <= 65_535:
        parser.error(f"argument --port: {chosen.port} is no port: give 0 to 65535")
    port = chosen.port if chosen.port is not None else DEFAULT_PORT
    problem = port_problem(port)
    if problem and chosen.port is not None:
        print(f"demo: 127.0.0.1:{port}: {problem}: give another --port (0 finds a free one)", file=sys.stderr)
        return BUSY
    if port == 0 or problem:
        port = free_port()
    temporary = None
    folder = chosen.dir or ROOT / "demo-data"
    if chosen.once and chosen.dir is None:
        folder = temporary = Path(tempfile.mkdtemp(prefix="lotabots-demo-"))
    folder = folder.resolve()
    try:
        lock = claim_folder(folder)
    except FolderInUseError as error:
        print(f"demo: {error}", file=sys.stderr)
        return BUSY
    except FolderUnusableError as error:
        print(f"demo: {error}", file=sys.stderr)
        return USAGE
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        code = _walk(folder, port, once=chosen.once)
    finally:
        os.close(lock)
    if temporary is not None and code == OK:
        shutil.rmtree(temporary)
    return code


def _walk(folder: Path, port: int, *, once: bool) -> int:
    telling = Telling(len(STEPS))
    appliance = Appliance(folder, port, telling)
    telling.note(f"LotaBots demo: everything below happens on this machine; its data is in {folder}")
    code = WRONG
    at = "Before the first step"
    try:
        walk = Walk(appliance, telling, folder)
        for title, step in STEPS:
            at = title
            telling.step(title)
            step(walk)
        telling.note(f"\n    every step did what it should, in {telling.seconds:.1f} s")
        code = OK
        if not once:
            _invite(telling, folder)
            exit_code = appliance.wait()  # by itself only when something is badly wrong
            code, at = WRONG, "Staying up"
            raise WrongResultError(f"lotabotsd up ended with exit {exit_code}")
    except STEP_FAILURES as error:
        _tell_failure(telling, appliance, at, error)
    except KeyboardInterrupt:
        code = OK if code == OK else INTERRUPTED
        telling.note("\n    stopping")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the orderly stop has its own deadline
        ended = appliance.stop()
    if code == OK and ended:
        _tell_failure(telling, appliance, "Stop", WrongResultError(f"lotabotsd up ended with exit {ended}"))
        return WRONG
    return code


def _tell_failure(telling: Telling, appliance: Appliance, at: str, error: BaseException) -> None:
    """What went wrong and in which step, the end of the log, and what to do next."""
    what = str(error) if isinstance(error, WrongResultError) else f"{type(error).__name__}: {error}"
    telling.note(f'\n    WRONG in "{at}": {what}')
    if tail := appliance.tail():
        telling.note(f"the end of {appliance.log}:\n{tail}")
    telling.next_step(
        f"""
    next: read {appliance.log}, put right what it names, then run {ROOT}/scripts/demo again;
    this starts the same appliance without the walk, and shows its logs:

      {BIN}/lotabotsd up --config {appliance.config}
"""
    )


def _invite(telling: Telling, folder: Path) -> None:
    telling.next_step(
        f"""
    The appliance stays up; Ctrl-C stops it. In another shell:

      . {folder}/env
      curl -sS "$GATE_URL/v1/models/page_orientation/predict" \\
           -H "Authorization: Bearer $API_KEY" -H 'Content-Type: image/png' \\
           --data-binary @{folder}/pages/page-090.png
      {BIN}/lotabotsctl status
"""
    )


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
