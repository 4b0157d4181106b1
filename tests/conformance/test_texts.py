"""Tensors of BYTES: whatever is in them, it passes the gate unchanged, as bytes and as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio
from doors import post

# Python 3.13 has numpy 2, with which the embedded runtime takes no texts.
_REQUIRED = [pytest.mark.required] if sys.version_info < (3, 13) else []
pytestmark = [*_REQUIRED, pytest.mark.usefixtures("texts")]

TEXTS = [b"plain", b"", "Grüße, 日本語 😀".encode(), b'two\nlines\tand a \\ and a "', b"\x7f"]


def given(array: np.ndarray, *, binary: bool = True) -> list[triton.InferInput]:
    """The texts as the client library sends them."""
    tensor = triton.InferInput("texts", list(array.shape), "BYTES")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return [tensor]


def wanted(*names: str, binary: bool = True) -> list[triton.InferRequestedOutput]:
    """These outputs."""
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "JSON out"])
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary in", "JSON in"])
def test_texts_come_back_whatever_is_in_them(answers: Any, binary_in: bool, binary_out: bool) -> None:
    array = np.array([TEXTS, TEXTS[::-1]], dtype=object)
    tensors = given(array, binary=binary_in)
    names = ("same", "capitals", "lengths")

    def program(client: triton.InferenceServerClient, headers: dict[str, str]) -> Any:
        result = client.infer("text", tensors, outputs=wanted(*names, binary=binary_out), headers=headers)
        return result.get_response(), [result.as_numpy(name).tolist() for name in names]

    bare, gated = answers(program)
    assert gated == bare
    same, capitals, lengths = gated[1]
    encoded = [[text if isinstance(text, bytes) else text.encode() for text in row] for row in same]
    assert encoded == array.tolist()
    assert lengths[0] == [len(text) for text in TEXTS]
    shown = capitals[0][2]
    assert (shown.decode() if isinstance(shown, bytes) else shown) == "GRÜSSE, 日本語 😀"


@pytest.mark.parametrize("content", [b"\x00\xff" * 1_000, b"x" * (1 << 20)], ids=["no text", "1 MiB"])
def test_bytes_need_not_be_text(answers: Any, content: bytes) -> None:
    tensors = given(np.array([[content, b"", content]], dtype=object))
    bare, gated = answers(
        lambda c, h: c.infer("text", tensors, outputs=wanted("same"), headers=h).as_numpy("same").tolist()
    )
    assert gated == bare == [[content, b"", content]]


@pytest.mark.parametrize(
    "data",
    [b"\x05\0\0\0abc", b"\xff\xff\xff\xff", b"\0\0\0\0\0\0\0\0", b"\x01\0\0\0ab"],
    ids=["cut short", "a length that lies", "one text too many", "a byte too many"],
)
def test_bytes_that_do_not_add_up_are_refused_alike(both: Any, data: bytes) -> None:
    shape = {
        "name": "texts",
        "datatype": "BYTES",
        "shape": [1, 1],
        "parameters": {"binary_data_size": len(data)},
    }
    header = json.dumps({"inputs": [shape]}).encode()
    length = {"Inference-Header-Content-Length": str(len(header))}
    bare, gated = (post(side, "/v2/models/text/infer", header + data, length) for side in both.sides())
    assert bare[0] == gated[0] == 400


def test_large_and_small_texts_travel_at_the_same_time(both: Any) -> None:
    contents = [[["x" * (1 << 20), ""]], [["Grüße", "y"]], [["", ""]]]

    async def run(side: Any) -> Any:
        async with tritonclient.http.aio.InferenceServerClient(side.address) as client:
            found = await asyncio.gather(
                *(
                    client.infer("text", given(np.array(rows, dtype=object)), headers=dict(side.headers))
                    for rows in contents
                )
            )
            return [one.as_numpy("same").tolist() for one in found]

    bare, gated = (asyncio.run(run(side)) for side in both.sides())
    assert gated == bare
    assert gated == [[[text.encode() for text in row] for row in rows] for rows in contents]


def test_texts_are_generated_alike(both: Any) -> None:
    body = json.dumps({"texts": ["Grüße", "", "a\nb"]}).encode()
    bare, gated = (post(side, "/v2/models/text/generate", body, {}) for side in both.sides())
    assert gated[0] == bare[0] == 200
    assert gated[2] == bare[2]
    assert json.loads(gated[2])["capitals"] == ["GRÜSSE", "", "A\nB"]
