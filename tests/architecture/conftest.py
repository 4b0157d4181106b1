"""The source of this checkout, as the architecture tests read it."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What `python -m build scripts/verify` leaves there; git ignores it.
MADE_BY_A_BUILD = "lotabots_verify.py"


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file of the checkout."""

    path: Path
    where: str  # relative to the root
    text: str
    tree: ast.Module

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.tree) or ""

    @property
    def dotted(self) -> str:
        """The import name of a file of `lotabotsd`."""
        return self.where.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _read(folders: tuple[str, ...]) -> list[Module]:
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name == MADE_BY_A_BUILD:
                continue
            text = path.read_text()
            found.append(Module(path, str(path.relative_to(ROOT)), text, ast.parse(text)))
    return found


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def product() -> list[Module]:
    """Every module of the package that customers get."""
    return _read(("lotabotsd",))


@pytest.fixture(scope="session")
def modules() -> list[Module]:
    """Every Python file that we wrote."""
    return _read(("lotabotsd", "scripts", "tests"))


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """Every file that is tracked, or would be."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git does not list the files here ({error}); enable it: apt-get install git")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
