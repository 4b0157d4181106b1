"""scripts/demo and scripts/setup-environment: what cannot work is refused before anything is set up."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SET_UP = 99  # how the set-up of this test's checkout ends: the demo went on to it


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the real scripts/demo, and a set-up that only says that it was reached."""
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(SCRIPTS / "demo", folder / "scripts")
    stub = folder / "scripts" / "setup-environment"
    stub.write_text(f"#!/bin/sh\nexit {SET_UP}\n")
    stub.chmod(0o755)
    return folder


def _run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)


def _demo(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return _run(checkout / "scripts" / "demo", *words)


@pytest.mark.parametrize("port", ["99999", "65536", "100000", "abc", "-1", "+1", "8080 ", ""])
def test_a_port_that_is_none_ends_with_the_usage(checkout: Path, port: str) -> None:
    for words in (["--port", port], [f"--port={port}"]):
        done = _demo(checkout, "--once", *words)
        assert done.returncode == 2
        assert "usage: scripts/demo [--once] [--dir DIR] [--port N]" in done.stderr


@pytest.mark.parametrize("words", [["--port"], ["--dir"], ["--dir", ""], ["--dir="], ["--twice"], ["x"]])
def test_an_option_without_its_value_or_an_unknown_one_ends_with_the_usage(
    checkout: Path, words: list[str]
) -> None:
    done = _demo(checkout, *words)
    assert done.returncode == 2
    assert "usage: scripts/demo" in done.stderr


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "::")],
)
def test_a_port_in_use_is_told_at_once(checkout: Path, family: int, address: str) -> None:
    with socket.socket(family) as stranger:
        try:
            stranger.bind((address, 0))
        except OSError as error:
            pytest.skip(f"no {address} on this machine: {error}")
        stranger.listen()
        port = str(stranger.getsockname()[1])
        done = _demo(checkout, "--once", "--port", port)
        assert done.returncode == 8
        assert f"127.0.0.1:{port} is in use" in done.stderr
        assert "give another --port" in done.stderr
    assert _demo(checkout, "--once", "--port", port).returncode == SET_UP


@pytest.mark.parametrize("name", ["two words", "a$b", "a'b", "tab\t", "a*"])
def test_a_folder_from_which_triton_cannot_start_is_refused(
    checkout: Path, tmp_path: Path, name: str
) -> None:
    done = _demo(checkout, "--once", "--dir", str(tmp_path / name))
    assert done.returncode == 2
    assert "cannot be used: give --dir a path without white space and shell characters" in done.stderr
    assert not (tmp_path / name).exists()
    (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / name)
    assert _demo(checkout, f"--dir={tmp_path}/link/data").returncode == 2


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/passwd/x", "/proc/x", "/dev/null"])
def test_what_is_no_folder_is_refused(checkout: Path, path: str) -> None:
    done = _demo(checkout, "--once", "--dir", path)
    assert done.returncode == 2
    assert done.stderr == (
        f"demo: {path} cannot be used: give --dir an empty or a new folder that you may write to\n"
    )


def test_what_can_work_goes_on_to_the_set_up(checkout: Path, tmp_path: Path) -> None:
    assert _demo(checkout).returncode == SET_UP
    assert (
        _demo(checkout, "--once", "--port=0", "--dir", str(tmp_path / "new" / "folder")).returncode == SET_UP
    )


def test_a_checkout_in_a_folder_with_a_space_is_refused_by_the_set_up(tmp_path: Path) -> None:
    scripts = tmp_path / "two words" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copy(SCRIPTS / "setup-environment", scripts)
    (tmp_path / "link").symlink_to(scripts.parent)
    for script in (scripts, tmp_path / "link" / "scripts"):
        done = _run(script / "setup-environment", "product")
        assert done.returncode == 3
        assert f'this checkout lies in "{scripts.parent}"' in done.stderr
        assert "fix: move it" in done.stderr
    assert [item.name for item in scripts.parent.iterdir()] == ["scripts"]


def test_the_same_python_is_found_with_and_without_an_activated_environment(tmp_path: Path) -> None:
    text = (SCRIPTS / "setup-environment").read_text()
    probe = tmp_path / "probe.py"
    probe.write_text(text.partition("<<'PY'")[2].partition("\n")[2].partition("\nPY\n")[0])
    base = Path(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]  # CPython's own name
    subprocess.run([base, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=60)
    inside = _run(tmp_path / "venv" / "bin" / "python3", probe, "no").stdout
    assert inside == _run(base, probe, "no").stdout == f"{base}\n"
