"""Whether a service of compose.yaml is well: `health.py gate|daemon|runtime` ends with 0 or 1."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import tomllib
from pathlib import Path

CONFIG = Path("/etc/lotabots/lotabots.toml")
CONTROL = "/run/lotabots/control/control.sock"
HELPER = "/run/lotabots/helper/helper.sock"
SECONDS = 4.0
MAX_ANSWER_BYTES = 64 * 1024


class Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


def answers(connection: http.client.HTTPConnection, path: str) -> bool:
    """Whether a GET is answered with 200."""
    connection.request("GET", path)
    return connection.getresponse().status == 200


def gate() -> bool:
    """Whether apps are served: the gate answers, and Triton and the daemon let it."""
    listen = tomllib.loads(CONFIG.read_text(encoding="utf-8")).get("gate", {}).get("listen", "127.0.0.1:8080")
    return answers(
        http.client.HTTPConnection(f"127.0.0.1:{listen.rpartition(':')[2]}", timeout=SECONDS), "/readyz"
    )


def daemon() -> bool:
    """Whether the control API answers."""
    return answers(Unix(CONTROL), "/control/v1/status")


def runtime() -> bool:
    """Whether the helper answers; the daemon looks at Triton itself."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SECONDS)
        connection.connect(HELPER)
        connection.sendall(b'{"verb":"logs"}\n')
        answer = b""
        while not answer.endswith(b"\n") and len(answer) <= MAX_ANSWER_BYTES:
            part = connection.recv(MAX_ANSWER_BYTES)
            if not part:
                break
            answer += part
    return "ok" in json.loads(answer)


def main() -> int:
    """Ask the service that is named."""
    try:
        return 0 if {"gate": gate, "daemon": daemon, "runtime": runtime}[sys.argv[1]]() else 1
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"{sys.argv[1]}: {type(error).__name__}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
