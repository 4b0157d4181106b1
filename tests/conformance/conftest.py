"""An appliance with every model for tests, and two doors to its Triton: its own socket, and the gate."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.http as triton

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))

from doors import Both, Program, Relay, Side
from gate_clients import Key, wait_for
from whole_appliance import Appliance, logs, running_appliance, runtime_python

SECRET_FLAG = "--http-restricted-api="
PACKAGES = Path(__file__).with_name("models")
MODELS_SECONDS = 120.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the appliance said when a test failed."""
    report = yield
    if report.failed:
        report.sections.extend(logs())
    return report


def packages() -> list[Path]:
    """The models for tests; with numpy 2 without the one that takes texts, which would end its process."""
    asked = "import numpy; print(numpy.__version__.split('.')[0])"
    done = subprocess.run(
        [str(runtime_python()), "-c", asked], capture_output=True, text=True, timeout=60, check=True
    )
    found = sorted(path.parent for path in PACKAGES.glob("*/package.toml"))
    return [path for path in found if int(done.stdout) < 2 or path.name != "text"]


@pytest.fixture(scope="session")
def appliance() -> Iterator[Appliance]:
    """`lotabotsd up`, with every model ready, and a licence that does not stand in the way."""
    for appliance in running_appliance(Appliance(packages=packages())):
        appliance.start()
        appliance.ready()
        appliance.people()
        appliance.ctl("licence", "install", str(appliance.licence("enterprise")))
        key = appliance.key("looks")

        def missing(key: Key = key, appliance: Appliance = appliance) -> list[str]:
            ready = (
                appliance.ask("GET", f"/v2/models/{name}/ready", key).status for name in appliance.models
            )
            return [name for name, status in zip(appliance.models, ready, strict=True) if status != 200]

        wait_for(lambda: not missing(), MODELS_SECONDS, "every model is ready")
        yield appliance


@pytest.fixture(scope="session")
def texts(appliance: Appliance) -> None:
    """For tests of BYTES: the embedded runtime has the model that takes texts."""
    if "text" not in appliance.models:
        pytest.skip("with numpy 2 the embedded runtime takes no texts; enable it: use Python 3.11 or 3.12")


@pytest.fixture(scope="session")
def both(appliance: Appliance) -> Iterator[Both]:
    """Bare Triton, with the secret that it wants for some routes, and the gate, with two API keys."""
    (triton,) = appliance.processes("triton")
    (flag,) = [word for word in triton.command if word.startswith(SECRET_FLAG)]
    name, _, secret = flag.rpartition(":")[2].partition("=")
    relay = Relay(appliance.triton_http)
    keys = [appliance.key(name) for name in ("conformance", "another")]
    sides = [Side(f"127.0.0.1:{appliance.port}", {"Authorization": f"Bearer {key.text}"}) for key in keys]
    yield Both(Side(relay.address, {name: secret}), *sides)
    relay.close()


@pytest.fixture(scope="session")
def answers(both: Both) -> Iterator[Callable[[Program], tuple[Any, Any]]]:
    """Runs one program against bare Triton and against the gate."""
    clients = [triton.InferenceServerClient(side.address, concurrency=4) for side in both.sides()]
    yield lambda program: tuple(
        program(client, dict(side.headers)) for client, side in zip(clients, both.sides(), strict=True)
    )
    for client in clients:
        client.close()
