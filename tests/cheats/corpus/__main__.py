"""Write docs/cheats.md from the catalogue."""

from __future__ import annotations

from pathlib import Path

from .catalogue import CHAPTERS
from .page import render

PAGE = Path(__file__).resolve().parents[3] / "docs" / "cheats.md"

if __name__ == "__main__":
    PAGE.write_text(render(CHAPTERS))
