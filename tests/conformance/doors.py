"""Two doors to one Triton: its own socket through a relay, and the gate; a program must not see which."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

# A program gets a client and the headers to send; what it returns must be the same from both doors.
Program = Callable[[triton.InferenceServerClient, dict[str, str]], Any]


@dataclass(frozen=True, slots=True)
class Side:
    """Where a program goes, and the one thing it must add to each request."""

    address: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Both:
    """The same Triton behind both doors; `other` is the gate with another key."""

    triton: Side
    gate: Side
    other: Side

    def sides(self) -> tuple[Side, Side]:
        """Bare Triton, then the gate."""
        return self.triton, self.gate


class Relay:
    """Copies bytes between a TCP port of loopback and a Unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept nobody any more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(str(self._path))
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 18):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def post(side: Side, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one answer."""
    connection = http.client.HTTPConnection(side.address, timeout=30)
    connection.request("POST", path, body, {**side.headers, **headers})
    response = connection.getresponse()
    shown = {name.lower(): value for name, value in response.getheaders()}
    answer = response.status, shown, response.read()
    connection.close()
    return answer


def failure(call: Callable[[], Any]) -> tuple[str, str]:
    """Status and message of the failure that a call ends with."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    return str(caught.value.status()), str(caught.value.message())
