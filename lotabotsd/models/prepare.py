"""Turn a package into a live model: write it beside, make it durable, put it in place in one step."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import sync_directory

from .configuration import embedded_variant
from .digest import tree_digest
from .exchange import put_in_place
from .facts import ModelFacts
from .package import CONFIGURATION, MANIFEST, Package

RUNTIMES = ("embedded", "container")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model in the live repository; `changed` says whether Triton must load it (again)."""

    facts: ModelFacts
    changed: bool


def prepare(package: Package, runtime: str, staged: Path, live: Path) -> Prepared:
    """Make `live/NAME` serve `package` on `runtime`; the model before stays in `staged/NAME.previous`.

    `staged` and `live` are directories on one file system. Doing it again changes nothing. Triton must
    then be told to load the model; where that fails, `restore` brings the one before back.
    Raises PACKAGE_INVALID when the package cannot run on this runtime, FILE_UNWRITABLE, DISK_FULL.
    """
    new = staged / f"{package.name}.new"
    target = live / package.name
    try:
        _remove(new)
        _write(package, runtime, new)
        digest = tree_digest(new)
        if target.is_dir() and tree_digest(target) == digest:
            _remove(new)
            return Prepared(package.facts(digest), changed=False)
        _keep_previous(new, target, staged / f"{package.name}.previous")
    except OSError as error:
        raise _failure(error, target) from error
    return Prepared(package.facts(digest), changed=True)


def restore(name: str, staged: Path, live: Path) -> bool:
    """Put the model before back in place of the one that failed, which is kept in its stead.

    Returns False where there is none. Raises FILE_UNWRITABLE.
    """
    previous = staged / f"{name}.previous"
    if not previous.is_dir():
        return False
    try:
        _touch(previous)
    except OSError as error:
        raise _failure(error, previous) from error
    put_in_place(previous, live / name)
    return True


def remove_live(name: str, staged: Path, live: Path) -> bool:
    """Take a model out of the live repository; it stays as the previous one. False where it is not live."""
    target = live / name
    if not target.is_dir():
        return False
    try:
        previous = staged / f"{name}.previous"
        _remove(previous)
        target.rename(previous)
        sync_directory(live)
        sync_directory(staged)
    except OSError as error:
        raise _failure(error, target) from error
    return True


def live_names(live: Path) -> tuple[str, ...]:
    """The names of the models in the live repository."""
    if not live.is_dir():
        return ()
    return tuple(sorted(path.name for path in live.iterdir() if (path / CONFIGURATION).is_file()))


def _failure(error: OSError, path: Path) -> LotaBotsError:
    code = Code.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else Code.FILE_UNWRITABLE
    return LotaBotsError(code, f"{error.filename or path}: {error.strerror}")


def _write(package: Package, runtime: str, new: Path) -> None:
    """The files of the live model, durable, with modes that Triton's own user can read."""
    if runtime not in RUNTIMES:
        raise LotaBotsError(Code.PACKAGE_INVALID, f"there is no runtime {runtime!r}")
    if runtime == "embedded" and package.configuration.backend not in ("onnxruntime", "python"):
        raise LotaBotsError(
            Code.PACKAGE_INVALID,
            f"{package.name} needs the backend {package.configuration.backend}, which is not embedded",
            hint="serve it with the container runtime",
        )
    if runtime == "embedded" and package.configuration.backend == "onnxruntime" and not _plain(package):
        raise LotaBotsError(
            Code.PACKAGE_INVALID,
            f"{package.name} schedules sequences or streams, which a graph cannot do embedded",
            hint="bring code of its own (backend python), or serve it with the container runtime",
        )
    new.mkdir(mode=0o755)
    for entry in package.manifest.files:
        _copy(package.directory / entry.path, new / entry.path)
    _copy(package.directory / MANIFEST, new / MANIFEST)
    if runtime == "embedded" and package.configuration.backend == "onnxruntime":
        settings = package.manifest
        text = embedded_variant(package.configuration, instances=settings.instances, threads=settings.threads)
        (new / CONFIGURATION).write_text(text, encoding="utf-8")
        code = resources.files("lotabotsd.models").joinpath("templates/model.py").read_bytes()
        for version in package.versions:
            (new / version / "model.py").write_bytes(code)
    for path in new.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        _sync(path)
    new.chmod(0o755)
    _sync(new)


def _plain(package: Package) -> bool:
    """Whether each request stands alone and has one answer."""
    return not (package.configuration.sequences or package.configuration.decoupled)


def _keep_previous(new: Path, target: Path, previous: Path) -> None:
    if put_in_place(new, target):
        _remove(previous)
        new.rename(previous)
        sync_directory(previous.parent)


def _touch(directory: Path) -> None:
    """Triton loads again only what has a later time than what it loaded last."""
    for path in (directory, *directory.rglob("*")):
        os.utime(path)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    shutil.copyfile(source, target, follow_symlinks=False)


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_directory(path)
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
