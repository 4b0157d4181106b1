"""The end of every command: its failure said in two lines with the next step, and its exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from lotabotsd.foundation.errors import Code, Exit, LotaBotsError

DEBUG = "LOTABOTS_DEBUG"


def run(
    command: click.Command, program: str, arguments: Sequence[str] | None = None, *, tracebacks: bool = False
) -> int:
    """Run a command and return its exit code. Nothing escapes: failures end as `error:` and `hint:` lines.

    `tracebacks`, or LOTABOTS_DEBUG=1, adds the traceback of a failure that is not in the catalogue.
    """
    try:
        result = command.main(
            args=None if arguments is None else list(arguments), prog_name=program, standalone_mode=False
        )
        sys.stdout.flush()
        return int(result) if isinstance(result, int) else Exit.OK
    except LotaBotsError as error:
        return say(error)
    except click.exceptions.NoArgsIsHelpError as error:  # a group alone: its help is the answer
        click.echo(error.format_message(), err=True)
        return int(getattr(error.ctx.command, "usage_exit", Exit.USAGE))
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else program
        code = say(LotaBotsError(Code.USAGE, error.format_message(), hint=f"see {where} --help"))
        return getattr(error.ctx.command, "usage_exit", code) if error.ctx else code
    except click.ClickException as error:
        return say(LotaBotsError(Code.USAGE, error.format_message()))
    except (KeyboardInterrupt, click.Abort):
        return say(LotaBotsError(Code.INTERRUPTED))
    except BrokenPipeError:
        # The reader (head, less) has gone; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except Exception as error:  # noqa: BLE001 - `main`: the one place of a program where a bug is told
        if tracebacks or os.environ.get(DEBUG):
            traceback.print_exc()
        return say(LotaBotsError(Code.INTERNAL, f"{type(error).__name__}: {error}"))


def say(error: LotaBotsError) -> int:
    """Print a failure to standard error and return its exit code."""
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f" hint: {error.hint}", err=True)
    return error.exit_code
