"""Recognise the machine that a licence is for, by HMACs, so that no identifier leaves the box.

Each component is HMAC-SHA256 keyed by the raw identifier over a fixed text and its name (the method of
machine-id(5) and of Keygen's machineid). A network card's address has too few bits for any hash to hide it,
so only the first two bytes of its HMAC are used: enough to notice another card, too few to name this one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from .claims import COMPONENT_DIGITS, Fingerprint, Match

_APPLICATION = b"lotabots fingerprint v1\0"


def component(name: str, identifier: str) -> str:
    """The HMAC of one identifier in hex. Pure; case and surrounding white space do not matter."""
    key = identifier.strip().lower().encode()
    digest = hmac.new(key, _APPLICATION + name.encode(), hashlib.sha256).hexdigest()
    return digest[: COMPONENT_DIGITS[name]]


def matches(bound: Fingerprint, here: Mapping[str, str]) -> bool:
    """Whether this machine's components are those of the licence. Pure.

    `most` is more than half of the components that the licence names; one that cannot be read here counts
    as different.
    """
    same = sum(here.get(name) == value for name, value in bound.components)
    if bound.match is Match.MOST:
        return 2 * same > len(bound.components)
    return same == len(bound.components)


def read_components(*, operator: str = "", root: Path = Path("/")) -> dict[str, str]:
    """This machine's components; what cannot be read is left out.

    `operator` is a value that the operator sets where machines come and go (virtual machines, containers).
    The DMI UUID is readable by root only on most kernels. The GPUs are one component, so that however many
    are swapped, at most one component changes.
    """
    identifiers = {
        "machine-id": _read(root / "etc/machine-id"),
        "dmi-uuid": _read(root / "sys/class/dmi/id/product_uuid"),
        "first-mac": _first_card(root / "sys/class/net"),
        "gpus": _gpus(root / "proc/driver/nvidia/gpus"),
        "operator": operator.strip(),
    }
    return {name: component(name, value) for name, value in identifiers.items() if value}


def _first_card(directory: Path) -> str:
    """The lowest address among the real network cards: those that are a device, not a bridge or a tunnel."""
    try:
        cards = [_read(card / "address") for card in directory.iterdir() if (card / "device").exists()]
    except OSError:
        return ""
    return min((address for address in cards if address.strip("0:")), default="")


def _gpus(directory: Path) -> str:
    """The UUIDs of all GPUs, sorted, as NVIDIA's driver tells them without NVML."""
    try:
        cards = [_gpu_uuid(card / "information") for card in directory.iterdir()]
    except OSError:
        return ""
    return " ".join(sorted(uuid for uuid in cards if uuid))


def _gpu_uuid(path: Path) -> str:
    for line in _read(path, 4096).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "GPU UUID":
            return value.strip() if value.strip().startswith("GPU-") else ""
    return ""


def _read(path: Path, limit: int = 256) -> str:
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
