"""A model package in a folder: everything about it is checked, and everything wrong is told at once."""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded

from .configuration import Configuration, judge_configuration, read_configuration, served_versions
from .digest import file_digests
from .facts import ModelFacts, PredictSpec, TensorFact
from .manifest import Manifest, parse_manifest
from .onnx_graph import compare, read_graph

MANIFEST = "package.toml"
CONFIGURATION = "config.pbtxt"
MAX_MANIFEST_BYTES = 64 * 1024
MAX_CONFIGURATION_BYTES = 256 * 1024
MAX_LABEL_BYTES = 1024 * 1024
MAX_VERSIONS = 8
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Package:
    """A package without a fault."""

    directory: Path
    manifest: Manifest
    configuration: Configuration
    versions: tuple[str, ...]  # all are served; ascending
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """The model's name, which is the directory's."""
        return self.configuration.name

    @property
    def weights(self) -> tuple[str, ...]:
        """The path of each version's weights inside the package."""
        return tuple(f"{version}/{self.configuration.weights}" for version in self.versions)

    def facts(self, digest: str) -> ModelFacts:
        """What others may know of this model once it is live under `digest`; not ready yet."""
        return ModelFacts(
            name=self.name,
            versions=self.versions,
            digest=digest,
            max_batch_size=self.configuration.max_batch_size,
            inputs=self.configuration.inputs,
            outputs=self.configuration.outputs,
            labels=self.labels,
            predict=self.manifest.predict,
            decoupled=self.configuration.decoupled,
            sequences=self.configuration.sequences,
            priority_levels=self.configuration.priority_levels,
        )

    @classmethod
    def load(cls, directory: Path, *, gpus: int = 0, allow_code: bool = False) -> Package:
        """Read and check the package in `directory`.

        Raises PACKAGE_INVALID that names every problem (also in `extra["problems"]`), FILE_UNREADABLE where
        there is no package.toml. `gpus` and `allow_code` are facts of this machine, see judge_configuration.
        """
        manifest, problems = parse_manifest(read_bounded(directory / MANIFEST, MAX_MANIFEST_BYTES))
        configuration = _configuration(directory, problems)
        if configuration is not None:
            problems += judge_configuration(configuration, directory.name, gpus=gpus, allow_code=allow_code)
        if manifest is not None:
            if manifest.name != directory.name:
                problems.append(f"package.toml: name must be that of the directory, {directory.name!r}")
            problems += _judge_files(directory, manifest)
        labels: tuple[str, ...] = ()
        if configuration is not None:
            predict = None if manifest is None else manifest.predict
            labels = _labels(directory, configuration, predict, problems)
        if manifest is not None and configuration is not None:
            versions = _versions(manifest, configuration, problems)
            problems += _judge_predict(manifest.predict, configuration)
            problems += _judge_canary(manifest, configuration)
            for version in versions:
                problems += _judge_graph(directory / version / configuration.weights, configuration)
            if not problems:
                return cls(directory, manifest, configuration, versions, labels)
        raise LotaBotsError(
            Code.PACKAGE_INVALID, "\n  ".join([str(directory), *problems]), problems=tuple(problems)
        )


def _configuration(directory: Path, problems: list[str]) -> Configuration | None:
    try:
        text = read_bounded(directory / CONFIGURATION, MAX_CONFIGURATION_BYTES).decode("utf-8")
    except (LotaBotsError, UnicodeDecodeError) as error:
        problems.append(f"config.pbtxt: {error}")
        return None
    configuration, found = read_configuration(text)
    problems += found
    return configuration


def _judge_files(directory: Path, manifest: Manifest) -> list[str]:
    """Every file is listed, every listed file is there, and each has its digest."""
    try:
        present = file_digests(directory)
    except LotaBotsError as error:
        return [error.detail]
    present.pop(MANIFEST, None)
    problems = []
    for entry in manifest.files:
        found = present.pop(entry.path, None)
        if found is None:
            fetch = "; fetch it: scripts/fetch-models" if entry.member else ""
            problems.append(f"{entry.path} is missing{fetch}")
        elif found != entry.sha256:
            problems.append(f"{entry.path} has another SHA-256 than package.toml says: {found}")
    problems += [f"{path} is not listed under [[files]] in package.toml" for path in sorted(present)]
    return problems


def _versions(manifest: Manifest, configuration: Configuration, problems: list[str]) -> tuple[str, ...]:
    """The versions of the package: its directories named by a number. Each has its weights."""
    parts = {PurePosixPath(entry.path).parts[0] for entry in manifest.files if "/" in entry.path}
    numbers = {name for name in parts if name.isdigit()}
    if not 1 <= len(numbers) <= MAX_VERSIONS or any(not _VERSION.fullmatch(name) for name in numbers):
        problems.append(
            f"a package holds 1 to {MAX_VERSIONS} versions, each in a directory named by a number, as in 1/"
        )
        return ()
    served, wrong = served_versions(configuration, [int(name) for name in numbers])
    if wrong:
        problems.append(f"config.pbtxt: {wrong}")
    listed = {entry.path for entry in manifest.files}
    for number in sorted(numbers, key=int):
        weights = f"{number}/{configuration.weights}"
        if weights not in listed:
            problems.append(f"{weights} is not listed under [[files]] in package.toml")
    return tuple(str(version) for version in served)


def _labels(
    directory: Path, configuration: Configuration, predict: PredictSpec | None, problems: list[str]
) -> tuple[str, ...]:
    """The labels of the output that `predict` reads, else of the first output that has some."""
    chosen: tuple[str, ...] = ()
    for output in configuration.outputs:
        name = configuration.label_files.get(output.name)
        if name is None:
            continue
        try:
            text = read_bounded(directory / name, MAX_LABEL_BYTES).decode("utf-8")
        except (LotaBotsError, UnicodeDecodeError) as error:
            problems.append(f"{name}: {error}")
            continue
        labels = tuple(text.splitlines())
        if not labels or not all(label.strip() for label in labels):
            problems.append(f"{name} has an empty line")
        if len(output.dims) == 1 and output.dims[0] not in (-1, len(labels)):
            problems.append(
                f"{name} has {len(labels)} labels, output {output.name!r} has {output.dims[0]} values"
            )
        if not chosen or (predict is not None and output.name == predict.output):
            chosen = labels
    return chosen


def _judge_predict(predict: PredictSpec | None, configuration: Configuration) -> list[str]:
    if predict is None:
        return []
    problems = []
    channels = 1 if predict.mode == "L" else 3
    size = (predict.height, predict.width)
    wanted = (channels, *size) if predict.layout == "NCHW" else (*size, channels)
    source = next((t for t in configuration.inputs if t.name == predict.input), None)
    target = next((t for t in configuration.outputs if t.name == predict.output), None)
    if source is None:
        problems.append(f"package.toml: predict.input {predict.input!r} is no input of config.pbtxt")
    elif source.datatype != "FP32" or not _fits(source, wanted):
        problems.append(
            f"package.toml: predict makes FP32 {list(wanted)}, which {predict.input!r} does not take"
        )
    if len(configuration.inputs) > 1:
        problems.append("package.toml: predict feeds one input, and the model has more")
    if configuration.sequences or configuration.decoupled:
        problems.append("package.toml: predict asks once and gets one answer: no sequences, no decoupled")
    if target is None:
        problems.append(f"package.toml: predict.output {predict.output!r} is no output of config.pbtxt")
    elif target.datatype != "FP32" or len(target.dims) != 1:
        problems.append(f"package.toml: predict needs FP32 scores in one dimension from {predict.output!r}")
    elif predict.output not in configuration.label_files:
        problems.append(f"config.pbtxt: output {predict.output!r} needs label_filename for predict")
    return problems


def _judge_canary(manifest: Manifest, configuration: Configuration) -> list[str]:
    inputs = {tensor.name for tensor in configuration.inputs}
    outputs = {tensor.name for tensor in configuration.outputs if tensor.datatype == "FP32"}
    return [
        f"package.toml: canary.sizes.{name} is no input of config.pbtxt"
        for name in manifest.canary
        if name not in inputs
    ] + [
        f"package.toml: canary.expect.{name} is no FP32 output of config.pbtxt"
        for name in manifest.expected
        if name not in outputs
    ]


def _fits(tensor: TensorFact, wanted: tuple[int, ...]) -> bool:
    return len(tensor.dims) == len(wanted) and all(
        size in (-1, other) for size, other in zip(tensor.dims, wanted, strict=True)
    )


def _judge_graph(weights: Path, configuration: Configuration) -> list[str]:
    if weights.suffix != ".onnx" or not weights.is_file():
        return []  # another format, or told already
    try:
        with weights.open("rb") as file:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        problems = compare(configuration, read_graph(mapped))
    except ValueError as error:
        problems = [f"it is no ONNX model: {error}"]
    return [f"{weights.parent.name}/{weights.name}: {problem}" for problem in problems]
