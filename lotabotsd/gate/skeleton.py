"""A large JSON body without its data: what the gate judges is small, whatever the tensors weigh. Pure.

Parsing 64 MiB of numbers takes seconds and a gigabyte, for nothing that is looked at. Here each array of
values is checked against the grammar (RFC 8259) and left out, step by step, so that others run in between.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_right
from collections.abc import Generator
from dataclasses import dataclass

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError

MAX_KEPT_BYTES = 256 * 1024
STEP_BYTES = 256 * 1024
STEP_TOKENS = 2_048
_LONGEST = 1 << 62
_SPACE = rb"[ \t\r\n]*+"
_NUMBER = rb"-?+(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?+[0-9]++)?+"
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+){0,65536}+"'
_SCALAR = rb"(?:%b|true|false|null|%b)" % (_NUMBER, _TEXT)
_ROW = rb"\[%b(?:%b(?:%b,%b%b){0,1024}+)?+%b\]" % (_SPACE, _SCALAR, _SPACE, _SPACE, _SCALAR, _SPACE)
_VALUE = rb"(?:%b|%b)" % (_SCALAR, _ROW)
# Possessive throughout, and a bounded number at a time: no input makes one call take long.
_PLAIN = re.compile(rb'[^"\[]*+')
_STRING = re.compile(_TEXT, re.DOTALL)
_FIRST = re.compile(rb"\[%b%b" % (_SPACE, _VALUE), re.DOTALL)
_MORE = re.compile(rb"(?:%b,%b%b){1,64}+" % (_SPACE, _SPACE, _VALUE), re.DOTALL)
_END = re.compile(rb"%b\]" % _SPACE)
_SHAPE = re.compile(rb"%b:%b\[[-0-9, \t\r\n]{0,256}+\]" % (_SPACE, _SPACE))


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What is left of a body, and where something was left out of it."""

    data: bytes
    cuts: tuple[tuple[int, int], ...]  # (behind it in `data`, by how much the body is longer up to there)

    def in_body(self, position: int) -> int:
        """The place in the body that a place in `data` is; not for one inside of what stands for an array."""
        at = bisect_right(self.cuts, (position, _LONGEST))
        return position + (self.cuts[at - 1][1] if at else 0)


def skeleton(body: bytes) -> Generator[None, None, Skeleton]:
    """The body with `[]` for each array of numbers, texts or rows of these, except those named shape.

    Yields every 256 KiB or 2 048 tokens. It is valid JSON exactly where the body is, but for the escapes of
    texts that were left out: these are Triton's to refuse. Raises JSON_INVALID, or BODY_TOO_LARGE when too
    much is left.
    """
    yield from _check_utf8(body)
    kept: list[bytes] = []
    cuts: list[tuple[int, int]] = []
    kept_bytes = 0
    at = step_at = tokens = 0
    while at < len(body):
        plain = _PLAIN.match(body, at)
        assert plain is not None  # it matches nothing too
        start, at = at, plain.end()
        if body[at : at + 1] == b'"':
            at = _behind_text(body, at)
            kept.append(body[start:at])
        elif at < len(body):
            kept.append(body[start:at])
            kept_bytes += at - start
            at, part = yield from _array(body, at)
            kept.append(part)
            kept_bytes += len(part)
            if len(part) > 1:
                cuts.append((kept_bytes, at - kept_bytes))
            start = at
        else:
            kept.append(body[start:at])
        kept_bytes += at - start
        if kept_bytes > MAX_KEPT_BYTES:
            raise LotaBotsError(
                Code.BODY_TOO_LARGE,
                f"without its numbers and texts, the JSON still has more than {MAX_KEPT_BYTES} bytes",
                hint="send each tensor's data as one flat list, or as binary data",
            )
        tokens += 1
        if at - step_at > STEP_BYTES or tokens == STEP_TOKENS:
            step_at, tokens = at, 0
            yield
    return Skeleton(b"".join(kept), tuple(cuts))


def _behind_text(body: bytes, at: int) -> int:
    """Where the text that begins at `at` ends, with its value when it is a shape's name."""
    text = _STRING.match(body, at)
    if text is None:
        raise LotaBotsError(Code.JSON_INVALID, f"the text at byte {at} has no end, or too many escapes")
    if text[0] == b'"shape"' and (shape := _SHAPE.match(body, text.end())):
        return shape.end()
    return text.end()


def _array(body: bytes, start: int) -> Generator[None, None, tuple[int, bytes]]:
    """Where the array that begins at `start` ends, and what stands for it; else its bracket alone."""
    first = _FIRST.match(body, start)
    if first is None:
        return start + 1, b"["  # it is empty, or holds objects or deeper arrays: look into it
    at = step_at = first.end()
    while more := _MORE.match(body, at):
        at = more.end()
        if at - step_at > STEP_BYTES:
            step_at = at
            yield
    end = _END.match(body, at)
    if end is not None:
        return end.end(), b"[]"
    if at - start > STEP_BYTES:
        raise LotaBotsError(Code.JSON_INVALID, f"the long list at byte {start} breaks off at byte {at}")
    return start + 1, b"["


def _check_utf8(body: bytes) -> Generator[None, None, None]:
    """Nothing but UTF-8 (RFC 8259, section 8.1). Raises JSON_INVALID."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for at in range(0, len(body), STEP_BYTES):
            decoder.decode(body[at : at + STEP_BYTES])
            yield
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise LotaBotsError(Code.JSON_INVALID, f"it is not UTF-8: {error.reason}") from error
