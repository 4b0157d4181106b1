"""The import contracts of setup.cfg hold, and the gate process loads nothing of the control plane."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FORBIDDEN_IN_GATE = frozenset(
    {"fastapi", "starlette", "pydantic", "docker", "apscheduler", "sqlite_utils", "httpx", "tritonclient"}
)
ROOMS_APART_FROM_THE_GATE = frozenset({"lotabotsd.control", "lotabotsd.daemon", "lotabotsd.runtime"})


@pytest.mark.required
def test_the_import_contracts_hold(root: Path) -> None:
    run = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-logo"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_floors_are_exhaustive_so_that_a_stray_room_fails(root: Path) -> None:
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    floors = setup["importlinter:contract:floors"]
    assert floors.getboolean("exhaustive")
    assert "ignore_imports" not in floors


def test_the_gate_contract_and_this_test_forbid_the_same(root: Path) -> None:
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    assert set(setup["importlinter:contract:gate-process"]["forbidden_modules"].split()) == FORBIDDEN_IN_GATE


@pytest.mark.required
def test_the_gate_process_loads_none_of_the_control_planes_libraries(product: list[Any]) -> None:
    rooms = [m.dotted for m in product if m.where.startswith("lotabotsd/gate/")]
    program = f"import sys, {', '.join(rooms)}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.split())
    assert "lotabotsd.gate.worker" in loaded
    assert not loaded & FORBIDDEN_IN_GATE
    assert not loaded & ROOMS_APART_FROM_THE_GATE


@pytest.mark.required
def test_the_offline_verifier_needs_cryptography_and_nothing_else(root: Path) -> None:
    # Loaded by its path, as the file alone would be on an auditor's laptop.
    program = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('verify', {str(root)!r}"
        " + '/lotabotsd/attestation/verify.py')\n"
        "module = importlib.util.module_from_spec(spec); sys.modules['verify'] = module\n"
        "spec.loader.exec_module(module)\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    foreign = {n for n in run.stdout.split() if not n.startswith("__")}
    parts_of_cryptography = {"cryptography", "_cffi_backend", "cffi", "_openssl"}
    assert foreign - parts_of_cryptography <= {"verify", "_distutils_hack", "sitecustomize"}
