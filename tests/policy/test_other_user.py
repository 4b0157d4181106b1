"""The gate is another user: it reads policy.db through its group, whether or not the daemon is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.policy.compile import PolicySource
from lotabotsd.policy.publish import Publisher
from lotabotsd.policy.reader import PolicyReader

MakeSource = Callable[..., PolicySource]
NOW = 1_772_366_400 * 1_000_000_000
NOBODY = 65_534
UNWANTED = {
    *("fastapi", "starlette", "pydantic", "docker", "apscheduler", "sqlite_utils", "httpx"),
    *("tritonclient", "cryptography", "numpy"),
}


class Gate:
    """A process of another user with a reader: told a verb, it answers what it sees.

    Forked while this process has the file closed, because SQLite connections do not cross a fork.
    """

    def __init__(self, path: Path) -> None:
        told, self._tell = os.pipe()
        self._answers, answer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._tell)
                os.close(self._answers)
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                self._serve(PolicyReader(path), told, answer)
            finally:
                os._exit(0)
        os.close(told)
        os.close(answer)

    @staticmethod
    def _serve(reader: PolicyReader, told: int, answer: int) -> None:
        while verb := os.read(told, 64).decode():
            try:
                getattr(reader, verb)()
                seen = str(reader.generation())
            except LotaBotsError as error:
                seen = error.code.value
            os.write(answer, seen.encode())

    def ask(self, verb: str) -> str:
        os.write(self._tell, verb.encode())
        return os.read(self._answers, 64).decode()

    def close(self) -> None:
        os.close(self._tell)
        os.close(self._answers)
        os.waitpid(self._pid, 0)


@pytest.fixture
def directory() -> Iterator[Path]:
    """As tmpfiles.d makes it: the gate's group may read, and files inherit the group."""
    made = Path(tempfile.mkdtemp(prefix="policy-"))
    os.chown(made, -1, NOBODY)
    made.chmod(0o2750)
    yield made
    shutil.rmtree(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user: run the tests as root to enable it")
def test_the_gates_user_reads_what_the_daemons_user_writes(directory: Path, source: MakeSource) -> None:
    path = directory / "policy.db"
    gate = Gate(path)
    assert gate.ask("open") == "file_unreadable"  # the gate was first
    publisher = Publisher(path, slots=64, lease_seconds=60)
    assert gate.ask("open") == "file_unreadable"  # nothing was published
    first = publisher.publish(source(), NOW).generation
    assert gate.ask("open") == f"{first}"
    publisher.close()
    assert gate.ask("refresh") == f"{first}"  # the daemon restarts: what was read stays
    publisher = Publisher(path, slots=64, lease_seconds=60)
    second = publisher.publish(source(models=()), NOW).generation
    assert second > first
    assert gate.ask("refresh") == f"{second}"
    gate.close()
    publisher.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="changes its user: run the tests as root to enable it")
def test_the_gates_user_waits_for_a_daemon_that_closed_the_file_cleanly(
    directory: Path, source: MakeSource
) -> None:
    path = directory / "policy.db"
    publisher = Publisher(path, slots=64, lease_seconds=60)
    generation = publisher.publish(source(), NOW).generation
    publisher.close()
    gate = Gate(path)
    assert gate.ask("open") == "file_unreadable"  # there is no WAL, and this user may not make one
    publisher = Publisher(path, slots=64, lease_seconds=60)
    assert gate.ask("open") == f"{generation}"
    gate.close()
    publisher.close()


def test_what_the_gate_loads_brings_no_third_party_package() -> None:
    code = (
        "import sys, lotabotsd.policy.reader, lotabotsd.policy.grant, lotabotsd.identity.api_key,"
        " lotabotsd.identity.pepper; print(' '.join(sys.modules))"
    )
    root = Path(__file__).parents[2]
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={"PYTHONPATH": str(root)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert not UNWANTED & set(loaded)
