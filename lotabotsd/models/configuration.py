"""Judge a config.pbtxt: parsed as Triton does, then by our own rules; write the embedded variant. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .facts import TensorFact
from .scheduling import implied_inputs, judge_scheduling

MAX_INSTANCES = 64
MAX_TENSORS = 64
_TENSOR_NAME = re.compile(r"[A-Za-z0-9_./:-]{1,128}")
_PLAIN_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_BACKENDS = ("onnxruntime", "tensorrt")


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a config.pbtxt says, as far as others need it."""

    name: str
    backend: str
    max_batch_size: int
    inputs: tuple[TensorFact, ...]
    outputs: tuple[TensorFact, ...]
    label_files: dict[str, str]  # output name → file name
    weights: str  # the file inside the version's directory
    message: Any  # the parsed ModelConfig, for writing variants
    decoupled: bool = False  # any number of answers per request: streams only
    sequences: bool = False  # keeps state between the requests of a sequence
    priority_levels: int = 0
    implied: frozenset[str] = frozenset()  # inputs that the scheduler fills


def read_configuration(text: str) -> tuple[Configuration | None, list[str]]:
    """Parse config.pbtxt without judging it; a problem names line and column, as Triton never does."""
    # Imported here: it brings gRPC with it, and the gate must not load that for the rest of this room.
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    message = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        return None, [f"config.pbtxt:{error}"]
    backend = message.backend or _platform_backend(message.platform)
    return (
        Configuration(
            name=message.name,
            backend=backend,
            max_batch_size=message.max_batch_size,
            inputs=tuple(_tensor(tensor) for tensor in message.input),
            outputs=tuple(_tensor(tensor) for tensor in message.output),
            label_files={t.name: t.label_filename for t in message.output if t.label_filename},
            weights=message.default_model_filename or _default_weights(backend),
            message=message,
            decoupled=message.model_transaction_policy.decoupled,
            sequences=message.HasField("sequence_batching"),
            priority_levels=message.dynamic_batching.priority_levels,
            implied=implied_inputs(message),
        ),
        [],
    )


def judge_configuration(
    configuration: Configuration, directory_name: str, *, gpus: int, allow_code: bool
) -> list[str]:
    """Everything that is wrong with a parsed configuration, in words an administrator can act on.

    `gpus` is how many this machine has; `allow_code` lets the package bring its own Python backend.
    """
    rules = (
        _identity(configuration, directory_name, allow_code),
        _tensors("input", configuration.message.input),
        _tensors("output", configuration.message.output),
        judge_scheduling(configuration.message),
        _instances(configuration.message, gpus),
        _dangers(configuration.message),
    )
    return [f"config.pbtxt: {problem}" for rule in rules for problem in rule]


def served_versions(configuration: Configuration, present: list[int]) -> tuple[list[int], str]:
    """Which of the versions `present` Triton serves, ascending, and what is wrong, or nothing.

    Triton's own default is the highest alone; a package that holds more must say what it wants.
    """
    policy = configuration.message.version_policy
    choice = policy.WhichOneof("policy_choice")
    ordered = sorted(present)
    if choice == "specific":
        wanted = sorted(set(policy.specific.versions))
    elif choice == "all":
        wanted = ordered
    else:
        wanted = ordered[-(policy.latest.num_versions or 1) :]
    absent = [version for version in wanted if version not in present]
    if absent or not wanted:
        return wanted, f"version_policy names {absent[0] if absent else 'no version'}, which is not there"
    idle = [version for version in ordered if version not in wanted]
    if idle:
        return wanted, f"version_policy does not serve version {idle[0]}, which the package holds"
    return wanted, ""


def embedded_variant(configuration: Configuration, *, instances: int, threads: int) -> str:
    """The config.pbtxt that serves the same tensors from the Python backend on the processor."""
    from google.protobuf import text_format

    message = type(configuration.message)()
    message.CopyFrom(configuration.message)
    for name in ("platform", "optimization", "instance_group", "parameters", "runtime"):
        message.ClearField(name)
    message.backend = "python"
    message.default_model_filename = "model.py"
    group = message.instance_group.add()
    group.kind, group.count = group.KIND_CPU, instances
    message.parameters["weights"].string_value = configuration.weights
    message.parameters["intra_op_threads"].string_value = str(threads)
    text: str = text_format.MessageToString(message)
    return text


def _platform_backend(platform: str) -> str:
    return {"onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt"}.get(platform, platform)


def _default_weights(backend: str) -> str:
    return {"onnxruntime": "model.onnx", "tensorrt": "model.plan", "python": "model.py"}.get(backend, "")


def _tensor(tensor: Any) -> TensorFact:
    from tritonclient.grpc import model_config_pb2

    kinds = model_config_pb2.DataType
    name = kinds.Name(tensor.data_type).removeprefix("TYPE_")
    return TensorFact(tensor.name, "BYTES" if name == "STRING" else name, tuple(tensor.dims))


def _identity(configuration: Configuration, directory_name: str, allow_code: bool) -> Iterator[str]:
    if configuration.name != directory_name:
        yield f"the name {configuration.name!r} must be that of the directory, {directory_name!r}"
    if configuration.backend == "python" and not allow_code:
        yield "the package brings its own code (backend python), which the administrator does not allow"
    elif configuration.backend not in (*_BACKENDS, "python"):
        yield f"the backend must be one of {', '.join(_BACKENDS)}, not {configuration.backend!r}"
    if configuration.weights and not _PLAIN_FILE.fullmatch(configuration.weights):
        yield "default_model_filename must be a plain file name"


def _tensors(kind: str, tensors: Any) -> Iterator[str]:
    names = [tensor.name for tensor in tensors]
    if not 1 <= len(names) <= MAX_TENSORS:
        yield f"there must be 1 to {MAX_TENSORS} of {kind}, not {len(names)}"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{kind} {name!r} stands there twice"
    for tensor in tensors:
        if not _TENSOR_NAME.fullmatch(tensor.name):
            yield f"{kind} name {tensor.name!r} must be 1 to 128 of A-Z a-z 0-9 _ . / : -"
        if tensor.data_type == 0:
            yield f"{kind} {tensor.name!r} has no data_type"
        if not tensor.dims or any(size != -1 and not 1 <= size <= 1 << 31 for size in tensor.dims):
            yield f"{kind} {tensor.name!r} needs dims, each -1 or at least 1"
        if tensor.HasField("reshape"):
            yield f"{kind} {tensor.name!r} uses reshape, which is not supported"
        if kind == "output" and tensor.label_filename and not _PLAIN_FILE.fullmatch(tensor.label_filename):
            yield f"output {tensor.name!r}: label_filename must be a plain file name inside the package"


def _instances(message: Any, gpus: int) -> Iterator[str]:
    for group in message.instance_group:
        kind = group.Kind.Name(group.kind)
        if not 0 <= group.count <= MAX_INSTANCES:
            yield f"instance_group count must be at most {MAX_INSTANCES}"
        if kind == "KIND_GPU" and gpus == 0:
            yield "instance_group wants KIND_GPU, and this machine has no GPU: use KIND_AUTO"
        beyond = [index for index in group.gpus if not 0 <= index < gpus]
        if beyond and gpus:
            yield f"instance_group names GPU {beyond[0]}, and this machine has {gpus}"


def _dangers(message: Any) -> Iterator[str]:
    """What loads code, or lets one tenant see another's answers."""
    if message.model_operations.op_library_filename:
        yield "model_operations loads a library, which is not allowed"
    if message.HasField("model_repository_agents"):
        yield "model_repository_agents are not allowed"
    if "EXECUTION_ENV_PATH" in message.parameters:
        yield "the parameter EXECUTION_ENV_PATH is not allowed"
    if message.cc_model_filenames:
        yield "cc_model_filenames are not supported"
    if message.response_cache.enable:
        yield "response_cache would let one key see by timing what another asked"
