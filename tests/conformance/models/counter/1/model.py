"""Adds up the values of each sequence."""

from __future__ import annotations

from typing import Any

import numpy
import triton_python_backend_utils as pb_utils

_THROUGH_DLPACK = int(numpy.__version__.split(".")[0]) >= 2  # ARCHITECTURE.md, "The embedded runtime"
_SEQUENCES_KEPT = 1_024


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """No sequence is open."""
        self._sums: dict[Any, int] = {}

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request; a place without one holds a request that is not ready."""
        return [self._answer(request) if _number(request, "ready") else _sum(0) for request in requests]

    def _answer(self, request: Any) -> Any:
        identifier = request.correlation_id()
        before = 0 if _number(request, "start") else self._sums.pop(identifier, 0)
        found = before + _number(request, "value")
        if not _number(request, "end"):
            self._sums[identifier] = found
            while len(self._sums) > _SEQUENCES_KEPT:  # those that were never ended
                self._sums.pop(next(iter(self._sums)))
        return _sum(found)


def _number(request: Any, name: str) -> int:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return int((numpy.from_dlpack(tensor) if _THROUGH_DLPACK else tensor.as_numpy()).ravel()[0])


def _sum(value: int) -> Any:
    array = numpy.array([[value]], dtype=numpy.int32)
    make = pb_utils.Tensor.from_dlpack if _THROUGH_DLPACK else pb_utils.Tensor
    return pb_utils.InferenceResponse([make("sum", array)])
