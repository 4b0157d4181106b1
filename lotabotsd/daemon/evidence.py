"""Collect what an attestation token says: runtime, live models measured against their lock, licence, GPUs."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

from lotabotsd import __version__
from lotabotsd.attestation.evidence import (
    Evidence,
    GpuEvidence,
    Image,
    LicenceEvidence,
    Measurement,
    ModelEvidence,
    RuntimeEvidence,
)
from lotabotsd.foundation.clock import NANOSECONDS, Clock
from lotabotsd.foundation.config import RuntimeConfig
from lotabotsd.foundation.envelope import MAX_ENVELOPE_BYTES
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.files import read_bounded
from lotabotsd.licence.standing import Standing
from lotabotsd.limits.file import current_boot_id
from lotabotsd.models.digest import tree_digest
from lotabotsd.runtime.seen import Seen

from .models import EnabledModel
from .running_image import candidate_gpus

_SEED = b"lotabots boot seed v1\0"
Stamp = tuple[tuple[str, int, int, int, int, int], ...]


class Measurer:
    """Digests of live models; a model is read again only when one of its files changed."""

    def __init__(self, live: Path) -> None:
        self._live = live
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Stamp, str]] = {}

    def measure(self, name: str, expected: str) -> Measurement:
        """Whether the live files of a model are those that were prepared."""
        directory = self._live / name
        try:
            stamp = _stamp(directory)
            with self._lock:
                known = self._known.get(name)
                if known is None or known[0] != stamp:
                    known = self._known[name] = (stamp, tree_digest(directory))
        except (OSError, LotaBotsError):
            return Measurement.FAIL
        return Measurement.SUCCESS if known[1] == expected else Measurement.FAIL


def collect(
    clock: Clock,
    runtime: RuntimeEvidence,
    models: Sequence[EnabledModel],
    measurer: Measurer,
    licence: LicenceEvidence,
    gpus: tuple[GpuEvidence, ...],
    gpu_probe: str,
    *,
    development: bool,
) -> Evidence:
    """The evidence of this moment; reads the files of models that changed since the last time."""
    return Evidence(
        version=__version__,
        uptime_seconds=clock.monotonic_ns() // NANOSECONDS,
        boot_seed=hashlib.sha256(_SEED + current_boot_id()).digest(),
        runtime=runtime,
        models=tuple(
            ModelEvidence(
                model.name,
                model.facts.versions,
                model.facts.digest,
                measurer.measure(model.name, model.facts.digest),
            )
            for model in models
            if model.facts is not None
        ),
        licence=licence,
        gpus=gpus,
        gpu_probe=gpu_probe,
        development=development,
    )


def runtime_evidence(config: RuntimeConfig, seen: Seen, image: Image | None) -> RuntimeEvidence:
    """The inference server as it was seen last; `image` is that of the run in force."""
    running = seen.state in ("loading", "ready")
    return RuntimeEvidence(
        config.kind,
        running=running,
        version=seen.version,
        image=image if running else None,
        gpus=candidate_gpus(config),
    )


def licence_evidence(standing: Standing, directory: Path) -> LicenceEvidence:
    """The standing, with the vendor-signed file behind it where one is installed and usable."""
    envelope = b""
    if standing.licence_id:
        envelope = read_bounded(directory / "current.dsse.json", 2 * MAX_ENVELOPE_BYTES)
    return LicenceEvidence(
        state=standing.state.value,
        tier=standing.tier.value,
        licence_id=standing.licence_id,
        expires_at=standing.expires_at_ns // NANOSECONDS,
        envelope=envelope,
    )


def _stamp(directory: Path) -> Stamp:
    """What changes when a file is written: device, inode, size, and both times. Raises OSError."""
    stamps = []
    for path in sorted(directory.rglob("*")):
        status = path.stat(follow_symlinks=False)
        stamps.append(
            (
                path.relative_to(directory).as_posix(),
                status.st_dev,
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            )
        )
    return tuple(stamps)
