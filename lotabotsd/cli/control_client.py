"""A client of the control socket: HTTP over a Unix socket with the standard library alone."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from lotabotsd.foundation.errors import Code, LotaBotsError

PATIENT_SECONDS = 3_600.0  # for what walks the whole ledger before it answers
DEFAULT_SOCKET = Path("/run/lotabots/control/control.sock")
SOCKET_VARIABLE = "LOTABOTS_CONTROL_SOCKET"
MAX_ANSWER_BYTES = 256 * 1024 * 1024
PREFIX = "/control/v1"


class ControlClient:
    """Asks lotabotsd. Every failure is a LotaBotsError: the daemon's own, or DAEMON_UNAVAILABLE."""

    def __init__(self, path: Path, *, timeout_seconds: float = 60.0) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds

    def patient(self) -> ControlClient:
        """The same, waiting an hour for an answer."""
        return ControlClient(self._path, timeout_seconds=PATIENT_SECONDS)

    def get(self, *parts: str, **query: str | int | None) -> Any:
        """The JSON at `/control/v1/PART/PART?QUERY`; parts are quoted, queries of None left out."""
        return self._json("GET", parts, query, None, "application/json")

    def all_items(self, *parts: str, **query: str | int | None) -> list[dict[str, Any]]:
        """Every item of a list, page by page."""
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.get(*parts, cursor=cursor, **query)
            items += page["items"]
            cursor = page["next"]
            if cursor is None:
                return items

    def get_bytes(self, *parts: str, **query: str | int | None) -> bytes:
        """A file at `/control/v1/PART/PART`."""
        return self._ask("GET", _target(parts, query), None, {})

    def post(self, *parts: str, body: dict[str, Any] | None = None, once: str = "") -> Any:
        """POST JSON. `once` is an idempotency key: the same one twice makes one thing."""
        headers = {"Idempotency-Key": once} if once else {}
        data = json.dumps(body or {}).encode()
        return self._json("POST", parts, {}, data, "application/json", headers)

    def put(self, *parts: str, body: dict[str, Any]) -> Any:
        """PUT JSON."""
        return self._json("PUT", parts, {}, json.dumps(body).encode(), "application/json")

    def put_bytes(self, *parts: str, data: bytes, **query: str | int | None) -> Any:
        """PUT a document as it is."""
        return self._json("PUT", parts, query, data, "application/octet-stream")

    def delete(self, *parts: str) -> Any:
        """DELETE one thing."""
        return self._json("DELETE", parts, {}, None, "application/json")

    def _json(
        self,
        method: str,
        parts: tuple[str, ...],
        query: dict[str, str | int | None],
        data: bytes | None,
        content_type: str,
        more_headers: dict[str, str] | None = None,
    ) -> Any:
        headers = {"Content-Type": content_type, **(more_headers or {})}
        answer = self._ask(method, _target(parts, query), data, headers)
        return json.loads(answer) if answer else None

    def _ask(self, method: str, target: str, data: bytes | None, headers: dict[str, str]) -> bytes:
        import http.client  # here, so that --help does not wait for it

        connection = http.client.HTTPConnection("localhost", timeout=self._timeout_seconds)
        connection.sock = self._connect()
        try:
            # Refused before the whole body was read: the answer says why.
            with contextlib.suppress(BrokenPipeError):
                connection.request(
                    method, target, body=data, headers={"Accept": "application/json", **headers}
                )
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES + 1)
        except TimeoutError as error:
            raise LotaBotsError(
                Code.DAEMON_UNAVAILABLE,
                f"no answer within {self._timeout_seconds:g} s",
                hint="look at its log: journalctl -u lotabotsd",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise LotaBotsError(
                Code.DAEMON_UNAVAILABLE, f"{self._path}: {error or type(error).__name__}"
            ) from error
        finally:
            connection.close()
        if response.length and len(answer) <= MAX_ANSWER_BYTES:
            raise LotaBotsError(Code.DAEMON_UNAVAILABLE, "it stopped in the middle of its answer")
        if len(answer) > MAX_ANSWER_BYTES:
            raise LotaBotsError(
                Code.DAEMON_UNAVAILABLE, f"its answer is larger than {MAX_ANSWER_BYTES} bytes"
            )
        if response.status >= 400:
            raise remote_error(response.status, answer)
        return answer

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.settimeout(self._timeout_seconds)
        try:
            connection.connect(str(self._path))
        except PermissionError as error:
            connection.close()
            raise LotaBotsError(Code.PEER_REFUSED, f"{self._path} (uid {os.getuid()})") from error
        except OSError as error:
            connection.close()
            raise LotaBotsError(
                Code.DAEMON_UNAVAILABLE,
                f"{self._path}: {error.strerror or error}",
                hint="start it: systemctl start lotabotsd, or lotabotsd up; its log says why it stopped: "
                "journalctl -u lotabotsd, or the terminal of lotabotsd up; "
                f"or name its socket: --socket, {SOCKET_VARIABLE}",
            ) from error
        return connection


def remote_error(status: int, answer: bytes) -> LotaBotsError:
    """The failure that a JSON problem tells of; an answer that is no problem is INTERNAL."""
    try:
        problem = json.loads(answer)
        code = Code(problem["code"])
        detail, title, hint = (str(problem.get(name, "")) for name in ("detail", "title", "hint"))
    except (ValueError, KeyError, TypeError, AttributeError):
        text = answer[:200].decode(errors="replace")
        return LotaBotsError(
            Code.INTERNAL,
            f"lotabotsd answered {status}: {text}",
            hint="compare the versions of both programs",
        )
    return LotaBotsError(code, "" if detail == title else detail, hint=hint or None)


def _target(parts: tuple[str, ...], query: dict[str, str | int | None]) -> str:
    path = "/".join([PREFIX, *(quote(part, safe="") for part in parts)])
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path
