"""Bring the configured image to the engine: found by its digest, loaded from a checked archive, or pulled."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tarfile
from pathlib import Path
from typing import IO, Any

from lotabotsd.foundation.config import RuntimeConfig
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import refuse_foreign

from .container_specification import LABEL_BACKENDS
from .engine import Engine, Image

log = logging.getLogger(__name__)
MAX_MANIFEST_BYTES = 1024 * 1024
_CHUNK_BYTES = 1024 * 1024


def bring_image(engine: Engine, runtime: RuntimeConfig) -> Image:
    """The image of `runtime.image`. Blocks, as long as loading takes; never pulls unless that is allowed.

    Raises IMAGE_MISSING, IMAGE_DIGEST_MISMATCH, FILE_UNREADABLE, CONFIG_INVALID when the image lacks the
    backend that models are prepared for, ENGINE_UNAVAILABLE, ENGINE_REFUSED.
    """
    image = find_image(engine, runtime.image)
    if image is None and runtime.image_archive:
        load_archive(engine, runtime)
        image = find_image(engine, runtime.image)
    elif image is None and runtime.allow_pull:
        log.info("pulling %s", runtime.image)
        engine.pull(runtime.image)
        image = find_image(engine, runtime.image)
    if image is None:
        raise LotaBotsError(Code.IMAGE_MISSING, runtime.image)
    _check_backend(image, runtime)
    return image


def find_image(engine: Engine, reference: str) -> Image | None:
    """The image of a digest, if it is here. Raises IMAGE_DIGEST_MISMATCH when another one is shown."""
    image = engine.image(reference)
    if image is not None and reference not in (image.image_id, *image.digests):
        raise LotaBotsError(
            Code.IMAGE_DIGEST_MISMATCH, f"asked for {reference}, the engine shows {image.image_id}"
        )
    return image


def load_archive(engine: Engine, runtime: RuntimeConfig) -> None:
    """Load `runtime.image_archive` after its digest was checked, and what it says is inside.

    Raises FILE_UNREADABLE, IMAGE_DIGEST_MISMATCH, ENGINE_UNAVAILABLE, ENGINE_REFUSED.
    """
    path = Path(runtime.image_archive)
    try:
        with path.open("rb") as archive:
            refuse_foreign(os.fstat(archive.fileno()), path)
            found = _sha256(archive)
            if found != runtime.image_archive_sha256:
                raise LotaBotsError(
                    Code.IMAGE_DIGEST_MISMATCH,
                    f"{path} has sha256 {found}, not {runtime.image_archive_sha256}",
                )
            inside = images_inside(archive)
            if "@" not in runtime.image and runtime.image not in inside:
                held = ", ".join(sorted(inside)) or "no image"
                raise LotaBotsError(Code.IMAGE_DIGEST_MISMATCH, f"{path} holds {held}, not {runtime.image}")
            log.info("loading %s", path)
            archive.seek(0)
            engine.load(archive)
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{path}: {error.strerror}") from error


def images_inside(archive: IO[bytes]) -> frozenset[str]:
    """By which digests an engine may know the images of an archive, as `docker save` writes it.

    Engines that keep images their own way name them by their configuration's digest (manifest.json), those
    that keep them in containerd by their manifest's (index.json). Raises IMAGE_DIGEST_MISMATCH when it is no
    such archive.
    """
    archive.seek(0)
    found: set[str] = set()
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for member in tar:
                if member.name not in ("manifest.json", "index.json") or member.size > MAX_MANIFEST_BYTES:
                    continue
                content = tar.extractfile(member)
                listed: Any = json.loads(content.read()) if content is not None else []
                if member.name == "index.json":
                    found |= {str(each["digest"]) for each in listed["manifests"]}
                else:
                    names = (Path(str(each["Config"])).name for each in listed)
                    found |= {f"sha256:{name.removesuffix('.json')}" for name in names}
    except (tarfile.TarError, ValueError, KeyError, TypeError, EOFError) as error:
        raise LotaBotsError(Code.IMAGE_DIGEST_MISMATCH, "the archive is not one of docker save") from error
    return frozenset(found)


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _check_backend(image: Image, runtime: RuntimeConfig) -> None:
    """An image that says which backends it has must have the one that models are prepared for."""
    said = image.labels.get(LABEL_BACKENDS, "")
    needed = "python" if runtime.backend == "python" else "onnxruntime"
    if said and needed not in said.split(","):
        raise LotaBotsError(
            Code.CONFIG_INVALID,
            f"the image has the backends {said}, and runtime.backend is {runtime.backend!r}",
            hint=f'set runtime.backend = "{"package" if runtime.backend == "python" else "python"}"',
        )
