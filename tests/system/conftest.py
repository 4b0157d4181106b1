"""The appliances of the system tests; their logs are shown with every failure."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "simulators"))

from container_engine import ContainerEngine, cpu_image, require_engine
from gate_clients import Key
from image_build import Saved
from whole_appliance import Appliance, logs, running_appliance

MAX_BODY_BYTES = 12 << 20  # the largest batch fits


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the appliances said when a test of theirs failed."""
    report = yield
    if report.failed:
        report.sections.extend(logs())
    return report


@pytest.fixture(scope="module")
def busy() -> Iterator[Appliance]:
    """`lotabotsd up`, ready, with a licence that does not stand in the way of a load."""
    for appliance in running_appliance(Appliance()):
        appliance.start()
        appliance.ready()
        appliance.people()
        appliance.ctl("licence", "install", str(appliance.licence("enterprise")))
        yield appliance


@pytest.fixture(scope="session")
def shop() -> Iterator[Appliance]:
    """An appliance on its first day, on the free tier, with small bounds that can be reached."""
    bounds = {
        "max_body_bytes": MAX_BODY_BYTES,
        "max_header_bytes": 8 << 10,
        "header_timeout_seconds": 0.5,
        "body_timeout_seconds": 2.0,
    }
    for appliance in running_appliance(Appliance(**bounds)):
        appliance.start()
        appliance.ready()
        appliance.people()
        yield appliance


@pytest.fixture(scope="session")
def key(shop: Appliance) -> Key:
    """A key of the customer's member."""
    return shop.key("pages")


@pytest.fixture(scope="session")
def engine() -> Iterator[ContainerEngine]:
    """A container engine of the tests' own."""
    require_engine()
    engine = ContainerEngine()
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="session")
def image(engine: ContainerEngine) -> Saved:
    """The processor image, as an archive."""
    return cpu_image(engine)


@pytest.fixture
def folder() -> Iterator[Path]:
    """For one bench."""
    folder = Path(tempfile.mkdtemp(prefix="lotabots-bench-"))  # short: sockets are in it
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
