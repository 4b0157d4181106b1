"""What the demo shows of each step: its number and title, what was sent, what came back, what was checked."""

from __future__ import annotations

import shlex
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

WIDTH = 116
FIRST_LINES, LAST_LINES = 12, 8


class WrongResultError(Exception):
    """Something came back that a working appliance would not send."""


class Telling:
    """Prints the walk as it goes. On a terminal titles are bold; in a file everything is plain."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._number = 0
        self._begun = time.monotonic()
        # What lies below the directory that we were called from is told from there.
        self._here = f"{Path.cwd()}/" if Path.cwd() != Path("/") else ""
        self._bold = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")

    @property
    def seconds(self) -> float:
        """Since the walk began."""
        return time.monotonic() - self._begun

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._number += 1
        on, off = self._bold
        self._print(f"\n{on}step {self._number} of {self._steps}  {title}{off}  [{self.seconds:.1f} s]")

    def command(self, words: Sequence[str]) -> None:
        """A command as a person would type it."""
        self._print(f"  $ {shlex.join(words)}")

    def sent(self, text: str) -> None:
        """What went to the gate."""
        self._print(f"  > {text}")

    def came(self, text: str) -> None:
        """What came back; of a long answer its begin and its end."""
        lines = [
            piece
            for line in text.rstrip().splitlines() or ["(nothing)"]
            for piece in textwrap.wrap(line, WIDTH, drop_whitespace=False) or [""]
        ]
        if len(lines) > FIRST_LINES + LAST_LINES + 1:
            left_out = len(lines) - FIRST_LINES - LAST_LINES
            lines = [*lines[:FIRST_LINES], f"… {left_out} lines left out", *lines[-LAST_LINES:]]
        for line in lines:
            self._print(f"  < {line}".rstrip())

    def note(self, text: str) -> None:
        """A line of our own."""
        self._print(f"    {text}")

    def next_step(self, text: str) -> None:
        """What a person can do now, perhaps in another shell: its paths are told whole."""
        print(text, flush=True)

    def proved(self, text: str, holds: bool) -> None:
        """Print what was checked. Raises WrongResultError when it does not hold."""
        self._print(f"  {'✓' if holds else '✗'} {text}")
        if not holds:
            raise WrongResultError(text)

    def _print(self, text: str) -> None:
        print(text.replace(self._here, "") if self._here else text, flush=True)
