"""A disk that loses power: it remembers what was synced, and makes the images that a crash may leave behind.

It stands where the module `os` stands for the journal (`FileOps`). Every call goes through to real files, so
that locks and live readers are real, and into a model that is stricter than any file system: what a sync did
not cover, each write by itself, may be there, be missing, end anywhere, miss sectors, or come in another
order; each name that its directory's sync did not cover may be what it was at any time since. A failed sync
makes nothing sure, and neither does a later one of the same writes (the kernel has dropped them).
"""

from __future__ import annotations

import os
import random
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SECTOR_BYTES = 512


@dataclass(eq=False)
class Inode:
    """A file's bytes, apart from its names."""

    sure: bytearray = field(default_factory=bytearray)  # what a crash cannot take back
    # (number, offset, data) since, in order; no data: the file was cut at the offset
    pending: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    dropped: list[tuple[int, int, bytes | None]] = field(default_factory=list)  # a sync failed: never sure

    def settle(self, last: int) -> None:
        """Everything up to write number `last` is on the disk."""
        while self.pending and self.pending[0][0] <= last:
            _, offset, data = self.pending.pop(0)
            put(self.sure, offset, data)

    def after_a_crash(self, chance: random.Random) -> bytes:
        """Some bytes that the disk may hold when the power comes back."""
        found = bytearray(self.sure)
        writes = self.dropped + self.pending
        luck = chance.choice((0.0, 0.3, 0.7, 1.0))  # how much of the cache the disk got to
        if chance.random() < 0.3:
            chance.shuffle(writes)
        for _, offset, data in writes:
            kept = chance.random()
            if kept < luck or data is None:
                put(found, offset, data)
            elif kept < luck + (1 - luck) / 3:
                put(found, offset, data[: chance.randint(0, len(data))])
            elif kept < luck + (1 - luck) * 2 / 3:
                tear(found, offset, data, chance)
        return bytes(found)


@dataclass(frozen=True)
class Image:
    """What is on the disk after a crash: the files by their path below the root."""

    files: dict[str, Inode]
    contents: dict[Inode, bytes]

    def holds(self, inode: Inode, offset: int, data: bytes, suffix: str) -> bool:
        """Whether a file with this ending still has these bytes in this place."""
        named = any(found is inode and name.endswith(suffix) for name, found in self.files.items())
        return named and self.contents[inode][offset : offset + len(data)] == data

    def write(self, root: Path) -> None:
        """Lay the files down in a fresh directory."""
        for name, inode in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.contents[inode])


def put(target: bytearray, offset: int, data: bytes | None) -> None:
    """Write into a file's bytes, over a hole if there is one; or cut them."""
    if data is None:
        del target[offset:]
        return
    if len(target) < offset:
        target.extend(bytes(offset - len(target)))
    target[offset : offset + len(data)] = data


def tear(target: bytearray, offset: int, data: bytes, chance: random.Random) -> None:
    """Write some sectors of it and leave the others as they were."""
    start = offset
    while start < offset + len(data):
        end = min(start - start % SECTOR_BYTES + SECTOR_BYTES, offset + len(data))
        if chance.random() < 0.5:
            put(target, start, data[start - offset : end - offset])
        start = end


class NoSyncs:
    """The module `os` without waiting for a disk: for tests that are not about power cuts."""

    open = staticmethod(os.open)
    pwrite = staticmethod(os.pwrite)
    rename = staticmethod(os.rename)
    unlink = staticmethod(os.unlink)

    def fdatasync(self, descriptor: int, /) -> None:
        """Done."""

    def fsync(self, descriptor: int, /) -> None:
        """Done."""


class CrashDisk:
    """The system calls of a disk under `root`, one model of it, and faults on request.

    `fault(call number, name)` answers with the errno that this call shall fail with, or None. `after` runs
    behind every call, `during_sync` inside an fdatasync, when its data is chosen and nothing is sure yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fault: Callable[[int, str], int | None] = lambda number, name: None
        self.after: Callable[[str], None] = lambda name: None
        self.during_sync: Callable[[], None] = lambda: None
        self.short = False  # every second write takes half of what it is given
        self._halved = False
        self.calls = 0
        self.syncs = 0
        self.last_write: tuple[Inode, int, bytes] = (Inode(), 0, b"")
        self._lock = threading.RLock()
        self._writes = 0
        self._inodes: dict[int, Inode] = {}
        # Every name's history since its directory was synced: (call number, file or None), oldest first.
        self._names: dict[str, dict[str, list[tuple[int, Inode | None]]]] = {"": {}}
        self._sure_directories = {""}

    # What the journal, the drain and the databases call.

    def open(self, path: str, flags: int, mode: int = 0o777, /) -> int:
        self._enter("open")
        new = bool(flags & os.O_CREAT) and not Path(path).exists()
        descriptor = os.open(path, flags, mode)
        if new:
            self.created(path, os.fstat(descriptor).st_ino)
        self.after("open")
        return descriptor

    def pwrite(self, descriptor: int, data: bytes, offset: int, /) -> int:
        self._enter("pwrite")
        self._halved = self.short and not self._halved
        if self._halved:
            data = data[: len(data) // 2]
        count = os.pwrite(descriptor, data, offset)
        self.written(os.fstat(descriptor).st_ino, offset, data[:count])
        self.after("pwrite")
        return count

    def fdatasync(self, descriptor: int, /) -> None:
        self._sync("fdatasync", descriptor)

    def fsync(self, descriptor: int, /) -> None:
        self._sync("fsync", descriptor)

    def rename(self, source: str, target: str, /) -> None:
        self._enter("rename")
        Path(source).rename(target)
        with self._lock:
            inode = self._history(source)[-1][1]
            self._history(source).append((self.calls, None))
            self._history(target).append((self.calls, inode))
        self.after("rename")

    def unlink(self, path: str, /) -> None:
        self._enter("unlink")
        Path(path).unlink()
        self.removed(path)
        self.after("unlink")

    # What the model is told.

    def created(self, path: str, number: int) -> Inode:
        """A new, empty file has this inode number."""
        with self._lock:
            inode = self._inodes[number] = Inode()
            self._history(path).append((self.calls, inode))
            return inode

    def written(self, number: int, offset: int, data: bytes) -> None:
        """Bytes were given to the kernel."""
        with self._lock:
            inode = self._inodes[number]
            self._writes += 1
            inode.pending.append((self._writes, offset, bytes(data)))
            self.last_write = (inode, offset, bytes(data))

    def cut(self, number: int, size: int) -> None:
        """A file was truncated."""
        with self._lock:
            self._writes += 1
            self._inodes[number].pending.append((self._writes, size, None))

    def synced(self, number: int) -> None:
        """Everything that was written to a file until now is sure."""
        with self._lock:
            self.syncs += 1
            self._inodes[number].settle(self._writes)

    def removed(self, path: str) -> None:
        """A name is gone, but not yet for sure."""
        with self._lock:
            self._history(path).append((self.calls, None))

    def synced_directory(self, path: Path) -> None:
        """The names in a directory, and the directories in it, are as sure as they are now."""
        with self._lock:
            self._notice_removals()
            place = self._relative(path)
            names = self._names.setdefault(place, {})
            for name in names:
                names[name] = names[name][-1:]
            self._sure_directories |= {self._relative(child) for child in path.iterdir() if child.is_dir()}

    def adopt(self) -> None:
        """Take what lies under the root as being there for sure, as after a start from an image."""
        for path in self.root.rglob("*"):
            if path.is_dir():
                self._sure_directories.add(self._relative(path))
            else:
                self.created(str(path), path.stat().st_ino).sure[:] = path.read_bytes()
                self._history(str(path))[:] = self._history(str(path))[-1:]

    def is_sure(self, inode: Inode, offset: int, data: bytes) -> bool:
        """Whether no crash can take these bytes of a file back, whatever becomes of its name."""
        return inode.sure[offset : offset + len(data)] == data

    # What a crash leaves.

    def crash(self, chance: random.Random) -> Image:
        """One of the images that the disk may hold if the power fails now."""
        with self._lock:
            self._notice_removals()
            in_order = chance.random() < 0.5  # as a journalling file system does, or as badly as is allowed
            last = chance.randint(0, self.calls + 1)
            files: dict[str, Inode] = {}
            for place, names in self._names.items():
                if place not in self._sure_directories and chance.random() < 0.5:
                    continue
                for name, history in names.items():
                    possible = [inode for at, inode in history if at <= last] or [history[0][1]]
                    inode = possible[-1] if in_order else chance.choice(history)[1]
                    if inode is not None:
                        files[f"{place}/{name}" if place else name] = inode
            # Two names of one file show the same bytes.
            contents = {
                inode: inode.after_a_crash(chance) for inode in {id(i): i for i in files.values()}.values()
            }
            return Image(files, contents)

    def _enter(self, name: str) -> None:
        with self._lock:
            self.calls += 1
            number = self.fault(self.calls, name)
        if number is not None:
            raise OSError(number, os.strerror(number))

    def _sync(self, name: str, descriptor: int) -> None:
        status = os.fstat(descriptor)
        inode = None if stat.S_ISDIR(status.st_mode) else self._inodes[status.st_ino]
        covered = self._writes
        try:
            self._enter(name)
        except OSError:
            if inode is not None:
                inode.dropped += inode.pending
                inode.pending.clear()
            raise
        if name == "fdatasync":
            self.during_sync()
        with self._lock:
            self.syncs += 1
            if inode is None:
                self.synced_directory(Path(os.readlink(f"/proc/self/fd/{descriptor}")))  # noqa: PTH115
            else:
                inode.settle(covered)
        self.after(name)

    def _history(self, path: str) -> list[tuple[int, Inode | None]]:
        parent = self._relative(Path(path).parent)
        names = self._names.setdefault(parent, {})
        return names.setdefault(Path(path).name, [(0, None)])

    def _notice_removals(self) -> None:
        """See the names that a reader removed behind the model's back."""
        for place, names in self._names.items():
            for name, history in names.items():
                if history[-1][1] is not None and not (self.root / place / name).exists():
                    history.append((self.calls, None))

    def _relative(self, path: Path) -> str:
        relative = str(path.relative_to(self.root))
        return "" if relative == "." else relative
