"""`lotabots-vendor`: the command line, and the one place where a failure becomes words and an exit code."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Sequence

import click

from lotabotsd.foundation.clock import Clock, SystemClock
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError

from . import __version__
from .ack_command import ack
from .book_failures import for_vendors, of_database
from .customer_command import customer
from .desk import Desk
from .invoice_command import invoice
from .keyring_command import keyring
from .licence_command import licence
from .licence_shown_command import list_issued, show
from .rate_card_command import rate_card
from .rate_command import rate
from .report_command import report
from .request_command import request
from .revoke_command import revocations, revoke
from .root_command import root
from .seat_command import seat

PROGRAM = "lotabots-vendor"


@click.group()
@click.option("--json", "as_json", is_flag=True, help="Answer, and fail, with JSON.")
@click.version_option(__version__, prog_name=PROGRAM)
@click.pass_context
def vendor(context: click.Context, as_json: bool) -> None:
    """The vendor's side of LotaBots: keys, licences, customers, usage reports, acknowledgements, bills."""
    context.obj = Desk(context.obj, as_json)


_COMMANDS = (
    root, keyring, licence, request, customer, seat, rate_card, report, ack, rate, invoice,
)  # fmt: skip
for _command in _COMMANDS:
    vendor.add_command(_command)
for _command in (show, list_issued, revoke, revocations):
    licence.add_command(_command)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:], SystemClock()))


def run(arguments: Sequence[str], clock: Clock) -> int:
    """Run one command and return its exit code; no failure leaves as a traceback."""
    as_json = "--json" in arguments[:1]
    try:
        result = vendor.main(args=list(arguments), prog_name=PROGRAM, obj=clock, standalone_mode=False)
        sys.stdout.flush()
        return int(result) if isinstance(result, int) else Exit.OK
    except LotaBotsError as error:
        return _say(for_vendors(error), as_json)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else PROGRAM
        return _say(LotaBotsError(Code.USAGE, error.format_message(), hint=f"see {where} --help"), as_json)
    except click.ClickException as error:
        return _say(LotaBotsError(Code.USAGE, error.format_message()), as_json)
    except (KeyboardInterrupt, click.Abort):
        return _say(LotaBotsError(Code.INTERRUPTED), as_json)
    except sqlite3.DatabaseError as error:
        return _say(of_database(error), as_json)
    except BrokenPipeError:
        # The reader (head, less) has gone; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except Exception as error:  # noqa: BLE001 - `main`: the one place of the program where a bug is told
        hint = "this is a bug: please report it with the command that you gave"
        return _say(LotaBotsError(Code.INTERNAL, f"{type(error).__name__}: {error}", hint=hint), as_json)


def _say(error: LotaBotsError, as_json: bool) -> int:
    """Print a failure to standard error and return its exit code."""
    if as_json:
        click.echo(json.dumps({"error": error.problem()}, indent=2, default=str), err=True)
    else:
        click.echo(f"error: {error}\n hint: {error.hint}", err=True)
    return error.exit_code
