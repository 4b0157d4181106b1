"""Pages of rendered text, turned by a quarter, a half and three quarters: the demo's own images."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROTATIONS = (0, 90, 180, 270)
WIDTH, HEIGHT = 794, 1123  # A4 at 96 dots per inch
_MARGIN = 80
_TITLE = "Delivery note 2024-117"
_TEXT = (
    "The appliance stands in the customer's own machine room and answers without asking anybody outside. "
    "Every request carries a key; every key belongs to a member of an organisation, and what it may do is "
    "written down once. Whoever sends a page gets back which way up it was scanned. At the end of the month "
    "the counts are sealed, signed, and carried to the vendor by hand."
)


def page() -> Image.Image:
    """One upright page of black text on white, in the font that Pillow carries."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    draw.text((_MARGIN, _MARGIN), _TITLE, font=ImageFont.load_default(44), fill="black")
    font = ImageFont.load_default(26)
    y = 180
    while y < HEIGHT - 3 * _MARGIN:
        for line in textwrap.wrap(_TEXT, 46):
            draw.text((_MARGIN, y), line, font=font, fill="black")
            y += 37
        y += 26
    return image


def turned(image: Image.Image, degrees_clockwise: int) -> Image.Image:
    """The page as a scanner sees it when it was laid in turned by a multiple of 90 degrees."""
    return image.rotate(-degrees_clockwise, expand=True)


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_pages(folder: Path) -> dict[int, Path]:
    """Write one PNG for each rotation; the result says which file was turned by how many degrees."""
    folder.mkdir(parents=True, exist_ok=True)
    upright = page()
    written = {}
    for degrees in ROTATIONS:
        written[degrees] = folder / f"page-{degrees:03d}.png"
        written[degrees].write_bytes(png(turned(upright, degrees)))
    return written
