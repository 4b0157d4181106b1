"""Idempotency keys: a creation asked for twice is done once (draft-ietf-httpapi-idempotency-key-header)."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header

from lotabotsd.foundation.clock import NANOSECONDS, Clock
from lotabotsd.foundation.errors import Code, LotaBotsError

MAX_REMEMBERED = 256
REMEMBERED_SECONDS = 600

IdempotencyKey = Annotated[
    str | None, Header(min_length=8, max_length=128, description="The same key twice makes one thing.")
]


@dataclass(frozen=True, slots=True)
class _Done:
    fingerprint: bytes
    answer: dict[str, Any]
    at_ns: int


class Once:
    """Remembers the answers of recent creations, in memory only: they hold API keys in clear."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._done: OrderedDict[str, _Done] = OrderedDict()

    def __call__(self, key: str | None, request: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `act` answers, or answered to the same key before. `request` says what is asked.

        Raises CONFLICT when the key was used for another request, and what `act` raises (which is not
        remembered: it may be tried again).
        """
        if key is None:
            return act()
        fingerprint = hashlib.sha256(request.encode()).digest()
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            self._forget(now_ns)
            done = self._done.get(key)
            if done is None:
                answer = act()
                self._done[key] = _Done(fingerprint, answer, now_ns)
                return answer
        if done.fingerprint != fingerprint:
            raise LotaBotsError(Code.CONFLICT, "this Idempotency-Key was used for another request")
        return done.answer

    def _forget(self, now_ns: int) -> None:
        oldest_ns = now_ns - REMEMBERED_SECONDS * NANOSECONDS
        while self._done:
            key, done = next(iter(self._done.items()))
            if done.at_ns > oldest_ns and len(self._done) < MAX_REMEMBERED:
                return
            del self._done[key]
