"""SQLite on a disk that loses power: a VFS that tells the model of `crash_disk.py` what SQLite does.

It needs apsw, since the sqlite3 of the standard library has no VFS to be written in Python. The code of the
ledger runs on it as it is; the images are opened by the product's own sqlite3.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw

_CREATES_NAME = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
# What decides when something is on the disk.
SETTINGS = ("journal_mode", "synchronous", "wal_autocheckpoint", "fullfsync", "checkpoint_fullfsync")


class CrashFile(apsw.VFSFile):
    """A database or its log: written for real, synced in the model only."""

    def __init__(self, disk: Any, path: Path, name: Any, flags: list[int]) -> None:
        new = not path.exists()
        super().__init__("", name, flags)
        self._disk = disk
        self._path = path
        self._number = path.stat().st_ino
        self._unnamed = False  # its directory was not synced yet
        if new:
            disk.created(str(path), self._number)
            self._unnamed = bool(flags[0] & _CREATES_NAME)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        """Write."""
        super().xWrite(data, offset)
        self._disk.written(self._number, offset, data)
        self._disk.after("database")

    def xTruncate(self, size: int) -> None:  # noqa: N802
        """Cut."""
        super().xTruncate(size)
        self._disk.cut(self._number, size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Make sure; the first sync of a log makes its name sure too (os_unix.c, UNIXFILE_DIRSYNC)."""
        self._disk.synced(self._number)
        if self._unnamed:
            self._disk.synced_directory(self._path.parent)
            self._unnamed = False
        self._disk.after("database")


class CrashVFS(apsw.VFS):
    """Opens the files of one database on a crash disk."""

    def __init__(self, disk: Any) -> None:
        self._disk = disk
        self.name = f"crash-{id(disk)}"
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        """Open or make a file."""
        if name is None:  # SQLite's own temporary file
            return apsw.VFSFile("", name, flags)
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        return CrashFile(self._disk, path, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        """Remove a log."""
        super().xDelete(name, sync)
        self._disk.removed(name)
        if sync:
            self._disk.synced_directory(Path(name).parent)


def open_on(disk: Any, path: Path, like: Any, **settings: object) -> Any:
    """What `Ledger` takes for a database: a connection to `path` with the settings that `like` has."""
    vfs = CrashVFS(disk)
    connection = apsw.Connection(str(path), vfs=vfs.name)
    for name in SETTINGS:
        (value,) = like.execute(f"PRAGMA {name}").fetchone()
        connection.execute(f"PRAGMA {name} = {settings.get(name, value)}")
    return SimpleNamespace(conn=connection, vfs=vfs)
