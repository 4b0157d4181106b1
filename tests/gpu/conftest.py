"""The real probe in a process of its own, over the stand-in for libnvidia-ml.so.1."""

from __future__ import annotations

import importlib.util
import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

NVML = Path(__file__).resolve().parents[1] / "simulators" / "nvml"
ANSWER_SECONDS = 30.0


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"nvml_{name}", NVML / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Asked:
    """A process with the probe in it."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(NVML / "asked.py"), *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, question: str) -> Any:
        """Ask, and wait for the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        assert ready, f"no answer to {question} within {ANSWER_SECONDS:g} s"
        line = self._process.stdout.readline()
        assert line, f"the probe's process ended with {self._process.wait()}"
        return json.loads(line)

    def end(self) -> int:
        """No more questions; how the process ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            return self._process.wait(ANSWER_SECONDS)
        finally:
            self._process.kill()
            self._process.stdout.close()


@pytest.fixture(scope="session")
def nvml() -> ModuleType:
    """tests/simulators/nvml/host.py"""
    return _load("host")


@pytest.fixture(scope="session")
def library(nvml: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the stand-in library."""
    try:
        built: Path = nvml.build(tmp_path_factory.mktemp("nvml"))
    except nvml.NoCompilerError as missing:
        pytest.skip(str(missing))
    return built


@pytest.fixture
def host(nvml: ModuleType, library: Path, tmp_path: Path) -> Any:
    """A host with two GPUs that are well."""
    return nvml.Host(library, tmp_path / "gpus.json", nvml.gpu(0), nvml.gpu(1))


@pytest.fixture
def ask(host: Any) -> Iterator[Callable[..., Asked]]:
    """Starts the probe on the host: `probe = ask()`, then `probe("look")`."""
    with ExitStack() as started:

        def start(*arguments: str) -> Asked:
            asked = Asked(host.environment(), *arguments)
            started.callback(asked.end)
            return asked

        yield start
