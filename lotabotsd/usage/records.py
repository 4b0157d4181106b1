"""The bytes of a usage record and of a segment's header, and the one table of what is charged. Pure.

Frozen: ARCHITECTURE.md, "Usage journal"; golden bytes: tests/golden/usage-*. Little-endian, 8-byte aligned.
A writer encodes a record without its number; `number_record` gives it number and CRC when it is appended.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

FORMAT_VERSION = 1
KIND_OPEN = 1
KIND_CLOSE = 2
KIND_RECEIPT = 3

_HEADER = struct.Struct("<IHBBQ")  # crc32, length, kind, version, number
_OPEN = struct.Struct(
    "<IHBBQ16sqIIBBBB"
)  # header, request id, wall ns, window id, reserved, four name lengths
_CLOSE = struct.Struct("<IHBBQQqBBHIQQII")  # header, open number, wall ns, outcome … gate µs, zero
_RECEIPT = struct.Struct("<IHBBQQq16sBBH")  # header, close number, wall ns, request id, three text lengths
_LENGTH = struct.Struct("<H")

RECORD_HEADER_BYTES = _HEADER.size
MIN_RECORD_BYTES = (_OPEN.size + 7) & ~7
MAX_OPEN_BYTES = (_OPEN.size + 4 * 255 + 7) & ~7
MAX_RECEIPT_TEXT_BYTES = 3_072
MAX_RECORD_BYTES = (_RECEIPT.size + 2 * 255 + MAX_RECEIPT_TEXT_BYTES + 7) & ~7
_PADDING = tuple(bytes(n) for n in range(8))
_DELIVERED = 1
_MAX_U32 = (1 << 32) - 1
# The gate is less trusted than the reader: whole records beyond these are refused, so that no sum overflows.
_MAX_BODY_BYTES = 1 << 40
_MAX_WALL_NS = 4_102_444_800 * 1_000_000_000  # 2100-01-01

SEGMENT_MAGIC = b"LBUSAGE\0"
_SEGMENT = struct.Struct("<8sII16sIIQQ")  # magic, format, zero, boot id, worker, segment, epoch, first number
SEGMENT_HEADER_BYTES = 64


class Outcome(IntEnum):
    """How a request ended. The numbers are in the journal, the labels in the ledger: never reuse one."""

    SERVED = 1  # a 2xx answer was handed to the client's connection
    CLIENT_GONE = 2  # the client hung up; `inferences` is what ran
    UNDELIVERED = 3  # recorded, then the answer could not be delivered
    MODEL_ERROR = 4  # Triton answered 4xx or 5xx
    RUNTIME_FAILED = 5  # Triton gave no answer
    REFUSED_RATE = 6
    REFUSED_CONCURRENCY = 7
    REFUSED_QUOTA = 8
    REFUSED_POLICY = 9  # 403: scope or permission
    REFUSED_UNREADY = 10  # 503: not ready, overloaded, draining
    ABORTED = 11  # an OPEN whose worker ended without a CLOSE

    @property
    def label(self) -> str:
        """The name in the ledger, in reports and on screens."""
        return self.name.lower()


CHARGED: dict[Outcome, bool] = {
    Outcome.SERVED: True,
    Outcome.CLIENT_GONE: True,
    Outcome.UNDELIVERED: True,
    Outcome.MODEL_ERROR: False,
    Outcome.RUNTIME_FAILED: False,
    Outcome.REFUSED_RATE: False,
    Outcome.REFUSED_CONCURRENCY: False,
    Outcome.REFUSED_QUOTA: False,
    Outcome.REFUSED_POLICY: False,
    Outcome.REFUSED_UNREADY: False,
    Outcome.ABORTED: False,
}


@dataclass(frozen=True, slots=True)
class Open:
    """A request was admitted, or is about to be refused on the record."""

    request_id: bytes  # 16 bytes, UUIDv7
    wall_ns: int
    key_id: str
    organisation_id: str
    model: str
    version: str  # "" when the client named none
    window_id: int  # the quota month, YYYYMM
    reserved: int  # rows reserved in the limits table


@dataclass(frozen=True, slots=True)
class Close:
    """What became of the request that record `open_number` of the same epoch opened."""

    open_number: int
    wall_ns: int
    outcome: Outcome
    status: int  # the HTTP status answered, 0 when none was
    inferences: int
    input_bytes: int
    output_bytes: int
    gate_us: int
    delivered: bool


@dataclass(frozen=True, slots=True)
class Receipt:
    """The signed receipt of the request that record `close_number` of the same epoch closed."""

    close_number: int
    wall_ns: int
    request_id: bytes  # 16 bytes: the receipt's id
    key_id: str
    organisation_id: str
    text: str  # a compact JWS


Record = Open | Close | Receipt


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """Who wrote a segment, and the number of its first record."""

    boot_id: bytes  # 16 bytes
    worker: int
    epoch: int  # one life of one worker
    segment: int  # 0, 1, 2 … within the epoch
    first_number: int


def encode_open(
    *,
    request_id: bytes,
    wall_ns: int,
    key_id: str,
    organisation_id: str,
    model: str,
    version: str,
    window_id: int,
    reserved: int,
) -> bytes:
    """An OPEN record, ready for `Journal.append`.

    `request_id` has 16 bytes, each name at most 255 bytes of UTF-8, `window_id` and `reserved` 32 bits.
    Raises ValueError or struct.error otherwise: the caller has checked them, so either is a bug.
    """
    if len(request_id) != 16:
        raise ValueError(f"a request id has 16 bytes, not {len(request_id)}")
    key = key_id.encode()
    organisation = organisation_id.encode()
    model_name = model.encode()
    version_name = version.encode()
    names = key + organisation + model_name + version_name
    size = _OPEN.size + len(names)
    length = (size + 7) & ~7
    return (
        _OPEN.pack(
            0, length, KIND_OPEN, FORMAT_VERSION, 0, request_id, wall_ns, window_id, reserved,
            len(key), len(organisation), len(model_name), len(version_name),
        )
        + names
        + _PADDING[length - size]
    )  # fmt: skip


def encode_close(
    *,
    open_number: int,
    wall_ns: int,
    outcome: Outcome,
    status: int,
    inferences: int,
    input_bytes: int,
    output_bytes: int,
    gate_us: int,
    delivered: bool = True,
) -> bytes:
    """A CLOSE record, ready for `Journal.append`; `gate_us` beyond 32 bits (71 minutes) is cut to 32 bits."""
    return _CLOSE.pack(
        0, _CLOSE.size, KIND_CLOSE, FORMAT_VERSION, 0, open_number, wall_ns, outcome,
        _DELIVERED if delivered else 0, status, inferences, input_bytes, output_bytes,
        min(gate_us, _MAX_U32), 0,
    )  # fmt: skip


def encode_receipt(
    *, close_number: int, wall_ns: int, request_id: bytes, key_id: str, organisation_id: str, text: str
) -> bytes:
    """A RECEIPT record, ready for `Journal.append`. Raises ValueError or struct.error for a bug."""
    key = key_id.encode()
    organisation = organisation_id.encode()
    receipt = text.encode("ascii")
    if len(request_id) != 16 or len(receipt) > MAX_RECEIPT_TEXT_BYTES:
        raise ValueError("a receipt has an id of 16 bytes and a bounded text")
    texts = key + organisation + receipt
    size = _RECEIPT.size + len(texts)
    length = (size + 7) & ~7
    return (
        _RECEIPT.pack(
            0, length, KIND_RECEIPT, FORMAT_VERSION, 0, close_number, wall_ns, request_id,
            len(key), len(organisation), len(receipt),
        )
        + texts
        + _PADDING[length - size]
    )  # fmt: skip


def number_record(record: bytes, number: int) -> bytes:
    """The record as it is written: with its number and the CRC of everything after the CRC."""
    covered = record[4:8] + number.to_bytes(8, "little") + record[16:]
    return zlib.crc32(covered).to_bytes(4, "little") + covered


def record_length(head: bytes) -> int:
    """The length that a record's first 16 bytes claim; 0 when none can have it, as behind the last record."""
    length: int = _LENGTH.unpack_from(head, 4)[0]
    return length if MIN_RECORD_BYTES <= length <= MAX_RECORD_BYTES and length % 8 == 0 else 0


def record_is_whole(record: bytes) -> bool:
    """Whether the CRC of exactly one record's bytes is right, and its number one that a journal can reach."""
    return zlib.crc32(record[4:]).to_bytes(4, "little") == record[:4] and record[15] < 0x40


def record_number(record: bytes) -> int:
    """The number of a written record: gap-free from 1 within an epoch."""
    return int.from_bytes(record[8:16], "little")


def decode(record: bytes) -> Record:
    """The meaning of one whole record. Raises ValueError for a kind, version or content not known here."""
    _crc, length, kind, version, _number = _HEADER.unpack_from(record)
    if version != FORMAT_VERSION:
        raise ValueError(f"record version {version} is not known")
    if kind == KIND_OPEN:
        return _decode_open(record, length)
    if kind == KIND_CLOSE:
        return _decode_close(record, length)
    if kind == KIND_RECEIPT:
        return _decode_receipt(record, length)
    raise ValueError(f"record kind {kind} is not known")


def _decode_open(record: bytes, length: int) -> Open:
    fields = _OPEN.unpack_from(record)
    request_id, wall_ns, window_id, reserved = fields[5:9]
    names = _texts(record, _OPEN.size, fields[9:13], length)
    if not 0 <= wall_ns < _MAX_WALL_NS:
        raise ValueError("an OPEN record holds an unusable time")
    return Open(request_id, wall_ns, names[0], names[1], names[2], names[3], window_id, reserved)


def _decode_close(record: bytes, length: int) -> Close:
    if length != _CLOSE.size:
        raise ValueError(f"a CLOSE record has {_CLOSE.size} bytes, not {length}")
    fields = _CLOSE.unpack_from(record)
    open_number, wall_ns, outcome, flags, status, inferences, input_bytes, output_bytes, gate_us = fields[
        5:14
    ]
    if (
        max(input_bytes, output_bytes) > _MAX_BODY_BYTES
        or open_number >> 62
        or not 0 <= wall_ns < _MAX_WALL_NS
    ):
        raise ValueError("a CLOSE record holds an unusable number, size or time")
    return Close(
        open_number, wall_ns, Outcome(outcome), status, inferences, input_bytes, output_bytes, gate_us,
        bool(flags & _DELIVERED),
    )  # fmt: skip


def _decode_receipt(record: bytes, length: int) -> Receipt:
    fields = _RECEIPT.unpack_from(record)
    close_number, wall_ns, request_id = fields[5:8]
    key, organisation, text = _texts(record, _RECEIPT.size, fields[8:11], length)
    if not text.isascii() or close_number >> 62 or not 0 <= wall_ns < _MAX_WALL_NS:
        raise ValueError("a RECEIPT record holds an unusable text, number or time")
    return Receipt(close_number, wall_ns, request_id, key, organisation, text)


def _texts(record: bytes, at: int, sizes: tuple[int, ...], length: int) -> list[str]:
    """The texts behind a record's numbers. Raises ValueError when they are not its rest, or not printable."""
    texts: list[str] = []
    for size in sizes:
        texts.append(record[at : at + size].decode())
        at += size
    if (at + 7) & ~7 != length:
        raise ValueError("a record's texts do not fill it")
    if not all(text.isprintable() for text in texts):
        raise ValueError("a record holds an unusable text")
    return texts


def encode_segment_header(header: SegmentHeader) -> bytes:
    """The 64 bytes at the start of a segment."""
    if len(header.boot_id) != 16:
        raise ValueError(f"a boot id has 16 bytes, not {len(header.boot_id)}")
    start = _SEGMENT.pack(
        SEGMENT_MAGIC, FORMAT_VERSION, 0, header.boot_id, header.worker, header.segment, header.epoch,
        header.first_number,
    ) + bytes(4)  # fmt: skip
    return start + zlib.crc32(start).to_bytes(4, "little")


def decode_segment_header(data: bytes) -> SegmentHeader:
    """Read a segment's header. Raises ValueError naming what is wrong with it."""
    if len(data) < SEGMENT_HEADER_BYTES:
        raise ValueError("the segment is shorter than its header")
    magic, version, _zero, boot_id, worker, segment, epoch, first_number = _SEGMENT.unpack_from(data)
    if magic != SEGMENT_MAGIC:
        raise ValueError("the file is no usage segment")
    if version != FORMAT_VERSION:
        raise ValueError(f"segment format {version} is not known")
    if zlib.crc32(data[:60]).to_bytes(4, "little") != data[60:64]:
        raise ValueError("the segment's header is damaged")
    return SegmentHeader(boot_id, worker, epoch, segment, first_number)
