"""The secret of each container run, in a file that only its container and its helper can read.

The directory is closed to everybody but the helper, and lies in memory (/run). The file inside is readable,
because the engine mounts it, by itself and read-only, into a container that runs as another user: the helper
has no right to give files away. So the secret is in no argument and no variable that `docker inspect` shows.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded

_RUN_ID = re.compile(r"[0-9a-f]{16}")
_MAX_BYTES = 256


class RunSecrets:
    """One file per run; making one removes those of runs before."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make(self, run_id: str, *, beside: str = "") -> str:
        """A new secret for a run; that of the run `beside` it stays. Raises FILE_UNWRITABLE."""
        secret = secrets.token_urlsafe(32)
        path = self._directory / run_id
        try:
            if not self._directory.is_dir():  # under systemd it is there
                self._directory.mkdir(mode=0o700, parents=True)
            for old in self._directory.iterdir():
                if old.name != beside:
                    old.unlink()
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                os.fchmod(file.fileno(), 0o444)  # whatever the umask
                file.write(f"{secret}\n")
        except OSError as error:
            raise LotaBotsError(
                Code.FILE_UNWRITABLE, f"{error.filename or path}: {error.strerror}"
            ) from error
        return secret

    def read(self, run_id: str) -> str:
        """The secret of a run, or nothing where it is not known."""
        if not _RUN_ID.fullmatch(run_id):
            return ""
        try:
            return read_bounded(self._directory / run_id, _MAX_BYTES).decode("ascii").strip()
        except (LotaBotsError, UnicodeDecodeError):
            return ""
