"""The wheel that customers get: the product and its anchors, no tests, no vendor tools, no private keys."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

# Code that could issue a licence has no place in the product, not even by name.
ISSUER = re.compile(
    r"(?i)(issue|sign|mint|make)_?(a_)?(licence|keyring|acknowledge?ment|rate_?card)s?\b"
    r"|(root|issuing|issuer|vendor|licence)_?(private|secret|signing)"
    r"|(private|secret|signing)_?(root|issu|vendor|licence)"
    r"|lotabots_vendor"
)


@pytest.fixture(scope="module")
def wheel(root: Path, files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from the files that git knows, away from the checkout."""
    source = tmp_path_factory.mktemp("source")
    for file in files:
        relative = file.relative_to(root)
        if relative.parts[0] in {"lotabotsd", "tests", "scripts"} or len(relative.parts) == 1:
            (source / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, source / relative)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (source / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.required
def test_the_wheel_holds_the_product_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lotabotsd"}
    assert not [n for n in wheel.namelist() if re.search(r"(^|/)(tests?|conftest|test_[^/]*)(/|\.py$)", n)]


@pytest.mark.required
def test_the_wheel_holds_every_module_and_its_data(wheel: zipfile.ZipFile, product: list[Any]) -> None:
    names = set(wheel.namelist())
    assert not [m.where for m in product if m.where not in names]
    assert {"lotabotsd/py.typed", "lotabotsd/licence/anchors/development.json"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.required
def test_the_wheel_holds_no_private_key(wheel: zipfile.ZipFile) -> None:
    for name in wheel.namelist():
        assert b"PRIVATE " + b"KEY-----" not in wheel.read(name), name
        assert not name.endswith((".key", ".p8"))


def test_nothing_in_the_product_could_issue_a_licence_by_name(product: list[Any]) -> None:
    found = [
        f"{m.where}:{number}: {line.strip()}"
        for m in product
        for number, line in enumerate(m.text.splitlines(), start=1)
        if ISSUER.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "name", ["issue_licence", "sign_keyring", "root_private_key", "issuing_secret", "lotabots_vendor"]
)
def test_the_rule_on_names_catches(name: str) -> None:
    assert ISSUER.search(f"    {name} = 1")
