"""The demo: one appliance from nothing to a usage report that the vendor verifies. See scripts/demo."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from appliance import ROOT, Appliance, FolderInUseError, claim_folder, free_port, port_is_free
from steps import STEPS, Walk
from telling import Telling, WrongResultError

OK, WRONG, USAGE, BUSY, INTERRUPTED = 0, 3, 2, 8, 130
DEFAULT_PORT = 8080


def main() -> int:
    """Walk; then stay up, or with --once end. Exit 0 only when every step did what it should."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--port", type=int)
    chosen = parser.parse_args()
    if chosen.port is not None and not 0 <= chosen.port <= 65_535:
        parser.error(f"argument --port: {chosen.port} is no port: give 0 to 65535")
    temporary = None
    folder = chosen.dir or ROOT / "demo-data"
    if chosen.once and chosen.dir is None:
        folder = temporary = Path(tempfile.mkdtemp(prefix="lotabots-demo-"))
    folder = folder.resolve()
    port = chosen.port if chosen.port is not None else DEFAULT_PORT
    if port == 0 or (chosen.port is None and not port_is_free(port)):
        port = free_port()
    try:
        lock = claim_folder(folder)
    except FolderInUseError as error:
        print(f"demo: {error}", file=sys.stderr)
        return BUSY
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
    try:
        walk = Walk(appliance, telling, folder)
        for title, step in STEPS:
            telling.step(title)
            step(walk)
        telling.note(f"\n    every step did what it should, in {telling.seconds:.1f} s")
        code = OK
        if not once:
            _invite(telling, folder)
            return appliance.wait()  # ends by itself only when something is badly wrong
    except WrongResultError as error:
        telling.note(f"\n    WRONG: {error}\n    the end of {appliance.log}:\n{appliance.tail()}")
    except KeyboardInterrupt:
        code = OK if code == OK else INTERRUPTED
        telling.note("\n    stopping")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the orderly stop has its own deadline
        ended = appliance.stop()
    if code == OK and ended:
        telling.note(f"WRONG: lotabotsd up ended with exit {ended}; see {appliance.log}")
        return WRONG
    return code


def _invite(telling: Telling, folder: Path) -> None:
    telling.note(
        f"""
    The appliance stays up; Ctrl-C stops it. In another shell:

      . {folder}/env
      curl -sS "$GATE_URL/v1/models/page_orientation/predict" \\
           -H "Authorization: Bearer $API_KEY" -H 'Content-Type: image/png' \\
           --data-binary @{folder}/pages/page-090.png
      {ROOT}/.venv/bin/lotabotsctl status
"""
    )


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
