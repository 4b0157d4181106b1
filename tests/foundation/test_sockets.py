"""Sockets: who is at the other end, stale and living addresses, inheritance, and the service manager."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.sockets import (
    bind_tcp,
    bind_unix,
    group_id,
    inherited_sockets,
    peer_of,
    sd_notify,
    watchdog_seconds,
)


def run_python(program: str, *arguments: str, **options: object) -> str:
    """Run a small program in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        **options,  # type: ignore[call-overload] # the options of Popen, passed on
    )
    return str(done.stdout)


def test_the_peer_of_a_socket_pair_is_this_process() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        peer = peer_of(one)
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
    assert peer.groups == {os.getgid(), *os.getgroups()}


AS_OTHER = """
import json, os, socket, sys
from lotabotsd.foundation.sockets import peer_of
os.setgroups(range(2000, 2000 + int(sys.argv[1]))); os.setgid(1234); os.setuid(5678)
one, other = socket.socketpair(socket.AF_UNIX)
peer = peer_of(one)
print(json.dumps([peer.uid, sorted(peer.groups)]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="changing groups needs root: run the tests as root")
@pytest.mark.parametrize(("count", "seen"), [(0, 0), (3, 3), (256, 256), (257, 0)])
def test_supplementary_groups_are_seen_up_to_256_and_beyond_that_none(count: int, seen: int) -> None:
    root = str(Path(__file__).parents[2])
    answer = run_python(AS_OTHER, str(count), cwd=root, env={**os.environ, "PYTHONPATH": root})
    assert json.loads(answer) == [5678, sorted([1234, *range(2000, 2000 + seen)])]


def test_groups_are_found_by_name() -> None:
    assert group_id("root") == 0
    assert group_id("no-such-group-here") is None


def test_a_socket_appears_under_its_name_with_its_mode(tmp_path: Path) -> None:
    with bind_unix(tmp_path / "a.sock", mode=0o600):
        assert (tmp_path / "a.sock").stat().st_mode & 0o777 == 0o600
        assert [file.name for file in tmp_path.iterdir()] == ["a.sock"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "a.sock"))


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a socket to a group needs root: run the tests as root")
def test_a_socket_is_given_to_its_group(tmp_path: Path) -> None:
    with bind_unix(tmp_path / "a.sock", group=4321):
        assert (tmp_path / "a.sock").stat().st_gid == 4321


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    bind_unix(tmp_path / "a.sock").close()
    assert (tmp_path / "a.sock").is_socket()
    with bind_unix(tmp_path / "a.sock"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "a.sock"))


def test_a_living_socket_is_left_alone(tmp_path: Path) -> None:
    with bind_unix(tmp_path / "a.sock"):
        with pytest.raises(LotaBotsError) as failure:
            bind_unix(tmp_path / "a.sock")
        assert failure.value.code is Code.ADDRESS_IN_USE
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "a.sock"))


def test_a_living_socket_with_a_full_queue_is_living_still(tmp_path: Path) -> None:
    with bind_unix(tmp_path / "a.sock", backlog=0):
        waiting = []
        for _ in range(4):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            if client.connect_ex(str(tmp_path / "a.sock")):
                break
        with pytest.raises(LotaBotsError) as failure:
            bind_unix(tmp_path / "a.sock")
        for client in waiting:
            client.close()
    assert failure.value.code is Code.ADDRESS_IN_USE


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "a.sock").write_text("somebody's notes")
    with pytest.raises(LotaBotsError, match="is not a socket") as failure:
        bind_unix(tmp_path / "a.sock")
    assert failure.value.code is Code.FILE_UNWRITABLE
    assert (tmp_path / "a.sock").read_text() == "somebody's notes"


@pytest.mark.parametrize("name", ["absent/a.sock", "a" * 120 + ".sock"])
def test_an_address_that_cannot_be_bound_is_named_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(LotaBotsError) as failure:
        bind_unix(tmp_path / name)
    assert failure.value.code is Code.FILE_UNWRITABLE
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_named() -> None:
    with bind_tcp("127.0.0.1", 0, reuse_port=False) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(LotaBotsError, match=f"127.0.0.1:{port}") as failure:
            bind_tcp("127.0.0.1", port, reuse_port=False)
    assert failure.value.code is Code.ADDRESS_IN_USE


def test_workers_share_a_port_when_all_of_them_say_so() -> None:
    with bind_tcp("127.0.0.1", 0, reuse_port=True) as first:
        port = first.getsockname()[1]
        with bind_tcp("127.0.0.1", port, reuse_port=True) as second:
            assert second.getsockname() == first.getsockname()


def test_an_address_of_another_machine_is_a_bad_value() -> None:
    with pytest.raises(LotaBotsError, match=r"192\.0\.2\.1:0") as failure:
        bind_tcp("192.0.2.1", 0, reuse_port=False)
    assert failure.value.code is Code.VALUE_INVALID


AS_SERVICE = """
import json, os, socket, sys
from lotabotsd.foundation.sockets import inherited_sockets
here = [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_INET)]
high = [os.dup2(s.fileno(), 20 + i) for i, s in enumerate(here)]
for s in here: s.detach()
os.dup2(20, 3); os.dup2(21, 4)
environment = json.loads(sys.argv[1])
if environment.get("LISTEN_PID") == "me": environment["LISTEN_PID"] = str(os.getpid())
passed = inherited_sockets(environment, os.getpid())
print(json.dumps([[name, s.fileno(), s.family, os.get_inheritable(s.fileno())] for name, s in passed]))
"""


def inherited(environment: dict[str, str]) -> list[list[object]]:
    root = str(Path(__file__).parents[2])
    answer = run_python(AS_SERVICE, json.dumps(environment), cwd=root, env={**os.environ, "PYTHONPATH": root})
    return list(json.loads(answer))


def test_sockets_from_the_service_manager_come_with_names_and_are_not_passed_on() -> None:
    given = {"LISTEN_PID": "me", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "control:gate"}
    assert inherited(given) == [["control", 3, socket.AF_UNIX, False], ["gate", 4, socket.AF_INET, False]]


def test_a_socket_without_a_name_is_called_unknown() -> None:
    assert [
        name for name, *_ in inherited({"LISTEN_PID": "me", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"})
    ] == [
        "a",
        "unknown",
    ]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "2"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "2"},
        {"LISTEN_PID": "me", "LISTEN_FDS": "0"},
    ],
)
def test_sockets_meant_for_another_process_are_not_taken(environment: dict[str, str]) -> None:
    if environment.get("LISTEN_PID") == "me":
        environment = {**environment, "LISTEN_PID": str(os.getpid())}
    assert inherited_sockets(environment, os.getpid()) == []


def test_the_service_manager_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        sd_notify("READY=1\nSTATUS=ready", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(100) == b"READY=1\nSTATUS=ready"


def test_an_abstract_address_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0lotabots-test-{os.getpid()}")
        sd_notify("WATCHDOG=1", {"NOTIFY_SOCKET": f"@lotabots-test-{os.getpid()}"})
        assert manager.recv(100) == b"WATCHDOG=1"


def test_a_service_manager_that_does_not_read_stops_nobody(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    filler.sendto(b"full", address)
        sd_notify("WATCHDOG=1", {"NOTIFY_SOCKET": address})
        sd_notify("READY=1", {"NOTIFY_SOCKET": address})


def test_without_a_service_manager_nothing_happens(tmp_path: Path) -> None:
    sd_notify("READY=1", {})
    sd_notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "20000000"}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_the_watchdogs_period_is_ours_or_none(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_seconds(environment) == seconds
