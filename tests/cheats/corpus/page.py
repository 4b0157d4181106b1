"""The page of the catalogue, docs/cheats.md, made from its entries. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .cheat import Cheat

Chapters = Sequence[tuple[str, Sequence[Cheat]]]

_HEAD = """\
# Cheats

Every way of cheating that was thought of: who, how, what for, and how it ends. Each line is carried out
against the real code by `tests/cheats` ({number} of them), and this page is made from the same entries; a
test keeps it equal (`PYTHONPATH=tests/cheats:tests/simulators:scripts/vendor python -m corpus` writes
it). *Refused* means that it does not happen; *found* that it is told afterwards, by a finding, a fault or
a state of that name, to whom the last column says. What nobody finds stands at the end, with how far it
goes; each of those is carried out too.

| who cheats | what he has |
|---|---|
| customer | the machine, as root, with every tool; what he lacks is the vendor's private keys |
| thief | one of the vendor's issuing keys |
| clerk | the vendor's own tool and books |
| mail | what goes from one to the other |
"""
_BYTES = """\
## Single bytes

`tests/cheats/test_every_byte.py` changes every byte of every signed file of `tests/golden` in two ways
(large ones in one of the two): the lowest bit flipped, and another printable character. All are refused,
except where white space takes the place of white space in a form for mail: then the content is the same,
byte for byte.
"""
_OPEN = """\
## What is not found

The owner of a machine owns its memory and its disk, and a thief owns what he stole. These get through;
the bound says how far.
"""


def render(chapters: Chapters) -> str:
    """The page in Markdown."""
    every = [cheat for _, cheats in chapters for cheat in cheats]
    parts = [_HEAD.format(number=len(every))]
    for title, cheats in chapters:
        met = [cheat for cheat in cheats if cheat.by is not None]
        parts.append("\n".join([f"## {title}", "", *_table(met), ""]))
    parts.append(_BYTES)
    parts.append(_OPEN)
    parts.append("\n".join([line for cheat in every if cheat.by is None for line in _open(cheat)]))
    return "\n".join(parts)


def _table(cheats: Sequence[Cheat]) -> list[str]:
    rows = [
        f"| **{_title(cheat)}.** {_cell(cheat.what)} | {cheat.who} | {_cell(cheat.gain)} | "
        f"{'refused' if cheat.refused else 'found'}: `{_cell(cheat.answer)}` | {cheat.by} |"
        for cheat in cheats
    ]
    return ["| cheat | who | hopes for | ends | by the |", "|---|---|---|---|---|", *rows]


def _open(cheat: Cheat) -> list[str]:
    return [
        f"- **{_title(cheat)}** ({cheat.who}; hopes for {cheat.gain}). {_cell(cheat.what)}",
        f"  *Bound:* {_cell(cheat.bound)}",
    ]


def _title(cheat: Cheat) -> str:
    return cheat.name[:1].upper() + cheat.name[1:]


def _cell(text: str) -> str:
    """Text on one line, which ends no cell."""
    return " ".join(text.split()).replace("|", "\\|")
