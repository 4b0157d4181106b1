"""From the configuration to everything that the container engine is asked for, for one run of Triton. Pure.

The form is that of the Engine API, POST /containers/create, which Docker has kept since 1.41.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.config import Config

from .command import RunSpec, restricted_options

FORMAT = 1  # another one when the same settings shall give another container
SERVER = Path("/opt/tritonserver/bin/tritonserver")
BACKENDS = Path("/opt/tritonserver/backends")
# Inside the container the places are the same everywhere; outside they follow the configuration.
MODELS, SOCKETS, SECRET = Path("/lotabots/models"), Path("/lotabots/sockets"), Path("/lotabots/secret")
LABEL_APPLIANCE, LABEL_RUN = "lotabots.appliance", "lotabots.run"
LABEL_SPECIFICATION, LABEL_BACKENDS = "lotabots.specification", "lotabots.backends"
ENTRY_NAME = "lotabots-entry"
_HEADER_ROOM_BYTES = 1024 * 1024
MAX_DESCRIPTORS = 65_536
_TMP_BYTES = 256 * 1024 * 1024
# The engine has no setting for the umask, and shows in `docker inspect` whatever it is told. So a few lines
# of shell, which every image has, stand before Triton: sockets for the group (connecting needs write
# permission), none left from a run before, and the secret from a file that only this container can read. Open
# files: as many as we want, or as many as the engine itself may have; more would not be started at all.
_ENTRY = """umask 007
{make_room}
limit=$(ulimit -H -n)
case $limit in unlimited|??????*) limit={descriptors} ;; esac
ulimit -n "$limit"
for file in http.sock grpc.sock:8001 metrics.sock; do rm -f "{sockets}/$file"; done
read -r secret < {secret}
exec "$@" {restricted}"""
# A run beside another one has its sockets in a directory of its own, so that neither removes the other's. To
# publish them is to put a second name of each in the place of the other run's, in one step each.
_ALONE = 'rm -rf "{sockets}"/[0-9a-f]*'
_BESIDE = 'mkdir -p "{sockets}"'
_PUBLISH = """for file in http.sock grpc.sock:8001 metrics.sock; do
if [ ! "{own}/$file" -ef "{sockets}/$file" ]; then
ln -f "{own}/$file" "{sockets}/$file.new"
mv -f -T "{sockets}/$file.new" "{sockets}/$file"
fi
done"""
_CLEAR = """
for each in "{sockets}"/[0-9a-f]*; do if [ "$each" != "{own}" ]; then rm -rf "$each"; fi; done"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What of the configuration makes the container; two equal ones may be the same run."""

    appliance: str  # names the appliance on this machine
    image: str  # as configured, with its digest
    uid: int
    gid: int
    models: str
    sockets: str
    secrets: str
    gpus: tuple[str, ...]
    memory_bytes: int
    shared_memory_bytes: int
    max_processes: int
    exit_timeout_seconds: int
    stop_timeout_seconds: int
    max_input_bytes: int
    tcp_port: int  # 0: Unix sockets, and no network

    @property
    def name(self) -> str:
        """The container's name."""
        return f"lotabots-triton-{self.appliance}"

    @property
    def digest(self) -> str:
        """Names these settings: a run that was started with others is not adopted."""
        return hashlib.sha256(canonical_json({"format": FORMAT, **asdict(self)})).hexdigest()


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the engine says of itself, as far as it matters."""

    version: str
    cdi: bool  # it has directories of CDI specifications (Docker 25)
    cdi_devices: frozenset[str] | None  # those it found; None where it does not say (before Docker 28.2)


def settings_from(config: Config, uid: int, gid: int) -> Settings:
    """What the configuration asks for, for Triton's own user."""
    runtime, paths = config.runtime, config.paths
    return Settings(
        appliance=hashlib.sha256(str(paths.state).encode()).hexdigest()[:12],
        image=runtime.image,
        uid=uid,
        gid=gid,
        models=str(paths.live_models),
        sockets=str(paths.triton),
        secrets=str(paths.run_secrets),
        gpus=runtime.gpus,
        memory_bytes=runtime.memory_bytes,
        shared_memory_bytes=runtime.shared_memory_bytes,
        max_processes=runtime.max_processes,
        exit_timeout_seconds=max(1, int(runtime.drain_seconds)),
        stop_timeout_seconds=max(1, int(runtime.stop_timeout_seconds)),
        max_input_bytes=config.gate.max_body_bytes + _HEADER_ROOM_BYTES,
        tcp_port=runtime.tcp_port if runtime.transport == "tcp" else 0,
    )


def run_spec(settings: Settings, beside: str = "") -> RunSpec:
    """Triton's own options inside the container; the secret is no part of them.

    `beside` is the id of a run that starts while another one serves.
    """
    sockets = SOCKETS / beside
    return RunSpec(
        repository=MODELS,
        backends=BACKENDS,
        http_socket=sockets / "http.sock",
        grpc_socket=sockets / "grpc.sock",
        metrics_socket=sockets / "metrics.sock",
        exit_timeout_seconds=settings.exit_timeout_seconds,
        max_input_bytes=settings.max_input_bytes,
        shared_memory_prefix="lotabots-",  # /dev/shm is the container's own
        secret="",
        gpus=bool(settings.gpus),
        tcp_port=settings.tcp_port,
    )


def entry(beside: str = "") -> list[str]:
    """What runs before Triton; Triton's command line follows it."""
    sockets = SOCKETS / beside
    script = _ENTRY.format(
        sockets=sockets,
        secret=SECRET,
        restricted=" ".join(f'"--{name}={value}"' for name, value in restricted_options("$secret")),
        descriptors=MAX_DESCRIPTORS,
        make_room=(_BESIDE if beside else _ALONE).format(sockets=sockets),
    )
    return ["/bin/sh", "-euc", script, ENTRY_NAME]


def publication(run_id: str, *, alone: bool) -> list[str]:
    """What makes a run that started beside another one the one that is asked; doing it again changes nothing.

    `alone`: the other one is gone, and what is left of its sockets goes too. Runs inside the container.
    """
    script = (_PUBLISH + (_CLEAR if alone else "")).format(own=SOCKETS / run_id, sockets=SOCKETS)
    return ["/bin/sh", "-euc", script, "lotabots-publish"]


def specification(
    settings: Settings,
    run_id: str,
    image_id: str,
    command: Sequence[str],
    facts: EngineFacts,
    *,
    beside: bool = False,
) -> dict[str, Any]:
    """One run of Triton. `image_id` is what `settings.image` was found to be: the engine looks nothing up."""
    labels = {LABEL_RUN: run_id, LABEL_SPECIFICATION: settings.digest}
    whole = _walls(settings, image_id, entry(run_id if beside else ""), command, labels)
    mounts = [
        _mount(settings.models, MODELS, read_only=True),
        _mount(f"{settings.secrets}/{run_id}", SECRET, read_only=True),
    ]
    if settings.tcp_port:
        whole["HostConfig"]["NetworkMode"] = "host"  # its loopback is where the relay can reach Triton
    else:
        mounts.append(_mount(settings.sockets, SOCKETS, read_only=False))
    whole["HostConfig"] |= {"DeviceRequests": device_requests(settings.gpus, facts), "Mounts": mounts}
    return whole


def probe_specification(settings: Settings, image_id: str) -> dict[str, Any]:
    """A run that only prints which options this image's Triton knows: the same walls, and nothing mounted."""
    return _walls(settings, image_id, [], [str(SERVER), "--help"], {})


def device_requests(gpus: Sequence[str], facts: EngineFacts) -> list[dict[str, Any]]:
    """GPUs by UUID: through CDI where the engine has it, else as `docker run --gpus` asks; none without GPUs.

    With the older way `systemctl daemon-reload` can take the GPUs from a running container.
    """
    if not gpus:
        return []
    names = [f"nvidia.com/gpu={uuid}" for uuid in gpus]
    if facts.cdi and (facts.cdi_devices is None or facts.cdi_devices.issuperset(names)):
        return [{"Driver": "cdi", "DeviceIDs": names}]
    wanted = [["gpu", "compute", "utility"]]
    return [{"Driver": "nvidia", "DeviceIDs": list(gpus), "Capabilities": wanted}]


def _walls(
    settings: Settings,
    image_id: str,
    entrypoint: list[str],
    command: Sequence[str],
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """What every container of ours has: no network, no capability, nothing to write, bounds on everything."""
    return {
        "Image": image_id,
        "Entrypoint": entrypoint,
        "Cmd": list(command),
        "User": f"{settings.uid}:{settings.gid}",
        "WorkingDir": "/",
        "Labels": {LABEL_APPLIANCE: settings.appliance, **labels},
        "Healthcheck": {"Test": ["NONE"]},  # the supervisor asks Triton itself, and knows what to do then
        "StopSignal": "SIGTERM",
        "StopTimeout": settings.stop_timeout_seconds,
        "HostConfig": {
            "NetworkMode": "none",
            "IpcMode": "private",
            "Init": True,  # reaps Python stubs that lost their Triton
            "Privileged": False,
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={_TMP_BYTES},mode=1777"},  # noqa: S108 - its own
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},  # the supervisor decides
            "AutoRemove": False,  # how it ended is read afterwards
            "Memory": settings.memory_bytes,
            "MemorySwap": settings.memory_bytes,  # the same: no swap
            "ShmSize": settings.shared_memory_bytes,
            "PidsLimit": settings.max_processes,
            "OomScoreAdj": 500,  # short of memory, the kernel shall take Triton before the gate
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],  # a core would hold request bodies
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
        },
    }


def _mount(source: str, target: Path, *, read_only: bool) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": source,
        "Target": str(target),
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }
