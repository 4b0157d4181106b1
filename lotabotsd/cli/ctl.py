"""`lotabotsctl`: a thin client of lotabotsd's control socket."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from lotabotsd import __version__

from .commands import (
    attest,
    audit,
    bill,
    gpus,
    identity,
    keys,
    ledger,
    licence,
    models,
    status,
    teams,
    usage,
)
from .control_client import DEFAULT_SOCKET, SOCKET_VARIABLE, ControlClient
from .failures import run
from .session import Session


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="lotabotsctl", message="%(prog)s %(version)s")
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"The daemon's control socket.  [env: {SOCKET_VARIABLE}; default: {DEFAULT_SOCKET}]",
)
@click.pass_context
def lotabotsctl(context: click.Context, socket_path: Path | None) -> None:
    """Look after a LotaBots appliance: status, keys, licence, usage, models, evidence."""
    path = socket_path or Path(os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET)
    context.obj = Session(ControlClient(path))


for command in (
    status.status,
    status.doctor,
    status.logs,
    status.metrics,
    identity.organisation,
    identity.member,
    teams.team,
    keys.key,
    licence.licence,
    usage.usage,
    bill.bill,
    ledger.ledger,
    models.model,
    gpus.gpu,
    attest.attest,
    attest.receipt,
    attest.verify,
    audit.audit,
):
    lotabotsctl.add_command(command)


def main() -> None:
    """The console script."""
    sys.exit(run(lotabotsctl, "lotabotsctl"))


if __name__ == "__main__":
    main()
