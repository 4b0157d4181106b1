"""The verifier as it is published: one file, made of the package, that runs alone and says the same."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lotabotsd.attestation import verify
from lotabotsd.attestation.keyset import Keyset

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "scripts" / "verify"
PACKAGE = Path(verify.__file__).parent
NONCE = "AAAAAAAAAAAAAAAAAAAAAA"
Sign = Callable[..., str]
Write = Callable[[dict[str, str]], Path]


@pytest.fixture(scope="module")
def merger() -> Iterator[ModuleType]:
    """The build's own module, loaded from its folder as the build does."""
    sys.path.insert(0, str(BUILD))
    try:
        yield __import__("merge_verifier")
    finally:
        sys.path.remove(str(BUILD))
        sys.modules.pop("merge_verifier", None)


@pytest.fixture(scope="module")
def merged(merger: ModuleType) -> str:
    return str(merger.merge(PACKAGE))


@pytest.fixture
def alone(tmp_path: Path, merged: str) -> Path:
    """The one file in a folder of its own."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "lotabots_verify.py").write_text(merged)
    return folder / "lotabots_verify.py"


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.required
def test_the_one_file_imports_the_standard_library_and_cryptography_at_its_top(merged: str) -> None:
    tree = ast.parse(merged)
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert found == tree.body[1 : 1 + len(found)], "one block, after the docstring"
    assert not [node for node in found if isinstance(node, ast.ImportFrom) and node.level]
    modules = {
        name.partition(".")[0]
        for node in found
        for name in ([str(node.module)] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    assert modules - set(sys.stdlib_module_names) == {"cryptography"}


def test_the_same_modules_make_the_same_readable_text(merger: ModuleType, merged: str, alone: Path) -> None:
    assert merger.merge(PACKAGE) == merged
    assert run(BUILD / "merge_verifier.py", cwd=alone.parent).stdout == merged
    config = ("--config", ROOT / "pyproject.toml", "--no-cache")
    for check in (("check",), ("format", "--check")):
        done = run("-m", "ruff", *check, *config, alone, cwd=alone.parent)
        assert done.returncode == 0, done.stdout


def test_every_comment_and_every_name_is_kept(merged: str) -> None:
    names = {node.name for node in ast.walk(ast.parse(merged)) if isinstance(node, ast.FunctionDef)}
    for path in PACKAGE.glob("*.py"):
        text = path.read_text()
        found = {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
        assert found <= names
        assert not [line for line in text.splitlines() if "  # " in line and line not in merged]


def commands(folder: Path, files: dict[str, str | bytes], now: int) -> dict[str, list[str]]:
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    (folder / "models.toml").write_text(f'[models]\npage_orientation = "sha256:{"ab" * 32}"\n')
    (folder / "production.toml").write_text("allow_development = false\n")
    both = ["--jwks", "jwks.json", "--nonce", NONCE, "--at", str(now)]
    token = ["token", "token.txt", *both, "--audience", "an-app"]
    receipt = ["receipt", "receipt.txt", *both]
    bodies = ["--request", "request", "--response", "response"]
    return {
        "a token": token,
        "a token with its model": [*token, "--policy", "models.toml"],
        "a token refused by policy": [*token, "--policy", "production.toml"],
        "a token for another": [*token, "--audience", "another"],
        "a token without its detached file": [*token, "--detached", "absent"],
        "a receipt alone": receipt,
        "a receipt with all": [*receipt, *bodies, "--token", "token.txt", "--policy", "models.toml"],
        "a receipt refused by policy": [*receipt, "--policy", "production.toml"],
        "a receipt with other bytes": [*receipt, "--request", "response"],
        "a salted receipt": ["receipt", "salted.txt", *both, *bodies, "--salt", "AAECAwQFBgcICQoLDA0ODw"],
        "a receipt as json": ["receipt", "answer.json", *both, *bodies],
        "a token as a receipt": ["receipt", "token.txt", *both],
        "a receipt as a token": ["token", "receipt.txt", *both, "--audience", "an-app"],
        "nothing": [],
        "help": ["--help"],
    }


EXITS = (0, 0, 2, 1, 3, 0, 0, 2, 1, 0, 0, 1, 1, 3, 0)


@pytest.mark.thorough
@pytest.mark.required
def test_the_one_file_alone_says_what_the_package_says(
    alone: Path,
    keyset: Keyset,
    token: str,
    receipt: str,
    salted_claims: dict[str, Any],
    sign_receipt: Sign,
    bodies: tuple[bytes, bytes],
    now: int,
) -> None:
    files: dict[str, str | bytes] = {
        "token.txt": token, "receipt.txt": receipt, "salted.txt": sign_receipt(salted_claims),
        "answer.json": json.dumps({"receipt": receipt}), "jwks.json": json.dumps(keyset.jwks()),
        "request": bodies[0], "response": bodies[1],
    }  # fmt: skip
    found = commands(alone.parent, files, now)
    for (name, words), code in zip(found.items(), EXITS, strict=True):
        one = run("-I", alone, *words, cwd=alone.parent)
        other = run("-m", "lotabotsd.attestation.verify", *words, cwd=alone.parent)
        assert one.returncode == code, (name, one.stderr)
        assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr), (
            name
        )
        assert code == 3 or name == "help" or "does NOT establish: " in one.stdout


@pytest.mark.required
def test_the_one_file_loads_nothing_of_the_product(alone: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(alone.parent)!r}); import lotabots_verify as v\n"
        "assert all(hasattr(v, name) for name in v.__all__)\n"
        "print(*(name for name in sys.modules if name.startswith('lotabotsd')), *v.__all__)"
    )
    done = run("-I", "-c", program, cwd=alone.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == verify.__all__


FUTURE = "from __future__ import annotations\n\n"
SOUND = {
    "__init__": f'"""Door."""\n\n{FUTURE}from .one import first\n\n__all__ = ["first"]\n',
    "__main__": f'"""Entry."""\n\n{FUTURE}from .two import second\n\nif __name__:\n    second()\n',
    "one": f'"""One."""\n\n{FUTURE}import json\n\n\ndef first() -> str:\n    return json.dumps(1)\n',
    "two": f'"""Two."""\n\n{FUTURE}from .one import first\n\n\ndef second() -> str:\n    return first()\n',
}
FAULTS_OF_TWO = {  # what stands after the docstring → what the build says
    "from .one import first\njson = first\ndef second(): ...\n": "json is one thing in",
    "from .one import first\ndef first(): ...\ndef second(): ...\n": "first is one thing in",
    "from os import path as first\ndef second(): ...\n": "under another name",
    "from .one import first as f\ndef second(): ...\n": "under another name",
    "from os import *\ndef second(): ...\n": "or everything",
    "from . import one\ndef second(): ...\n": "imports a module",
    "from ..token import claims\ndef second(): ...\n": "from outside the package",
    "from .one import none\ndef second(): ...\n": "which does not make it",
    "from .three import none\ndef second(): ...\n": "no such module",
    "from .two import second\ndef second(): ...\n": "a circle",
    "import requests\ndef second(): ...\n": "imports requests",
    "import lotabotsd.foundation\ndef second(): ...\n": "imports lotabotsd.foundation",
    "from .one import first\ndef second():\n    import os\n": "not at its top",
    "from .one import first\ndef second(): ...\nimport os\n": "not at its top",
    "if 1:\n    import os\ndef second(): ...\n": "not at its top",
    "# why\nfrom .one import first\ndef second(): ...\n": "would be lost",
    "from .one import first\nhash = first\ndef second(): ...\n": "hides the builtin hash",
    "from .one import first\nfirst()\ndef second(): ...\n": "more than set names",
}


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(changes: dict[str, str]) -> Path:
        folder = tmp_path / "package"
        folder.mkdir()
        for name, text in {**SOUND, **changes}.items():
            (folder / f"{name}.py").write_text(text)
        return folder

    return write


def test_modules_come_after_those_that_they_need(merger: ModuleType, written: Write) -> None:
    text = merger.merge(written({}))
    assert text.index("def first") < text.index("def second") < text.index("__main__.py")
    assert '__all__ = ["first"]' in text


@pytest.mark.parametrize(("text", "says"), FAULTS_OF_TWO.items())
def test_what_one_file_cannot_say_the_same_way_is_refused(
    merger: ModuleType, written: Write, text: str, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        merger.merge(written({"two": f'"""Two."""\n\n{FUTURE}{text}'}))


@pytest.mark.parametrize(
    ("module", "text", "says"),
    [
        ("two", "from .one import first\n\ndef second(): ...\n", "docstring"),
        ("two", '"""Two."""\n\nfrom .one import first\n\ndef second(): ...\n', "only some of the modules"),
        ("three", '"""Nobody."""\n', "nothing imports three"),
        ("__init__", f'"""Door."""\n\n{FUTURE}from .one import first\n\nx = first\n', "more than name"),
        ("__init__", f'"""Door."""\n\n{FUTURE}from .one import second\n\n__all__ = []\n', "does not make it"),
    ],
)
def test_a_package_that_is_no_verifier_is_refused(
    merger: ModuleType, written: Write, module: str, text: str, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        merger.merge(written({module: text}))


@pytest.mark.thorough
@pytest.mark.required
def test_the_distribution_is_the_one_file_and_needs_cryptography_only(tmp_path: Path, merged: str) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(PACKAGE, checkout / "lotabotsd" / "attestation" / "verify")
    kept_out = shutil.ignore_patterns("lotabots_verify.py", "build", "dist", "__pycache__", "*.egg-info")
    shutil.copytree(BUILD, checkout / "scripts" / "verify", ignore=kept_out)
    # The source distribution first and the wheel from it, as `python -m build scripts/verify` does.
    built = run(
        "-m",
        "build",
        "--no-isolation",
        "--outdir",
        tmp_path / "dist",
        checkout / "scripts" / "verify",
        cwd=tmp_path,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (tmp_path / "dist").glob("lotabots_verify-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert {name for name in names if ".dist-info/" not in name} == {"lotabots_verify.py"}
        assert archive.read("lotabots_verify.py").decode() == merged
        metadata = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
        entry = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    needs = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert needs == ["Requires-Dist: cryptography>=46"]
    assert "lotabots-verify = lotabots_verify:main" in entry
