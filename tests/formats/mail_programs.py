"""What mail programs, web pages and editors do to a text on its way: each gives the bytes that arrive."""

from __future__ import annotations

import html
import quopri
import textwrap
from collections.abc import Callable

Mangle = Callable[[str], bytes]


def lines(text: str, before: str = "", after: str = "\n") -> str:
    return "".join(f"{before}{line}{after}" for line in text.splitlines())


def rewrapped(text: str, width: int) -> str:
    """Each paragraph filled anew, and words that are too long broken: the marker lines too."""
    return "\n".join(
        textwrap.fill(part, width, break_on_hyphens=False, break_long_words=True) for part in text.split("\n")
    )


def filled(text: str, width: int) -> str:
    """The base64 joined and broken at another width, as an editor's "fill paragraph" between markers does."""
    begin, *content, end = text.strip().splitlines()
    joined = "".join(content)
    return "\n".join([begin, *(joined[i : i + width] for i in range(0, len(joined), width)), end, ""])


def quoted_printable(text: str) -> bytes:
    """As sent, and saved by somebody who took the raw message: soft line breaks, `=3D`, `=20`."""
    return quopri.encodestring(text.replace("\n", "\r\n").encode(), quotetabs=False)


def flowed(text: str) -> str:
    """RFC 3676: lines that begin with a space, `>` or `From ` are stuffed; soft breaks end in a space."""
    return lines(text, before=" ", after=" \r\n")


def as_html(text: str) -> str:
    return f"<div>Dear customer,<br>\n<pre>{html.escape(text)}</pre></div>\n"


SIGNATURE = "-- \nAnn Example\nExample Works GmbH, Tel. +49 30 1234-567\nhttps://vendor.example/?a=3D&b=2\n"
ARMOUR: dict[str, Mangle] = {
    "as it is": str.encode,
    "CRLF": lambda t: t.replace("\n", "\r\n").encode(),
    "LF to CR": lambda t: t.replace("\n", "\r").encode(),
    "wrapped at 40, markers too": lambda t: rewrapped(t, 40).encode(),
    "wrapped at 76": lambda t: rewrapped(t, 76).encode(),
    "filled at 40": lambda t: filled(t, 40).encode(),
    "filled at 76": lambda t: filled(t, 76).encode(),
    "quoted twice": lambda t: lines(lines(t, "> "), "> ").encode(),
    "quoted twice, then wrapped": lambda t: lines(rewrapped(t, 40), "> > ").encode(),
    "indented": lambda t: lines(t, "\t    ").encode(),
    "with a mail signature": lambda t: f"{t}\n{SIGNATURE}".encode(),
    "with a greeting and a signature": lambda t: (
        f"Dear Ann,\nlimits < 5 <b & more:\n\n{t}\n{SIGNATURE}".encode()
    ),
    "byte order mark": lambda t: t.encode("utf-8-sig"),
    "UTF-16": lambda t: t.encode("utf-16"),
    "trailing spaces": lambda t: lines(t, after="   \n").encode(),
    "quoted-printable": quoted_printable,
    "quoted-printable with a mail around": lambda t: quoted_printable(f"Grüße = {t}\n{SIGNATURE}"),
    "quoted-printable, filled first": lambda t: quoted_printable(filled(t, 900)),
    "quoted-printable in small letters": lambda t: quoted_printable(t).replace(b"=3D", b"=3d"),
    "flowed": lambda t: flowed(t).encode(),
    "HTML": lambda t: as_html(t).encode(),
    "HTML, lines as paragraphs": lambda t: lines(html.escape(t), "<p class=x>", "</p>\n").encode(),
    "HTML quoting": lambda t: lines(t, "&gt;&nbsp;", "<br/>\r\n").encode(),
    "dash-escaped for a signature": lambda t: (
        t.replace("-----BEGIN", "- -----BEGIN").replace("-----END", "- -----END").encode()
    ),
    "invisible spaces": lambda t: "\u200b".join(t[i : i + 20] for i in range(0, len(t), 20)).encode(),
    "non-breaking spaces": lambda t: lines(t, "\u00a0").encode(),
}
ONE_LINE: dict[str, Mangle] = {
    "as it is": str.encode,
    "wrapped at 40": lambda t: "\n".join(t[i : i + 40] for i in range(0, len(t), 40)).encode(),
    "wrapped at 76, CRLF": lambda t: "\r\n".join(t[i : i + 76] for i in range(0, len(t), 76)).encode(),
    "wrapped and quoted": lambda t: "".join(f"> > {t[i : i + 72]}\n" for i in range(0, len(t), 72)).encode(),
    "indented, with a line end": lambda t: f"   {t}  \n".encode(),
    "byte order mark": lambda t: t.encode("utf-8-sig"),
    "UTF-16": lambda t: t.encode("utf-16"),
    "quoted-printable": quoted_printable,
    "quoted-printable, wrapped first": lambda t: quoted_printable(
        "\n".join(t[i : i + 60] for i in range(0, len(t), 60))
    ),
    "flowed": lambda t: flowed("\n".join(t[i : i + 70] for i in range(0, len(t), 70))).encode(),
    "HTML": lambda t: f"<p>{html.escape(t)}</p>\n".encode(),
    "HTML, with places to break": lambda t: "<wbr>".join(
        t[i : i + 30] for i in range(0, len(t), 30)
    ).encode(),
}
JSON: dict[str, Mangle] = {
    "as it is": str.encode,
    "byte order mark": lambda t: t.encode("utf-8-sig"),
    "UTF-16": lambda t: t.encode("utf-16"),
    "blank lines around": lambda t: f"\r\n\n{t}\r\n".encode(),
    "wrapped between its tokens": lambda t: t.replace(",", ",\r\n   ").encode(),
}
