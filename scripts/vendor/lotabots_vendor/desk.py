"""What every command is given: the clock, and how to answer (text for people, JSON for programs)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from lotabotsd.foundation.clock import Clock, from_ns


@dataclass(frozen=True, slots=True)
class Desk:
    """One run of the program."""

    clock: Clock
    as_json: bool

    def now(self) -> datetime:
        """The wall clock, whole seconds, as documents write it."""
        return from_ns(self.clock.wall_ns()).replace(microsecond=0)

    def answer(self, value: Any, lines: Sequence[str]) -> None:
        """Print the value as JSON, or else the lines."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=False) if self.as_json else "\n".join(lines))


def pairs(entries: Sequence[tuple[str, object]]) -> list[str]:
    """Names and values, the values aligned; characters that steer a terminal are replaced."""
    width = max(len(name) for name, _ in entries)
    return [f"{name.ljust(width)}  {printable(str(value))}".rstrip() for name, value in entries]


def printable(text: str) -> str:
    """Text from a file of somebody else, safe to show."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
