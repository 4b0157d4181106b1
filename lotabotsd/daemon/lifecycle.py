"""The life of the daemon: take the lock, put the parts together, run the loops, stop in order."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from lotabotsd.control.app import control_app
from lotabotsd.control.server import ControlServer, control_server
from lotabotsd.foundation.clock import Clock, SystemClock
from lotabotsd.foundation.config import Config
from lotabotsd.foundation.errors import Exit, LotaBotsError
from lotabotsd.foundation.sockets import sd_notify

from .appliance import Appliance
from .listeners import attest_listener, control_listener
from .lock import only_daemon
from .loops import Loop, run_loop
from .rooms import Attester, attest_service, rooms_of
from .rounds import Rounds, feed_watchdog
from .timetable import Timetable
from .wiring import open_appliance, open_gate

log = logging.getLogger("lotabots.daemon")

STOP_SECONDS = 15.0
HELPER_SECONDS = 2.0


def run_daemon(config: Config, config_path: Path, passed: Sequence[tuple[str, socket.socket]] = ()) -> int:
    """Run until SIGTERM or SIGINT; `passed` are sockets named `control` and `attest`, else they are bound.

    Returns the exit code: 1 when a loop ended with a bug, and the service manager shall start anew.
    Raises ALREADY_RUNNING, CONFIG_INVALID, and whatever keeps a part from opening.
    """
    with only_daemon(config.paths.state):
        log.info("starting with %s", config_path)
        return asyncio.run(_live(config, dict(passed), SystemClock()))


async def _live(config: Config, passed: dict[str, socket.socket], clock: Clock) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    appliance = await asyncio.to_thread(open_appliance, config, clock)
    try:
        runs = await _triton_runs(appliance)
        await asyncio.to_thread(open_gate, appliance, triton_runs=runs)
        return await _serve(appliance, passed, stop)
    finally:
        appliance.publishing.let_go()
        await asyncio.to_thread(appliance.close)
        log.info("stopped")


async def _triton_runs(appliance: Appliance) -> bool:
    """Whether Triton outlived the last daemon; a helper that does not say so quickly counts as a no."""
    try:
        async with asyncio.timeout(HELPER_SECONDS):
            return (await appliance.helper.inspect()).running
    except (LotaBotsError, TimeoutError):
        return False


async def _serve(appliance: Appliance, passed: dict[str, socket.socket], stop: asyncio.Event) -> int:
    rounds = Rounds(appliance)
    timetable = Timetable(appliance.report_rule, rounds.on_alarm)
    attester = Attester(appliance)
    door = passed.get("attest") or attest_listener(appliance.config)
    attest = await attest_service(appliance, attester).start(door)
    server = control_server(control_app(rooms_of(appliance, attester)))
    control = passed.get("control") or control_listener(appliance.config)
    serving = asyncio.create_task(server.serve(sockets=[control]), name="control")
    tasks = {
        serving,
        asyncio.create_task(feed_watchdog(appliance, stop), name="watchdog"),
        *(_start(each, appliance, stop) for each in rounds.loops()),
    }
    timetable.start()
    sd_notify("READY=1\nSTATUS=running")
    log.info("ready")
    try:
        return await _until_stopped(tasks, stop)
    finally:
        timetable.stop()
        attest.close()
        await _stop(server, tasks, stop)
        await asyncio.to_thread(appliance.reconciling.look_once_more)  # Triton may be stopped next


def _start(loop: Loop, appliance: Appliance, stop: asyncio.Event) -> asyncio.Task[None]:
    return asyncio.create_task(run_loop(loop, appliance.health, stop), name=loop.name)


async def _until_stopped(tasks: set[asyncio.Task[None]], stop: asyncio.Event) -> int:
    """Wait for the signal; a task that ends by itself is a bug, told with its traceback."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    if stopping in done:
        return Exit.OK
    stopping.cancel()
    for task in done:
        error = None if task.cancelled() else task.exception()
        log.critical("%s ended by itself", task.get_name(), exc_info=error)
    return Exit.UNEXPECTED


async def _stop(server: ControlServer, tasks: set[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """No new requests, running ones and rounds end, then whatever does not end is left behind."""
    sd_notify("STOPPING=1")
    stop.set()
    server.stop()
    _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
    for task in late:
        log.warning("%s did not end in time", task.get_name())
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
