"""The client of the control socket, against answers of every kind."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from lotabotsd.cli.control_client import ControlClient, remote_error
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError, problem


@pytest.fixture
def answering(tmp_path):
    """A Unix socket that sends fixed bytes to each connection, and keeps what it was asked."""
    path = tmp_path / "control.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    asked: list[bytes] = []

    def start(*answers: bytes) -> tuple[ControlClient, list[bytes]]:
        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    asked.append(connection.recv(65_536))
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return ControlClient(path, timeout_seconds=5), asked

    yield start
    listener.close()


def _http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def test_an_answer_is_read_as_json(answering) -> None:
    client, asked = answering(_http("200 OK", b'{"a": 1}'))
    assert client.get("status") == {"a": 1}
    assert asked[0].startswith(b"GET /control/v1/status HTTP/1.1\r\n")


def test_path_parts_are_quoted_and_absent_queries_left_out(answering) -> None:
    client, asked = answering(_http("200 OK", b"{}"))
    client.get("keys", "a/../b", cursor=None, limit=5)
    assert asked[0].startswith(b"GET /control/v1/keys/a%2F..%2Fb?limit=5 HTTP/1.1\r\n")


def test_lists_are_fetched_page_by_page(answering) -> None:
    client, asked = answering(
        _http("200 OK", b'{"items": [{"n": 1}], "next": "1.a"}'),
        _http("200 OK", b'{"items": [{"n": 2}], "next": null}'),
    )
    assert client.all_items("keys") == [{"n": 1}, {"n": 2}]
    assert b"cursor=1.a" in asked[1]


def test_a_problem_becomes_the_same_failure_here(answering) -> None:
    told = problem(Code.LICENCE_ROLLBACK, "sequence 3 after 5", hint="take the newer file")
    client, _ = answering(_http("409 Conflict", json.dumps(told).encode()))
    with pytest.raises(LotaBotsError) as failure:
        client.put_bytes("licence", data=b"x")
    assert failure.value.code is Code.LICENCE_ROLLBACK
    assert failure.value.detail == "sequence 3 after 5"
    assert failure.value.hint == "take the newer file"


def test_a_problem_without_a_detail_is_not_told_twice() -> None:
    error = remote_error(404, json.dumps(problem(Code.NOT_FOUND)).encode())
    assert str(error) == "there is no such thing"


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b'{"code": "from_the_future"}', b"\xff\xfe"])
def test_an_answer_that_is_no_problem_is_told_as_unexpected(answer) -> None:
    error = remote_error(500, answer)
    assert error.code is Code.INTERNAL
    assert "500" in error.detail


def test_no_socket_means_that_the_daemon_is_not_there(tmp_path) -> None:
    with pytest.raises(LotaBotsError) as failure:
        ControlClient(tmp_path / "none.sock").get("status")
    assert failure.value.code is Code.DAEMON_UNAVAILABLE
    assert failure.value.exit_code is Exit.CHECK_FAILED
    assert "none.sock" in failure.value.detail


def test_a_stale_socket_file_means_the_same(tmp_path) -> None:
    path = tmp_path / "stale.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()
    with pytest.raises(LotaBotsError) as failure:
        ControlClient(path).get("status")
    assert failure.value.code is Code.DAEMON_UNAVAILABLE


def test_an_answer_cut_off_is_a_failure_not_half_a_value(answering) -> None:
    client, _ = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    with pytest.raises(LotaBotsError) as failure:
        client.get("status")
    assert failure.value.code is Code.DAEMON_UNAVAILABLE


def test_a_daemon_that_says_nothing_ends_in_a_timeout(tmp_path) -> None:
    path = tmp_path / "slow.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(LotaBotsError) as failure:
            ControlClient(path, timeout_seconds=0.05).get("status")
    assert failure.value.code is Code.DAEMON_UNAVAILABLE
    assert "0.05 s" in failure.value.detail
