"""`lotabotsd up`: what it decides while it keeps its three children."""

from __future__ import annotations

import json
import socket

import pytest

from lotabotsd.cli.listeners import passed_on
from lotabotsd.cli.up import (
    LONGEST_PAUSE_SECONDS,
    START_ORDER,
    STOP_ORDER,
    make_directories,
    pause_seconds,
    refuse_taken_address,
    run_up,
    waiting_for,
)
from lotabotsd.foundation.config import load, parse
from lotabotsd.foundation.errors import Code, LotaBotsError


def _config(text: str):
    return parse(text.encode(), "test")


def test_a_child_that_dies_again_and_again_waits_longer_up_to_a_bound() -> None:
    pauses = [pause_seconds(deaths) for deaths in range(1, 12)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 0.5
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_what_needs_another_starts_after_it_and_stops_before_it() -> None:
    assert STOP_ORDER == tuple(reversed(START_ORDER)) == ("gate", "serve", "runtime", "relay")


def test_what_the_gate_waits_for_is_said_in_a_few_words() -> None:
    answer = {"code": "starting", "components": {"worker": "ok", "policy": "missing", "runtime": "failed"}}
    assert waiting_for(json.dumps(answer).encode()) == "policy not written yet, runtime not started yet"
    assert waiting_for(b'{"components": {"runtime": "missing"}}') == "runtime still loads its models"
    assert waiting_for(b'{"components": {"policy": "stale", "worker": "ok"}}') == "policy stale"
    assert waiting_for(b"<html>") == "<html>"
    assert waiting_for(b"[]") == "[]"


def test_an_address_that_another_gate_serves_is_refused_although_sockets_could_share_it() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        config = _config(f'[gate]\nlisten = "127.0.0.1:{other.getsockname()[1]}"\n')
        with pytest.raises(LotaBotsError) as failure:
            refuse_taken_address(config)
    assert failure.value.code is Code.ADDRESS_IN_USE
    refuse_taken_address(config)


def test_up_ends_at_once_when_its_gate_cannot_have_the_address(tmp_path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        file = tmp_path / "lotabots.toml"
        file.write_text(
            f'[appliance]\nstate_directory = "{tmp_path}/state"\nrun_directory = "{tmp_path}/run"\n'
            f'[gate]\nlisten = "127.0.0.1:{other.getsockname()[1]}"\n'
        )
        with pytest.raises(LotaBotsError) as failure:
            run_up(load(file), file, once_ready=False)
    assert failure.value.code is Code.ADDRESS_IN_USE
    assert failure.value.hint
    assert not (tmp_path / "run" / "helper.sock").exists()


def test_directories_are_made_with_their_modes_and_kept_when_they_are_there(tmp_path) -> None:
    config = _config(f'[appliance]\nstate_directory = "{tmp_path}/state"\nrun_directory = "{tmp_path}/run"\n')
    make_directories(config)
    keys = config.paths.keys
    assert keys.stat().st_mode & 0o7777 == 0o700
    keys.chmod(0o750)
    make_directories(config)
    assert keys.stat().st_mode & 0o7777 == 0o750


def test_a_directory_that_cannot_be_made_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    config = _config(
        f'[appliance]\nstate_directory = "{tmp_path}/file/state"\nrun_directory = "{tmp_path}/run"\n'
    )
    with pytest.raises(LotaBotsError) as failure:
        make_directories(config)
    assert failure.value.code is Code.FILE_UNWRITABLE
    assert "appliance.state_directory" in failure.value.hint


def test_sockets_are_taken_over_by_name() -> None:
    mine, theirs = socket.socketpair()
    with mine:
        (named,) = passed_on([f"helper={theirs.detach()}"])
        assert named[0] == "helper"
        with named[1] as taken:
            taken.sendall(b"x")
            assert mine.recv(1) == b"x"
            assert not taken.get_inheritable()


@pytest.mark.parametrize("option", ["helper", "helper=", "helper=x", "helper=99999"])
def test_a_socket_that_is_none_is_refused(option) -> None:
    with pytest.raises(LotaBotsError) as failure:
        passed_on([option])
    assert failure.value.code is Code.VALUE_INVALID
