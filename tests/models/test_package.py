"""A package is whole or refused, with everything wrong told at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.models.package import Package

Seal = Callable[..., None]


def problems_of(directory: Path) -> tuple[str, ...]:
    with pytest.raises(LotaBotsError) as refused:
        Package.load(directory)
    assert refused.value.code is Code.PACKAGE_INVALID
    problems: tuple[str, ...] = refused.value.extra["problems"]
    assert all(problem in str(refused.value) for problem in problems)
    return problems


def test_a_right_package_is_loaded(tiny: Path) -> None:
    package = Package.load(tiny)
    assert (package.name, package.versions, package.weights) == ("tiny", ("1",), ("1/model.onnx",))
    assert package.labels == ("cat", "dog")
    facts = package.facts("d" * 64)
    assert (facts.versions, facts.labels, facts.max_batch_size) == (("1",), ("cat", "dog"), 8)
    assert facts.predict is not None
    assert not facts.ready


def test_a_directory_without_package_toml_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(LotaBotsError) as refused:
        Package.load(tmp_path)
    assert refused.value.code is Code.FILE_UNREADABLE


def test_weights_that_were_not_fetched_are_named_with_the_command(tiny: Path) -> None:
    text = (tiny / "package.toml").read_text(encoding="utf-8")
    source = '[source]\ndistribution = "d"\nversion = "1"\nfile = "d.whl"\nsha256 = "' + "0" * 64 + '"\n'
    text = text.replace('path = "1/model.onnx"', 'path = "1/model.onnx"\nmember = "m.onnx"')
    (tiny / "package.toml").write_text(text.replace("[predict]", source + "[predict]"), encoding="utf-8")
    (tiny / "1" / "model.onnx").unlink()
    assert problems_of(tiny) == ("1/model.onnx is missing; fetch it: scripts/fetch-models",)


def test_a_changed_file_is_found(tiny: Path) -> None:
    (tiny / "labels.txt").write_text("cat\nwolf\n", encoding="utf-8")
    (problem,) = problems_of(tiny)
    assert problem.startswith("labels.txt has another SHA-256")


def test_a_file_that_nobody_listed_is_found(tiny: Path) -> None:
    (tiny / "1" / "model.py").write_text("print('hello')", encoding="utf-8")
    assert problems_of(tiny) == ("1/model.py is not listed under [[files]] in package.toml",)


def test_a_link_instead_of_a_file_is_refused(tiny: Path) -> None:
    (tiny / "labels.txt").rename(tiny.parent / "elsewhere")
    (tiny / "labels.txt").symlink_to(tiny.parent / "elsewhere")
    assert any("is not a regular file" in problem for problem in problems_of(tiny))


@pytest.mark.parametrize(
    ("labels", "told"),
    [("cat\n", "has 1 labels, output 'scores' has 2 values"), ("cat\n\n", "empty line"), ("", "empty line")],
)
def test_labels_must_fit_the_output(tiny: Path, sealed: Seal, labels: str, told: str) -> None:
    (tiny / "labels.txt").write_text(labels, encoding="utf-8")
    sealed(tiny)
    assert any(told in problem for problem in problems_of(tiny))


def test_labels_that_are_no_text_are_refused(tiny: Path, sealed: Seal) -> None:
    (tiny / "labels.txt").write_bytes(b"\xff\xfe")
    sealed(tiny)
    assert any(problem.startswith("labels.txt:") for problem in problems_of(tiny))


def test_a_graph_that_does_not_fit_is_refused(
    tiny: Path, sealed: Seal, make_onnx: Callable[..., bytes]
) -> None:
    (tiny / "1" / "model.onnx").write_bytes(make_onnx({"x": (1, ["N", 3])}, {"scores": (1, ["N", 2])}))
    sealed(tiny)
    problems = problems_of(tiny)
    assert "1/model.onnx: the graph has no input 'pixels' (it has: x)" in problems


@pytest.mark.parametrize("damaged", [b"", b"\0" * 40, b"not a model", b"PK\x03\x04"])
def test_weights_that_are_no_onnx_are_refused(tiny: Path, sealed: Seal, damaged: bytes) -> None:
    (tiny / "1" / "model.onnx").write_bytes(damaged)
    sealed(tiny)
    assert any("no ONNX model" in problem for problem in problems_of(tiny))


def with_versions(directory: Path, policy: str, *versions: str) -> None:
    """The package with these versions of the same graph, and a version_policy."""
    graph = (directory / "1" / "model.onnx").read_bytes()
    for version in versions:
        (directory / version).mkdir(exist_ok=True)
        (directory / version / "model.onnx").write_bytes(graph)
    path = directory / "config.pbtxt"
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{policy}\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("policy", "versions", "served"),
    [
        ("", ("1",), ("1",)),
        ("version_policy { all { } }", ("2", "10"), ("1", "2", "10")),
        ("version_policy { latest { num_versions: 2 } }", ("2",), ("1", "2")),
        ("version_policy { specific { versions: [ 7, 1 ] } }", ("7",), ("1", "7")),
    ],
)
def test_the_versions_served_are_those_of_the_policy(
    tiny: Path, sealed: Seal, policy: str, versions: tuple[str, ...], served: tuple[str, ...]
) -> None:
    with_versions(tiny, policy, *versions)
    sealed(tiny)
    package = Package.load(tiny)
    assert package.facts("").versions == package.versions == served
    assert package.weights[-1] == f"{served[-1]}/model.onnx"


@pytest.mark.parametrize(
    ("policy", "versions", "told"),
    [
        ("", ("2",), "version_policy does not serve version 1"),
        ("version_policy { specific { versions: [ 1, 3 ] } }", ("2",), "version_policy names 3"),
        ("version_policy { specific { } }", (), "version_policy names no version"),
        ("version_policy { specific { versions: [ 2 ] } }", ("2",), "does not serve version 1"),
        ("version_policy { all { } }", ("02",), "versions, each in a directory named by a number"),
        ("version_policy { all { } }", tuple("23456789"), "holds 1 to 8 versions"),
    ],
)
def test_a_version_that_is_not_there_or_not_served_is_named(
    tiny: Path, sealed: Seal, policy: str, versions: tuple[str, ...], told: str
) -> None:
    with_versions(tiny, policy, *versions)
    sealed(tiny)
    assert any(told in problem for problem in problems_of(tiny))


def test_each_version_has_its_own_weights_and_they_are_judged(tiny: Path, sealed: Seal) -> None:
    with_versions(tiny, "version_policy { all { } }", "2")
    (tiny / "2" / "model.onnx").write_bytes(b"not a model")
    sealed(tiny)
    assert any(problem.startswith("2/model.onnx: it is no ONNX") for problem in problems_of(tiny))
    (tiny / "2" / "model.onnx").rename(tiny / "2" / "other.onnx")
    sealed(tiny)
    assert any(problem.startswith("2/model.onnx is not listed") for problem in problems_of(tiny))


def test_what_a_model_keeps_and_how_it_answers_is_in_its_facts(
    tiny: Path, sealed: Seal, manifest_text: str, configuration_text: str
) -> None:
    text = configuration_text.partition("dynamic_batching")[0]
    sequences = text + "sequence_batching { }\nmodel_transaction_policy { decoupled: true }"
    (tiny / "config.pbtxt").write_text(sequences, encoding="utf-8")
    sealed(tiny)
    assert any("no sequences, no decoupled" in problem for problem in problems_of(tiny))
    without_predict = manifest_text.partition("[predict]")[0] + "[objective]\np99_milliseconds = 20\n"
    sealed(tiny, without_predict)
    facts = Package.load(tiny).facts("")
    assert (facts.sequences, facts.decoupled, facts.priority_levels) == (True, True, 0)
    levels = text + "dynamic_batching { priority_levels: 3 default_priority_level: 2 }"
    (tiny / "config.pbtxt").write_text(levels, encoding="utf-8")
    sealed(tiny, without_predict)
    facts = Package.load(tiny).facts("")
    assert (facts.sequences, facts.decoupled, facts.priority_levels) == (False, False, 3)


def test_code_of_its_own_needs_the_administrator(tiny: Path, sealed: Seal, configuration_text: str) -> None:
    (tiny / "config.pbtxt").write_text(configuration_text.replace("onnxruntime", "python"), encoding="utf-8")
    (tiny / "1" / "model.onnx").unlink()
    (tiny / "1" / "model.py").write_text("print('hello')", encoding="utf-8")
    sealed(tiny)
    assert any("the administrator does not allow" in problem for problem in problems_of(tiny))
    assert Package.load(tiny, allow_code=True).weights == ("1/model.py",)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('input = "pixels"', 'input = "picture"', "predict.input 'picture' is no input"),
        ('output = "scores"', 'output = "labels"', "predict.output 'labels' is no output"),
        ("width = 4", "width = 5", "does not take"),
        ("height = 4", 'height = 4\nmode = "L"', "does not take"),
        ("height = 4", 'height = 4\nlayout = "NHWC"', "does not take"),
        ("[objective]", "[canary.sizes]\nz = [1]\n[objective]", "canary.sizes.z is no input"),
        ("[objective]", "[canary.expect]\nz = [1]\n[objective]", "canary.expect.z is no FP32 output"),
        ('name = "tiny"', 'name = "other"', "name must be that of the directory"),
    ],
)
def test_predict_must_fit_the_tensors(
    tiny: Path, sealed: Seal, manifest_text: str, before: str, after: str, told: str
) -> None:
    sealed(tiny, manifest_text.replace(before, after))
    assert any(told in problem for problem in problems_of(tiny))


def test_everything_wrong_is_told_together(tiny: Path, configuration_text: str) -> None:
    (tiny / "config.pbtxt").write_text(
        configuration_text.replace('name: "tiny"', 'name: "x"') + "response_cache { enable: true }",
        encoding="utf-8",
    )
    (tiny / "labels.txt").write_text("cat\n", encoding="utf-8")
    (tiny / "1" / "model.onnx").unlink()
    problems = problems_of(tiny)
    for told in (
        "'x' must be",
        "by timing",
        "1/model.onnx is missing",
        "has 1 labels",
        "config.pbtxt has another",
    ):
        assert any(told in problem for problem in problems), (told, problems)


def test_a_damaged_configuration_and_manifest_are_told_together(tiny: Path) -> None:
    (tiny / "config.pbtxt").write_text("what: is this", encoding="utf-8")
    (tiny / "package.toml").write_text("format = 7", encoding="utf-8")
    problems = problems_of(tiny)
    assert any(problem.startswith("config.pbtxt:1:1") for problem in problems)
    assert any("format must be" in problem for problem in problems)


def test_a_missing_configuration_is_a_problem(tiny: Path) -> None:
    (tiny / "config.pbtxt").unlink()
    assert any(problem.startswith("config.pbtxt") for problem in problems_of(tiny))


def test_a_huge_configuration_is_not_read(tiny: Path) -> None:
    (tiny / "config.pbtxt").write_text("#" * 300_000, encoding="utf-8")
    assert any("larger than" in problem for problem in problems_of(tiny))
