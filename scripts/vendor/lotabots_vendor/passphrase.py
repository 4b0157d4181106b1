"""Ask for the passphrase of private keys: from a protected file or at the terminal, never as an argument."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import click

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded


def read_passphrase(file: Path | None, *, confirm: bool = False) -> bytes:
    """The first line of `file`, or what is typed. Raises FILE_UNREADABLE, VALUE_INVALID."""
    if file is not None:
        data = read_bounded(file, 4096)
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            raise LotaBotsError(
                Code.FILE_UNREADABLE, f"{file} has mode {mode:04o}", hint=f"protect it: chmod 600 {file}"
            )
        return data.split(b"\n", 1)[0].rstrip(b"\r")
    if not sys.stdin.isatty():
        raise LotaBotsError(
            Code.VALUE_INVALID,
            "a passphrase is needed and there is no terminal to ask at",
            hint="give --passphrase-file FILE",
        )
    typed: str = click.prompt("passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    return typed.encode()
