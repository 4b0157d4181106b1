"""The image: by digest, from a checked archive, never pulled unasked, with the backend that is needed."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_in_memory import IMAGE, EngineInMemory, World

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.runtime.container_image import images_inside, load_archive
from lotabotsd.runtime.engine import Image


def ensured(world: World) -> dict[str, Any]:
    return asyncio.run(world.helper().ensure())


def test_a_missing_image_is_never_pulled_unless_that_is_allowed(tmp_path: Path) -> None:
    world = World(tmp_path, EngineInMemory())
    with pytest.raises(LotaBotsError) as failure:
        asyncio.run(world.helper().start())
    assert (failure.value.code, world.engine.pulled) == (Code.IMAGE_MISSING, [])
    name = f"registry.invalid/triton@{IMAGE}"
    allowed = replace(world.config.runtime, image=name, allow_pull=True)
    world.config = replace(world.config, runtime=allowed)
    assert ensured(world)["versions"]["image_id"] == IMAGE
    assert world.engine.pulled == [name]


def test_an_engine_that_shows_another_image_is_not_believed(tmp_path: Path) -> None:
    world = World(tmp_path, EngineInMemory())
    world.engine.images[IMAGE] = Image("sha256:" + "b" * 64, (), {}, {})
    with pytest.raises(LotaBotsError) as failure:
        asyncio.run(world.helper().start())
    assert failure.value.code is Code.IMAGE_DIGEST_MISMATCH


@pytest.mark.parametrize(
    ("backend", "label", "fits"),
    [
        ("package", "python", False),
        ("python", "python", True),
        ("package", "onnxruntime,python", True),
        ("python", "onnxruntime", False),
        ("python", "", True),
    ],
)
def test_the_image_must_have_the_backend_that_models_are_prepared_for(
    tmp_path: Path, backend: str, label: str, fits: bool
) -> None:
    engine = EngineInMemory(IMAGE, labels={"lotabots.backends": label} if label else {})
    world = World(tmp_path, engine, f'backend = "{backend}"')
    if fits:
        assert ensured(world)["kind"] == "container"
        return
    with pytest.raises(LotaBotsError) as failure:
        asyncio.run(world.helper().start())
    assert failure.value.code is Code.CONFIG_INVALID
    assert "runtime.backend" in failure.value.hint


def archive_of(path: Path, **files: object) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(name.replace("_", "."))
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def test_an_archive_says_by_which_digests_its_image_may_be_known(tmp_path: Path) -> None:
    one, two = "1" * 64, "2" * 64
    for config in (f"{one}.json", f"blobs/sha256/{one}"):
        archive = archive_of(
            tmp_path / "a.tar",
            manifest_json=[{"Config": config}],
            index_json={"manifests": [{"digest": f"sha256:{two}"}]},
        )
        with archive.open("rb") as file:
            assert images_inside(file) == {f"sha256:{one}", f"sha256:{two}"}


@pytest.mark.parametrize("content", [b"no tar", b""])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with path.open("rb") as file, pytest.raises(LotaBotsError) as failure:
        images_inside(file)
    assert failure.value.code is Code.IMAGE_DIGEST_MISMATCH


@pytest.mark.parametrize("files", [{"manifest_json": b"{"}, {"manifest_json": [1]}, {"index_json": []}])
def test_an_archive_whose_list_cannot_be_read_is_refused(tmp_path: Path, files: dict[str, Any]) -> None:
    with archive_of(tmp_path / "a.tar", **files).open("rb") as file, pytest.raises(LotaBotsError):
        images_inside(file)


def test_an_archive_that_others_can_write_is_not_loaded(tmp_path: Path) -> None:
    world = World(tmp_path, EngineInMemory())
    path = archive_of(tmp_path / "a.tar", manifest_json=[])
    path.chmod(0o666)
    runtime = replace(world.config.runtime, image_archive=str(path), image_archive_sha256="0" * 64)
    with pytest.raises(LotaBotsError) as failure:
        load_archive(world.engine, runtime)  # type: ignore[arg-type]
    assert failure.value.code is Code.FILE_UNREADABLE
    assert "chmod go-w" in failure.value.hint
