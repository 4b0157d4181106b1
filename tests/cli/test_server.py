"""The configuration we ship, its check, and what each entry point loads."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from lotabotsd.cli.ctl import lotabotsctl
from lotabotsd.cli.failures import run
from lotabotsd.cli.server import lotabotsd
from lotabotsd.foundation.config import MAX_CONFIG_BYTES, Config, load
from lotabotsd.foundation.errors import Exit

ETC = Path(__file__).parents[2] / "etc" / "lotabots.toml"
HEAVY = ("fastapi", "starlette", "pydantic", "docker", "apscheduler", "sqlite_utils", "httpx", "tritonclient")


def _config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "lotabots.toml"
    path.write_text(text)
    return path


def test_the_configuration_we_ship_says_the_defaults() -> None:
    assert load(ETC) == Config()


def test_the_configuration_we_ship_names_every_key() -> None:
    written = tomllib.loads(ETC.read_text())
    expected = {
        section.name: {key.name for key in dataclasses.fields(getattr(Config(), section.name))}
        for section in dataclasses.fields(Config)
    }
    assert {section: set(keys) for section, keys in written.items()} == expected


def test_every_key_we_ship_is_explained_above_it() -> None:
    lines = ETC.read_text().splitlines()
    for number, line in enumerate(lines):
        if "=" in line and not line.startswith("#"):
            above = lines[number - 1]
            assert above.startswith("#") or "=" in above, f"line {number + 1}: {line}"


def test_a_good_configuration_passes_the_check(capsys) -> None:
    assert run(lotabotsd, "lotabotsd", ["check-config", str(ETC)]) == Exit.OK
    assert "no problems" in capsys.readouterr().out


def test_all_problems_are_named_at_once_with_their_lines(tmp_path, capsys) -> None:
    path = _config(tmp_path, '[gate]\nworkers = 99\nlissten = "x"\n[nonsense]\n')
    assert run(lotabotsd, "lotabotsd", ["check-config", str(path)]) == Exit.CONFIGURATION
    said = capsys.readouterr().err
    assert "lotabots.toml:2: gate.workers" in said
    assert "lotabots.toml:3: gate.lissten" in said
    assert "did you mean listen?" in said
    assert "lotabots.toml:4: [nonsense]" in said
    assert " hint: " in said


def test_a_report_schedule_that_no_calendar_knows_fails_the_check(tmp_path, capsys) -> None:
    path = _config(tmp_path, '[report]\nschedule = "0 0 32 1 *"\n')
    assert run(lotabotsd, "lotabotsd", ["check-config", str(path)]) == Exit.CONFIGURATION
    assert "report.schedule" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check-config", "serve --config", "gate --config", "up --config"])
@pytest.mark.parametrize("size", [None, MAX_CONFIG_BYTES + 1])
def test_a_missing_or_oversized_configuration_is_named_with_the_option_for_another(
    command, size, tmp_path, capsys
) -> None:
    path = tmp_path / "other.toml"
    if size:
        path.write_text("#" * size)
    assert run(lotabotsd, "lotabotsd", [*command.split(), str(path)]) == Exit.CONFIGURATION
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: the configuration is not valid: {path}")
    assert "FILE" in second
    assert ("--config" in second) == ("--config" in command)
    assert "etc/lotabots.toml" in second


@pytest.mark.parametrize("command", ["serve", "gate", "runtime", "up"])
def test_no_process_starts_with_a_broken_configuration(command, tmp_path, capsys) -> None:
    path = _config(tmp_path, "[gate\n")
    assert run(lotabotsd, "lotabotsd", [command, "--config", str(path)]) == Exit.CONFIGURATION
    assert "lotabots.toml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("lotabotsd.cli.ctl", ["--help"]),
        ("lotabotsd.cli.ctl", ["key", "create", "--help"]),
        ("lotabotsd.cli.server", ["--help"]),
        ("lotabotsd.cli.server", ["gate", "--help"]),
    ],
)
def test_help_loads_none_of_the_heavy_packages(module, arguments) -> None:
    program = (
        "import sys, importlib\n"
        f"module = importlib.import_module({module!r})\n"
        f"sys.argv = ['demo', *{arguments!r}]\n"
        "try:\n    module.main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"loaded = [name for name in {(*HEAVY, 'cryptography', 'http.client')!r} if name in sys.modules]\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def _groups(group, words=()):
    yield group, words
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _groups(command, (*words, name))


@pytest.mark.parametrize("program", [lotabotsd, lotabotsctl])
def test_every_line_of_a_list_of_commands_is_whole_in_a_terminal_of_80_columns(program, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    for _, words in _groups(program):
        assert run(program, "demo", [*words, "--help"]) == Exit.OK
        usage, _, rest = capsys.readouterr().out.partition("\n")
        assert "..." not in rest, words
        assert all(len(line) <= 80 for line in (usage, *rest.splitlines())), words


def test_everything_that_the_gate_runs_loads_none_of_the_heavy_packages() -> None:
    program = (
        "import sys\nimport lotabotsd.cli.server, lotabotsd.cli.listeners, lotabotsd.gate.parent\n"
        f"sys.exit(','.join(name for name in {HEAVY!r} if name in sys.modules) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
