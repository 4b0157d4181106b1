"""`POST /v1/models/NAME/predict`: images in, labels out. Pure: decoding and inference happen elsewhere."""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from dataclasses import dataclass
from typing import Any

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.models.facts import ModelFacts, PredictSpec

from .bodies import parse_object

IMAGE_TYPES = (b"image/png", b"image/jpeg")
MAX_IMAGES = 64
MAX_MARKS = (
    1_024  # of JSON's own characters, none of which is in base64: what is parsed is images, and quickly
)


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """The images of one request; `single` says that one image was sent by itself."""

    images: tuple[bytes, ...]
    single: bool


def parse_predict(body: bytes, content_type: bytes, model: ModelFacts) -> PredictRequest:
    """Read a raw image or JSON `{"image": base64}` or `{"images": [base64, …]}`.

    Raises PREDICT_UNSUPPORTED, ENCODING_UNSUPPORTED, JSON_INVALID, IMAGE_INVALID or PARAMETER_REFUSED.
    """
    if model.predict is None:
        raise LotaBotsError(Code.PREDICT_UNSUPPORTED, model.name)
    kind = content_type.split(b";")[0].strip().lower()
    if kind in IMAGE_TYPES:
        if not body:
            raise LotaBotsError(Code.IMAGE_INVALID, "the body is empty")
        return PredictRequest((body,), single=True)
    if kind not in (b"application/json", b""):
        raise LotaBotsError(
            Code.ENCODING_UNSUPPORTED,
            "send application/json, image/png or image/jpeg",
            hint="set Content-Type",
        )
    if max(body.count(mark) for mark in (b"[", b"{", b",", b":")) > MAX_MARKS:
        raise LotaBotsError(Code.JSON_INVALID, 'it is more than {"image": …} or {"images": […]}')
    request = parse_object(body)
    unknown = set(request) - {"image", "images"}
    if unknown:
        raise LotaBotsError(Code.PARAMETER_REFUSED, f"{min(unknown)[:64]!r} is not known here")
    if ("image" in request) == ("images" in request):
        raise LotaBotsError(Code.JSON_INVALID, 'send either "image" or "images"')
    single = "image" in request
    texts = [request["image"]] if single else request["images"]
    most = max(1, min(MAX_IMAGES, model.max_batch_size))
    if not isinstance(texts, list) or not 1 <= len(texts) <= most:
        raise LotaBotsError(Code.JSON_INVALID, f"images must be a list of 1 to {most} base64 texts")
    return PredictRequest(tuple(_unbase64(text) for text in texts), single)


def infer_body(model: ModelFacts, tensors: list[bytes], priority: int = 0) -> tuple[bytes, int]:
    """The binary inference request for decoded images, and the length of its JSON part.

    `priority` is told to a model with levels; 0 asks for nothing in particular.
    """
    spec = _spec(model)
    fact = next(f for f in model.inputs if f.name == spec.input)
    shape = ([len(tensors)] if model.max_batch_size > 0 else []) + _dims(spec)
    size = sum(len(tensor) for tensor in tensors)
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": spec.input,
                    "datatype": fact.datatype,
                    "shape": shape,
                    "parameters": {"binary_data_size": size},
                }
            ],
            "outputs": [{"name": spec.output, "parameters": {"binary_data": True}}],
            **({"parameters": {"priority": priority}} if model.priority_levels else {}),
        },
        separators=(",", ":"),
    ).encode()
    return header + b"".join(tensors), len(header)


def predictions(
    model: ModelFacts, request: PredictRequest, answer: bytes, header_length: int
) -> dict[str, Any]:
    """What the client gets: labels with scores, best first. Raises MODEL_FAILED for an unusable answer."""
    spec = _spec(model)
    count = len(request.images)
    values = _scores(answer, header_length, spec)
    if not values or len(values) % count:
        raise LotaBotsError(Code.MODEL_FAILED, "its answer has another shape than its package says")
    width = len(values) // count
    lists = [_labelled(values[i * width : (i + 1) * width], model, spec) for i in range(count)]
    return {
        "model_name": model.name,
        "model_version": model.versions[-1] if model.versions else "",
        "predictions": lists[0] if request.single else lists,
    }


def _labelled(values: tuple[float, ...], model: ModelFacts, spec: PredictSpec) -> list[dict[str, Any]]:
    if not all(math.isfinite(value) for value in values):
        raise LotaBotsError(Code.MODEL_FAILED, "its answer holds numbers that are not finite")
    scores = softmax(values) if spec.activation == "softmax" else values
    best = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[: spec.top_k]
    return [
        {"label": model.labels[i] if i < len(model.labels) else str(i), "score": round(scores[i], 6)}
        for i in best
    ]


def softmax(values: tuple[float, ...]) -> tuple[float, ...]:
    """Scores that add up to 1; shifted by the largest value, so that nothing overflows."""
    largest = max(values)
    powers = [math.exp(value - largest) for value in values]
    total = sum(powers)
    return tuple(power / total for power in powers)


def _scores(answer: bytes, header_length: int, spec: PredictSpec) -> tuple[float, ...]:
    """The float32 values of the output tensor in a binary answer."""
    try:
        outputs = json.loads(answer[:header_length])["outputs"]
        offset = header_length
        for output in outputs:
            size = output["parameters"]["binary_data_size"]
            if output["name"] == spec.output and output["datatype"] == "FP32":
                return struct.unpack(f"<{size // 4}f", answer[offset : offset + size])
            offset += size
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise LotaBotsError(Code.MODEL_FAILED, "its answer cannot be read") from error
    raise LotaBotsError(Code.MODEL_FAILED, "its answer lacks the output that its package names")


def _unbase64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise LotaBotsError(Code.JSON_INVALID, "an image must be base64 text")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise LotaBotsError(Code.IMAGE_INVALID, "the text is not base64") from error
    if not data:
        raise LotaBotsError(Code.IMAGE_INVALID, "the image is empty")
    return data


def _dims(spec: PredictSpec) -> list[int]:
    channels = 1 if spec.mode == "L" else 3
    return (
        [channels, spec.height, spec.width] if spec.layout == "NCHW" else [spec.height, spec.width, channels]
    )


def _spec(model: ModelFacts) -> PredictSpec:
    if model.predict is None:
        raise LotaBotsError(Code.PREDICT_UNSUPPORTED, model.name)
    return model.predict
