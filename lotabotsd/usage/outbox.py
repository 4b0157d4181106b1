"""The outbox: usage reports waiting to be carried out (new/), carried out (sent/), and acknowledged/."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, sync_directory, write_atomically

from .report_zip import MAX_ZIP_BYTES

_NAME = re.compile(r"lotabots-usage-[A-Za-z0-9_]{1,64}-[0-9]{6,12}\.zip")


class Folder(StrEnum):
    """Where a report is on its way; it only moves down this list."""

    NEW = "new"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One report's file."""

    name: str
    folder: Folder
    size_bytes: int


class Outbox:
    """The folders under one directory. A file is in exactly one of them."""

    def __init__(self, directory: Path) -> None:
        """Make the folders where they are missing. Raises FILE_UNWRITABLE."""
        self._directory = directory
        try:
            for folder in Folder:
                (directory / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LotaBotsError(Code.FILE_UNWRITABLE, f"{directory}: {error.strerror}") from error

    def put(self, name: str, data: bytes) -> Path:
        """Write a report into new/; the same bytes again change nothing.

        Raises ALREADY_EXISTS when another content has that name, VALUE_INVALID for a name that is no
        report's, DISK_FULL, FILE_UNWRITABLE.
        """
        present = self._folder_of(name)
        if present is None:
            path = self._directory / Folder.NEW / name
            write_atomically(path, data, mode=0o600)
            return path
        path = self._directory / present / name
        if read_bounded(path, MAX_ZIP_BYTES) != data:
            raise LotaBotsError(Code.ALREADY_EXISTS, f"{path} has another content")
        return path

    def holds(self, name: str) -> bool:
        """Whether a report is in any folder. Raises VALUE_INVALID."""
        return self._folder_of(name) is not None

    def read(self, name: str) -> bytes:
        """A report's bytes. Raises NOT_FOUND, VALUE_INVALID, FILE_UNREADABLE."""
        return read_bounded(self.path(name), MAX_ZIP_BYTES)

    def path(self, name: str) -> Path:
        """Where a report is. Raises NOT_FOUND, VALUE_INVALID."""
        folder = self._folder_of(name)
        if folder is None:
            raise LotaBotsError(Code.NOT_FOUND, f"no report {name} in the outbox")
        return self._directory / folder / name

    def entries(self) -> list[OutboxEntry]:
        """Every report, by folder and name; files of other names are not shown."""
        return [
            OutboxEntry(path.name, folder, path.stat().st_size)
            for folder in Folder
            for path in sorted((self._directory / folder).iterdir())
            if _NAME.fullmatch(path.name)
        ]

    def move(self, name: str, folder: Folder) -> Path:
        """Take a report on to `folder`; one that is there already, or beyond, stays where it is.

        Raises NOT_FOUND, VALUE_INVALID, FILE_UNWRITABLE.
        """
        source = self.path(name)
        order = list(Folder)
        if order.index(Folder(source.parent.name)) >= order.index(folder):
            return source
        target = self._directory / folder / name
        try:
            source.rename(target)
            sync_directory(target.parent)
            sync_directory(source.parent)
        except OSError as error:
            raise LotaBotsError(Code.FILE_UNWRITABLE, f"{target}: {error.strerror}") from error
        return target

    def _folder_of(self, name: str) -> Folder | None:
        if not _NAME.fullmatch(name):
            raise LotaBotsError(Code.VALUE_INVALID, f"{name!r} is no name of a report")
        for folder in Folder:
            if (self._directory / folder / name).is_file():
                return folder
        return None
