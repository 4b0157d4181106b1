"""The control server on a real Unix socket: the kernel's word on who asks, a bound on headers, no signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lotabotsd.cli.control_client import ControlClient
from lotabotsd.control.app import control_app
from lotabotsd.control.server import MAX_HEADER_BYTES, ControlServer, control_server
from lotabotsd.foundation.sockets import bind_unix

NOBODY = 65_534
REQUEST = b"GET /control/v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture
def serve(rooms) -> Iterator[object]:
    """Serve the control API on a listener, in a thread of its own."""
    started: list[tuple[ControlServer, threading.Thread]] = []

    def serve(listener: socket.socket) -> None:
        server = control_server(control_app(rooms))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        started.append((server, thread))

    yield serve
    for server, thread in started:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def path(tmp_path, serve):
    path = tmp_path / "control.sock"
    serve(bind_unix(path, mode=0o600))
    return path


@contextmanager
def another_user() -> Iterator[None]:
    """Be nobody for a moment: the kernel notes the effective user at connect(2)."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def test_the_clients_of_this_user_are_answered(path) -> None:
    client = ControlClient(path)
    made = client.post("organisations", body={"name": "Ours"})
    assert client.all_items("organisations")[0]["organisation_id"] == made["organisation_id"]
    assert client.get("audit")["items"][0]["who"].startswith(f"uid:{os.getuid()}")
    assert client.get_bytes("usage", "reports", "a b.zip") == b"zip a b.zip"


def test_headers_without_end_are_refused(path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
        try:
            connection.sendall(b"a" * (MAX_HEADER_BYTES + 1))
            answer = connection.recv(4_096)
        except (BrokenPipeError, ConnectionResetError):
            return  # it was cut off before it had sent everything
        assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user: run the tests as root")
def test_another_user_is_refused_by_the_kernels_word(serve, daemon) -> None:
    name = f"\0lotabots-test-{os.getpid()}"  # an abstract name: no directory keeps the other user out
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    listener.listen()
    serve(listener)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        with another_user():
            connection.connect(name)
        connection.sendall(REQUEST)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"peer_refused" in answer
    assert [peer.uid for peer, _ in daemon.refused] == [NOBODY]


def test_the_signals_stay_the_daemons(rooms) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with control_server(control_app(rooms)).capture_signals():
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
