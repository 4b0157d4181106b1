"""scripts/gpu-check --simulated: all that needs no real GPU, over the real daemon, gate and Triton."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_WITHOUT_A_GPU = {"triton computes on the gpu", "driver sees the process", "gpu is busy under load"}


@pytest.mark.required
def test_the_whole_check_runs_over_the_stand_in(tmp_path: Path) -> None:
    if not (ROOT / ".venv-runtime" / "bin" / "python").exists():
        pytest.skip("no embedded runtime here; enable it: scripts/setup-environment development")
    if shutil.which("gcc") is None and shutil.which("cc") is None:
        pytest.skip("no C compiler here; enable it: apt-get install gcc libc6-dev")
    output = tmp_path / "result.json"
    done = subprocess.run(
        [str(ROOT / "scripts" / "gpu-check"), "--simulated", "--quick", "--output", str(output)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(output.read_text())
    assert (result["verdict"], result["gpus_are"]) == ("ok", "simulated")
    ended = {each["name"]: each["result"] for each in result["checks"]}
    assert {name for name, word in ended.items() if word == "not run"} <= NOT_WITHOUT_A_GPU
    assert len(ended) == 15
    assert [gpu["mig"] for gpu in result["gpus"]] == [False, True]
    assert result["throughput"]["medians"]["64 rows"]["ratio"] > 0
    assert result["recovery_seconds"] > 0
