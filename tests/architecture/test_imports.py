"""The import contracts of setup.cfg hold, and the gate process loads nothing of the control plane."""

from __future__ import annotations

import ast
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
def test_the_offline_verifier_imports_the_standard_library_cryptography_and_itself(
    product: list[Any],
) -> None:
    own = [m for m in product if m.where.startswith("lotabotsd/attestation/verify/")]
    assert len(own) > 1
    foreign = set()
    for module in own:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                foreign |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                foreign.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1, f"{module.where}:{node.lineno} reaches out of the verifier"
    assert foreign - set(sys.stdlib_module_names) == {"cryptography"}


@pytest.mark.required
def test_the_offline_verifier_loads_cryptography_and_nothing_else() -> None:
    # The published file, which test_verify_merged.py looks at, is made of these modules.
    program = (
        "import sys, lotabotsd.attestation.verify\n"
        "print(*(name for name in sys.modules if not name.startswith('lotabotsd.attestation.verify')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.split())
    assert {name for name in loaded if name.startswith("lotabotsd.")} == {"lotabotsd.attestation"}
    tops = {name.partition(".")[0] for name in loaded if not name.startswith("__")}
    parts_of_cryptography = {"cryptography", "_cffi_backend", "cffi", "_openssl"}
    known = {*sys.stdlib_module_names, *parts_of_cryptography, "lotabotsd"}
    assert tops - known <= {"_distutils_hack", "sitecustomize"}
