"""A disk that tells the truth about its volatile cache, and what is left of it when the power fails.

`VolatileDisk` is the medium and its cache, without I/O. `ServedDisk` shows it to a virtual machine as a
network block device (NBD, "fixed newstyle", simple replies) on a Unix socket. A write is answered as soon as
it is in the cache; a flush is answered after a while, and covers what was answered before it came. Everything
else may be lost by a power cut, in part and in any order, in sectors of 512 bytes.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SECTOR_BYTES = 512
FLUSH_SECONDS = 0.1  # at most, and mostly less
_MAGIC, _OPTION_MAGIC, _OPTION_ANSWER = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
_REQUEST, _ANSWER = 0x25609513, 0x67446698
_EXPORT_NAME, _ABORT, _INFO, _GO = 1, 2, 6, 7
_ACKNOWLEDGED, _INFORMATION, _UNSUPPORTED = 1, 3, (1 << 31) + 1
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_FLAGS = 1 | 1 << 2 | 1 << 3  # flags are valid, flush, FUA
_FUA = 1
_EINVAL, _ENOTSUP = 22, 95
_MAX_BYTES = 32 << 20
HOW = ("all", "none", "some", "the first", "the last", "torn")


@dataclass(frozen=True, slots=True)
class Write:
    """One write in the cache."""

    number: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """What a power cut did to the writes that no flush had covered."""

    how: str
    cached: int
    lost: int
    torn: int


class VolatileDisk:
    """The medium, and the writes in its cache. `honest=False` is a disk that only says that it flushed."""

    def __init__(self, content: bytes, *, honest: bool = True, lying_cache: int = 300) -> None:
        self.honest = honest
        self.flushes = 0
        self._lying_cache = lying_cache
        self._medium = bytearray(content)
        self._seen = bytearray(content)
        self._cache: list[Write] = []
        self._number = 0

    @property
    def size_bytes(self) -> int:
        return len(self._medium)

    @property
    def cached(self) -> int:
        """How many writes a power cut could take."""
        return len(self._cache)

    def read(self, offset: int, length: int) -> bytes:
        """What a reader sees: the newest, wherever it is."""
        return bytes(self._seen[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        """Take a write into the cache."""
        if offset % SECTOR_BYTES or len(data) % SECTOR_BYTES or offset + len(data) > len(self._medium):
            raise ValueError("a write is whole sectors on the disk")
        self._number += 1
        self._cache.append(Write(self._number, offset, data))
        self._seen[offset : offset + len(data)] = data
        if not self.honest:  # a small cache is written back in order, some time
            while len(self._cache) > self._lying_cache:
                self._keep(self._cache.pop(0))

    def begin_flush(self) -> int:
        """A flush came; returns what it is to cover."""
        return self._number

    def end_flush(self, covered: int) -> None:
        """What was written up to `covered` is on the medium from now on."""
        self.flushes += 1
        while self.honest and self._cache and self._cache[0].number <= covered:
            self._keep(self._cache.pop(0))

    def cut(self, chance: random.Random, how: str) -> Cut:
        """The power fails: of what was in the cache, the medium has what `how` and chance leave it."""
        cache, self._cache = self._cache, []
        some = chance.randint(0, len(cache))
        kept = {
            "all": cache,
            "none": [],
            "some": chance.sample(cache, some),  # in any order, too
            "the first": cache[:some],
            "the last": cache[some:],
            "torn": chance.sample(cache, len(cache)),
        }[how]
        lost, torn = len(cache) - len(kept), 0
        for write in kept:
            sectors = range(0, len(write.data), SECTOR_BYTES)
            # Not the first 4 KiB: ext4's superblock has one checksum, and is read before the journal.
            wanted = how == "torn" and len(sectors) > 1 and write.offset >= 4096
            there = [at for at in sectors if chance.random() < 0.5] if wanted else list(sectors)
            lost += not there
            torn += 0 < len(there) < len(sectors)
            for at in there:
                self._keep(Write(0, write.offset + at, write.data[at : at + SECTOR_BYTES]))
        self._seen = bytearray(self._medium)
        return Cut(how, len(cache), lost, torn)

    def _keep(self, write: Write) -> None:
        self._medium[write.offset : write.offset + len(write.data)] = write.data


class ServedDisk:
    """A disk that machines see on a Unix socket; `on_request` hears of every write and every flush.

    From the moment of `freeze` on nothing is taken and nothing is answered: the power is gone.
    """

    def __init__(self, disk: VolatileDisk, chance: random.Random) -> None:
        self.disk = disk
        self.on_request: Callable[[], None] = lambda: None
        self._chance = chance
        self._frozen = False
        self._flushing: set[asyncio.Task[None]] = set()

    def freeze(self) -> None:
        """The power is gone."""
        self._frozen = True

    async def serve(self, path: Path) -> asyncio.Server:
        """Begin to listen."""
        self._frozen = False
        return await asyncio.start_unix_server(self._connected, path, limit=1 << 20)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # a killed machine
            if await self._agree(reader, writer):
                await self._obey(reader, writer)
        for task in self._flushing:
            task.cancel()
        writer.close()

    async def _agree(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(struct.pack(">QQH", _MAGIC, _OPTION_MAGIC, 1 | 2))  # fixed newstyle, no zeroes
        await reader.readexactly(4)
        while True:
            magic, option, length = struct.unpack(">QII", await reader.readexactly(16))
            await reader.readexactly(length)
            if magic != _OPTION_MAGIC or option == _ABORT:
                return False
            facts = struct.pack(">QH", self.disk.size_bytes, _FLAGS)
            if option == _EXPORT_NAME:
                writer.write(facts)
                return True
            if option in (_INFO, _GO):
                self._tell(writer, option, _INFORMATION, struct.pack(">H", 0) + facts)
                self._tell(writer, option, _ACKNOWLEDGED)
                if option == _GO:
                    return True
            else:
                self._tell(writer, option, _UNSUPPORTED)

    def _tell(self, writer: asyncio.StreamWriter, option: int, kind: int, data: bytes = b"") -> None:
        writer.write(struct.pack(">QIII", _OPTION_ANSWER, option, kind, len(data)) + data)

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            magic, flags, command, handle, offset, length = struct.unpack(
                ">IHHQQI", await reader.readexactly(28)
            )
            if magic != _REQUEST or command == _DISCONNECT or length > _MAX_BYTES:
                return
            data = await reader.readexactly(length) if command == _WRITE else b""
            if command in (_WRITE, _FLUSH):
                self.on_request()
            if self._frozen:
                continue
            if command == _READ:
                self._answer(writer, handle, self.disk.read(offset, length))
            elif command == _WRITE:
                self.disk.write(offset, data)
                if flags & _FUA:  # told to be on the medium: a flush is more, and is honest as well
                    self._flush(writer, handle)
                else:
                    self._answer(writer, handle)
            elif command == _FLUSH:
                self._flush(writer, handle)
            else:
                self._answer(writer, handle, error=_ENOTSUP)
            await writer.drain()

    def _flush(self, writer: asyncio.StreamWriter, handle: int) -> None:
        covered = self.disk.begin_flush()

        async def end() -> None:
            await asyncio.sleep(self._chance.random() ** 2 * FLUSH_SECONDS)  # what the medium takes for it
            if not self._frozen:
                self.disk.end_flush(covered)
                self._answer(writer, handle)

        task = asyncio.create_task(end())
        self._flushing.add(task)
        task.add_done_callback(self._flushing.discard)

    def _answer(self, writer: asyncio.StreamWriter, handle: int, data: bytes = b"", error: int = 0) -> None:
        if not writer.is_closing():
            writer.write(struct.pack(">IIQ", _ANSWER, error, handle) + data)
