"""Rows times a matrix on the GPU, with PyTorch or CuPy, whichever is there; with numpy where neither is.

scripts/gpu-check puts it in the place of the graph's code in the live repository of its own appliance.
Runs in the runtime's virtual environment; the first line that it writes says what it computes with.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from typing import Any

import numpy
import triton_python_backend_utils as pb_utils

SIDE = 1_024
# See lotabotsd/models/templates/model.py: with numpy 2 only DLPack brings whole tensors.
_THROUGH_DLPACK = int(numpy.__version__.split(".")[0]) >= 2


def _matrix() -> Any:
    row, column = numpy.indices((SIDE, SIDE))
    return (((row * 31 + column * 17) % 13 - 6) / 512).astype(numpy.float32)


class _Torch:
    """PyTorch on its first CUDA device, in full float32."""

    def __init__(self) -> None:
        self._torch = importlib.import_module("torch")
        if not self._torch.cuda.is_available():
            raise RuntimeError("PyTorch sees no CUDA device")
        self._torch.backends.cuda.matmul.allow_tf32 = False
        self._weights = self._torch.from_numpy(_matrix()).cuda()
        self.words = f"torch {self._torch.__version__} on {self._torch.cuda.get_device_name(0)}"

    def __call__(self, rows: Any) -> Any:
        return (self._torch.from_numpy(rows).cuda() @ self._weights).cpu().numpy()


class _Cupy:
    """CuPy on its first CUDA device."""

    def __init__(self) -> None:
        os.environ.setdefault("CUPY_CACHE_DIR", tempfile.mkdtemp(prefix="gpu-check-"))
        self._cupy = importlib.import_module("cupy")
        name = self._cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        self._weights = self._cupy.asarray(_matrix())
        self.words = f"cupy {self._cupy.__version__} on {name}"

    def __call__(self, rows: Any) -> Any:
        return self._cupy.asnumpy(self._cupy.asarray(rows) @ self._weights)


class _Numpy:
    """No GPU: the same sums on the processor."""

    def __init__(self, why: str) -> None:
        self._weights = _matrix()
        self.words = f"numpy {numpy.__version__} on the processor ({why})"

    def __call__(self, rows: Any) -> Any:
        return rows @ self._weights


def _compute() -> Any:
    reasons = []
    for kind in (_Torch, _Cupy):
        try:
            return kind()
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{kind.__name__.strip('_').lower()}: {error}")
    return _Numpy("; ".join(reasons))


class TritonPythonModel:
    """The one instance of the model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Put the matrix where it is multiplied."""
        self._multiply = _compute()
        self._multiply(numpy.zeros((1, SIDE), numpy.float32))
        print(f"gpu-check computes with {self._multiply.words}", flush=True)

    def execute(self, requests: list[Any]) -> list[Any]:
        """All requests that came together as one batch."""
        tensors = [pb_utils.get_input_tensor_by_name(request, "X") for request in requests]
        rows = [numpy.from_dlpack(t) if _THROUGH_DLPACK else t.as_numpy() for t in tensors]
        together = self._multiply(numpy.ascontiguousarray(numpy.concatenate(rows)))
        parts = numpy.split(together, numpy.cumsum([len(each) for each in rows])[:-1])
        return [pb_utils.InferenceResponse(output_tensors=[_output(part)]) for part in parts]


def _output(part: Any) -> Any:
    array = numpy.ascontiguousarray(part, dtype=numpy.float32)
    return pb_utils.Tensor.from_dlpack("Y", array) if _THROUGH_DLPACK else pb_utils.Tensor("Y", array)
