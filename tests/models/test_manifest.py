"""package.toml: every defect is named, all of them together, and no text makes it raise."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lotabotsd.models.manifest import parse_manifest

DIGEST = "0" * 64
WHOLE = f"""
format = 1
name = "tiny"
title = "A tiny model"
task = "t"
licence = "MIT"
[source]
kind = "wheel"
distribution = "some-wheel"
version = "1.0"
file = "some_wheel-1.0-py3-none-any.whl"
sha256 = "{DIGEST}"
[[files]]
path = "1/model.onnx"
member = "some/model.onnx"
sha256 = "{DIGEST}"
[objective]
p99_milliseconds = 20
[embedded]
threads = 2
[canary.sizes]
pixels = [1, 80]
[canary.expect]
scores = [0.25, 1]
"""


def problems_of(text: str) -> list[str]:
    manifest, problems = parse_manifest(text.encode())
    assert (manifest is None) == bool(problems)
    return problems


def test_a_whole_manifest_is_read() -> None:
    manifest, problems = parse_manifest(WHOLE.encode())
    assert problems == []
    assert manifest is not None
    assert manifest.source is not None
    assert (manifest.source.distribution, manifest.files[0].member) == ("some-wheel", "some/model.onnx")
    assert (manifest.p99_milliseconds, manifest.instances, manifest.threads) == (20.0, 1, 2)
    assert manifest.canary == {"pixels": (1, 80)}
    assert manifest.expected == {"scores": (0.25, 1.0)}


def test_the_shipped_manifest_is_right() -> None:
    path = Path(__file__).parents[2] / "model_repository" / "page_orientation" / "package.toml"
    manifest, problems = parse_manifest(path.read_bytes())
    assert problems == []
    assert manifest is not None
    assert manifest.predict is not None
    assert (manifest.predict.mode, manifest.predict.activation) == ("BGR", "none")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("format = 1", "format = 2", "format must be a whole number from 1 to 1, not 2"),
        ("format = 1", "format = true", "format must be a whole number"),
        ('name = "tiny"', 'name = ".tiny"', "name must be 1 to 128"),
        ('name = "tiny"', 'name = "a/b"', "name must be 1 to 128"),
        ('title = "A tiny model"', 'title = "  "', "title must be text"),
        ('title = "A tiny model"', "", "title is missing"),
        ('kind = "wheel"', 'kind = "url"', "source.kind must be one of wheel"),
        ("threads = 2", "threads = 0", "embedded.threads must be a whole number from 1 to 16"),
        ("threads = 2", "threads = 2.5", "embedded.threads must be a whole number"),
        ("threads = 2", "thread = 2", "embedded.thread is not a known key"),
        ("p99_milliseconds = 20", "p99_milliseconds = 0", "must be a number above 0"),
        ('path = "1/model.onnx"', 'path = "../model.onnx"', "plain path inside the package"),
        ('path = "1/model.onnx"', 'path = "/model.onnx"', "plain path inside the package"),
        ('path = "1/model.onnx"', 'path = "1/./model.onnx"', "plain path inside the package"),
        ('path = "1/model.onnx"', 'path = "1/a\\nb"', "plain path inside the package"),
        ('member = "some/model.onnx"', 'member = "../../etc/passwd"', "a path inside the source"),
        ("pixels = [1, 80]", "pixels = [0]", "canary.sizes.pixels must be a list of sizes"),
        ("pixels = [1, 80]", 'pixels = "80"', "canary.sizes.pixels must be a list of sizes"),
        ("scores = [0.25, 1]", "scores = []", "canary.expect.scores must be a list of 1 to 64 numbers"),
        ("scores = [0.25, 1]", "scores = [nan]", "canary.expect.scores must be a list"),
        ("[canary.expect]", "[canary.wants]", "canary.wants is not a known key"),
        (f'sha256 = "{DIGEST}"\n[objective]', 'sha256 = "short"\n[objective]', "64 hexadecimal digits"),
    ],
)
def test_each_defect_is_named(before: str, after: str, told: str) -> None:
    assert before in WHOLE
    problems = problems_of(WHOLE.replace(before, after))
    assert len(problems) == 1
    assert told in problems[0]


def test_all_defects_are_told_together() -> None:
    text = WHOLE.replace("format = 1", "format = 9").replace("threads = 2", "threads = 99")
    text = text.replace('licence = "MIT"', "").replace('version = "1.0"', "")
    assert len(problems_of(text)) == 4


def test_a_file_listed_twice_is_a_problem() -> None:
    twice = WHOLE + f'[[files]]\npath = "1/model.onnx"\nsha256 = "{DIGEST}"\n'
    assert problems_of(twice) == ["package.toml: 1/model.onnx is listed twice"]


def test_too_many_files_are_a_problem() -> None:
    many = "".join(f'[[files]]\npath = "f{n}"\nsha256 = "{DIGEST}"\n' for n in range(65))
    assert any("1 to 64 tables" in problem for problem in problems_of(WHOLE + many))


def test_members_without_a_source_are_a_problem() -> None:
    start, end = WHOLE.index("[source]"), WHOLE.index("[[files]]")
    assert problems_of(WHOLE[:start] + WHOLE[end:]) == ["package.toml: files with a member need a [source]"]


PREDICT = '[predict]\ninput = "x"\noutput = "y"\nwidth = 224\nheight = 224\n'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('mode = "HSV"', "predict.mode must be one of RGB, BGR, L"),
        ('layout = "CHW"', "predict.layout must be one of NCHW, NHWC"),
        ('resize = "shortest_center_crop"', "predict.resize_short is missing"),
        ('resize = "shortest_center_crop"\nresize_short = 100', "whole number from 224"),
        ("mean = [1, 2]", "predict.mean must be a list of 3 numbers"),
        ('mode = "L"\nstd = [1, 1, 1]', "predict.std must be a list of 1 numbers"),
        ("std = [1, 0, 1]", "predict.std must be a list of numbers above 0"),
        ("top_k = 0", "predict.top_k must be a whole number from 1"),
        ("scale = -1.0", "predict.scale must be a number above 0"),
        ('color = "blue"', "predict.color is not a known key"),
    ],
)
def test_each_defect_of_predict_is_named(line: str, told: str) -> None:
    problems = problems_of(WHOLE + PREDICT + line + "\n")
    assert len(problems) == 1
    assert told in problems[0]


@pytest.mark.parametrize("damaged", [b"", b"\xff\xfe", b"format = ", b"format = 1\nformat = 1\n", b"[[[["])
def test_bytes_that_are_no_manifest_are_problems_and_never_exceptions(damaged: bytes) -> None:
    manifest, problems = parse_manifest(damaged)
    assert manifest is None
    assert problems


@given(st.text(max_size=200))
def test_no_text_makes_it_raise(text: str) -> None:
    parse_manifest(text.encode("utf-8", errors="surrogatepass"))


@pytest.mark.parametrize("value", ["[]", "{}", '"text"', "1", "[1]"])
def test_sections_of_the_wrong_type_are_problems(value: str) -> None:
    assert problems_of(f"source = {value}\nfiles = {value}\npredict = {value}\nobjective = {value}\n")
