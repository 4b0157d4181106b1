"""Adds and subtracts rows of whole numbers."""

from __future__ import annotations

from typing import Any

import numpy
import triton_python_backend_utils as pb_utils

_THROUGH_DLPACK = int(numpy.__version__.split(".")[0]) >= 2  # ARCHITECTURE.md, "The embedded runtime"


class TritonPythonModel:
    """One instance of the model."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request by itself."""
        answers = []
        for request in requests:
            left, right = _array(request, "left"), _array(request, "right")
            outputs = [_tensor("sum", left + right), _tensor("difference", left - right)]
            answers.append(pb_utils.InferenceResponse(outputs))
        return answers


def _array(request: Any, name: str) -> Any:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return numpy.from_dlpack(tensor) if _THROUGH_DLPACK else tensor.as_numpy()


def _tensor(name: str, array: Any) -> Any:
    return pb_utils.Tensor.from_dlpack(name, array) if _THROUGH_DLPACK else pb_utils.Tensor(name, array)
