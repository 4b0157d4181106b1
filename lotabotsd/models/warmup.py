"""How many requests Triton makes by itself when it loads a model, and whether a model may make more. Pure.

Triton counts a warm-up like any other request: each instance of each version runs each sample `count` times,
and a sample with a batch size is so many requests of one row (2.51, tried).
"""

from __future__ import annotations

from typing import Any

_OTHERS = b"InferenceRequest"  # how a model of the Python backend asks another one
_UNSAID_INSTANCES = 2  # the most that a backend chooses where the configuration says no number


def warmup_requests(message: Any, *, versions: int, gpus: int) -> int:
    """The most requests that loading this ModelConfig makes; 0 where it declares no warm-up."""
    samples = sum(max(1, one.batch_size) * max(1, one.count) for one in message.model_warmup)
    return int(samples * max(1, versions) * _instances(message, gpus)) if samples else 0


def _instances(message: Any, gpus: int) -> int:
    if not message.instance_group:
        return _UNSAID_INSTANCES * max(1, gpus)
    return sum(
        (group.count or _UNSAID_INSTANCES) * (len(group.gpus) or max(1, gpus))
        for group in message.instance_group
    )


def asks_others(source: bytes) -> bool:
    """Whether code may ask other models past the gate. Hiding it only makes of the difference a finding."""
    return _OTHERS in source
