"""Adds the number of its version."""

from __future__ import annotations

from typing import Any

import numpy
import triton_python_backend_utils as pb_utils

_THROUGH_DLPACK = int(numpy.__version__.split(".")[0]) >= 2  # ARCHITECTURE.md, "The embedded runtime"


class TritonPythonModel:
    """One instance of one version of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Learn which version this is."""
        self._version = int(args["model_version"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request by itself."""
        answers = []
        for request in requests:
            tensor = pb_utils.get_input_tensor_by_name(request, "value")
            value = numpy.from_dlpack(tensor) if _THROUGH_DLPACK else tensor.as_numpy()
            array = (value + self._version).astype(numpy.int32)
            make = pb_utils.Tensor.from_dlpack if _THROUGH_DLPACK else pb_utils.Tensor
            answers.append(pb_utils.InferenceResponse([make("value_and_version", array)]))
        return answers
