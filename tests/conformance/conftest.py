"""Two doors to one Triton: its own socket through a relay, and the gate; a program must not see which."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))

from whole_appliance import Appliance, logs, running_appliance

SECRET_FLAG = "--http-restricted-api="


@dataclass(frozen=True, slots=True)
class Side:
    """Where a program goes, and the one thing it must add to each request."""

    address: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Both:
    """The same Triton behind both doors."""

    triton: Side
    gate: Side


class Relay:
    """Copies bytes between a TCP port of loopback and a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept nobody any more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(str(self._path))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 18):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the appliance said when a test failed."""
    report = yield
    if report.failed:
        report.sections.extend(logs())
    return report


@pytest.fixture(scope="session")
def appliance() -> Iterator[Appliance]:
    """`lotabotsd up`, ready, with a licence that does not stand in the way."""
    for appliance in running_appliance(Appliance()):
        appliance.start()
        appliance.ready()
        appliance.people()
        appliance.ctl("licence", "install", str(appliance.licence("enterprise")))
        yield appliance


@pytest.fixture(scope="session")
def both(appliance: Appliance) -> Iterator[Both]:
    """Bare Triton, with the secret that it wants for some routes, and the gate, with an API key."""
    (triton,) = appliance.processes("triton")
    (flag,) = [word for word in triton.command if word.startswith(SECRET_FLAG)]
    name, _, secret = flag.rpartition(":")[2].partition("=")
    relay = Relay(appliance.triton_http)
    key = appliance.key("conformance")
    yield Both(
        Side(relay.address, {name: secret}),
        Side(f"127.0.0.1:{appliance.port}", {"Authorization": f"Bearer {key.text}"}),
    )
    relay.close()
