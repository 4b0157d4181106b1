"""Serves an ONNX graph from Triton's Python backend: requests that wait together run as one batch.

Copied beside the weights by `lotabotsd.models.prepare`; runs in the runtime's own virtual environment
(numpy, onnxruntime), in a process per instance. config.pbtxt passes `weights` (file name) and
`intra_op_threads` as parameters.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import triton_python_backend_utils as pb_utils

Feed = dict[str, Any]  # input name → array
Answer = list[Any] | str  # output arrays, or the text of a failure
# With numpy 2 every element of an input reads as its first one, and an output made from an array comes back
# empty (backend 2.51, tried); through DLPack both are right.
_THROUGH_DLPACK = int(numpy.__version__.split(".")[0]) >= 2


class TritonPythonModel:
    """One instance of one version of one model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph. Whatever is raised here fails the load, and Triton reports its text."""
        if _THROUGH_DLPACK:
            sys.unraisablehook = _ignore_known
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        weights = Path(args["model_repository"]) / args["model_version"] / parameters["weights"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters["intra_op_threads"])
        options.inter_op_num_threads = 1
        # An idle model must not spin on a core that another one needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(weights), sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [
            (tensor["name"], pb_utils.triton_string_to_numpy(tensor["data_type"]))
            for tensor in config["output"]
        ]
        self._batched = config["max_batch_size"] > 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request, in order; an error belongs to the request that caused it."""
        inputs = [
            {name: _array(pb_utils.get_input_tensor_by_name(request, name)) for name in self._inputs}
            for request in requests
        ]
        return [self._response(answer) for answer in self._answers(inputs)]

    def finalize(self) -> None:
        """Let the graph go."""
        self._session = None

    def _answers(self, inputs: list[Feed]) -> list[Answer]:
        """Per request its output arrays, or the text of its failure."""
        if self._batched and len(inputs) > 1:
            together = self._run(inputs)
            if not isinstance(together, str):
                ends = numpy.cumsum([len(feed[self._inputs[0]]) for feed in inputs])[:-1]
                parts = [numpy.split(output, ends) for output in together]
                return [list(answer) for answer in zip(*parts, strict=True)]
            # Somebody's rows do not fit: run each request alone, so that only the culprit fails.
        return [self._run([feed]) for feed in inputs]

    def _run(self, feeds: list[Feed]) -> Answer:
        """The output arrays of some requests as one batch."""
        try:
            feed = feeds[0]
            if len(feeds) > 1:
                feed = {name: numpy.concatenate([one[name] for one in feeds]) for name in self._inputs}
            outputs = self._session.run([name for name, _ in self._outputs], feed)
            return [
                numpy.ascontiguousarray(output, dtype=datatype)
                for output, (_, datatype) in zip(outputs, self._outputs, strict=True)
            ]
        except Exception as error:  # noqa: BLE001 - onnxruntime's and numpy's errors share no narrower base
            return f"{type(error).__name__}: {error}"[:500]

    def _response(self, answer: Answer) -> Any:
        if isinstance(answer, str):
            return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(answer))
        return pb_utils.InferenceResponse(
            output_tensors=[
                pb_utils.Tensor.from_dlpack(name, array) if _THROUGH_DLPACK else pb_utils.Tensor(name, array)
                for (name, _), array in zip(self._outputs, answer, strict=True)
            ]
        )


def _array(tensor: Any) -> Any:
    """What a request brought, as an array."""
    return numpy.from_dlpack(tensor) if _THROUGH_DLPACK else tensor.as_numpy()


def _ignore_known(unraisable: Any) -> None:
    """Numpy complains of the name that the backend gives a used capsule: once per output, for nothing."""
    if "PyCapsule_GetPointer called with incorrect name" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)
