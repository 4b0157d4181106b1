"""Compressed bodies: inflated in pieces, within caps on size and ratio. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError

MAX_INFLATE_RATIO = 100  # beyond the first bytes: a blank page shrinks a thousandfold
INFLATED_WITHOUT_RATIO = 16 << 20
INFLATED_PIECE_BYTES = 256 * 1024
TAKEN_PIECE_BYTES = 64 * 1024


class Inflater:
    """Turns the parts of a compressed body into plain ones, within the caps on size and ratio."""

    def __init__(self, encoding: bytes, limit_bytes: int) -> None:
        """`limit_bytes` is what the plain body may have. Raises ENCODING_UNSUPPORTED."""
        windows = {b"gzip": 31, b"deflate": 15}.get(encoding.strip().lower())
        if windows is None:
            raise LotaBotsError(Code.ENCODING_UNSUPPORTED, "only gzip and deflate are understood")
        self._inflater = zlib.decompressobj(windows)
        self._limit_bytes = limit_bytes
        self._taken = self._given = 0

    def feed(self, part: bytes) -> Iterator[bytes]:
        """The plain bytes of one more part, in pieces of bounded size.

        Raises REQUEST_MALFORMED or BODY_TOO_LARGE.
        """
        for start in range(0, len(part), TAKEN_PIECE_BYTES):
            yield from self._feed(part[start : start + TAKEN_PIECE_BYTES])

    def _feed(self, part: bytes) -> Iterator[bytes]:
        """Small, since what is not taken in yet is copied for every piece that is given out."""
        self._taken += len(part)
        while True:
            try:
                plain = self._inflater.decompress(part, INFLATED_PIECE_BYTES)
            except zlib.error as error:
                raise LotaBotsError(Code.REQUEST_MALFORMED, "the compressed body is damaged") from error
            self._given += len(plain)
            self._judge_size()
            if plain:
                yield plain
            if self._inflater.unused_data:
                raise _cut_or_tail()
            part = self._inflater.unconsumed_tail
            if not part and len(plain) < INFLATED_PIECE_BYTES:
                return  # all that came was taken in, and all of it given out

    def _judge_size(self) -> None:
        if self._given > self._limit_bytes:
            raise LotaBotsError(Code.BODY_TOO_LARGE, f"inflated, it has more than {self._limit_bytes} bytes")
        if self._given > max(INFLATED_WITHOUT_RATIO, MAX_INFLATE_RATIO * self._taken):
            raise LotaBotsError(
                Code.BODY_TOO_LARGE, f"it inflates to more than {MAX_INFLATE_RATIO} times its size"
            )

    def finish(self) -> None:
        """The last part was fed. Raises REQUEST_MALFORMED when the body was cut short."""
        if not self._inflater.eof:
            raise _cut_or_tail()


def _cut_or_tail() -> LotaBotsError:
    return LotaBotsError(Code.REQUEST_MALFORMED, "the compressed body is cut short or has a tail")
