"""README quotes the commands' --help as it is, and names only files that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HELP = re.compile(r"<!-- test: help (\S+)(?: ([^>]*?))? -->\n```\n(.*?)\n```", re.DOTALL)
PATHS = re.compile(
    r"`((?:lotabotsd|scripts|tests|etc|docs|model_repository|requirements|systemd|installer)/[\w./-]*)`"
)
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
MADE_FOR_A_RELEASE = {"lotabotsd/licence/anchors/production.json"}
UNDER_SCRIPTS = ("demo", "test", "check", "setup-environment", "lock", "fetch-models", "vendor")


def test_readme_quotes_the_help_of_both_commands(root: Path) -> None:
    quoted = {name for name, _, _ in HELP.findall((root / "README.md").read_text())}
    assert quoted == {"lotabotsctl", "lotabotsd"}


@pytest.mark.parametrize("command", ["lotabotsctl", "lotabotsd"])
def test_the_quoted_help_is_what_the_command_prints(root: Path, command: str) -> None:
    for name, arguments, text in HELP.findall((root / "README.md").read_text()):
        if name == command:
            run = subprocess.run(
                [str(Path(sys.executable).parent / name), *arguments.split(), "--help"],
                env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert run.returncode == 0, run.stderr
            assert text == run.stdout.rstrip("\n")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_only_files_that_exist(root: Path, files: list[Path], document: str) -> None:
    # As git has them: an empty folder here is no folder in a fresh clone.
    there = {path for file in files for path in (file, *file.parents)}
    named = set(PATHS.findall((root / document).read_text())) - MADE_FOR_A_RELEASE
    assert not [path for path in named if root / path.rstrip("/") not in there]


def test_every_script_that_readme_names_exists(root: Path) -> None:
    text = (root / "README.md").read_text()
    assert not [name for name in UNDER_SCRIPTS if name not in text or not (root / "scripts" / name).exists()]
