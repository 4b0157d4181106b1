"""A Triton that costs next to nothing: an inference of one number is answered after so many milliseconds.

As a process: `python quick_triton.py SOCKET`. It answers what the daemon's supervisor asks, and two things
of its own: how many inferences ran at once since it was asked last (GET /highest), and all of them (/count).
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from contextlib import suppress

MODEL = "number"
LENGTH = b"\r\ncontent-length:"
JSON_LENGTH = b"\r\ninference-header-content-length:"
ANSWER = json.dumps(
    {"model_name": MODEL, "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}
).encode()


class Triton:
    """What all connections share."""

    def __init__(self) -> None:
        self.running = 0
        self.highest = 0
        self.count = 0
        self.loaded = False


class Connection(asyncio.Protocol):
    """One connection; whoever asks waits for each answer before the next question."""

    def __init__(self, triton: Triton) -> None:
        self._triton = triton
        self._data = b""
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._triton.running -= 1

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        lower = head.lower()
        length = _number(lower, LENGTH)
        if not found or len(body) < length:
            return
        self._data = body[length:]
        path = head.split(b" ", 2)[1]
        if path.endswith(b"/infer"):
            self._infer(body[:length], _number(lower, JSON_LENGTH))
        else:
            self._transport.write(_http(*self._answer(path.decode())))
        if b"connection: close" in lower:
            self._transport.close()

    def _answer(self, path: str) -> tuple[int, object]:
        triton = self._triton
        match path.strip("/").split("/"):
            case ["highest"]:
                highest, triton.highest = triton.highest, triton.running
                return 200, highest
            case ["count"]:
                return 200, triton.count
            case ["v2"]:
                return 200, {"name": "triton", "version": "0.0-quick"}
            case ["v2", "repository", "index"]:
                return 200, [{"name": MODEL, "version": "1", "state": "READY"}] if triton.loaded else []
            case ["v2", "repository", "models", _, verb]:
                triton.loaded = verb == "load"
        return 200, None

    def _infer(self, body: bytes, json_bytes: int) -> None:
        triton = self._triton
        if json_bytes:  # the supervisor's canary
            output = {"name": "y", "datatype": "FP32", "shape": [1, 1], "parameters": {"binary_data_size": 4}}
            head = json.dumps({"model_name": MODEL, "outputs": [output]}).encode()
            extra = f"Inference-Header-Content-Length: {len(head)}\r\n".encode()
            self._transport.write(_raw(200, head + struct.pack("<f", 1.0), extra))
            return
        triton.count += 1
        triton.running += 1
        triton.highest = max(triton.highest, triton.running)
        milliseconds = float(json.loads(body)["inputs"][0]["data"][0])
        if milliseconds <= 0:
            self._done()
        else:
            self._waiting = asyncio.get_running_loop().call_later(milliseconds / 1_000, self._done)

    def _done(self) -> None:
        self._waiting = None
        self._triton.running -= 1
        self._transport.write(_raw(200, ANSWER))


def _number(head: bytes, name: bytes) -> int:
    at = head.find(name)
    return int(head[at + len(name) :].split(b"\r\n", 1)[0]) if at >= 0 else 0


def _http(status: int, value: object) -> bytes:
    return _raw(status, b"" if value is None else json.dumps(value).encode())


def _raw(status: int, body: bytes, extra: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + extra + b"\r\n" + body


async def serve(path: str) -> None:
    """Until the process is ended."""
    triton = Triton()
    server = await asyncio.get_running_loop().create_unix_server(lambda: Connection(triton), path)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1]))
