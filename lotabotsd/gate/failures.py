"""How failures of Triton and of the gate are told, to the client and to the ledger. Pure."""

from __future__ import annotations

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.usage.records import Outcome

from .admission import Refused

_KNOWN_TEXTS: tuple[tuple[bytes, Code, str], ...] = (
    (b"unknown model", Code.MODEL_NOT_READY, "it is not loaded"),
    (b"not ready", Code.MODEL_NOT_READY, "it is being loaded"),
    (b"is not found", Code.MODEL_NOT_READY, "it is not loaded"),
    (b"maximum queue size", Code.OVERLOADED, "the model's queue is full"),
    (b"timeout expired", Code.RUNTIME_TIMEOUT, "it waited too long in the model's queue"),
    (b"unexpected shape", Code.TENSOR_INVALID, "a tensor has another shape than the model expects"),
    (b"unable to parse 'data'", Code.TENSOR_INVALID, "an input's data do not fit its shape and datatype"),
    (b"exactly 1 response", Code.STREAM_NEEDED, "it gave none, or several"),
    (b"start flag", Code.SEQUENCE_INVALID, "this sequence is not open: it was not started, or has ended"),
    (b"correlation id", Code.SEQUENCE_INVALID, "it keeps state, and there is no sequence_id"),
    (b"classification", Code.TENSOR_INVALID, "the classification count does not fit the output"),
)


def error_of(status: int, text: bytes, model: str) -> tuple[Code, str]:
    """The catalogue's code for an error answer of Triton, with a detail that leaks nothing."""
    lowered = text.lower()
    for known, code, detail in _KNOWN_TEXTS:
        if known in lowered:
            return code, f"{model}: {detail}"
    if status in (400, 422):
        return Code.TENSOR_INVALID, f"{model} refused the input"
    if status == 503:
        return Code.OVERLOADED, model
    return Code.MODEL_FAILED, model


def refused_of(error: LotaBotsError) -> Refused:
    """A failure behind step 5 as what the client and the ledger get; none of them is charged."""
    retry = 1 if error.http_status == 503 else None
    return Refused(error.code, error.detail, _outcome_of(error.code), retry, dict(error.extra), error.hint)


def _outcome_of(code: Code) -> Outcome:
    if code in (Code.RUNTIME_UNAVAILABLE, Code.RUNTIME_TIMEOUT):
        return Outcome.RUNTIME_FAILED
    if code in (Code.OVERLOADED, Code.JOURNAL_UNAVAILABLE):
        return Outcome.REFUSED_UNREADY
    return Outcome.MODEL_ERROR
