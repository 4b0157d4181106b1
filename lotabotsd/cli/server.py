"""`lotabotsd`: the entry points of the three processes. Each subcommand imports only what it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lotabotsd import __version__
from lotabotsd.foundation.config import Config, load
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError

from .failures import run

DEFAULT_CONFIG = Path("/etc/lotabots/lotabots.toml")


def with_config(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config`."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path, dir_okay=False),
        default=DEFAULT_CONFIG,
        show_default=True,
        help="The configuration file.",
    )(command)


def with_inherited(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--inherited NAME=DESCRIPTOR`, with which `lotabotsd up` hands over sockets."""
    return click.option("--inherited", multiple=True, hidden=True)(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="lotabotsd", message="%(prog)s %(version)s")
def lotabotsd() -> None:
    """LotaBots: a gated, licensed, metered and attested inference server.

    On a server systemd runs the three processes: serve, gate and runtime. On your desk, `up` runs them all.
    """


@lotabotsd.command()
@with_config
@with_inherited
def serve(config_path: Path, inherited: tuple[str, ...]) -> int:
    """Run the daemon: supervision, licence, ledger, control API."""
    from lotabotsd.daemon.lifecycle import run_daemon

    from .listeners import passed_on

    config = _begin(config_path, "daemon")
    return run_daemon(config, config_path, passed_on(inherited))


@lotabotsd.command(short_help="Run the gate: its parent, and a worker per socket.")
@with_config
@with_inherited
def gate(config_path: Path, inherited: tuple[str, ...]) -> int:
    """Run the gate: its parent, and one worker per listening socket."""
    from lotabotsd.gate.parent import run_gate

    from .listeners import passed_on

    config = _begin(config_path, "gate")
    listeners = [listener for _, listener in passed_on(inherited)]
    return run_gate(config, config_path, listeners)


@lotabotsd.command(short_help="Run the runtime helper, which starts and stops Triton.")
@with_config
@with_inherited
def runtime(config_path: Path, inherited: tuple[str, ...]) -> int:
    """Run the runtime helper: starts and stops Triton when the daemon asks, with fixed verbs."""
    from .listeners import passed_on
    from .runtime import refuse_untrusted, run_helper

    refuse_untrusted(config_path)
    config = _begin(config_path, "runtime")
    return run_helper(config, config_path, [listener for _, listener in passed_on(inherited)])


@lotabotsd.command(short_help="Run the relay to a Triton on loopback TCP.")
@with_config
def relay(config_path: Path) -> int:
    """Run the relay: Triton's Unix sockets, passed on to 127.0.0.1 (runtime.transport = "tcp")."""
    from .relay import run_relay

    return run_relay(_begin(config_path, "relay"))


@lotabotsd.command(short_help="Run all three here: for the demo, tests and development.")
@with_config
@click.option("--once-ready", is_flag=True, help="Stop again as soon as everything is ready.")
def up(config_path: Path, once_ready: bool) -> int:
    """Run all three here, as the calling user: for the demo, tests and development."""
    from .up import run_up

    return run_up(_configuration(config_path), config_path.resolve(), once_ready=once_ready)


@lotabotsd.command("check-config")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def check_config(file: Path) -> int:
    """Check a configuration FILE and name every problem in it."""
    from lotabotsd.daemon.timetable import rule_of

    config = _configuration(file, "FILE")
    rule_of(config.report.schedule)
    click.echo(f"{file}: no problems")
    return Exit.OK


def _configuration(path: Path, place: str = "--config FILE") -> Config:
    """Read the configuration; `place` is where another one can be named.

    Raises CONFIG_INVALID, also for a file that cannot be read.
    """
    try:
        return load(path)
    except LotaBotsError as error:
        if error.code is not Code.FILE_UNREADABLE:
            raise
        raise LotaBotsError(
            Code.CONFIG_INVALID,
            error.detail,
            hint=f"name a file that can be read, {place}: etc/lotabots.toml is one to begin with",
        ) from error


def _begin(config_path: Path, component: str) -> Config:
    """Read the configuration and set up logging for one process."""
    from lotabotsd.foundation.journald import set_up_logging

    config = _configuration(config_path)
    set_up_logging(component, config.log.level)
    return config


def main() -> None:
    """The console script."""
    sys.exit(run(lotabotsd, "lotabotsd", tracebacks=True))


if __name__ == "__main__":
    main()
