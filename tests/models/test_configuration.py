"""config.pbtxt: what is read, what is refused, and the embedded variant."""

from __future__ import annotations

import pytest

from lotabotsd.models.configuration import (
    Configuration,
    embedded_variant,
    judge_configuration,
    read_configuration,
)


def read(text: str) -> Configuration:
    configuration, problems = read_configuration(text)
    assert problems == []
    assert configuration is not None
    return configuration


def judge(text: str, *, gpus: int = 0, allow_code: bool = False) -> list[str]:
    return judge_configuration(read(text), "tiny", gpus=gpus, allow_code=allow_code)


def test_a_right_configuration_is_read_and_has_no_problem(configuration_text: str) -> None:
    configuration = read(configuration_text)
    assert configuration.backend == "onnxruntime"
    assert configuration.weights == "model.onnx"
    assert configuration.inputs[0].dims == (3, 4, 4)
    assert configuration.outputs[0].datatype == "FP32"
    assert configuration.label_files == {"scores": "labels.txt"}
    assert judge(configuration_text) == []


@pytest.mark.parametrize("text", ["max_batchsize: 8", "name: ", "input [{", "max_batch_size: eight", "\x00"])
def test_a_syntax_error_names_its_place(text: str) -> None:
    configuration, problems = read_configuration(f'name: "tiny"\n{text}\n')
    assert configuration is None
    assert len(problems) == 1
    assert problems[0].startswith("config.pbtxt:")
    assert problems[0].split(":")[1].strip().isdigit()


def test_a_string_tensor_is_called_bytes_as_in_the_protocol() -> None:
    text = 'name: "m" input [{ name: "t" data_type: TYPE_STRING dims: [ 1 ] }]'
    assert read(text).inputs[0].datatype == "BYTES"


def test_a_platform_names_its_backend() -> None:
    assert read('name: "m" platform: "tensorrt_plan"').backend == "tensorrt"
    assert read('name: "m" platform: "tensorrt_plan"').weights == "model.plan"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('name: "tiny"', 'name: "other"', "must be that of the directory"),
        ('"onnxruntime"', '"pytorch"', "backend must be one of onnxruntime, tensorrt"),
        ('"onnxruntime"', '"python"', "which the administrator does not allow"),
        ("max_batch_size: 8", "max_batch_size: -1", "max_batch_size must be from 0"),
        ("max_batch_size: 8", "max_batch_size: 1025", "max_batch_size must be from 0"),
        ("max_batch_size: 8", "max_batch_size: 3", "preferred_batch_size 4"),
        ('name: "pixels" ', "", "input name ''"),
        ('name: "pixels"', 'name: "a b"', "input name 'a b'"),
        ("data_type: TYPE_FP32 dims: [ 3, 4, 4 ]", "dims: [ 3, 4, 4 ]", "has no data_type"),
        ("[ 3, 4, 4 ]", "[ 3, 0, 4 ]", "needs dims"),
        ("[ 3, 4, 4 ]", "[ ]", "needs dims"),
        ("[ 3, 4, 4 ]", "[ 3, 4, -2 ]", "needs dims"),
        ("[ 3, 4, 4 ]", "[ 3, 4, 4 ] reshape { shape: [ 48 ] }", "reshape"),
        ("labels.txt", "../labels.txt", "label_filename must be a plain file name"),
        ("labels.txt", "/etc/passwd", "label_filename must be a plain file name"),
        ("max_queue_delay_microseconds: 100", "max_queue_delay_microseconds: 1000001", "at most 1000000"),
    ],
)
def test_each_rule_names_what_it_refuses(configuration_text: str, before: str, after: str, told: str) -> None:
    assert before in configuration_text
    problems = judge(configuration_text.replace(before, after))
    assert [problem for problem in problems if told in problem], problems


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('model_operations { op_library_filename: "evil.so" }', "loads a library"),
        ('model_repository_agents { agents [{ name: "checksum" }] }', "agents are not allowed"),
        ('parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/x" } }', "EXECUTION_ENV_PATH"),
        ("response_cache { enable: true }", "by timing"),
        ('cc_model_filenames { key: "8.0" value: "x.plan" }', "cc_model_filenames"),
        ('default_model_filename: "../../etc/passwd"', "plain file name"),
        ("instance_group [{ kind: KIND_GPU }]", "this machine has no GPU"),
        ("instance_group [{ count: 65 }]", "count must be at most 64"),
        ("ensemble_scheduling { step [] }", "ensemble_scheduling is not supported"),
        ('input [{ name: "pixels" data_type: TYPE_INT8 dims: [ 1 ] }]', "stands there twice"),
    ],
)
def test_what_is_dangerous_or_impossible_is_refused(configuration_text: str, line: str, told: str) -> None:
    text = configuration_text if "ensemble" not in line else configuration_text.split("dynamic_batching")[0]
    problems = judge(f"{text}\n{line}\n")
    assert len(problems) == 1
    assert told in problems[0]


def test_a_gpu_that_is_not_there_is_named(configuration_text: str) -> None:
    text = configuration_text + "instance_group [{ kind: KIND_GPU gpus: [ 0, 3 ] }]"
    assert judge(text, gpus=2) == ["config.pbtxt: instance_group names GPU 3, and this machine has 2"]
    assert judge(text, gpus=4) == []


def test_code_is_accepted_where_the_administrator_allows_it(configuration_text: str) -> None:
    assert judge(configuration_text.replace('"onnxruntime"', '"python"'), allow_code=True) == []


def test_everything_wrong_is_told_together(configuration_text: str) -> None:
    text = configuration_text.replace('name: "tiny"', 'name: "x"').replace("max_batch_size: 8", "")
    text += "response_cache { enable: true }"
    assert len(judge(text)) == 4  # name, batching without a batch, preferred size, cache


def test_no_tensors_is_a_problem() -> None:
    problems = judge('name: "tiny" backend: "onnxruntime"')
    assert len(problems) == 2


def test_the_embedded_variant_serves_the_same_tensors_from_python(configuration_text: str) -> None:
    source = (
        configuration_text + "instance_group [{ kind: KIND_GPU count: 4 }]\noptimization { priority: 1 }\n"
    )
    variant = read(embedded_variant(read(source), instances=2, threads=3))
    assert (variant.backend, variant.weights) == ("python", "model.py")
    assert (variant.inputs, variant.outputs) == (read(source).inputs, read(source).outputs)
    assert variant.max_batch_size == 8
    group = variant.message.instance_group
    assert [(group[0].count, group[0].Kind.Name(group[0].kind))] == [(2, "KIND_CPU")]
    assert variant.message.parameters["weights"].string_value == "model.onnx"
    assert variant.message.parameters["intra_op_threads"].string_value == "3"
    assert variant.message.dynamic_batching.max_queue_delay_microseconds == 100
    assert not variant.message.HasField("optimization")
