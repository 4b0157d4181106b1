"""What tests of this room share: the simulated Triton, and short-lived directories for its sockets."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "simulators"))
SIMULATOR = Path(__file__).parents[1] / "simulators" / "triton_simulator.py"


@pytest.fixture(scope="session")
def simulator() -> ModuleType:
    """The module tests/simulators/triton_simulator.py."""
    spec = importlib.util.spec_from_file_location("triton_simulator", SIMULATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path leaves room for sockets in it (107 bytes, sun_path)."""
    directory = Path(tempfile.mkdtemp(prefix="lb-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def server(short: Path) -> Path:
    """The simulated Triton as an executable file."""
    path = short / "tritonserver"
    code = f"import runpy; runpy.run_path({str(SIMULATOR)!r}, run_name='__main__')"
    path.write_text(f"#!{sys.executable}\n{code}\n", encoding="utf-8")
    path.chmod(0o755)
    return path
