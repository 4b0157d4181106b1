"""Answers one request several times; a client can hold the answers back one by one, and let them go."""

from __future__ import annotations

import threading
from typing import Any

import numpy
import triton_python_backend_utils as pb_utils

_THROUGH_DLPACK = int(numpy.__version__.split(".")[0]) >= 2  # ARCHITECTURE.md, "The embedded runtime"
_PATIENCE_SECONDS = 20.0


class TritonPythonModel:
    """The one instance of the model: it knows which signals were given."""

    def initialize(self, args: dict[str, str]) -> None:
        """Nobody has given a signal yet."""
        self._changed = threading.Condition()
        self._signals: dict[int, int] = {}

    def execute(self, requests: list[Any]) -> None:
        """Answer now, or in a thread where a client holds the answers back."""
        for request in requests:
            sender = request.get_response_sender()
            count, fail_at, topic, signal = (
                _number(request, name) for name in ("count", "fail_at", "topic", "signal")
            )
            if signal:
                with self._changed:
                    self._signals[signal] = self._signals.get(signal, 0) + 1
                    self._changed.notify_all()
            if topic:
                work = threading.Thread(
                    target=self._answer, args=(sender, count, fail_at, topic), daemon=True
                )
                work.start()
            else:
                self._answer(sender, count, fail_at, 0)

    def _answer(self, sender: Any, count: int, fail_at: int, topic: int) -> None:
        if count < 0:
            sender.send(_failure("it cannot count below nothing"))
        for index in range(count):
            if topic and not self._let_go(topic, index):
                sender.send(_failure("nobody gave the signal"))
                break
            sender.send(
                _failure("it failed as it was told") if index and index == fail_at else _answer(index)
            )
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _let_go(self, topic: int, index: int) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: self._signals.get(topic, 0) >= index, timeout=_PATIENCE_SECONDS
            )


def _number(request: Any, name: str) -> int:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return 0
    return int((numpy.from_dlpack(tensor) if _THROUGH_DLPACK else tensor.as_numpy())[0])


def _answer(index: int) -> Any:
    array = numpy.array([index], dtype=numpy.int32)
    make = pb_utils.Tensor.from_dlpack if _THROUGH_DLPACK else pb_utils.Tensor
    return pb_utils.InferenceResponse([make("index", array)])


def _failure(text: str) -> Any:
    return pb_utils.InferenceResponse([], pb_utils.TritonError(text))
