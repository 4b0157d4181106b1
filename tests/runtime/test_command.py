"""Triton's command line: every flag known, every listener a Unix socket, the secret on both endpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.command import RunSpec, command_line, environment, flags_in_help, socket_files

SERVER = Path("/opt/triton/bin/tritonserver")
SPEC = RunSpec(
    repository=Path("/var/lib/lotabots/models/live"),
    backends=Path("/var/lib/lotabots/runtime"),
    http_socket=Path("/run/lotabots/triton/http.sock"),
    grpc_socket=Path("/run/lotabots/triton/grpc.sock"),
    metrics_socket=Path("/run/lotabots/triton/metrics.sock"),
    exit_timeout_seconds=30,
    max_input_bytes=65 << 20,
    shared_memory_prefix="lotabots-1-",
    secret="s3cret",
)
KNOWN = frozenset(
    [
        "model-repository",
        "backend-directory",
        "model-control-mode",
        "exit-on-error",
        "strict-readiness",
        "disable-auto-complete-config",
        "http-address",
        "grpc-address",
        "grpc-port",
        "metrics-address",
        "http-restricted-api",
        "grpc-restricted-protocol",
        "exit-timeout-secs",
        "backend-config",
        "allow-sagemaker",
        "allow-vertex-ai",
    ]
)


def test_golden_command_line() -> None:
    restricted = "model-repository,trace,logging,shared-memory"
    assert command_line(SERVER, SPEC, KNOWN) == [
        "/opt/triton/bin/tritonserver",
        "--model-repository=/var/lib/lotabots/models/live",
        "--backend-directory=/var/lib/lotabots/runtime",
        "--model-control-mode=explicit",
        "--exit-on-error=false",
        "--strict-readiness=true",
        "--disable-auto-complete-config",
        "--http-address=unix:/run/lotabots/triton/http.sock",
        "--grpc-address=unix:/run/lotabots/triton/grpc.sock",
        "--grpc-port=8001",
        "--metrics-address=unix:/run/lotabots/triton/metrics.sock",
        f"--http-restricted-api={restricted}:x-lotabots-runtime=s3cret",
        f"--grpc-restricted-protocol={restricted}:x-lotabots-runtime=s3cret",
        "--exit-timeout-secs=30",
        "--backend-config=python,shm-region-prefix-name=lotabots-1-",
        "--allow-sagemaker=false",
        "--allow-vertex-ai=false",
    ]


def test_a_newer_flag_is_given_only_where_it_is_known() -> None:
    assert "--allow-client-shm=false" not in command_line(SERVER, SPEC, KNOWN)
    assert "--allow-client-shm=false" in command_line(SERVER, SPEC, KNOWN | {"allow-client-shm"})


@pytest.mark.parametrize("name", ["http-restricted-api", "model-control-mode", "http-address"])
def test_a_server_without_a_flag_that_protects_is_not_started(name: str) -> None:
    with pytest.raises(LotaBotsError) as refused:
        command_line(SERVER, SPEC, KNOWN - {name})
    assert refused.value.code is Code.RUNTIME_MISSING
    assert f"--{name}" in refused.value.detail


def test_a_socket_path_that_the_kernel_would_cut_is_refused_before_the_start() -> None:
    directory = Path("/run/" + "x" * 100)
    spec = replace(SPEC, http_socket=directory / "http.sock")
    with pytest.raises(LotaBotsError) as refused:
        command_line(SERVER, spec, KNOWN)
    assert refused.value.code is Code.CONFIG_INVALID
    assert "run_directory" in refused.value.hint


def test_the_grpc_socket_has_the_port_in_its_name() -> None:
    assert Path("/run/lotabots/triton/grpc.sock:8001") in socket_files(SPEC)


def test_flags_are_read_from_help_and_nothing_else() -> None:
    text = """Usage: tritonserver [options]
  --help
\tPrint usage
  --http-address <string>
\tmentions --not-a-flag inside a sentence
  --backend-config <<string>,<string>=<string>>
"""
    assert flags_in_help(text) == {"help", "http-address", "backend-config"}
    assert flags_in_help("") == frozenset()


def test_the_runtime_s_python_comes_first_and_nothing_is_inherited() -> None:
    made = environment(Path("/rt/bin/python"), (Path("/rt/libs"), Path("/usr/lib")))
    assert made["PATH"].startswith("/rt/bin:")
    assert made["LD_LIBRARY_PATH"] == "/rt/libs:/usr/lib"
    assert set(made) == {"PATH", "LD_LIBRARY_PATH", "HOME", "LANG"}


def test_on_loopback_every_listener_has_its_address_and_its_own_port() -> None:
    known = KNOWN | {"http-port", "metrics-port"}
    found = command_line(SERVER, replace(SPEC, tcp_port=9000), known)
    assert [each for each in found if "-address" in each or "-port" in each] == [
        "--http-address=127.0.0.1",
        "--http-port=9000",
        "--grpc-address=127.0.0.1",
        "--grpc-port=9001",
        "--metrics-address=127.0.0.1",
        "--metrics-port=9002",
    ]


def test_a_secret_that_others_add_still_needs_a_server_that_takes_it() -> None:
    without = replace(SPEC, secret="")
    assert not any("restricted" in each for each in command_line(SERVER, without, KNOWN))
    with pytest.raises(LotaBotsError):
        command_line(SERVER, without, KNOWN - {"grpc-restricted-protocol"})
