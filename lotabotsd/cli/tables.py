"""Plain-text tables and the few ways in which numbers and times are shown. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from lotabotsd.foundation.clock import NANOSECONDS, from_ns

Cell = str | int | None
GAP = "  "
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def table(headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, empty: str = "(none)") -> str:
    """Columns as wide as their widest cell; whole numbers to the right, the rest to the left."""
    if not rows:
        return empty
    texts = [[cell_text(cell) for cell in row] for row in rows]
    right = [all(isinstance(row[i], int) or row[i] is None for row in rows) for i in range(len(headings))]
    widths = [max(len(headings[i]), *(len(row[i]) for row in texts)) for i in range(len(headings))]
    lines = [_line(headings, widths, right), *(_line(row, widths, right) for row in texts)]
    return "\n".join(lines)


def pairs(entries: Sequence[tuple[str, Cell]], *, indent: int = 0) -> str:
    """Names and values, one to a line, the values aligned."""
    width = max((len(name) for name, _ in entries), default=0)
    return "\n".join(
        f"{' ' * indent}{name.ljust(width)}{GAP}{cell_text(value)}".rstrip() for name, value in entries
    )


def cell_text(cell: Cell) -> str:
    """A cell as text: thousands set apart by a space, nothing as a hyphen."""
    if cell is None or cell == "":
        return "-"
    return grouped(cell) if isinstance(cell, int) else printable(cell)


def printable(text: str) -> str:
    """Text without control characters: a name must not be able to steer the reader's terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def grouped(number: int) -> str:
    """`1 234 567`."""
    return f"{number:,}".replace(",", " ")


def limit_text(number: int) -> str:
    """A limit, where 0 means that there is none."""
    return grouped(number) if number else "unlimited"


def moment_text(wall_ns: int | None) -> str:
    """`2026-11-23 04:05:06 UTC` of nanoseconds since 1970; 0 and None are a hyphen."""
    return from_ns(wall_ns).strftime("%Y-%m-%d %H:%M:%S UTC") if wall_ns else "-"


def rfc3339_text(text: str | None) -> str:
    """An RFC 3339 moment as the other times are shown."""
    if not text:
        return "-"
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration_text(nanoseconds: int) -> str:
    """`3 d 4 h`, `2 min 5 s`, `0 s`: the two largest units."""
    rest = max(0, nanoseconds) // NANOSECONDS
    parts: list[str] = []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {unit}")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0 ")) or "0 s"


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    return GAP.join(
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    ).rstrip()
