"""The GPUs as status and attestation show them; looked at now and then, never while somebody waits."""

from __future__ import annotations

from typing import Any

from lotabotsd.attestation.evidence import GpuEvidence


class Gpus:
    """What was seen last."""

    probe_name = "none"
    count = 0

    def look(self) -> None:
        """Ask again."""

    def value(self) -> dict[str, Any]:
        """For status."""
        return {"items": [], "detail": "no GPU probe"}

    def evidence(self) -> tuple[GpuEvidence, ...]:
        """For tokens."""
        return ()
