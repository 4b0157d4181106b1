"""Scheduling in config.pbtxt: priorities, sequences, states and streams, and what of them is refused."""

from __future__ import annotations

import pytest

from lotabotsd.models.configuration import judge_configuration, read_configuration

HEAD = """
name: "tiny"
backend: "python"
max_batch_size: 8
input [{ name: "value" data_type: TYPE_INT32 dims: [ 1 ] }]
output [{ name: "sum" data_type: TYPE_INT32 dims: [ 1 ] }]
"""
SEQUENCES = """
sequence_batching {
  max_sequence_idle_microseconds: 5000000
  oldest { max_candidate_sequences: 4 preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 100 }
  control_input [
    { name: "start" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },
    { name: "end" control [ { kind: CONTROL_SEQUENCE_END fp32_false_true: [ 0, 1 ] } ] },
    { name: "ready" control [ { kind: CONTROL_SEQUENCE_READY bool_false_true: [ false, true ] } ] },
    { name: "id" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
  ]
  state [
    {
      input_name: "state_in" output_name: "state_out" data_type: TYPE_FP32 dims: [ 2, 128 ]
      initial_state [ { name: "zero" data_type: TYPE_FP32 dims: [ 2, 128 ] zero_data: true } ]
    }
  ]
}
"""
PRIORITIES = """
dynamic_batching {
  priority_levels: 3 default_priority_level: 2
  priority_queue_policy { key: 3 value { max_queue_size: 4 } }
}
"""


def judge(text: str) -> list[str]:
    configuration, problems = read_configuration(text)
    assert problems == []
    assert configuration is not None
    return judge_configuration(configuration, "tiny", gpus=0, allow_code=True)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + SEQUENCES,
        HEAD + "sequence_batching { }",
        HEAD + "sequence_batching { direct { minimum_slot_utilization: 0.5 } }",
        HEAD + PRIORITIES,
        HEAD + "model_transaction_policy { decoupled: true }",
        HEAD + SEQUENCES + "model_transaction_policy { decoupled: true }",
    ],
    ids=["sequences", "bare sequences", "direct", "priorities", "decoupled", "decoupled sequences"],
)
def test_what_is_right_has_no_problem(text: str) -> None:
    assert judge(text) == []


def test_what_the_scheduler_fills_is_known() -> None:
    configuration, _ = read_configuration(HEAD + SEQUENCES)
    assert configuration is not None
    assert configuration.implied == {"start", "end", "ready", "id", "state_in"}
    assert (configuration.sequences, configuration.decoupled) == (True, False)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("priority_levels: 3", "priority_levels: 17", "at most 16, not 17"),
        ("default_priority_level: 2", "default_priority_level: 4", "from 1 to priority_levels (3)"),
        ("default_priority_level: 2", "", "from 1 to priority_levels (3)"),
        ("priority_levels: 3", "", "default_priority_level needs priority_levels"),
        ("key: 3", "key: 4", "priority_queue_policy 4 must be"),
        ("key: 3", "key: 0", "priority_queue_policy 0 must be"),
    ],
)
def test_priorities_stay_within_their_levels(before: str, after: str, told: str) -> None:
    assert before in PRIORITIES
    problems = judge(HEAD + PRIORITIES.replace(before, after))
    assert any(told in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("5000000", "600000001", "max_sequence_idle_microseconds must be at most 600000000"),
        ("sequences: 4", "sequences: 0", "max_candidate_sequences must be from 1"),
        ("sequences: 4", "sequences: 4097", "max_candidate_sequences must be from 1"),
        ("[ 2 ]", "[ 9 ]", "oldest: preferred_batch_size 9"),
        ("microseconds: 100", "microseconds: 1000001", "oldest: max_queue_delay_microseconds"),
        ('name: "start"', 'name: "a b"', "control_input name 'a b'"),
        ('name: "start"', 'name: "value"', "'value' is also a control or a state"),
        ('name: "start"', 'name: "end"', "'end' is also a control or a state"),
        ("int32_false_true: [ 0, 1 ]", "", "'start' needs two values of one of"),
        ("int32_false_true: [ 0, 1 ]", "int32_false_true: [ 0 ]", "'start' needs two values"),
        (
            "int32_false_true: [ 0, 1 ]",
            "int32_false_true: [ 0, 1 ] fp32_false_true: [ 0, 1 ]",
            "'start' needs",
        ),
        ("CONTROL_SEQUENCE_END", "CONTROL_SEQUENCE_START", "CONTROL_SEQUENCE_START stands there twice"),
        ("TYPE_UINT64", "TYPE_INT32", "'id' needs a data_type of"),
        ("data_type: TYPE_UINT64", "data_type: TYPE_UINT64 int32_false_true: [ 0, 1 ]", "'id' needs"),
        ('"start" control [', '"start" control [ { kind: CONTROL_SEQUENCE_READY },', "must have one control"),
        ('input_name: "state_in"', 'input_name: ""', "needs input_name and output_name"),
        ('input_name: "state_in"', 'input_name: "value"', "'value' is also a control or a state"),
        (
            "data_type: TYPE_FP32 dims: [ 2, 128 ]\n",
            "dims: [ 2, 128 ]\n",
            "state 'state_in' has no data_type",
        ),
        ("dims: [ 2, 128 ]\n", "dims: [ 0 ]\n", "state 'state_in' needs dims"),
        ("dims: [ 2, 128 ]\n", "dims: [ 4096, 4097 ]\n", "state 'state_in' has more than"),
        ("dims: [ 2, 128 ] zero", "dims: [ ] zero", "initial_state of 'state_in' needs dims"),
        ("zero_data: true", 'data_file: "../secret"', "data_file must be a plain file name"),
    ],
)
def test_each_rule_of_sequences_names_what_it_refuses(before: str, after: str, told: str) -> None:
    assert before in SEQUENCES
    problems = judge(HEAD + SEQUENCES.replace(before, after, 1))
    assert any(told in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("inside", "told"),
    [
        ("direct { minimum_slot_utilization: 1.5 }", "minimum_slot_utilization must be from 0 to 1"),
        ("direct { max_queue_delay_microseconds: 1000001 }", "direct: max_queue_delay_microseconds"),
        ("iterative_sequence: true", "iterative_sequence is not supported"),
        ("control_input { }" * 17, "at most 16 of control_input"),
        ("state { }" * 17, "at most 16 of state"),
        ('state { input_name: "a" output_name: "o" data_type: TYPE_INT8 dims: 1 }'
         'state { input_name: "b" output_name: "o" data_type: TYPE_INT8 dims: 1 }', "'o' stands there twice"),
    ],
)  # fmt: skip
def test_each_bound_of_sequences_holds(inside: str, told: str) -> None:
    problems = judge(f"{HEAD}sequence_batching {{ {inside} }}")
    assert any(told in problem for problem in problems), problems


def test_one_model_has_one_scheduler() -> None:
    _, problems = read_configuration(HEAD + SEQUENCES + PRIORITIES)
    assert len(problems) == 1
