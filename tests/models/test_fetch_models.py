"""scripts/fetch-models, with wheels made here instead of a network."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "fetch-models"
WEIGHTS = b"weights" * 1_000


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = SourceFileLoader("fetch_models", str(SCRIPT))
    spec = importlib.util.spec_from_loader("fetch_models", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "some_wheel-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("some/model.onnx", WEIGHTS)
    return folder


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def repository(tmp_path: Path, wheels: Path) -> Path:
    directory = tmp_path / "repository" / "tiny"
    directory.mkdir(parents=True)
    wheel = wheels / "some_wheel-1.0-py3-none-any.whl"
    (directory / "package.toml").write_text(
        f"""
format = 1
name = "tiny"
title = "t"
task = "t"
licence = "MIT"
[source]
kind = "wheel"
distribution = "some-wheel"
version = "1.0"
file = "{wheel.name}"
sha256 = "{sha256(wheel.read_bytes())}"
[[files]]
path = "1/model.onnx"
member = "some/model.onnx"
sha256 = "{sha256(WEIGHTS)}"
[objective]
p99_milliseconds = 20
""",
        encoding="utf-8",
    )
    return directory.parent


def replace(repository: Path, before: str, after: str) -> None:
    path = repository / "tiny" / "package.toml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def run(script: ModuleType, repository: Path, wheels: Path) -> tuple[int, str]:
    said: list[str] = []
    code: int = script.fetch_all(repository, script.from_folder(wheels), said.append)
    return code, "\n".join(said)


def test_weights_are_taken_from_the_wheel(script: ModuleType, repository: Path, wheels: Path) -> None:
    code, said = run(script, repository, wheels)
    assert code == 0
    assert (repository / "tiny" / "1" / "model.onnx").read_bytes() == WEIGHTS
    assert "digest matches" in said
    assert [path.name for path in (repository / "tiny" / "1").iterdir()] == ["model.onnx"]


def test_a_second_time_no_wheel_is_needed(script: ModuleType, repository: Path, wheels: Path) -> None:
    run(script, repository, wheels)
    for wheel in wheels.iterdir():
        wheel.unlink()
    assert run(script, repository, wheels) == (0, "tiny: complete")


def test_damaged_weights_are_fetched_again(script: ModuleType, repository: Path, wheels: Path) -> None:
    run(script, repository, wheels)
    (repository / "tiny" / "1" / "model.onnx").write_bytes(b"half")
    assert run(script, repository, wheels)[0] == 0
    assert (repository / "tiny" / "1" / "model.onnx").read_bytes() == WEIGHTS


def test_a_changed_wheel_is_not_used(script: ModuleType, repository: Path, wheels: Path) -> None:
    wheel = next(wheels.iterdir())
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    code, said = run(script, repository, wheels)
    assert code == 6
    assert "does not have the SHA-256" in said
    assert not (repository / "tiny" / "1").exists()


def test_a_changed_member_is_not_kept(script: ModuleType, repository: Path, wheels: Path) -> None:
    replace(repository, sha256(WEIGHTS), "0" * 64)
    code, said = run(script, repository, wheels)
    assert code == 6
    assert "some/model.onnx does not have the SHA-256" in said
    assert list((repository / "tiny" / "1").iterdir()) == []


def test_a_missing_member_is_named(script: ModuleType, repository: Path, wheels: Path) -> None:
    replace(repository, "some/model.onnx", "other/model.onnx")
    code, said = run(script, repository, wheels)
    assert code == 3
    assert "other/model.onnx" in said
    assert "next:" in said


def test_a_missing_wheel_is_named(script: ModuleType, repository: Path, wheels: Path) -> None:
    next(wheels.iterdir()).unlink()
    code, said = run(script, repository, wheels)
    assert code == 3
    assert "carry that wheel here" in said


def test_one_bad_package_does_not_keep_the_others_waiting(
    script: ModuleType, repository: Path, wheels: Path
) -> None:
    (repository / "broken").mkdir()
    (repository / "broken" / "package.toml").write_text("format = 9", encoding="utf-8")
    code, said = run(script, repository, wheels)
    assert code == 3
    assert "broken" in said
    assert (repository / "tiny" / "1" / "model.onnx").exists()


def test_an_empty_repository_is_an_error(script: ModuleType, tmp_path: Path) -> None:
    assert run(script, tmp_path, tmp_path)[0] == 3


def test_it_runs_as_a_command_with_nothing_but_the_standard_library(repository: Path, wheels: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), "--dir", str(repository), "--wheels", str(wheels)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "digest matches" in done.stdout
