"""A helper and a simulated Triton that counts, in a thread; and a gate worker as far as its journal goes."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Coroutine
from typing import Any

from triton_simulator import TritonSimulator

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.config import Config
from lotabotsd.runtime.messages import NO_RUN, RunFacts, answer_line
from lotabotsd.usage.journal import Journal
from lotabotsd.usage.records import Outcome, encode_close, encode_open

MODEL = "m"
SCRIPT = {"models": {MODEL: [["scores", "FP32", [-1, 4]]]}}


class Machine:
    """A helper and its Triton, in a thread of their own; `run` is what the helper says."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._helper = self._do(asyncio.start_unix_server(self._answer, config.paths.helper_socket))
        self.triton: Any = None
        self.run = NO_RUN
        self.runs = 0

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer_line(self.run.to_dict()))
        await writer.drain()
        writer.close()

    def start(self) -> None:
        """Another run of Triton, with the model loaded."""
        self.triton = TritonSimulator(self._config.paths.triton_http, SCRIPT)
        self._do(self.triton.__aenter__())
        self.runs += 1
        self.run = RunFacts(f"run{self.runs}", running=True, pid=self.runs, secret="s")
        self.load()

    def load(self) -> None:
        self.ask("POST", f"/v2/repository/models/{MODEL}/load", b"")

    def die(self) -> None:
        async def die() -> None:
            self.triton.die()

        self._do(die())
        self._config.paths.triton_http.unlink()
        self.run = RunFacts(self.run.run_id, running=False, pid=0, secret="")

    def infer(self, rows: int) -> None:
        """One inference, by whoever reaches the socket."""
        self.ask("POST", f"/v2/models/{MODEL}/infer", json.dumps({"inputs": [{"shape": [rows]}]}).encode())

    def ask(self, method: str, path: str, body: bytes) -> None:
        connection = http.client.HTTPConnection("triton", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self._config.paths.triton_http))
        connection.request(method, path, body, {"Connection": "close"})
        assert connection.getresponse().status == 200
        connection.close()

    def close(self) -> None:
        self._helper.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)


class Worker:
    """A gate worker as far as its journal goes: OPEN, Triton, CLOSE."""

    def __init__(self, config: Config, machine: Machine, clock: FixedClock, number: int = 0) -> None:
        self._machine = machine
        self._clock = clock
        self._journal = Journal(config.paths.journal, number, bytes(16), number + 1, 1 << 20)

    def open(self, rows: int) -> int:
        return self._journal.append(
            encode_open(
                request_id=bytes(16),
                wall_ns=self._clock.wall_ns(),
                key_id="key1",
                organisation_id="org1",
                model=MODEL,
                version="",
                window_id=202603,
                reserved=rows,
            )
        )

    def close(self, number: int, rows: int, outcome: Outcome = Outcome.SERVED) -> None:
        self._journal.append(
            encode_close(
                open_number=number,
                wall_ns=self._clock.wall_ns(),
                outcome=outcome,
                status=200,
                inferences=rows,
                input_bytes=1,
                output_bytes=1,
                gate_us=1,
            )
        )

    def serve(self, rows: int) -> None:
        number = self.open(rows)
        self._machine.infer(rows)
        self.close(number, rows)
