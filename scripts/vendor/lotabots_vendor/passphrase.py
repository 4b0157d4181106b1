"""Ask for the passphrases of private keys: from protected files or at the terminal, never as an argument."""

from __future__ import annotations

import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded


@dataclass(frozen=True, slots=True)
class Passphrases:
    """Those in files, or else what is typed when a key needs one."""

    files: tuple[Path, ...] = ()
    option: str = "--passphrase-file"  # as this command calls it, for hints

    def to_open(self, name: str) -> list[bytes]:
        """What to try for the key of that name: the files' in their order. Raises as `read_passphrase`."""
        if not self.files:
            return [_asked(self.option, name, confirm=False)]
        return [read_passphrase(file) for file in self.files]

    def to_make(self, names: Sequence[str]) -> list[bytes]:
        """One for each new key of these names: a sole file's for all, or each file's for one, in order.

        Raises USAGE where the files are neither one nor as many as the keys, and as `read_passphrase`.
        """
        if not self.files:
            return [_asked(self.option, name, confirm=True) for name in names]
        if len(self.files) not in (1, len(names)):
            raise LotaBotsError(
                Code.USAGE,
                f"{len(self.files)} passphrase files for {len(names)} new keys",
                hint=f"give one for all, or one for each of {', '.join(names)}, in this order",
            )
        files = self.files if len(self.files) > 1 else self.files * len(names)
        return [read_passphrase(file) for file in files]


def _collected(context: click.Context, parameter: click.Parameter, files: Any) -> Passphrases:
    return Passphrases(tuple(files), parameter.opts[0])


passphrase_option = click.option(
    "--passphrase-file",
    "passphrases",
    type=click.Path(path_type=Path),
    multiple=True,
    callback=_collected,
    help="File (mode 0600) whose first line is a private key's passphrase (repeatable); else it is asked.",
)
new_passphrase_option = click.option(
    "--new-passphrase-file",
    "new_passphrases",
    type=click.Path(path_type=Path),
    multiple=True,
    callback=_collected,
    help="The same for new keys: one for all, or one for each.  [default: a sole --passphrase-file]",
)


def for_new_keys(new: Passphrases, old: Passphrases) -> Passphrases:
    """Those for new keys; where none are given, a sole one that opens the old keys, or what is typed."""
    return old if not new.files and len(old.files) == 1 else new


def read_passphrase(file: Path) -> bytes:
    """The first line of `file`. Raises FILE_UNREADABLE, also where others may read it."""
    data = read_bounded(file, 4096)
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        raise LotaBotsError(
            Code.FILE_UNREADABLE, f"{file} has mode {mode:04o}", hint=f"protect it: chmod 600 {file}"
        )
    return data.split(b"\n", 1)[0].rstrip(b"\r")


def _asked(option: str, name: str, *, confirm: bool) -> bytes:
    """What is typed for the key of that name. Raises VALUE_INVALID where nobody can type."""
    if not sys.stdin.isatty():
        raise LotaBotsError(
            Code.VALUE_INVALID,
            f"the passphrase of {name} is needed and there is no terminal to ask at",
            hint=f"give {option} FILE",
        )
    typed: str = click.prompt(f"passphrase of {name}", hide_input=True, confirmation_prompt=confirm, err=True)
    return typed.encode()
