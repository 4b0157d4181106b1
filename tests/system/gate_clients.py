"""Clients of an appliance's gate: one request with all of its answer, and many at once from threads."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

MODEL = "page_orientation"
INFER = f"/v2/models/{MODEL}/infer"
PREDICT = f"/v1/models/{MODEL}/predict"
MODEL_READY = f"/v2/models/{MODEL}/ready"
ANSWER_SECONDS = 5.0  # on the worst day a request is answered, or its connection closed, within this
LOOK_SECONDS = 0.05


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The condition's first true value; fails, saying what was waited for, when none comes in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(LOOK_SECONDS)
    return found


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gate sent back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Key:
    """An API key."""

    key_id: str
    text: str


class Gate(Protocol):
    """Where clients connect."""

    def connection(self, seconds: float = 30.0) -> http.client.HTTPConnection: ...


def send_on(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    key: Key | None = None,
    body: bytes = b"",
    **headers: str,
) -> None:
    """One request on a connection, and no wait for the answer; in header names `_` stands for `-`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key is not None:
        sent["Authorization"] = f"Bearer {key.text}"
    connection.request(method, path, body=body or None, headers=sent)


def ask_on(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    key: Key | None = None,
    body: bytes = b"",
    **headers: str,
) -> Answer:
    """One request on a connection, whole. Raises OSError or HTTPException where no answer comes."""
    send_on(connection, method, path, key, body, **headers)
    response = connection.getresponse()
    shown = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, shown, response.read())


def read_answer(connection: socket.socket) -> Answer:
    """The one answer that comes on a socket."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    shown = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, shown, response.read())


def assert_problem(answer: Answer, status: int, code: str) -> None:
    """The one JSON shape of every refusal: what, why, and what to do."""
    assert (answer.status, answer.json["code"]) == (status, code), answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    for name in ("type", "title", "detail", "hint", "error"):
        assert answer.json[name], name


def tensor_body(rows: int = 1) -> tuple[bytes, dict[str, str]]:
    """A binary inference request of `rows` grey pictures, and its headers."""
    data = bytes(4 * 3 * 224 * 224 * rows)
    picture = {
        "name": "x",
        "datatype": "FP32",
        "shape": [rows, 3, 224, 224],
        "parameters": {"binary_data_size": len(data)},
    }
    scores = {"name": "fetch_name_0", "parameters": {"binary_data": True}}
    header = json.dumps({"inputs": [picture], "outputs": [scores]}).encode()
    return header + data, {
        "Inference_Header_Content_Length": str(len(header)),
        "Content_Type": "application/octet-stream",
    }


def few_numbers() -> bytes:
    """A request that passes the gate's rules and that Triton refuses at once."""
    return json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3, 224, 224], "data": [0.5]}]}
    ).encode()


def outcomes_sum(outcomes: dict[str, int]) -> int:
    """All requests of a ledger's outcomes."""
    return sum(outcomes.values())


@dataclass(frozen=True, slots=True)
class Sent:
    """One request of a load. Times are monotonic seconds."""

    began: float
    ended: float
    status: int  # 0: the connection was closed without a whole answer; -1: nobody listened
    code: str  # of the problem; empty for a 200
    limit: int  # what a 429 said the limit is

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Load:
    """Threads that ask one thing after the other as long as the block lasts."""

    PAUSE_SECONDS = 0.2  # what a polite client waits after a refusal

    def __init__(
        self, gate: Gate, key: Key, *, threads: int = 8, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        self._gate = gate
        self._key = key
        self._body, self._headers = tensor_body()
        self._pause_seconds = pause_seconds
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on_and_on, daemon=True) for _ in range(threads)]
        self.sent: list[Sent] = []  # appending is atomic

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        assert kind is not None or not any(thread.is_alive() for thread in self._threads)

    def count(self, status: int) -> int:
        """How many requests ended so."""
        return sum(sent.status == status for sent in self.sent)

    def until(self, more: int, status: int = 200, *, seconds: float = 40.0) -> None:
        """Wait until so many more requests ended so."""
        wanted = self.count(status) + more
        wait_for(lambda: self.count(status) >= wanted, seconds, f"{more} more answers {status}")

    def _ask_on_and_on(self) -> None:
        connection = self._gate.connection(20.0)
        while not self._stop.is_set():
            sent = self._ask(connection)
            self.sent.append(sent)
            if sent.status != 200:
                self._stop.wait(self._pause_seconds)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> Sent:
        began = time.monotonic()
        status, code, limit = 0, "", 0
        try:
            answer = ask_on(connection, "POST", INFER, self._key, self._body, **self._headers)
            status = answer.status
            if status != 200:
                code = answer.json["code"]
                limit = answer.json.get("limit", 0)
        except ConnectionRefusedError:
            status = -1
            connection.close()
        except (OSError, http.client.HTTPException):
            connection.close()
        return Sent(began, time.monotonic(), status, code, limit)
