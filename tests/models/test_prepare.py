"""A package becomes a live model in one step, and the one before can come back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.models.configuration import read_configuration
from lotabotsd.models.digest import tree_digest
from lotabotsd.models.package import Package
from lotabotsd.models.prepare import live_names, prepare, remove_live, restore

Seal = Callable[..., None]


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path]:
    staged, live = tmp_path / "staged", tmp_path / "live"
    staged.mkdir()
    live.mkdir()
    return staged, live


def second_version(tiny: Path, sealed: Seal) -> Package:
    (tiny / "labels.txt").write_text("dog\ncat\n", encoding="utf-8")
    sealed(tiny)
    return Package.load(tiny)


def test_an_embedded_model_is_written_whole(tiny: Path, directories: tuple[Path, Path]) -> None:
    staged, live = directories
    prepared = prepare(Package.load(tiny), "embedded", staged, live)
    model = live / "tiny"
    assert prepared.changed
    assert prepared.facts.digest == tree_digest(model)
    assert {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()} == {
        "config.pbtxt", "labels.txt", "package.toml", "1/model.onnx", "1/model.py",
    }  # fmt: skip
    configuration, _ = read_configuration((model / "config.pbtxt").read_text(encoding="utf-8"))
    assert configuration is not None
    assert configuration.backend == "python"
    assert list(staged.iterdir()) == []


def test_a_container_model_keeps_its_own_configuration(tiny: Path, directories: tuple[Path, Path]) -> None:
    prepare(Package.load(tiny), "container", *directories)
    model = directories[1] / "tiny"
    assert (model / "config.pbtxt").read_bytes() == (tiny / "config.pbtxt").read_bytes()
    assert not (model / "1" / "model.py").exists()


def test_triton_s_own_user_can_read_everything_and_write_nothing(
    tiny: Path, directories: tuple[Path, Path]
) -> None:
    prepare(Package.load(tiny), "embedded", *directories)
    for path in (directories[1] / "tiny").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_preparing_twice_changes_nothing(tiny: Path, directories: tuple[Path, Path]) -> None:
    staged, live = directories
    first = prepare(Package.load(tiny), "embedded", staged, live)
    inode = (live / "tiny").stat().st_ino
    second = prepare(Package.load(tiny), "embedded", staged, live)
    assert (second.changed, second.facts) == (False, first.facts)
    assert (live / "tiny").stat().st_ino == inode
    assert list(staged.iterdir()) == []


def test_a_new_version_takes_the_place_and_the_old_one_is_kept(
    tiny: Path, directories: tuple[Path, Path], sealed: Seal
) -> None:
    staged, live = directories
    first = prepare(Package.load(tiny), "embedded", staged, live)
    second = prepare(second_version(tiny, sealed), "embedded", staged, live)
    assert second.changed
    assert second.facts.digest != first.facts.digest
    assert tree_digest(live / "tiny") == second.facts.digest
    assert tree_digest(staged / "tiny.previous") == first.facts.digest


def test_restore_brings_the_model_before_back_and_again_forward(
    tiny: Path, directories: tuple[Path, Path], sealed: Seal
) -> None:
    staged, live = directories
    first = prepare(Package.load(tiny), "embedded", staged, live)
    second = prepare(second_version(tiny, sealed), "embedded", staged, live)
    swapped_at = (live / "tiny" / "config.pbtxt").stat().st_mtime_ns
    assert restore("tiny", staged, live)
    assert tree_digest(live / "tiny") == first.facts.digest
    assert (live / "tiny" / "config.pbtxt").stat().st_mtime_ns >= swapped_at  # else Triton would not load it
    assert restore("tiny", staged, live)
    assert tree_digest(live / "tiny") == second.facts.digest


def test_restore_without_a_model_before_says_so(tiny: Path, directories: tuple[Path, Path]) -> None:
    prepare(Package.load(tiny), "embedded", *directories)
    assert not restore("tiny", *directories)


def test_what_an_interrupted_preparation_left_is_cleared(tiny: Path, directories: tuple[Path, Path]) -> None:
    staged, live = directories
    (staged / "tiny.new" / "1").mkdir(parents=True)
    (staged / "tiny.new" / "1" / "half").write_bytes(b"half")
    prepare(Package.load(tiny), "embedded", staged, live)
    assert not (live / "tiny" / "1" / "half").exists()
    assert live_names(live) == ("tiny",)


def test_bytecode_of_the_old_model_does_not_come_along(
    tiny: Path, directories: tuple[Path, Path], sealed: Seal
) -> None:
    staged, live = directories
    prepare(Package.load(tiny), "embedded", staged, live)
    (live / "tiny" / "1" / "__pycache__").mkdir()
    prepare(second_version(tiny, sealed), "embedded", staged, live)
    assert not (live / "tiny" / "1" / "__pycache__").exists()


def test_a_damaged_live_model_is_written_anew(tiny: Path, directories: tuple[Path, Path]) -> None:
    staged, live = directories
    first = prepare(Package.load(tiny), "embedded", staged, live)
    (live / "tiny" / "1" / "model.onnx").write_bytes(b"damaged")
    again = prepare(Package.load(tiny), "embedded", staged, live)
    assert again.changed
    assert tree_digest(live / "tiny") == first.facts.digest


def test_a_model_is_taken_out_and_can_come_back(tiny: Path, directories: tuple[Path, Path]) -> None:
    staged, live = directories
    prepare(Package.load(tiny), "embedded", staged, live)
    assert remove_live("tiny", staged, live)
    assert live_names(live) == ()
    assert not remove_live("tiny", staged, live)
    assert restore("tiny", staged, live)
    assert live_names(live) == ("tiny",)


def test_no_live_directory_means_no_models(tmp_path: Path) -> None:
    assert live_names(tmp_path / "nowhere") == ()


@pytest.mark.parametrize("runtime", ["", "kubernetes"])
def test_an_unknown_runtime_is_refused(tiny: Path, directories: tuple[Path, Path], runtime: str) -> None:
    with pytest.raises(LotaBotsError) as refused:
        prepare(Package.load(tiny), runtime, *directories)
    assert refused.value.code is Code.PACKAGE_INVALID
    assert live_names(directories[1]) == ()


def test_a_tensorrt_plan_cannot_be_served_embedded(
    tiny: Path, directories: tuple[Path, Path], sealed: Seal, configuration_text: str
) -> None:
    (tiny / "config.pbtxt").write_text(
        configuration_text.replace("onnxruntime", "tensorrt"), encoding="utf-8"
    )
    (tiny / "1" / "model.onnx").rename(tiny / "1" / "model.plan")
    sealed(tiny)
    with pytest.raises(LotaBotsError) as refused:
        prepare(Package.load(tiny), "embedded", *directories)
    assert refused.value.code is Code.PACKAGE_INVALID
    assert prepare(Package.load(tiny), "container", *directories).changed


def test_a_package_with_code_of_its_own_goes_live_as_it_is(
    tiny: Path, directories: tuple[Path, Path], sealed: Seal, configuration_text: str
) -> None:
    (tiny / "config.pbtxt").write_text(configuration_text.replace("onnxruntime", "python"), encoding="utf-8")
    (tiny / "1" / "model.onnx").unlink()
    (tiny / "1" / "model.py").write_text("print('hello')", encoding="utf-8")
    sealed(tiny)
    prepare(Package.load(tiny, allow_code=True), "embedded", *directories)
    live = directories[1] / "tiny"
    for name in ("config.pbtxt", "1/model.py"):
        assert (live / name).read_bytes() == (tiny / name).read_bytes()


def test_every_version_of_a_graph_gets_the_code_that_serves_it(
    tiny: Path, directories: tuple[Path, Path], sealed: Seal
) -> None:
    shutil.copytree(tiny / "1", tiny / "2")
    with (tiny / "config.pbtxt").open("a", encoding="utf-8") as file:
        file.write("version_policy { all { } }")
    sealed(tiny)
    assert prepare(Package.load(tiny), "embedded", *directories).facts.versions == ("1", "2")
    live = directories[1] / "tiny"
    assert (live / "2" / "model.py").read_bytes() == (live / "1" / "model.py").read_bytes() != b""


@pytest.mark.parametrize(
    "scheduling", ["sequence_batching { }", "model_transaction_policy { decoupled: true }"]
)
def test_a_graph_with_sequences_or_streams_needs_the_container_runtime(
    tiny: Path,
    directories: tuple[Path, Path],
    sealed: Seal,
    configuration_text: str,
    manifest_text: str,
    scheduling: str,
) -> None:
    text = configuration_text.partition("dynamic_batching")[0] + scheduling
    (tiny / "config.pbtxt").write_text(text, encoding="utf-8")
    sealed(tiny, manifest_text.partition("[predict]")[0] + "[objective]\np99_milliseconds = 20\n")
    with pytest.raises(LotaBotsError) as refused:
        prepare(Package.load(tiny), "embedded", *directories)
    assert refused.value.code is Code.PACKAGE_INVALID
    assert "backend python" in refused.value.hint
    assert prepare(Package.load(tiny), "container", *directories).changed


def test_a_missing_staging_directory_is_an_error_with_its_path(
    tiny: Path, directories: tuple[Path, Path]
) -> None:
    shutil.rmtree(directories[0])
    with pytest.raises(LotaBotsError) as refused:
        prepare(Package.load(tiny), "embedded", *directories)
    assert refused.value.code is Code.FILE_UNWRITABLE
    assert str(directories[0]) in refused.value.detail
