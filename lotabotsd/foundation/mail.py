"""Undo what mail programs and web pages do to a text that carries a signed document. Pure.

Only what is unambiguous is undone: each character that is taken out or replaced here has no place in the
base64 around it. What is inside is signed besides, so that a wrong guess ends in a refusal, never in another
document. Quoted-printable: RFC 2045, section 6.7; dash-escaping: RFC 9580, section 7.2; flowed: RFC 3676.
"""

from __future__ import annotations

import html
import re

# Shown as nothing: soft hyphen, zero-width space and joiners, word joiner, byte order mark.
_INVISIBLE = dict.fromkeys((0x00AD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF))
# Each within one line, so that a lone `<` before quoted lines swallows nothing.
_TAG = re.compile(r"</?(?:a|blockquote|br|code|div|font|p|pre|span|tt|wbr)\b[^<>\n]*>", re.IGNORECASE)
_QUOTE = re.compile(r"^[ \t]*(?:>[ \t]?)+", re.MULTILINE)
_DASH_ESCAPE = re.compile(r"^[ \t]*- (?=-----)", re.MULTILINE)
# In armour `=` ends the base64: before more of it, it ended a line. `=3D` is that padding itself.
_SOFT_BREAK_IN_ARMOUR = re.compile(r"=\s+(?=[A-Za-z0-9+/]|=3[Dd])")
_SPACE_IN_ARMOUR = re.compile(r"=(?:20|09|0[DAda])")
_EQUALS_IN_ARMOUR = re.compile(r"=3[Dd]")
# Base64url in a line has no `=` at all.
_SOFT_BREAK_IN_LINE = re.compile(r"=(?:20|09)?(?=[ \t]*[\r\n])")


def unwrapped(text: str) -> str:
    """The text without mark-up, invisible characters, quoting and dash-escaping; line ends stay."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(lambda tag: "" if tag[0].lower().startswith("<wbr") else "\n", text)
    return _DASH_ESCAPE.sub("", _QUOTE.sub("", text.translate(_INVISIBLE)))


def base64_of_armour(content: str) -> str:
    """What stands between armour's marker lines, without white space and quoted-printable."""
    if "=" in content:
        content = _SOFT_BREAK_IN_ARMOUR.sub("", content)
        content = _EQUALS_IN_ARMOUR.sub("=", _SPACE_IN_ARMOUR.sub(" ", content))
    return "".join(content.split())


def base64_of_line(content: str) -> str:
    """What stands behind the name in the one-line form, without white space and soft line breaks."""
    return "".join(_SOFT_BREAK_IN_LINE.sub("", content).split())
