"""Which enabled models go live: those without a fault, as many as the licence allows."""

from __future__ import annotations

import hashlib

import pytest

from lotabotsd.daemon.models import LiveModels, bring_live, wanted_of
from lotabotsd.foundation.config import parse
from lotabotsd.foundation.errors import Code

CONFIGURATION = """name: "{name}"
backend: "onnxruntime"
max_batch_size: 4
input [ {{ name: "x" data_type: TYPE_FP32 dims: [ 3 ] }} ]
output [ {{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }} ]
"""


@pytest.fixture
def enabled(tmp_path):
    """A configuration that enables these names, in this order."""

    def enabled(*names: str, more: str = ""):
        text = f"""
[appliance]
state_directory = "{tmp_path}/state"
run_directory = "{tmp_path}/run"
[models]
repository = "{tmp_path}/packages"
enabled = [{", ".join(f'"{name}"' for name in names)}]
{more}
"""
        config = parse(text.encode(), "test")
        for path, _ in config.paths.directories():
            path.mkdir(parents=True, exist_ok=True)
        return config

    return enabled


def test_a_missing_package_is_told_and_nothing_is_wanted(enabled) -> None:
    (model,) = bring_live(enabled("none"), allowed=0, gpus=0)
    assert model.facts is None
    assert model.problem is not None
    assert wanted_of((model,)) == ()


def test_what_the_licence_does_not_allow_is_told_as_its_limit(enabled) -> None:
    models = bring_live(enabled("a", "b", "c"), allowed=2, gpus=0)
    assert [model.problem.code for model in models if model.problem] == [
        Code.FILE_UNREADABLE,
        Code.FILE_UNREADABLE,
        Code.LICENCE_LIMIT,
    ]


def test_a_name_enabled_twice_counts_once(enabled) -> None:
    models = bring_live(enabled("a", "a", "b"), allowed=2, gpus=0)
    assert [model.name for model in models] == ["a", "b"]
    assert all(model.problem and model.problem.code is Code.FILE_UNREADABLE for model in models)


def test_a_model_that_is_no_longer_enabled_leaves_the_live_repository(enabled) -> None:
    config = enabled("a")
    old = config.paths.live_models / "old"
    old.mkdir()
    (old / "config.pbtxt").write_text(CONFIGURATION.format(name="old"))
    bring_live(config, allowed=0, gpus=0)
    assert not old.exists()
    assert (config.paths.staged_models / "old.previous").is_dir()


def test_models_are_prepared_again_only_when_the_allowance_changed(enabled) -> None:
    models = LiveModels(enabled("a", "b"), 0)
    assert models() == ()
    assert models.allow(1)
    assert not models.allow(1)
    assert [model.problem.code for model in models()] == [Code.FILE_UNREADABLE, Code.LICENCE_LIMIT]
    assert models.allow(2)
    assert [model.problem.code for model in models()] == [Code.FILE_UNREADABLE, Code.FILE_UNREADABLE]


def test_a_package_with_its_own_code_goes_live_only_where_the_administrator_allows_code(
    enabled, tmp_path
) -> None:
    package = tmp_path / "packages" / "own"
    (package / "1").mkdir(parents=True)
    (package / "1" / "model.py").write_text("class TritonPythonModel: ...")
    text = CONFIGURATION.format(name="own").replace("onnxruntime", "python")
    (package / "config.pbtxt").write_text(text + "sequence_batching { }")
    manifest = 'format = 1\nname = "own"\ntitle = "t"\ntask = "t"\nlicence = "MIT"\n'
    for path in ("1/model.py", "config.pbtxt"):
        digest = hashlib.sha256((package / path).read_bytes()).hexdigest()
        manifest += f'[[files]]\npath = "{path}"\nsha256 = "{digest}"\n'
    (package / "package.toml").write_text(manifest + "[objective]\np99_milliseconds = 20\n")
    (refused,) = bring_live(enabled("own"), allowed=0, gpus=0)
    assert refused.problem is not None
    assert "the administrator does not allow" in refused.problem.detail
    (live,) = bring_live(enabled("own", more="allow_code = true"), allowed=0, gpus=0)
    assert live.problem is None
    assert live.wanted is not None
    assert (live.wanted.canary.sequence, live.wanted.canary.decoupled) == (True, False)
