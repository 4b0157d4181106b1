"""What everybody may know of a model: its tensors, labels, digest, and how `predict` feeds it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Bytes per element of each fixed-size KServe v2 datatype (BYTES has no fixed size).
ELEMENT_BYTES: dict[str, int] = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "FP32": 4,
    "FP64": 8,
    "BF16": 2,
}
DATATYPES = frozenset({*ELEMENT_BYTES, "BYTES"})


@dataclass(frozen=True, slots=True)
class TensorFact:
    """One input or output; `dims` leave out the batch dimension, and -1 is any size."""

    name: str
    datatype: str  # a KServe v2 datatype, as in FP32
    dims: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, the shape that `from_dict` reads."""
        return {"name": self.name, "datatype": self.datatype, "dims": list(self.dims)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> TensorFact:
        """Raises KeyError for a missing field."""
        return cls(value["name"], value["datatype"], tuple(value["dims"]))


@dataclass(frozen=True, slots=True)
class PredictSpec:
    """How an image becomes the input tensor, and the output tensor becomes labels.

    A pixel channel p (0 to 255) becomes (p * scale - mean[c]) / std[c]. `stretch` resizes to width x height
    without keeping proportions; `shortest_center_crop` resizes the shorter side to `resize_short` pixels
    (bilinear, the longer side rounded down) and cuts width x height from the centre.
    """

    input: str
    output: str
    width: int
    height: int
    mode: str = "RGB"  # the order of channels: RGB, BGR, or L
    layout: str = "NCHW"  # or NHWC
    resize: str = "stretch"  # or shortest_center_crop
    resize_short: int = 0  # pixels; 0 with stretch
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    activation: str = "softmax"  # or none: the output holds probabilities already
    top_k: int = 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, the shape that `from_dict` reads."""
        return {
            "input": self.input,
            "output": self.output,
            "width": self.width,
            "height": self.height,
            "mode": self.mode,
            "layout": self.layout,
            "resize": self.resize,
            "resize_short": self.resize_short,
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "activation": self.activation,
            "top_k": self.top_k,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> PredictSpec:
        """Raises KeyError or TypeError when a field is missing or unknown."""
        return cls(**{**value, "mean": tuple(value["mean"]), "std": tuple(value["std"])})


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A live model as the gate, the attestation token and the list of models see it."""

    name: str
    versions: tuple[str, ...]
    digest: str  # SHA-256 over the live files, hex (digest.py)
    max_batch_size: int  # 0: the model has no batch dimension
    inputs: tuple[TensorFact, ...]
    outputs: tuple[TensorFact, ...]
    labels: tuple[str, ...] = ()
    predict: PredictSpec | None = None
    ready: bool = False
    decoupled: bool = False  # any number of answers per request: generate_stream, never infer
    sequences: bool = False  # keeps state: requests need a sequence_id
    priority_levels: int = 0  # of its queue, 1 the first; 0: it knows no priorities

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, the shape that `from_dict` reads (policy.db holds it)."""
        return {
            "name": self.name,
            "versions": list(self.versions),
            "digest": self.digest,
            "max_batch_size": self.max_batch_size,
            "inputs": [tensor.to_dict() for tensor in self.inputs],
            "outputs": [tensor.to_dict() for tensor in self.outputs],
            "labels": list(self.labels),
            "predict": None if self.predict is None else self.predict.to_dict(),
            "ready": self.ready,
            "decoupled": self.decoupled,
            "sequences": self.sequences,
            "priority_levels": self.priority_levels,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ModelFacts:
        """Raises KeyError or TypeError when a field is missing."""
        predict = value["predict"]
        return cls(
            name=value["name"],
            versions=tuple(value["versions"]),
            digest=value["digest"],
            max_batch_size=value["max_batch_size"],
            inputs=tuple(TensorFact.from_dict(item) for item in value["inputs"]),
            outputs=tuple(TensorFact.from_dict(item) for item in value["outputs"]),
            labels=tuple(value["labels"]),
            predict=None if predict is None else PredictSpec.from_dict(predict),
            ready=value["ready"],
            decoupled=value["decoupled"],
            sequences=value["sequences"],
            priority_levels=value["priority_levels"],
        )
