"""What every command of lotabotsctl shares: the daemon to ask, `--json`, and when to ask a person."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from lotabotsd.foundation.errors import Code, LotaBotsError

from .control_client import ControlClient


@dataclass(frozen=True, slots=True)
class Session:
    """One run of lotabotsctl."""

    client: ControlClient


pass_session = click.make_pass_decorator(Session)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json` to a reading command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def yes_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--yes` to a removing command."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


def show(value: Any, text: Callable[[Any], str], *, as_json: bool) -> None:
    """Print a value as JSON or as text for people."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False) if as_json else text(value))


def make_sure(question: str, *, yes: bool) -> None:
    """Ask on a terminal; without one, and without --yes, refuse (USAGE). Raises INTERRUPTED on "no"."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise LotaBotsError(Code.USAGE, question, hint="there is no terminal to ask on: give --yes")
    if not click.confirm(question, err=True):
        raise LotaBotsError(Code.INTERRUPTED, "nothing was changed", hint="")


def warn(text: str) -> None:
    """One warning line on standard error."""
    click.echo(f"warning: {text}", err=True)


def say_spread(spread: dict[str, Any] | None) -> None:
    """Warn when a change has not reached every gate worker yet."""
    if spread and not spread["complete"]:
        late = spread["workers"] - spread["applied"]
        warn(
            f"{late} of {spread['workers']} gate workers have not applied the change yet; it is replaced soon"
        )
