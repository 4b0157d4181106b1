"""A closed loop of HTTP clients with the standard library alone: a GPU machine may have nothing else.

Slower than wrk, and the same for both targets, which is what a ratio needs.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import matmul
from load import Measured, percentile

ANSWER_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Asked:
    """Where to send the matrix model's requests, and with which key."""

    url: str
    headers: Mapping[str, str]

    @property
    def address(self) -> str:
        """HOST:PORT"""
        return self.url.removeprefix("http://")


def ask_once(target: Asked, rows: int) -> tuple[bool, str]:
    """Whether one request is answered with the right product; else what came."""
    connection = http.client.HTTPConnection(target.address, timeout=ANSWER_SECONDS)
    try:
        status, answer, json_bytes = _ask(connection, target, *matmul.body(rows))
    except (OSError, http.client.HTTPException) as error:
        return False, f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    if status != 200:
        return False, f"{status} {answer[:300].decode(errors='replace')}"
    right = matmul.is_right(answer, json_bytes, rows)
    return right, "" if right else "200, but the product is wrong"


def closed_loop(target: Asked, *, rows: int, clients: int, seconds: float) -> Measured:
    """Every client sends its next request when the last one was answered; none begins after `seconds`."""
    body, json_bytes = matmul.body(rows)
    spent: list[float] = []
    failed = [0] * clients
    begun = time.monotonic()

    def loop(number: int) -> None:
        connection = http.client.HTTPConnection(target.address, timeout=ANSWER_SECONDS)
        while time.monotonic() - begun < seconds:
            before = time.monotonic()
            try:
                status, _, _ = _ask(connection, target, body, json_bytes)
            except (OSError, http.client.HTTPException):
                connection.close()
                status = 0
            spent.append(time.monotonic() - before)
            failed[number] += status != 200
        connection.close()

    threads = [threading.Thread(target=loop, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 2 * ANSWER_SECONDS)
    duration = time.monotonic() - begun
    ordered = sorted(spent)
    return Measured(
        requests=len(ordered),
        seconds=duration,
        p50_ms=percentile(ordered, 0.50) * 1e3,
        p99_ms=percentile(ordered, 0.99) * 1e3,
        failed=sum(failed),
    )


def _ask(
    connection: http.client.HTTPConnection, target: Asked, body: bytes, json_bytes: int
) -> tuple[int, bytes, int]:
    headers = {
        **target.headers,
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(json_bytes),
    }
    connection.request("POST", f"/v2/models/{matmul.NAME}/infer", body=body, headers=headers)
    response = connection.getresponse()
    answer = response.read()
    return response.status, answer, int(response.headers.get("Inference-Header-Content-Length", 0))
