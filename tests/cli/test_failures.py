"""Every command ends with two lines and the exit code of the catalogue."""

from __future__ import annotations

import click
import pytest

from lotabotsd.cli.failures import run
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError


def _command(body):
    @click.command()
    @click.option("--number", type=int, default=0)
    def command(number: int) -> int:
        return body()

    return command


def _raising(error):
    def body():
        raise error

    return body


@pytest.mark.parametrize("code", list(Code))
def test_every_failure_of_the_catalogue_ends_with_its_exit_code_and_two_lines(code, capsys) -> None:
    assert (
        run(_command(_raising(LotaBotsError(code, "what exactly"))), "demo", [])
        == LotaBotsError(code).exit_code
    )
    said = capsys.readouterr()
    assert said.out == ""
    first, second = said.err.splitlines()
    assert first.startswith("error: ")
    assert first.endswith(": what exactly")
    assert second.startswith(" hint: ")


def test_a_number_that_a_command_returns_is_its_exit_code() -> None:
    assert run(_command(lambda: Exit.WARNINGS), "demo", []) == Exit.WARNINGS
    assert run(_command(lambda: None), "demo", []) == Exit.OK


@pytest.mark.parametrize("arguments", [["--nuber", "1"], ["--number", "x"], ["surplus"]])
def test_a_mistyped_command_is_a_usage_error_that_names_the_help(arguments, capsys) -> None:
    assert run(_command(lambda: 0), "demo", arguments) == Exit.USAGE
    assert " hint: see demo --help" in capsys.readouterr().err


def test_help_and_version_end_well(capsys) -> None:
    assert run(_command(lambda: 0), "demo", ["--help"]) == Exit.OK
    assert "--number" in capsys.readouterr().out


def test_a_group_without_a_command_shows_its_help_on_standard_error_and_is_a_usage_error(capsys) -> None:
    group = click.Group("demo", help="What it is for.")
    group.add_command(_command(lambda: 0))
    assert run(group, "demo", []) == Exit.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Usage: demo [OPTIONS] COMMAND [ARGS]...")
    assert "What it is for." in said.err
    assert "error:" not in said.err


def test_an_interrupt_ends_with_130() -> None:
    assert run(_command(_raising(KeyboardInterrupt())), "demo", []) == Exit.INTERRUPTED
    assert run(_command(_raising(click.Abort())), "demo", []) == Exit.INTERRUPTED


def test_a_bug_is_told_in_two_lines_without_a_traceback(capsys, monkeypatch) -> None:
    monkeypatch.delenv("LOTABOTS_DEBUG", raising=False)
    assert run(_command(_raising(RuntimeError("boom"))), "demo", []) == Exit.UNEXPECTED
    said = capsys.readouterr().err
    assert "RuntimeError: boom" in said
    assert "Traceback" not in said
    assert "report it" in said


def test_a_bug_shows_its_traceback_when_asked(capsys, monkeypatch) -> None:
    monkeypatch.setenv("LOTABOTS_DEBUG", "1")
    run(_command(_raising(RuntimeError("boom"))), "demo", [])
    assert "Traceback" in capsys.readouterr().err
