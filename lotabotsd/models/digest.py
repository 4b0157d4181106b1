"""The digest of a model: one SHA-256 over the SHA-256 of each of its files.

An auditor repeats it with the tools of any Linux, in the model's directory:
    find -type f -not -path '*/__pycache__/*' -printf '%P\\n' | LC_ALL=C sort \\
      | xargs -d '\\n' sha256sum | sha256sum
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError

# Python's Triton stub ignores PYTHONDONTWRITEBYTECODE; what it writes is derived, and made anew at each swap.
IGNORED = "__pycache__"


def combine(files: Mapping[str, str]) -> str:
    """The digest of a tree, hex, from path → SHA-256 hex: the hash of what sha256sum(1) prints."""
    listing = "".join(f"{files[path]}  {path}\n" for path in sorted(files, key=lambda text: text.encode()))
    return hashlib.sha256(listing.encode()).hexdigest()


def file_digests(directory: Path) -> dict[str, str]:
    """Relative path → SHA-256 hex of every regular file below `directory`.

    Raises FILE_UNREADABLE for an unreadable file, and for a link or other special file: a digest covers
    what is inside the directory, and nothing else may be served from it.
    """
    found: dict[str, str] = {}
    try:
        for path in sorted(directory.rglob("*")):
            relative = path.relative_to(directory)
            if IGNORED in relative.parts:
                continue
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise LotaBotsError(Code.FILE_UNREADABLE, f"{path} is not a regular file")
            if path.is_file():
                found[relative.as_posix()] = file_digest(path)
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{error.filename}: {error.strerror}") from error
    return found


def file_digest(path: Path) -> str:
    """SHA-256 hex of one file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(directory: Path) -> str:
    """The digest of the model in `directory`. Raises FILE_UNREADABLE."""
    return combine(file_digests(directory))
