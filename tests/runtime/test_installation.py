"""What is found in a runtime's virtual environment, and the private backend directory made from it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.installation import STUB, Installation, find_installation, make_backends, probe_flags


@pytest.fixture
def installation(tmp_path: Path, server: Path) -> Installation:
    wheel = tmp_path / "wheel"
    backend = wheel / "backends" / "python"
    backend.mkdir(parents=True)
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (backend / name).write_text(name, encoding="utf-8")
    (backend / "__pycache__").mkdir()
    stub = wheel / STUB
    stub.write_text("stub", encoding="utf-8")
    stub.chmod(0o644)
    return Installation(Path(sys.executable), server, stub, backend, (), {}, frozenset())


def test_options_are_asked_from_the_server_itself(server: Path) -> None:
    assert {"http-address", "allow-sagemaker"} <= probe_flags(server, ())
    assert "allow-client-shm" not in probe_flags(server, ())


@pytest.mark.parametrize("script", ["exit 0", "exit 1", "echo some words; exit 1", "kill -SEGV $$"])
def test_a_server_that_prints_no_options_is_none(tmp_path: Path, script: str) -> None:
    server = tmp_path / "tritonserver"
    server.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    server.chmod(0o755)
    with pytest.raises(LotaBotsError) as refused:
        probe_flags(server, ())
    assert refused.value.code is Code.RUNTIME_MISSING
    assert str(server) in refused.value.detail


def test_a_server_that_is_not_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(LotaBotsError) as refused:
        probe_flags(tmp_path / "tritonserver", ())
    assert refused.value.code is Code.RUNTIME_MISSING


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/true", "/bin/false"])
def test_a_python_that_is_none_is_named(python: str) -> None:
    with pytest.raises(LotaBotsError) as refused:
        find_installation(python)
    assert refused.value.code is Code.RUNTIME_MISSING
    assert python in refused.value.detail


def test_what_the_python_lacks_is_named(tmp_path: Path) -> None:
    answer = (
        '{"site":"/nowhere","python":"3.11","wheel":"0.7.0","numpy":"","onnxruntime":"1","library":"",'
        '"library_directory":"","shared":false}'
    )
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{answer}'\n", encoding="utf-8")
    python.chmod(0o755)
    with pytest.raises(LotaBotsError) as refused:
        find_installation(str(python))
    assert refused.value.detail == f"{python} has no numpy"
    python.write_text(f"#!/bin/sh\necho '{answer.replace(chr(34) * 2, chr(34) + '1' + chr(34), 1)}'\n")
    with pytest.raises(LotaBotsError) as refused:
        find_installation(str(python))
    assert "nvidia-pytriton 0.7.0 lacks /nowhere/pytriton" in refused.value.detail


def test_the_wheel_stays_untouched_and_the_stub_is_a_copy(installation: Installation, tmp_path: Path) -> None:
    stub = make_backends(installation, tmp_path / "runtime")
    assert stub == tmp_path / "runtime" / "python" / STUB
    assert stub.stat().st_mode & 0o777 == 0o755
    assert not stub.is_symlink()
    assert installation.stub.stat().st_mode & 0o777 == 0o644
    assert {path.name for path in stub.parent.iterdir()} == {
        STUB,
        "libtriton_python.so",
        "triton_python_backend_utils.py",
    }
    assert (stub.parent / "libtriton_python.so").read_text(encoding="utf-8") == "libtriton_python.so"


def test_it_is_made_anew_each_time(installation: Installation, tmp_path: Path) -> None:
    stub = make_backends(installation, tmp_path / "runtime")
    stub.write_text("damaged", encoding="utf-8")
    (stub.parent / "more").write_text("more", encoding="utf-8")
    assert make_backends(installation, tmp_path / "runtime").read_text(encoding="utf-8") == "stub"
    assert not (stub.parent / "more").exists()


def test_a_link_in_its_place_is_not_followed(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runtime").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LotaBotsError) as refused:
        make_backends(installation, tmp_path / "runtime")
    assert refused.value.code is Code.FILE_UNWRITABLE
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_directory_that_others_may_write_is_refused(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime").chmod(0o777)
    with pytest.raises(LotaBotsError) as refused:
        make_backends(installation, tmp_path / "runtime")
    assert "writable by us alone" in refused.value.detail
