"""From images to labels: the rules, the decoder, and the pool of decoder processes."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.gate.decoder import ANSWER, JOB, REFUSED, TENSOR, ImageRefusedError, decode, serve
from lotabotsd.gate.decoders import Decoders
from lotabotsd.gate.predict import infer_body, parse_predict, predictions, softmax
from lotabotsd.models.facts import ModelFacts, PredictSpec, TensorFact

SPEC = PredictSpec("x", "y", 4, 2, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), top_k=2)
MODEL = ModelFacts(
    "pages",
    ("1",),
    "",
    4,
    (TensorFact("x", "FP32", (3, 2, 4)),),
    (TensorFact("y", "FP32", (3,)),),
    ("a", "b", "c"),
    SPEC,
    True,
)


def png(
    size: tuple[int, int] = (4, 2), colour: object = (255, 0, 0), mode: str = "RGB", kind: str = "PNG"
) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind)  # type: ignore[arg-type]  # a colour of the mode
    return file.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_raw_image_and_base64_are_the_same_image() -> None:
    raw = parse_predict(png(), b"image/png", MODEL)
    coded = parse_predict(
        json.dumps({"image": text(png())}).encode(), b"application/json; charset=utf-8", MODEL
    )
    assert raw == coded
    assert raw.single


def test_a_list_of_images_keeps_its_order() -> None:
    several = parse_predict(json.dumps({"images": [text(b"1"), text(b"2")]}).encode(), b"", MODEL)
    assert several.images == (b"1", b"2")
    assert not several.single


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"", b"image/png", Code.IMAGE_INVALID),
        (b"x", b"text/plain", Code.ENCODING_UNSUPPORTED),
        (b"{}", b"", Code.JSON_INVALID),
        (b'{"image": 1}', b"", Code.JSON_INVALID),
        (b'{"image": "a", "images": ["a"]}', b"", Code.JSON_INVALID),
        (b'{"images": []}', b"", Code.JSON_INVALID),
        (b'{"images": "aaaa"}', b"", Code.JSON_INVALID),
        (b'{"images": ["YQ==","YQ==","YQ==","YQ==","YQ=="]}', b"", Code.JSON_INVALID),
        (b'{"image": "not base64!"}', b"", Code.IMAGE_INVALID),
        (b'{"image": ""}', b"", Code.IMAGE_INVALID),
        (b'{"image": "YQ==", "url": "http://x"}', b"", Code.PARAMETER_REFUSED),
        (b"[", b"", Code.JSON_INVALID),
    ],
)
def test_bad_predict_requests_are_refused(body: bytes, kind: bytes, code: Code) -> None:
    with pytest.raises(LotaBotsError) as caught:
        parse_predict(body, kind, MODEL)
    assert caught.value.code is code


def test_a_model_without_a_predict_part_says_so() -> None:
    plain = ModelFacts("m", ("1",), "", 0, MODEL.inputs, MODEL.outputs)
    with pytest.raises(LotaBotsError) as caught:
        parse_predict(b"{}", b"", plain)
    assert caught.value.code is Code.PREDICT_UNSUPPORTED


def test_the_tensor_has_the_layout_and_numbers_of_the_package() -> None:
    tensor = np.frombuffer(decode(png(), SPEC, 100), np.float32).reshape(3, 2, 4)
    assert tensor[0].tolist() == [[1.0] * 4] * 2
    assert tensor[1].tolist() == [[-1.0] * 4] * 2
    swapped = PredictSpec("x", "y", 4, 2, mode="BGR", layout="NHWC")
    tensor = np.frombuffer(decode(png(), swapped, 100), np.float32).reshape(2, 4, 3)
    assert tensor[0, 0].tolist() == [0.0, 0.0, 1.0]
    grey = PredictSpec("x", "y", 4, 2, mode="L")
    assert len(decode(png(), grey, 100)) == 4 * 2 * 4


def test_the_centre_is_cut_from_the_resized_image() -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste((255, 255, 255), (10, 0, 30, 20))
    file = io.BytesIO()
    image.save(file, "PNG")
    spec = PredictSpec("x", "y", 10, 10, resize="shortest_center_crop", resize_short=10)
    tensor = np.frombuffer(decode(file.getvalue(), spec, 10_000), np.float32)
    assert tensor.min() > 0.8  # the black sides are gone but for the filter's edge


@pytest.mark.parametrize(
    ("mode", "colour"),
    [("RGBA", (9, 9, 9, 0)), ("LA", (9, 0)), ("1", 1), ("L", 255), ("I;16", 65535), ("P", 0)],
)
def test_every_png_mode_is_decoded(mode: str, colour: object) -> None:
    tensor = np.frombuffer(decode(png(mode=mode, colour=colour), SPEC, 100), np.float32)
    assert tensor.shape == (24,)
    if mode in ("RGBA", "LA"):
        assert tensor.min() == 1.0  # what is transparent is white, as on a page


def test_a_jpeg_is_decoded_and_other_formats_are_not() -> None:
    assert len(decode(png(kind="JPEG"), SPEC, 100)) == 96
    with pytest.raises(ImageRefusedError):
        decode(png(kind="GIF"), SPEC, 100)


def _bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("data", [b"", b"x", png()[:-30], png()[:30], b"\x89PNG\r\n\x1a\n" + bytes(64)])
def test_damaged_images_are_refused(data: bytes) -> None:
    with pytest.raises(ImageRefusedError):
        decode(data, SPEC, 100)


def test_a_bomb_is_refused_before_a_pixel_is_decoded() -> None:
    with pytest.raises(ImageRefusedError, match="the limit is 100"):
        decode(_bomb(60_000, 60_000), SPEC, 100)


def test_a_decoder_answers_job_after_job_until_its_input_ends() -> None:
    job = json.dumps({"predict": SPEC.to_dict(), "max_pixels": 100}).encode()
    jobs = b"".join(JOB.pack(len(job), len(image)) + job + image for image in (png(), b"junk", png()))
    answers = io.BytesIO()
    serve(io.BytesIO(jobs), answers)
    data = answers.getvalue()
    kinds = []
    while data:
        kind, length = ANSWER.unpack_from(data)
        kinds.append(kind)
        data = data[ANSWER.size + length :]
    assert kinds == [TENSOR, REFUSED, TENSOR]


def test_the_pool_survives_bad_images_and_dead_decoders() -> None:
    async def story() -> None:
        pool = Decoders(1, max_pixels=1000, timeout_seconds=20)
        try:
            assert len(await pool.decode(png(), SPEC)) == 96
            with pytest.raises(LotaBotsError) as caught:
                await pool.decode(b"junk", SPEC)
            assert caught.value.code is Code.IMAGE_INVALID
            process = await pool._free.get()
            assert process is not None
            process.kill()
            await process.wait()
            pool._free.put_nowait(process)
            assert len(await pool.decode(png(), SPEC)) == 96
        finally:
            await pool.close()

    asyncio.run(story())


def test_an_image_that_takes_too_long_ends_its_decoder_only() -> None:
    async def story() -> None:
        pool = Decoders(1, max_pixels=1000, timeout_seconds=0.0)
        with pytest.raises(LotaBotsError) as caught:
            await pool.decode(png(), SPEC)
        assert caught.value.code is Code.IMAGE_INVALID
        pool._timeout_seconds = 20
        assert len(await pool.decode(png(), SPEC)) == 96
        await pool.close()

    asyncio.run(story())


def _answer(values: list[float], name: str = "y") -> tuple[bytes, int]:
    size = 4 * len(values)
    header = json.dumps(
        {
            "outputs": [
                {"name": name, "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": size}}
            ]
        }
    ).encode()
    return header + struct.pack(f"<{len(values)}f", *values), len(header)


def test_predictions_are_sorted_labelled_and_cut_to_top_k() -> None:
    request = parse_predict(png(), b"image/png", MODEL)
    shown = predictions(MODEL, request, *_answer([1.0, 3.0, 2.0]))
    assert [p["label"] for p in shown["predictions"]] == ["b", "c"]
    assert shown["predictions"][0]["score"] == pytest.approx(softmax((1, 3, 2))[1], abs=1e-5)


def test_several_images_get_several_lists() -> None:
    request = parse_predict(json.dumps({"images": [text(b"1"), text(b"2")]}).encode(), b"", MODEL)
    shown = predictions(MODEL, request, *_answer([9, 0, 0, 0, 0, 9]))
    assert [one[0]["label"] for one in shown["predictions"]] == ["a", "c"]


@pytest.mark.parametrize(
    "answer",
    [
        (b"", 0),
        (b"{}", 2),
        (b"junk", 4),
        _answer([1.0, 2.0], name="z"),
        _answer([float("nan")] * 3),
        _answer([]),
    ],
)
def test_an_unusable_answer_of_the_model_is_said_so(answer: tuple[bytes, int]) -> None:
    request = parse_predict(png(), b"image/png", MODEL)
    with pytest.raises(LotaBotsError) as caught:
        predictions(MODEL, request, *answer)
    assert caught.value.code is Code.MODEL_FAILED


def test_the_inference_request_carries_all_images_as_one_batch() -> None:
    body, length = infer_body(MODEL, [bytes(96), bytes(96)])
    header = json.loads(body[:length])
    assert header["inputs"][0]["shape"] == [2, 3, 2, 4]
    assert header["inputs"][0]["parameters"]["binary_data_size"] == len(body) - length == 192
    assert "parameters" not in header


def test_images_wait_in_the_key_s_band_where_the_model_has_levels() -> None:
    body, length = infer_body(replace(MODEL, priority_levels=3), [bytes(96)], 2)
    assert json.loads(body[:length])["parameters"] == {"priority": 2}
