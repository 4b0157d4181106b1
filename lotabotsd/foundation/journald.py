"""Logging: journald with structured fields when connected to it, readable lines otherwise.

Fields are given as `extra={"key_id": …}` and appear in journald as `LOTABOTS_KEY_ID`. Only names on the
allow-list pass, so that no secret or body reaches a log by accident.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
from typing import TextIO

FIELDS = (
    "request_id", "key_id", "organisation_id", "model", "worker", "code", "licence_id", "report",
    "state", "event", "attempt", "pid", "count", "path", "peer_uid", "verb", "step",
)  # fmt: skip
_JOURNAL = "/run/systemd/journal/socket"
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def set_up_logging(component: str, level: str = "info") -> None:
    """Send the root logger to journald, or as lines to standard error."""
    structured = connected_to_journald(os.environ)
    handler: logging.Handler = JournalHandler(component) if structured else LineHandler(component)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    # Its warnings are about what clients send: anybody could fill the log with them.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def connected_to_journald(environment: os._Environ[str] | dict[str, str]) -> bool:
    """Whether standard error goes to journald ($JOURNAL_STREAM names its device and inode)."""
    stream = environment.get("JOURNAL_STREAM", "")
    if ":" not in stream:
        return False
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


class JournalHandler(logging.Handler):
    """journald's native datagram protocol, with the allow-listed fields."""

    def __init__(self, component: str, address: str = _JOURNAL) -> None:
        super().__init__()
        self._component = component
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._socket.sendto(journal_datagram(self._component, record, self.format(record)), self._address)
        except OSError:
            self.handleError(record)


def journal_datagram(component: str, record: logging.LogRecord, message: str) -> bytes:
    """The datagram of one record (systemd's native journal protocol): binary-safe, fields in upper case."""
    fields = {
        "MESSAGE": message,
        "PRIORITY": str(_PRIORITY.get(record.levelno, 6)),
        "SYSLOG_IDENTIFIER": component,
        "CODE_FUNC": record.funcName or "",
        "LOGGER": record.name,
    }
    for name in FIELDS:
        if hasattr(record, name):
            fields[f"LOTABOTS_{name.upper()}"] = str(getattr(record, name))
    parts = []
    for name, value in fields.items():
        data = value.encode(errors="replace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


class LineHandler(logging.StreamHandler[TextIO]):
    """`12:03:44 gate      warning  message  key=value …` on standard error."""

    def __init__(self, component: str, stream: TextIO | None = None) -> None:
        super().__init__(stream or sys.stderr)
        self._component = component
        self.setFormatter(logging.Formatter("%(asctime)s", "%H:%M:%S"))

    def format(self, record: logging.LogRecord) -> str:
        fields = "  ".join(f"{name}={getattr(record, name)}" for name in FIELDS if hasattr(record, name))
        text = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        when = self.formatter.formatTime(record, "%H:%M:%S") if self.formatter else ""
        line = f"{when} {self._component:<9} {record.levelname.lower():<8} {text}"
        return f"{line}  {fields}" if fields else line
