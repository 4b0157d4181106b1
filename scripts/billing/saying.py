"""What the billing walk shows: who does what, the command, its answer, and what was checked.

Names that are made anew in every run (ids, digests, codes) are shown by what they stand for, so that two runs
print the same text and a page can hold it.
"""

from __future__ import annotations

import re
import shlex
import sys
import textwrap
from collections.abc import Sequence

WIDTH = 112
_HEX = re.compile(r"\b[0-9a-f]{16,64}\b")
_KEY_ID = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
_CODE = re.compile(r"\b[0-9A-Z]{4}(-[0-9A-Z]{4}){3}\b")
_LICENCE = re.compile(r"\blic_[0-9A-Za-z]{16}\b")


class WrongResultError(Exception):
    """Something came back that should not."""


class Telling:
    """Prints the walk as it goes."""

    def __init__(self) -> None:
        self.steps: list[list[str]] = []  # what was printed, by step
        self._names: dict[str, str] = {}
        self._licences: dict[str, str] = {}

    def call(self, made: str, name: str) -> None:
        """From now on show `name` where `made` stands."""
        self._names[made] = name

    def step(self, title: str, day: str) -> None:
        """Begin the next step, on a day."""
        self.steps.append([])
        print(flush=True)
        self._line(f"step {len(self.steps)}  {title}  [{day}]")

    def command(self, who: str, words: Sequence[str]) -> None:
        """A command as somebody types it."""
        typed = textwrap.wrap(
            self._plain(shlex.join(words)), WIDTH - 10, break_long_words=False, break_on_hyphens=False
        )
        self._line(f"  {who} $ " + " \\\n                ".join(typed))

    def came(self, lines: Sequence[str]) -> None:
        """The lines of an answer that matter here."""
        for line in lines:
            shown = self._plain(line.rstrip())
            for piece in textwrap.wrap(shown, WIDTH, drop_whitespace=False) or [""]:
                self._line(f"    < {piece}")

    def note(self, text: str) -> None:
        """A line of our own."""
        for piece in textwrap.wrap(text, WIDTH):
            self._line(f"  {piece}")

    def proved(self, text: str, holds: bool) -> None:
        """Print what was checked. Raises WrongResultError when it does not hold."""
        self._line(f"  {'✓' if holds else '✗'} {text}")
        if not holds:
            sys.stdout.flush()
            raise WrongResultError(text)

    def _line(self, text: str) -> None:
        plain = self._plain(text).rstrip()
        self.steps[-1] += plain.splitlines()
        print(plain, flush=True)

    def _plain(self, text: str) -> str:
        for made, name in self._names.items():
            text = text.replace(made, name)
        text = _LICENCE.sub(self._licence, text)
        for pattern, name in ((_HEX, "(digest)"), (_KEY_ID, "(key)"), (_CODE, "(code)")):
            text = pattern.sub(name, text)
        return text

    def _licence(self, found: re.Match[str]) -> str:
        """Licences are numbered as they come."""
        return self._licences.setdefault(found[0], f"lic_{len(self._licences) + 1}")
