"""Which container image the run in force is of: the helper is asked once for each run of Triton."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from lotabotsd.attestation.evidence import Image
from lotabotsd.foundation.clock import NANOSECONDS, Clock
from lotabotsd.foundation.config import RuntimeConfig
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.seen import Seen

log = logging.getLogger("lotabots.daemon")

ASK_SECONDS = 20.0  # a helper that has just begun looks at the image first
RETRY_SECONDS = 10.0
RECEIPT_GPUS = 8  # as many fit into the longest receipt
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class RunningImage:
    """The image of one run, and of no other: what is not known of the run in force is not said."""

    def __init__(
        self,
        ensure: Callable[[], Awaitable[dict[str, Any]]],
        clock: Clock,
        ask_seconds: float = ASK_SECONDS,
    ) -> None:
        """`ensure` is the helper's verb; it raises what the helper says."""
        self._ensure = ensure
        self._clock = clock
        self._ask_seconds = ask_seconds
        self._known: tuple[str, Image | None] = ("", None)  # a run, and its image
        self._retry_at_ns = 0
        self._told: Code | None = None

    def of(self, run_id: str) -> Image | None:
        """The image of this run; None where it has none, or it is not known yet. From any thread."""
        known_run, image = self._known
        return image if run_id and run_id == known_run else None

    async def look(self, seen: Seen) -> None:
        """Ask about the run in force, unless that was done; a failure is told once, and asked again later."""
        now_ns = self._clock.monotonic_ns()
        if not seen.pid or not seen.run_id or seen.run_id == self._known[0] or now_ns < self._retry_at_ns:
            return
        try:
            async with asyncio.timeout(self._ask_seconds):
                answer = await self._ensure()
        except (LotaBotsError, TimeoutError) as error:
            self._retry_at_ns = now_ns + int(RETRY_SECONDS * NANOSECONDS)
            code = error.code if isinstance(error, LotaBotsError) else Code.HELPER_UNAVAILABLE
            if code is not self._told:
                log.warning("the image of Triton is not known: %s", error, extra={"code": code.value})
            self._told = code
            return
        self._known, self._told = (seen.run_id, image_of(answer)), None


def image_of(answer: Mapping[str, Any]) -> Image | None:
    """What the helper's answer to `ensure` says of the image; None for a runtime that is no container.

    The manifest is known only where the configuration names the image by it, NAME@sha256:…; an image out of
    an archive has none. An engine that keeps images by their manifests shows that in the place of the
    configuration's digest: then this one is not known.
    """
    versions = answer.get("versions")
    if answer.get("kind") != "container" or not isinstance(versions, Mapping):
        return None
    reference, image_id = str(versions.get("image", "")), str(versions.get("image_id", ""))
    if not _DIGEST.fullmatch(image_id):
        return None
    _, named, digest = reference.partition("@")
    manifest = digest if named and _DIGEST.fullmatch(digest) else ""
    return Image(reference, manifest, "" if image_id == manifest else image_id)


def candidate_gpus(runtime: RuntimeConfig) -> tuple[str, ...]:
    """The GPUs that Triton was given, by UUID; which of them ran a request Triton does not say."""
    return runtime.gpus if runtime.kind == "container" else ()


def receipt_gpus(runtime: RuntimeConfig) -> tuple[str, ...]:
    """What a receipt names of them: all or none, since a part of the candidates would be untrue."""
    gpus = candidate_gpus(runtime)
    return gpus if len(gpus) <= RECEIPT_GPUS else ()


def receipt_image(image: Image | None) -> str:
    """What a receipt names of an image: the digest of its configuration, else that of its manifest."""
    return "" if image is None else image.configuration or image.manifest
