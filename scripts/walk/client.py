"""What an in-house app would do: prepare a page as the model wants it and ask with tritonclient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tritonclient.http as triton
from PIL import Image
from telling import WrongResultError
from tritonclient.utils import InferenceServerException

MODEL = "page_orientation"
LABELS = ("0", "90", "180", "270")
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def tensor(path: Path) -> np.ndarray:
    """A page as the model takes it: shorter side 256, middle 224 × 224, blue green red, normalised, NCHW."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), dtype=np.float32)[:, :, ::-1]
    return ((pixels / 255 - _MEAN) / _DEVIATION).transpose(2, 0, 1)[np.newaxis].astype(np.float32)


def ask(address: str, api_key: str, batch: np.ndarray, *, binary: bool) -> list[str]:
    """The label of each page of a batch, from an unmodified `tritonclient.http` with one header more.

    Raises WrongResultError when the client does.
    """
    client = triton.InferenceServerClient(address)
    try:
        pages = triton.InferInput("x", list(batch.shape), "FP32")
        pages.set_data_from_numpy(batch, binary_data=binary)
        scores = triton.InferRequestedOutput("fetch_name_0", binary_data=binary)
        answer = client.infer(
            MODEL, [pages], outputs=[scores], headers={"Authorization": f"Bearer {api_key}"}
        )
        found = answer.as_numpy("fetch_name_0")
        return [LABELS[index] for index in found.argmax(axis=1)]
    except InferenceServerException as error:
        raise WrongResultError(f"tritonclient: {error}") from error
    finally:
        client.close()
