"""What the daemon saw of runtime, models, licence and GPUs, and the EAT submodules that say it. Pure.

Every submodule names its source. Without a TPM or a GPU's own signature that is `operator_asserted`: the
appliance says it, and its administrator could make it say something else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lotabotsd.foundation.identifiers import b64url

OPERATOR_ASSERTED = "operator_asserted"
SEMANTIC_VERSION = 16384  # the version scheme "semver" of CoSWID (RFC 9393)
MAX_ENVELOPE_BYTES = 64 * 1024  # a larger licence is named by its hash alone: the answer is bounded
Submodule = dict[str, Any]


class Measurement(StrEnum):
    """The results of a comparison that RFC 9711, section 4.2.17, knows."""

    SUCCESS = "success"
    FAIL = "fail"
    NOT_RUN = "not-run"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Image:
    """A container image by both of its digests (`sha256:…`); they are different things.

    One that is not known is empty.
    """

    reference: str
    manifest: str
    configuration: str


@dataclass(frozen=True, slots=True)
class RuntimeEvidence:
    """The inference server. `kind` is embedded or container; `version` is empty while it does not run."""

    kind: str
    running: bool
    version: str = ""
    image: Image | None = None
    arguments_sha256: str = ""  # hexadecimal
    gpus: tuple[str, ...] = ()  # by UUID, those that it was given


@dataclass(frozen=True, slots=True)
class ModelEvidence:
    """One live model. `digest` is hexadecimal; `measurement` compares live files with the models' lock."""

    name: str
    versions: tuple[str, ...]
    digest: str
    measurement: Measurement
    backend: str = ""
    loaded_at: int = 0  # seconds since 1970; 0: not known
    signature: str = "absent"


@dataclass(frozen=True, slots=True)
class LicenceEvidence:
    """The standing, and the vendor-signed DSSE envelope where a licence is installed."""

    state: str
    tier: str
    licence_id: str = ""
    expires_at: int = 0  # seconds since 1970; 0: never
    envelope: bytes = b""


@dataclass(frozen=True, slots=True)
class GpuEvidence:
    """One GPU as the driver describes it."""

    index: int
    uuid: str
    name: str
    driver: str
    vbios: str = ""
    mig: bool | None = None  # None: this GPU has no MIG
    confidential_computing: str = "unknown"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that a token says beyond its own frame."""

    version: str  # of lotabotsd
    uptime_seconds: int  # since the host booted
    boot_seed: bytes  # 32 bytes that change with every boot
    runtime: RuntimeEvidence
    models: tuple[ModelEvidence, ...]
    licence: LicenceEvidence
    gpus: tuple[GpuEvidence, ...] = ()
    gpu_probe: str = "none"  # how the GPUs were looked for, or why there was nothing to look with
    development: bool = False


def submodules(evidence: Evidence) -> dict[str, Submodule]:
    """The submodules `runtime`, `models`, `licence`, `gpu` and one `gpu-N` for each GPU."""
    found = {
        "runtime": _runtime(evidence.runtime),
        "models": _models(evidence.models),
        "licence": _licence(evidence.licence),
        "gpu": _submodule("gpu", {"count": len(evidence.gpus), "probe": evidence.gpu_probe}),
    }
    for gpu in evidence.gpus:
        found[f"gpu-{gpu.index}"] = _gpu(gpu)
    return found


def overall(models: tuple[ModelEvidence, ...]) -> Measurement:
    """One result for all models: the worst one; `absent` where there is no model."""
    for result in (Measurement.FAIL, Measurement.NOT_RUN, Measurement.ABSENT):
        if any(model.measurement is result for model in models):
            return result
    return Measurement.SUCCESS if models else Measurement.ABSENT


def software(name: str, version: str) -> Submodule:
    """`swname` with `swversion` in RFC 9711's shape; a version that is not known is left out."""
    if not version:
        return {"swname": name}
    plain = version.split("+")[0].split("-")[0].split(".")
    semantic = len(plain) == 3 and all(part.isascii() and part.isdigit() for part in plain)
    return {"swname": name, "swversion": [version, SEMANTIC_VERSION] if semantic else [version]}


def _submodule(name: str, content: dict[str, Any], **more: Any) -> Submodule:
    return {"x-lotabots-source": OPERATOR_ASSERTED, f"x-lotabots-{name}": content, **more}


def _runtime(runtime: RuntimeEvidence) -> Submodule:
    content: dict[str, Any] = {"kind": runtime.kind, "running": runtime.running}
    if runtime.image is not None:
        digests = {"configuration": runtime.image.configuration, "manifest": runtime.image.manifest}
        content["image"] = {
            "reference": runtime.image.reference,
            **{name: digest for name, digest in digests.items() if digest},
        }
    if runtime.arguments_sha256:
        content["arguments"] = f"sha256:{runtime.arguments_sha256}"
    if runtime.gpus:
        content["gpus"] = list(runtime.gpus)
    return _submodule("runtime", content, **software("tritonserver", runtime.version))


def _models(models: tuple[ModelEvidence, ...]) -> Submodule:
    listed: list[dict[str, Any]] = []
    results: list[list[str]] = []
    for model in sorted(models, key=lambda model: model.name):
        entry: dict[str, Any] = {
            "name": model.name,
            "versions": list(model.versions),
            "digest": f"sha256:{model.digest}",
            "signature": model.signature,
        }
        if model.backend:
            entry["backend"] = model.backend
        if model.loaded_at:
            entry["loaded_at"] = model.loaded_at
        listed.append(entry)
        results.append([model.name, model.measurement.value])
    submodule: Submodule = {"x-lotabots-source": OPERATOR_ASSERTED, "x-lotabots-models": listed}
    if results:  # RFC 9711 wants at least one result where there is the claim
        submodule["measres"] = [["lotabots-models", results]]
    return submodule


def _licence(licence: LicenceEvidence) -> Submodule:
    content: dict[str, Any] = {"state": licence.state, "tier": licence.tier}
    if licence.licence_id:
        content["id"] = licence.licence_id
    if licence.expires_at:
        content["expires_at"] = licence.expires_at
    if licence.envelope:
        content["sha256"] = hashlib.sha256(licence.envelope).hexdigest()
        if len(licence.envelope) <= MAX_ENVELOPE_BYTES:
            content["envelope"] = b64url(licence.envelope)
    return _submodule("licence", content)


def _gpu(gpu: GpuEvidence) -> Submodule:
    content: dict[str, Any] = {
        "uuid": gpu.uuid,
        "name": gpu.name,
        "driver": gpu.driver,
        "confidential_computing": gpu.confidential_computing,
    }
    if gpu.vbios:
        content["vbios"] = gpu.vbios
    if gpu.mig is not None:
        content["mig"] = gpu.mig
    return _submodule("gpu", content)
