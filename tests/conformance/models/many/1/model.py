"""Gives back each tensor that came."""

from __future__ import annotations

from typing import Any

import numpy
import triton_python_backend_utils as pb_utils

_THROUGH_DLPACK = int(numpy.__version__.split(".")[0]) >= 2  # ARCHITECTURE.md, "The embedded runtime"


class TritonPythonModel:
    """One instance of the model."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request by itself."""
        return [
            pb_utils.InferenceResponse([_back(tensor) for tensor in request.inputs()]) for request in requests
        ]


def _back(tensor: Any) -> Any:
    name = tensor.name().replace("_in", "_out")
    if _THROUGH_DLPACK:
        array = numpy.from_dlpack(tensor).copy()  # what came is read-only, and such cannot be given back
        return pb_utils.Tensor.from_dlpack(name, array)
    return pb_utils.Tensor(name, tensor.as_numpy())
