"""scripts/gpu-check: its model is a package like any other, and its result hides nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest

from lotabotsd.models.package import Package

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "scripts" / "benchmark", ROOT / "scripts" / "gpucheck")
NAMES = ("identity", "matmul", "verdicts", "load", "rig", "checks", "figures", "gpu_rig", "asking")


@pytest.fixture(scope="module")
def check() -> Iterator[dict[str, ModuleType]]:
    """The script's modules, loaded as scripts/gpu-check does."""
    sys.path[:0] = [str(folder) for folder in FOLDERS]
    try:
        yield {name: __import__(name) for name in NAMES}
    finally:
        for folder in FOLDERS:
            sys.path.remove(str(folder))
        for name in NAMES:
            sys.modules.pop(name, None)


def test_the_matrix_model_is_a_package_without_a_fault(check: dict[str, ModuleType], tmp_path: Path) -> None:
    matmul = check["matmul"]
    for path, data in matmul.files().items():
        file = tmp_path / matmul.NAME / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    package = Package.load(tmp_path / matmul.NAME)
    assert [(t.name, t.datatype, t.dims) for t in package.configuration.outputs] == [("Y", "FP32", (1_024,))]


def test_a_wrong_product_is_seen(check: dict[str, ModuleType]) -> None:
    matmul = check["matmul"]
    product = matmul.rows(2) @ matmul.matrix()
    answer = b"{}" + product.tobytes()
    assert matmul.is_right(answer, 2, 2)
    assert not matmul.is_right(answer, 2, 1)
    assert not matmul.is_right(answer[:-4], 2, 2)
    wrong = product.copy()
    wrong[1, 1_023] += 0.1
    assert not matmul.is_right(b"{}" + wrong.tobytes(), 2, 2)
    assert not matmul.is_right(b"{}" + numpy.zeros_like(product).tobytes(), 2, 2)


def test_the_result_tells_what_failed_what_did_not_run_and_what_was_not_reached(
    check: dict[str, ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = check["verdicts"]
    result = verdicts.Result({"driver": "580"})

    def not_here() -> str:
        raise verdicts.NotHereError("no CuPy")

    def wrong() -> str:
        raise verdicts.CheckError("the product is wrong")

    assert result.check("a", lambda: "fine")
    assert result.check("b", not_here)
    assert not result.failed
    assert not result.check("c", wrong)
    result.skip(("a", "d"), "a check before it failed")
    found = result.to_dict()
    assert (found["format"], found["verdict"], found["driver"]) == (1, "failed", "580")
    assert [(each["name"], each["result"], each["detail"]) for each in found["checks"]] == [
        ("a", "ok", "fine"),
        ("b", "not run", "no CuPy"),
        ("c", "failed", "CheckError: the product is wrong"),
        ("d", "not run", "a check before it failed"),
    ]
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_every_check_of_the_appliance_has_its_name(check: dict[str, ModuleType]) -> None:
    checks = check["checks"].Checks(None, None, {}, None, quick=True)
    names = [name for name, _ in (*checks.of_the_appliance(), *checks.drills(None))]
    assert names == [*check["checks"].NAMES[2:], *check["checks"].DRILLS]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "scripts" / "gpu-check"), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("arguments", [("--no-such-option",), ("--output",)])
def test_an_unknown_option_is_refused(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr


@pytest.mark.required
def test_a_machine_without_a_gpu_is_told_so(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("host", ROOT / "tests" / "simulators" / "nvml" / "host.py")
    assert spec is not None
    assert spec.loader is not None
    nvml: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nvml)
    try:
        host = nvml.Host(nvml.build(tmp_path), tmp_path / "gpus.json")
    except nvml.NoCompilerError as missing:
        pytest.skip(str(missing))
    if not (ROOT / ".venv-runtime" / "bin" / "python").exists():
        pytest.skip("no embedded runtime here; enable it: scripts/setup-environment development")
    host.fail("nvmlInitWithFlags", "driver_not_loaded")
    output = tmp_path / "result.json"
    environment = {name: value for name, value in host.environment().items() if os.environ.get(name) != value}
    done = run("--output", str(output), **environment)
    assert done.returncode == 3
    assert "no NVIDIA GPU on this machine: NVML: Driver Not Loaded" in done.stderr
    assert "--simulated" in done.stderr
    assert not output.exists()
    assert json.loads((tmp_path / "gpus.json").read_text())["gpus"] == []
