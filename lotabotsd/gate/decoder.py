"""One image decoder: a process of its own with a memory limit, no keys, no journal and no network.

It reads jobs from standard input and writes tensors to standard output:
    job    = u32 length of the specification, u32 length of the image, specification (JSON), image
    answer = u8 status (0 tensor, 1 refused), u32 length, tensor bytes (float32, C order) or a text
A hostile image costs at most this process; its parent ends it at a deadline and starts another.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import struct
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

from lotabotsd.models.facts import PredictSpec

if TYPE_CHECKING:
    from PIL import Image

JOB = struct.Struct("<II")
ANSWER = struct.Struct("<BI")
TENSOR, REFUSED = 0, 1
MAX_SPECIFICATION_BYTES = 64 * 1024
MEMORY_BYTES = 2 << 30
FORMATS = ("PNG", "JPEG")


class ImageRefusedError(Exception):
    """The image cannot be used; the text says why and may be shown to the client."""


def decode(image_bytes: bytes, spec: PredictSpec, max_pixels: int) -> bytes:
    """The input tensor (without batch dimension) of one PNG or JPEG: float32 in the layout of `spec`.

    Raises ImageRefusedError.
    """
    from PIL import Image, ImageFile

    Image.MAX_IMAGE_PIXELS = None  # our own cap, before a pixel is decoded
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        image: Image.Image = Image.open(io.BytesIO(image_bytes), formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise ImageRefusedError(f"it has {width}x{height} pixels, the limit is {max_pixels}")
        if image.format == "JPEG":
            image.draft("L" if spec.mode == "L" else "RGB", _wanted_size(width, height, spec))
        image = _flat(image)
        return _tensor(_resized(image, spec), spec)
    except ImageRefusedError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ImageRefusedError("it is damaged, or no PNG or JPEG") from error
    except MemoryError as error:
        raise ImageRefusedError("it needs too much memory") from error


def _flat(image: Image.Image) -> Image.Image:
    """Three channels; what is transparent becomes white, as on a page."""
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image).convert("RGB")
    return image.convert("RGB")


def _wanted_size(width: int, height: int, spec: PredictSpec) -> tuple[int, int]:
    if spec.resize == "stretch":
        return spec.width, spec.height
    factor = spec.resize_short / min(width, height)
    return max(spec.width, int(width * factor)), max(spec.height, int(height * factor))


def _resized(image: Image.Image, spec: PredictSpec) -> Image.Image:
    from PIL import Image

    image = image.resize(_wanted_size(*image.size, spec), Image.Resampling.BILINEAR)
    if spec.resize == "stretch":
        return image
    left, top = (image.width - spec.width) // 2, (image.height - spec.height) // 2
    return image.crop((left, top, left + spec.width, top + spec.height))


def _tensor(image: Image.Image, spec: PredictSpec) -> bytes:
    import numpy as np

    if spec.mode == "L":
        pixels = np.asarray(image.convert("L"), dtype=np.float32)[:, :, None]
    else:
        pixels = np.asarray(image, dtype=np.float32)
        if spec.mode == "BGR":
            pixels = pixels[:, :, ::-1]
    channels = pixels.shape[2]
    mean = np.asarray(spec.mean[:channels], dtype=np.float32)
    std = np.asarray(spec.std[:channels], dtype=np.float32)
    values = (pixels * np.float32(spec.scale) - mean) / std
    if spec.layout == "NCHW":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values, dtype=np.float32).tobytes()


def serve(jobs: BinaryIO, answers: BinaryIO) -> None:
    """Answer jobs until standard input ends."""
    while True:
        head = jobs.read(JOB.size)
        if len(head) < JOB.size:
            return
        specification_length, image_length = JOB.unpack(head)
        if specification_length > MAX_SPECIFICATION_BYTES:
            return
        job: dict[str, Any] = json.loads(jobs.read(specification_length))
        image = jobs.read(image_length)
        try:
            status, answer = TENSOR, decode(image, PredictSpec.from_dict(job["predict"]), job["max_pixels"])
        except ImageRefusedError as error:
            status, answer = REFUSED, str(error).encode()
        answers.write(ANSWER.pack(status, len(answer)) + answer)
        answers.flush()


def main() -> int:
    """Limit this process, then serve."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(PermissionError):  # under systemd nobody may change priorities
        os.nice(5)  # other keys' small requests come first
    import numpy  # noqa: F401  # loaded before the first job, so that it does not count as its time
    from PIL import JpegImagePlugin, PngImagePlugin  # noqa: F401  # likewise

    serve(sys.stdin.buffer, sys.stdout.buffer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
