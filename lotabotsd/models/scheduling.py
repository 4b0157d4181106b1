"""Judge how a config.pbtxt schedules requests: batches, priorities, sequences, states, streams. Pure.

Field names and meanings are those of Triton's model_config.proto and of "Stateful Models" in its manual.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from .facts import ELEMENT_BYTES

MAX_BATCH = 1_024
MAX_QUEUE_DELAY_MICROSECONDS = 1_000_000
MAX_PRIORITY_LEVELS = 16
MAX_CANDIDATE_SEQUENCES = 4_096
MAX_IDLE_MICROSECONDS = 600_000_000  # a forgotten sequence holds its place for so long
MAX_CONTROLS = 16
MAX_STATES = 16
MAX_STATE_BYTES = 64 << 20  # of one state of one sequence, free dims taken as 1
_TENSOR_NAME = re.compile(r"[A-Za-z0-9_./:-]{1,128}")
_PLAIN_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_SWITCHES = ("int32_false_true", "fp32_false_true", "bool_false_true")
_ID_TYPES = ("TYPE_UINT64", "TYPE_INT64", "TYPE_STRING")  # the gate's ids have 63 bits: no 32-bit ones


def judge_scheduling(message: Any) -> Iterator[str]:
    """Everything that is wrong with the scheduling of a parsed ModelConfig."""
    size = message.max_batch_size
    if not 0 <= size <= MAX_BATCH:
        yield f"max_batch_size must be from 0 to {MAX_BATCH}, not {size}"
    if message.HasField("dynamic_batching"):
        if size < 1:
            yield "dynamic_batching needs max_batch_size of at least 1"
        yield from _delays("dynamic_batching", message.dynamic_batching, size)
        yield from _priorities(message.dynamic_batching)
    if message.HasField("sequence_batching"):
        yield from _sequences(message)
    if message.HasField("ensemble_scheduling"):
        yield "ensemble_scheduling is not supported by this version"


def implied_inputs(message: Any) -> frozenset[str]:
    """The inputs that the scheduler fills, not the client: controls and states of sequences."""
    batching = message.sequence_batching
    return frozenset([c.name for c in batching.control_input] + [s.input_name for s in batching.state])


def _delays(owner: str, batching: Any, size: int) -> Iterator[str]:
    too_large = [number for number in batching.preferred_batch_size if not 1 <= number <= max(size, 0)]
    if too_large:
        yield f"{owner}: preferred_batch_size {too_large[0]} must be from 1 to max_batch_size"
    yield from _delay(owner, batching)


def _delay(owner: str, batching: Any) -> Iterator[str]:
    if batching.max_queue_delay_microseconds > MAX_QUEUE_DELAY_MICROSECONDS:
        yield f"{owner}: max_queue_delay_microseconds must be at most {MAX_QUEUE_DELAY_MICROSECONDS}"


def _priorities(batching: Any) -> Iterator[str]:
    levels = batching.priority_levels
    if levels > MAX_PRIORITY_LEVELS:
        yield f"priority_levels must be at most {MAX_PRIORITY_LEVELS}, not {levels}"
    elif levels and not 1 <= batching.default_priority_level <= levels:
        yield f"default_priority_level must be from 1 to priority_levels ({levels})"
    elif not levels and batching.default_priority_level:
        yield "default_priority_level needs priority_levels"
    beyond = sorted(level for level in batching.priority_queue_policy if not 1 <= level <= levels)
    if beyond:
        yield f"priority_queue_policy {beyond[0]} must be from 1 to priority_levels ({levels})"


def _sequences(message: Any) -> Iterator[str]:
    batching = message.sequence_batching
    if batching.max_sequence_idle_microseconds > MAX_IDLE_MICROSECONDS:
        yield f"max_sequence_idle_microseconds must be at most {MAX_IDLE_MICROSECONDS}"
    if getattr(batching, "iterative_sequence", False):
        yield "iterative_sequence is not supported"
    if batching.HasField("direct"):
        yield from _delay("direct", batching.direct)
        if not 0 <= batching.direct.minimum_slot_utilization <= 1:
            yield "minimum_slot_utilization must be from 0 to 1"
    if batching.HasField("oldest"):
        yield from _delays("oldest", batching.oldest, message.max_batch_size)
        if not 1 <= batching.oldest.max_candidate_sequences <= MAX_CANDIDATE_SEQUENCES:
            yield f"max_candidate_sequences must be from 1 to {MAX_CANDIDATE_SEQUENCES}"
    yield from _controls(batching)
    yield from _states(batching)
    names = [
        *(tensor.name for tensor in message.input),
        *(control.name for control in batching.control_input),
        *(state.input_name for state in batching.state),
    ]
    for name in _twice(names):
        yield f"input {name!r} is also a control or a state of sequence_batching"


def _controls(batching: Any) -> Iterator[str]:
    if len(batching.control_input) > MAX_CONTROLS:
        yield f"there must be at most {MAX_CONTROLS} of control_input"
        return
    kinds = []
    for tensor in batching.control_input:
        if not _TENSOR_NAME.fullmatch(tensor.name):
            yield f"control_input name {tensor.name!r} must be 1 to 128 of A-Z a-z 0-9 _ . / : -"
        if len(tensor.control) != 1:
            yield f"control_input {tensor.name!r} must have one control, not {len(tensor.control)}"
        for control in tensor.control:
            kinds.append(control.Kind.Name(control.kind))
            yield from _control(tensor.name, kinds[-1], control)
    for kind in _twice(kinds):
        yield f"control_input: {kind} stands there twice"


def _control(name: str, kind: str, control: Any) -> Iterator[str]:
    given = [len(getattr(control, switch)) for switch in _SWITCHES if len(getattr(control, switch))]
    if kind != "CONTROL_SEQUENCE_CORRID":
        if given != [2]:
            yield f"control_input {name!r} needs two values of one of {', '.join(_SWITCHES)}"
        return
    from tritonclient.grpc import model_config_pb2

    datatype = model_config_pb2.DataType.Name(control.data_type)
    if given or datatype not in _ID_TYPES:
        yield f"control_input {name!r} needs a data_type of {', '.join(_ID_TYPES)} and nothing else"


def _states(batching: Any) -> Iterator[str]:
    if len(batching.state) > MAX_STATES:
        yield f"there must be at most {MAX_STATES} of state"
        return
    for state in batching.state:
        name = state.input_name
        if not (_TENSOR_NAME.fullmatch(name) and _TENSOR_NAME.fullmatch(state.output_name)):
            yield f"state {name!r} needs input_name and output_name of A-Z a-z 0-9 _ . / : -"
        yield from _state_tensor(f"state {name!r}", state)
        for initial in state.initial_state:
            yield from _state_tensor(f"initial_state of {name!r}", initial)
            if initial.data_file and not _PLAIN_FILE.fullmatch(initial.data_file):
                yield f"initial_state of {name!r}: data_file must be a plain file name inside the package"
    for output in _twice([state.output_name for state in batching.state]):
        yield f"state output {output!r} stands there twice"


def _state_tensor(owner: str, tensor: Any) -> Iterator[str]:
    from tritonclient.grpc import model_config_pb2

    datatype = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    if datatype == "INVALID":
        yield f"{owner} has no data_type"
    if not tensor.dims or any(size != -1 and not 1 <= size <= 1 << 31 for size in tensor.dims):
        yield f"{owner} needs dims, each -1 or at least 1"
    elif math.prod(max(size, 1) for size in tensor.dims) * ELEMENT_BYTES.get(datatype, 1) > MAX_STATE_BYTES:
        yield f"{owner} has more than {MAX_STATE_BYTES} bytes"


def _twice(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
