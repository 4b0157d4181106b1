"""A Triton that follows a script of failures: KServe v2 over HTTP on a Unix socket.

The script is a dictionary; every list of outcomes is used up in order, and its last one is repeated:

    {"live":   ["ok" | "hang" | "error" | "die"],
     "load":   {"NAME": ["ok" | "error: TEXT" | "hang" | "die"]},
     "infer":  {"NAME": ["ok" | "error: TEXT" | "busy" | "nan" | "cut" | "hang" | "die"]},
     "stream": {"NAME": ["ok" | "error: TEXT" | "busy" | "hang"]},
     "models": {"NAME": [["scores", "FP32", [-1, 4]], …]},      the outputs that an inference gives
     "statistics": {…},                                         instead of what was counted
     "start":  {"say": "a line", "exit": 1},                    as a process only
     "ignore_term": "a line to say"}                            as a process only; else SIGTERM ends it

In a test: `TritonSimulator(path, script)`. As a process it takes tritonserver's options, reads its script
from `simulator.json` in the model repository, and dies of SIGSEGV:
    python triton_simulator.py --model-repository=DIR --http-address=unix:PATH
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESTRICTED = ("/v2/repository", "/stats", "/config", "/v2/logging", "/v2/trace")
ELEMENT_BYTES = {"FP32": 4, "INT64": 8, "UINT8": 1, "FP16": 2}
# What the real one prints, as far as options go (standard error, exit 1).
OPTIONS = """model-repository backend-directory model-control-mode exit-on-error strict-readiness
disable-auto-complete-config http-address grpc-address grpc-port metrics-address http-restricted-api
grpc-restricted-protocol exit-timeout-secs backend-config allow-sagemaker""".split()  # noqa: SIM905 - a list of words reads better than quotes


class TritonSimulator:
    """One simulated run. `asked` holds every request as (method, path).

    Its statistics count as the real ones do: answered inferences, from zero with each load.
    """

    def __init__(
        self,
        path: Path,
        script: dict[str, Any] | None = None,
        *,
        secret: tuple[str, str] | None = None,
        on_death: Callable[[], None] | None = None,
    ) -> None:
        """`secret` is the header and value that restricted routes want; `on_death` is called by "die"."""
        self._path = path
        self._script = script or {}
        self._secret = secret
        self._on_death = on_death
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._used: dict[str, int] = {}
        self.states: dict[str, tuple[str, str]] = {}
        self.counted: dict[str, list[int]] = {}  # requests and rows that were answered, since a model's load
        self.asked: list[tuple[str, str]] = []
        self.streamed: list[Any] = []  # the bodies of generate_stream

    async def __aenter__(self) -> TritonSimulator:
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.die()

    def die(self) -> None:
        """Be gone: no listener, every connection cut."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    def _outcome(self, kind: str, name: str = "") -> str:
        outcomes = self._script.get(kind, {})
        if name:
            outcomes = outcomes.get(name, ["ok"])
        key = f"{kind}/{name}"
        index = self._used.get(key, 0)
        self._used[key] = index + 1
        return outcomes[min(index, len(outcomes) - 1)] if outcomes else "ok"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {
                    name.strip().lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.asked.append((method, path))
                writer.write(await self._answer(method, path, headers, body))
                await writer.drain()
                if headers.get("connection") == "close":
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        if self._secret and any(part in path for part in RESTRICTED):
            name, value = self._secret
            if headers.get(name) != value:
                return answer(403, {"error": f"This API is restricted, expecting header '{name}'"})
        parts = path.strip("/").split("/")
        match parts:
            case ["v2"]:
                return answer(200, {"name": "triton", "version": "0.0-simulated"})
            case ["v2", "health", "live"]:
                outcome = await self._act(self._outcome("live"))
                return answer(200 if outcome == "ok" else 500, None)
            case ["v2", "health", "ready"]:
                ready = all(state == "READY" for state, _ in self.states.values())
                return answer(200 if ready else 400, None)
            case ["v2", "repository", "index"]:
                return answer(200, [index_row(name, *state) for name, state in self.states.items()])
            case ["v2", "repository", "models", name, "load" | "unload" as verb]:
                return await self._load(name) if verb == "load" else self._unload(name)
            case ["v2", "models", "stats"] if "statistics" in self._script:
                return answer(200, self._script["statistics"])
            case ["v2", "models", "stats"]:
                live = [name for name, (state, _) in self.states.items() if state == "READY"]
                return answer(200, {"model_stats": [self._statistics(name) for name in live]})
            case ["v2", "models", name, "stats"]:
                return answer(200, {"model_stats": [self._statistics(name)]})
            case ["v2", "models", name, "infer"] if method == "POST":
                return await self._infer(name, headers, body)
            case ["v2", "models", name, "generate_stream"] if method == "POST":
                self.streamed.append(json.loads(body))
                return await self._stream(name)
            case ["v2", "models", name, "ready"]:
                return answer(200 if self.states.get(name, ("", ""))[0] == "READY" else 400, None)
        return answer(404, {"error": "not found"})

    async def _act(self, outcome: str) -> str:
        if outcome == "hang":
            await asyncio.Event().wait()
        if outcome == "die":
            self.die()
            if self._on_death is not None:
                self._on_death()
            raise ConnectionAbortedError
        return outcome

    async def _load(self, name: str) -> bytes:
        before = self.states.get(name)
        if before is None or before[0] != "READY":
            self.states[name] = ("LOADING", "")
        outcome = await self._act(self._outcome("load", name))
        if outcome == "ok":
            self.states[name] = ("READY", "")
            self.counted[name] = [0, 0]
            return answer(200, None)
        reason = outcome.removeprefix("error: ")
        if before is None or before[0] != "READY":
            self.states[name] = ("UNAVAILABLE", reason)
        return answer(400, {"error": reason})

    def _statistics(self, name: str) -> dict[str, Any]:
        requests, rows = self.counted.get(name, [0, 0])
        counts = {"success": {"count": requests, "ns": 1}, "fail": {"count": 0, "ns": 0}}
        return {"name": name, "version": "1", "inference_count": rows, "inference_stats": counts}

    def _unload(self, name: str) -> bytes:
        self.states[name] = ("UNAVAILABLE", "unloaded")
        return answer(200, None)

    async def _infer(self, name: str, headers: dict[str, str], body: bytes) -> bytes:
        if self.states.get(name, ("", ""))[0] != "READY":
            return answer(404, {"error": f"Request for unknown model: '{name}' is not found"})
        outcome = await self._act(self._outcome("infer", name))
        if outcome == "busy":
            return answer(503, {"error": "Exceeds maximum queue size"})
        if outcome.startswith("error"):
            return answer(500, {"error": outcome.removeprefix("error: ")})
        json_bytes = int(headers.get("inference-header-content-length", len(body)))
        request = json.loads(body[:json_bytes])
        rows = request["inputs"][0]["shape"][0]
        counted = self.counted[name]
        self.counted[name] = [counted[0] + 1, counted[1] + rows]
        return infer_answer(name, self._script.get("models", {}).get(name, []), rows, outcome)

    async def _stream(self, name: str) -> bytes:
        """The first event of a stream that has no end; an error that comes first gives its status."""
        outcome = await self._act(self._outcome("stream", name))
        if outcome == "busy":
            return answer(503, {"error": "Exceeds maximum queue size"})
        wrong = outcome.removeprefix("error: ") if outcome != "ok" else ""
        event = json.dumps({"error": wrong} if wrong else {"index": 0})
        chunk = f"data: {event}\n\n"
        head = f"HTTP/1.1 {400 if wrong else 200} Simulated\r\nTransfer-Encoding: chunked\r\n\r\n"
        return f"{head}{len(chunk):x}\r\n{chunk}\r\n".encode()


def index_row(name: str, state: str, reason: str) -> dict[str, str]:
    """One line of the repository index."""
    row = {"name": name, "version": "1", "state": state}
    return {**row, "reason": reason} if reason else row


def infer_answer(name: str, outputs: list[Any], rows: int, outcome: str) -> bytes:
    """Binary outputs of zeros; "nan" makes the first number one, "cut" leaves the last byte out."""
    described, data = [], b""
    for output, datatype, dims in outputs:
        shape = [rows if size == -1 else size for size in dims]
        values = bytes(math.prod(shape) * ELEMENT_BYTES[datatype])
        if outcome == "nan":
            values = struct.pack("<f", math.nan) + values[4:]
        parameters = {"binary_data_size": len(values)}
        described.append({"name": output, "datatype": datatype, "shape": shape, "parameters": parameters})
        data += values
    head = json.dumps({"model_name": name, "model_version": "1", "outputs": described}).encode()
    content = head + (data[:-1] if outcome == "cut" else data)
    return http_answer(200, content, [("Inference-Header-Content-Length", str(len(head)))])


def answer(status: int, value: Any) -> bytes:
    """A JSON answer; None has no body."""
    return http_answer(status, b"" if value is None else json.dumps(value).encode(), [])


def http_answer(status: int, body: bytes, headers: list[tuple[str, str]]) -> bytes:
    """An HTTP/1.1 answer with a Content-Length."""
    lines = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers]
    text = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"HTTP/1.1 {status} Simulated\r\n{text}\r\n".encode() + body


async def run_process(options: dict[str, str]) -> int:
    """The simulator as a tritonserver process; returns its exit code."""
    script_file = Path(options["model-repository"]) / "simulator.json"
    script = json.loads(script_file.read_text(encoding="utf-8")) if script_file.exists() else {}
    start = script.get("start", {})
    if "say" in start:
        print(start["say"], file=sys.stderr, flush=True)
    if "exit" in start:
        return int(start["exit"])
    restricted = options.get("http-restricted-api", "").rpartition(":")[2].partition("=")
    path = Path(options["http-address"].removeprefix("unix:"))
    if path.exists():
        print('E0101 00:00:00 1 main.cc:1] "Socket already in use"', file=sys.stderr)
        return 1
    stop = asyncio.Event()
    last_words = script.get("ignore_term")
    told = (lambda: print(last_words, flush=True)) if last_words else stop.set
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told)
    simulator = TritonSimulator(
        path,
        script,
        secret=(restricted[0], restricted[2]) if restricted[2] else None,
        on_death=lambda: os.kill(os.getpid(), signal.SIGSEGV),
    )
    async with simulator:
        print(f"started with {' '.join(sys.argv[1:])}", flush=True)
        await stop.wait()
    return 0


def main(arguments: list[str]) -> int:
    """The command: like tritonserver, `--help` goes to standard error and ends with 1."""
    if "--help" in arguments:
        print("\n".join(f"  --{name} <string>" for name in OPTIONS), file=sys.stderr)
        return 1
    pairs = (argument.removeprefix("--").partition("=") for argument in arguments)
    return asyncio.run(run_process({name: value for name, _, value in pairs}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
