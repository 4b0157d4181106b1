"""The events of a streamed answer, whole ones only, and without Triton's own words about a failure. Pure.

Triton tells of a failure inside a stream as an event whose one member is `error`; its text can name files
of the host, like the texts of its other failures (docs/triton-advisories.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable

MAX_EVENT_BYTES = 1 << 20  # a longer one is sent on in pieces: no failure is so long
_END = b"\n\n"
_DATA = b"data:"


class EventStream:
    """Takes the parts of a stream as they come and gives whole events back, at once.

    A reader of server-sent events acts on an event when its blank line is there (WHATWG HTML, section 9.2.6),
    so that nothing is later for having waited for that.
    """

    def __init__(self, replace: Callable[[str], str]) -> None:
        """`replace` makes of Triton's words about a failure what the client gets."""
        self._replace = replace
        self._rest = b""
        self.failed = False  # whether an event told of a failure

    def feed(self, part: bytes) -> bytes:
        """The events that are whole now."""
        data = self._rest + part
        end = data.rfind(_END)
        if end < 0:
            if len(data) <= MAX_EVENT_BYTES:
                self._rest = data
                return b""
            self._rest = b""
            return data
        events, self._rest = data[: end + 2], data[end + 2 :]
        if b'"error"' not in events:
            return events
        return b"".join(self._told(event) + _END for event in events[:-2].split(_END))

    def finish(self) -> bytes:
        """What is left at the stream's end: an event without its blank line."""
        rest, self._rest = self._rest, b""
        return self._told(rest)

    def _told(self, event: bytes) -> bytes:
        if not event.startswith(_DATA) or (told := failure_in(event[len(_DATA) :])) is None:
            return event
        self.failed = True
        return b"data: " + json.dumps({"error": self._replace(told.decode())}).encode()


def failure_in(answer: bytes) -> bytes | None:
    """Triton's words, if this JSON object holds nothing but an `error`."""
    if not answer.lstrip().startswith(b'{"error"'):
        return None
    try:
        value = json.loads(answer)
    except ValueError:
        return None
    return str(value["error"]).encode() if set(value) == {"error"} else None
