"""Triton's command line and environment for one run. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError

SECRET_HEADER = "x-lotabots-runtime"  # noqa: S105 - the header's name
# Reading configurations and statistics stays open: the gate, which has no secret, passes them on, redacted.
# Defence in depth: 2.51 does not apply it to statistics and model-config over HTTP (tried). The gate's list
# of routes and the socket's directory are the boundary.
RESTRICTED = ("model-repository", "trace", "logging", "shared-memory")
GRPC_PORT = 8001
MAX_SOCKET_PATH = 107  # bytes in sun_path(7) without the final zero
_SECRET_OPTIONS = ("http-restricted-api", "grpc-restricted-protocol")
_FLAG = re.compile(r"^\s*--([a-z][a-z0-9-]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything that one run is started with, from root-owned configuration."""

    repository: Path
    backends: Path
    http_socket: Path
    grpc_socket: Path  # Triton appends `:8001` to the file's name
    metrics_socket: Path
    exit_timeout_seconds: int
    max_input_bytes: int
    shared_memory_prefix: str
    secret: str  # empty: the options that carry it are added by whoever starts it
    gpus: bool = False
    tcp_port: int = 0  # other than 0: HTTP, gRPC and metrics on 127.0.0.1, on this port and the two after it


def flags_in_help(text: str) -> frozenset[str]:
    """The names of the options that `tritonserver --help` lists, without their dashes."""
    return frozenset(_FLAG.findall(text))


def grpc_file(address: Path) -> Path:
    """The file that Triton makes for a gRPC address of `unix:ADDRESS`."""
    return address.with_name(f"{address.name}:{GRPC_PORT}")


def socket_files(spec: RunSpec) -> tuple[Path, ...]:
    """The files that a run makes, and a run before may have left: Triton does not start over them."""
    return spec.http_socket, grpc_file(spec.grpc_socket), spec.metrics_socket


def command_line(server: Path, spec: RunSpec, known_flags: Collection[str]) -> list[str]:
    """The arguments, the server's path first. An unknown flag would end Triton, so newer ones are optional.

    Raises CONFIG_INVALID when a socket's path is too long for the kernel, RUNTIME_MISSING when this
    tritonserver lacks a flag that we cannot do without.
    """
    for path in socket_files(spec):
        if len(str(path).encode()) > MAX_SOCKET_PATH:
            raise LotaBotsError(
                Code.CONFIG_INVALID,
                f"{path} is longer than {MAX_SOCKET_PATH} bytes",
                hint="choose a shorter appliance.run_directory",
            )
    needed: list[tuple[str, str]] = [
        ("model-repository", str(spec.repository)),
        ("backend-directory", str(spec.backends)),
        ("model-control-mode", "explicit"),
        ("exit-on-error", "false"),
        ("strict-readiness", "true"),
        ("disable-auto-complete-config", ""),
        *(_on_loopback(spec.tcp_port) if spec.tcp_port else _on_sockets(spec)),
        *(restricted_options(spec.secret) if spec.secret else ()),
        ("exit-timeout-secs", str(spec.exit_timeout_seconds)),
        ("backend-config", f"python,shm-region-prefix-name={spec.shared_memory_prefix}"),
    ]
    wanted: list[tuple[str, str]] = [
        ("allow-sagemaker", "false"),
        ("allow-vertex-ai", "false"),
        ("allow-client-shm", "false"),
        ("allow-gpu-metrics", "false"),
        ("http-max-input-size", str(spec.max_input_bytes)),
        ("model-load-thread-count", "1"),
        *(() if spec.gpus else (("pinned-memory-pool-byte-size", "0"),)),
    ]
    missing = [name for name in (*(name for name, _ in needed), *_SECRET_OPTIONS) if name not in known_flags]
    if missing:
        raise LotaBotsError(Code.RUNTIME_MISSING, f"{server} has no option --{missing[0]}")
    chosen = needed + [(name, value) for name, value in wanted if name in known_flags]
    return [str(server), *(f"--{name}={value}" if value else f"--{name}" for name, value in chosen)]


def _on_sockets(spec: RunSpec) -> list[tuple[str, str]]:
    return [
        ("http-address", f"unix:{spec.http_socket}"),
        ("grpc-address", f"unix:{spec.grpc_socket}"),
        ("grpc-port", str(GRPC_PORT)),
        ("metrics-address", f"unix:{spec.metrics_socket}"),
    ]


def _on_loopback(port: int) -> list[tuple[str, str]]:
    options = []
    for number, name in enumerate(("http", "grpc", "metrics")):
        options += [(f"{name}-address", "127.0.0.1"), (f"{name}-port", str(port + number))]
    return options


def restricted_options(secret: str) -> list[tuple[str, str]]:
    """The options that close the restricted APIs to everybody without the secret."""
    return [(option, f"{','.join(RESTRICTED)}:{SECRET_HEADER}={secret}") for option in _SECRET_OPTIONS]


def environment(python: Path, libraries: tuple[Path, ...]) -> dict[str, str]:
    """The whole environment: nothing is inherited. Triton's Python stub takes the first python3 on PATH."""
    return {
        "PATH": f"{python.parent}:/usr/bin:/bin",
        "LD_LIBRARY_PATH": ":".join(str(path) for path in libraries),
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
    }
