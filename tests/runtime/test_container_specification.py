"""What the engine is asked for: golden, and how it changes with GPUs and settings."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from engine_in_memory import IMAGE, OPTIONS

from lotabotsd.foundation.config import parse
from lotabotsd.runtime.command import command_line, flags_in_help
from lotabotsd.runtime.container_specification import (
    SERVER,
    SOCKETS,
    EngineFacts,
    Settings,
    device_requests,
    entry,
    probe_specification,
    publication,
    run_spec,
    settings_from,
    specification,
)

PLAIN = EngineFacts("20.10", cdi=False, cdi_devices=None)


@pytest.fixture
def settings() -> Settings:
    text = f"[runtime]\nkind = 'container'\nimage = '{IMAGE}'\n"
    return settings_from(parse(text.encode(), "test"), 990, 991)


# -- GPUs
UUIDS = ("GPU-1", "MIG-2")
NAMES = frozenset({"nvidia.com/gpu=GPU-1", "nvidia.com/gpu=MIG-2"})


@pytest.mark.parametrize("known", [None, NAMES, NAMES | {"nvidia.com/gpu=all"}])
def test_gpus_go_through_cdi_where_the_engine_has_it(known: frozenset[str] | None) -> None:
    found = device_requests(UUIDS, EngineFacts("28.3", cdi=True, cdi_devices=known))
    assert found == [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-1", "nvidia.com/gpu=MIG-2"]}]


@pytest.mark.parametrize(
    "engine",
    [
        EngineFacts("20.10", cdi=False, cdi_devices=None),
        EngineFacts("28.3", cdi=True, cdi_devices=frozenset()),
        EngineFacts("28.3", cdi=True, cdi_devices=frozenset({"nvidia.com/gpu=GPU-1"})),
    ],
)
def test_gpus_go_as_with_the_option_gpus_where_cdi_does_not_know_them_all(engine: EngineFacts) -> None:
    (found,) = device_requests(UUIDS, engine)
    assert (found["Driver"], found["DeviceIDs"]) == ("nvidia", ["GPU-1", "MIG-2"])


def test_without_gpus_none_are_asked_for(settings: Settings) -> None:
    whole = specification(settings, "r1", IMAGE, ["x"], EngineFacts("28.3", True, NAMES))
    assert whole["HostConfig"]["DeviceRequests"] == []


def test_every_setting_names_another_run(settings: Settings) -> None:
    digests = {settings.digest}
    for name in ("uid", "memory_bytes", "max_processes", "exit_timeout_seconds", "max_input_bytes"):
        digests.add(replace(settings, **{name: 7}).digest)
    digests.add(replace(settings, gpus=("GPU-1",)).digest)
    digests.add(replace(settings, image="sha256:" + "b" * 64).digest)
    assert len(digests) == 8


def test_the_probe_reads_the_options() -> None:
    assert flags_in_help("\n".join(f"  --{option} <x>" for option in OPTIONS)) == set(OPTIONS)


def test_the_secret_is_read_from_a_file_and_stands_nowhere_in_the_specification(settings: Settings) -> None:
    whole = specification(settings, "r1", IMAGE, command_line(SERVER, run_spec(settings), OPTIONS), PLAIN)
    assert whole["Entrypoint"] == entry()
    shell, options, script, name = entry()
    assert (shell, options, name) == ("/bin/sh", "-euc", "lotabots-entry")
    assert script.splitlines()[0] == "umask 007"
    assert "read -r secret < /lotabots/secret" in script
    assert script.count('x-lotabots-runtime=$secret"') == 2
    assert "Env" not in whole
    assert not any("restricted" in each for each in whole["Cmd"])


def test_the_probe_has_the_same_walls_and_nothing_mounted(settings: Settings) -> None:
    probe = probe_specification(settings, IMAGE)
    whole = specification(settings, "r1", IMAGE, ["x"], PLAIN)
    same = {name: value for name, value in whole["HostConfig"].items() if name in probe["HostConfig"]}
    assert probe["HostConfig"] == same
    assert set(whole["HostConfig"]) - set(same) == {"Mounts", "DeviceRequests"}


def test_pinned_memory_is_left_to_triton_where_it_has_a_gpu(settings: Settings) -> None:
    known = (*OPTIONS, "pinned-memory-pool-byte-size")
    without = command_line(SERVER, run_spec(settings), known)
    with_gpu = command_line(SERVER, run_spec(replace(settings, gpus=("GPU-1",))), known)
    assert set(without) - set(with_gpu) == {"--pinned-memory-pool-byte-size=0"}


def test_golden_specification(settings: Settings) -> None:
    """Changes here are changes of the walls: say so in ARCHITECTURE.md, and count FORMAT up."""
    golden = Path(__file__).parents[1] / "golden" / "container_specification.json"
    found = specification(settings, "0123456789abcdef", IMAGE, ["tritonserver", "--x"], PLAIN)
    assert found == json.loads(golden.read_text())


# -- sockets of a run beside another one
NAMES_OF_SOCKETS = ("http.sock", "grpc.sock:8001", "metrics.sock")


def test_a_run_beside_another_one_has_its_own_sockets_until_they_are_published(
    settings: Settings, short: Path
) -> None:
    (own := short / "0123456789abcdef").mkdir()
    (left := short / "fedcba9876543210").mkdir()
    for name in NAMES_OF_SOCKETS:
        for folder in (short, own):
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(folder / name))

    def publish(*, alone: bool) -> None:
        command = publication(own.name, alone=alone)
        command[2] = command[2].replace(str(SOCKETS), str(short))
        subprocess.run(command, check=True, timeout=10)

    publish(alone=False)
    publish(alone=False)  # again changes nothing
    assert left.exists()
    (short / "grpc.sock:8001").unlink()  # as the other one's end does
    publish(alone=True)
    for name in NAMES_OF_SOCKETS:
        assert (short / name).samefile(own / name)
    assert {path.name for path in short.iterdir()} == {*NAMES_OF_SOCKETS, own.name}


def test_what_runs_before_triton_clears_what_was_left_when_alone_and_nothing_when_beside() -> None:
    assert "rm -rf" in entry()[2]
    assert "rm -rf" not in entry("0123456789abcdef")[2]
    assert 'mkdir -p "/lotabots/sockets/0123456789abcdef"' in entry("0123456789abcdef")[2]


def test_a_run_beside_another_one_listens_in_its_own_directory(settings: Settings) -> None:
    known = frozenset(OPTIONS)
    command = command_line(SERVER, run_spec(settings, "0123456789abcdef"), known)
    assert "--http-address=unix:/lotabots/sockets/0123456789abcdef/http.sock" in command
