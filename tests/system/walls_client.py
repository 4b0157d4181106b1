"""Runs inside the machine as an app would. Standard library only.

`ask PORT METHOD PATH KEY [FILE TYPE]`: one request, with a file as its body; prints status and body as JSON.
`load PORT KEY THREADS new|kept`: one inference after the other, each on a connection of its own or on one
that is kept, until standard input ends. Every tenth of a second, and at the end, it prints a line of JSON:
how many requests ended how, and the slowest.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path

MODEL = "page_orientation"


def body_and_headers(key: str) -> tuple[bytes, dict[str, str]]:
    """One grey picture as a binary tensor."""
    data = bytes(4 * 3 * 224 * 224)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3, 224, 224]}
    header = json.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}],
            "outputs": [{"name": "fetch_name_0", "parameters": {"binary_data": True}}],
        }
    ).encode()
    headers = {"Authorization": f"Bearer {key}", "Inference-Header-Content-Length": str(len(header))}
    return header + data, {**headers, "Content-Type": "application/octet-stream"}


class Load:
    """Threads that ask, and what came of it."""

    def __init__(self, port: int, key: str, *, kept: bool) -> None:
        self._port = port
        self._kept = kept
        self._body, self._headers = body_and_headers(key)
        self._ended: Counter[str] = Counter()
        self._slowest = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def run(self, threads: int) -> None:
        workers = [threading.Thread(target=self._ask_on) for _ in range(threads)]
        workers.append(threading.Thread(target=self._tell_on))
        for worker in workers:
            worker.start()
        sys.stdin.read()
        self._stop.set()
        for worker in workers:
            worker.join()

    def _ask_on(self) -> None:
        connection = self._connection()
        while not self._stop.is_set():
            begun = time.monotonic()
            how = self._ask(connection)
            with self._lock:
                self._ended[how] += 1
                self._slowest = max(self._slowest, time.monotonic() - begun)
            if not self._kept or how != "200":
                connection.close()
                connection = self._connection()
        connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)

    def _ask(self, connection: http.client.HTTPConnection) -> str:
        """The status, with the problem's code; or the name of what went wrong."""
        try:
            connection.request("POST", f"/v2/models/{MODEL}/infer", self._body, self._headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        return "200" if response.status == 200 else f"{response.status} {json.loads(body)['code']}"

    def _tell_on(self) -> None:
        stopped = False
        while not stopped:
            stopped = self._stop.wait(0.1)
            with self._lock:
                print(json.dumps({"ended": dict(self._ended), "slowest": self._slowest}), flush=True)


def ask(port: int, method: str, path: str, key: str, file: str = "", kind: str = "") -> None:
    """One request; what came back goes to standard output."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {key}"} | ({"Content-Type": kind} if kind else {})
    connection.request(method, path, Path(file).read_bytes() if file else None, headers)
    response = connection.getresponse()
    print(json.dumps({"status": response.status, "body": response.read().decode()}))
    connection.close()


def main(arguments: list[str]) -> None:
    verb, port, *rest = arguments
    if verb == "ask":
        ask(int(port), *rest)
    else:
        key, threads, how = rest
        Load(int(port), key, kept=how == "kept").run(int(threads))


if __name__ == "__main__":
    main(sys.argv[1:])
