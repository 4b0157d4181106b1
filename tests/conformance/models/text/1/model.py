"""Gives texts back: as they came, in capitals where they are UTF-8, and their lengths in bytes."""

from __future__ import annotations

from typing import Any

import numpy
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the model."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        texts = pb_utils.get_input_tensor_by_name(request, "texts").as_numpy()
        capitals = [_capitals(text) for text in texts.flat]
        lengths = numpy.array([len(text) for text in texts.flat], dtype=numpy.int32)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("same", texts),
                pb_utils.Tensor("capitals", numpy.array(capitals, dtype=object).reshape(texts.shape)),
                pb_utils.Tensor("lengths", lengths.reshape(texts.shape)),
            ]
        )


def _capitals(text: bytes) -> bytes:
    try:
        return text.decode("utf-8").upper().encode("utf-8")
    except UnicodeDecodeError:
        return text
