"""Issue tokens one after the other; each names the one before it, also across restarts."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from lotabotsd.foundation.clock import NANOSECONDS, Clock
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically
from lotabotsd.foundation.identifiers import unb64url, uuid7

from .evidence import Evidence
from .keyset import Keyset
from .request import ANY_AUDIENCE, Issued, check_audience, check_nonce
from .token import CHALLENGED_SECONDS, UNCHALLENGED_SECONDS, Frame, claims, sign_jws, token_hash

log = logging.getLogger(__name__)


class Issuer:
    """Holds the attestation key. `directory` keeps the hash of the last token; safe for several threads."""

    def __init__(
        self,
        keyset: Keyset,
        clock: Clock,
        directory: Path,
        *,
        algorithm: str = "EdDSA",
        token_seconds: int = CHALLENGED_SECONDS,
    ) -> None:
        self._keyset = keyset
        self._clock = clock
        self._memory = directory / "previous_token"
        self._algorithm = algorithm
        self._token_seconds = token_seconds
        self._previous = _read_previous(self._memory)
        self._one_at_a_time = threading.Lock()

    @property
    def ueid(self) -> str:
        """The name that tokens and receipts are issued under."""
        return self._keyset.ueid

    @property
    def jwks(self) -> dict[str, Any]:
        """The keys that verify them, as a JWK set."""
        return self._keyset.jwks(self._algorithm)

    @property
    def last(self) -> str:
        """The hash of the token that was issued last; empty before the first."""
        return self._previous or ""

    def issue(self, evidence: Evidence, nonce: str | None = None, audience: str = ANY_AUDIENCE) -> Issued:
        """Sign a token about `evidence`; blocks for one fsync.

        With a nonce it lives `token_seconds`, without one a day. Raises NONCE_INVALID, VALUE_INVALID,
        and DISK_FULL or FILE_UNWRITABLE when the chain cannot be kept: then there is no token.
        """
        checked = check_nonce(nonce)
        for_whom = check_audience(audience)
        with self._one_at_a_time:
            wall_ns = self._clock.wall_ns()
            frame = Frame(
                ueid=self._keyset.ueid,
                keyset=self._keyset.public(),
                receipt_key=self._keyset.receipt_thumbprint,
                audience=for_whom,
                nonce=checked,
                issued_at=wall_ns // NANOSECONDS,
                lifetime_seconds=UNCHALLENGED_SECONDS if checked is None else self._token_seconds,
                token_id=str(uuid7(wall_ns)),
                previous=self._previous,
            )
            stated, detached = claims(frame, evidence)
            token = sign_jws(stated, self._keyset.attestation, self._algorithm)
            self._keep(token_hash(token))
        return Issued(token, detached)

    def _keep(self, previous: str) -> None:
        write_atomically(self._memory, previous.encode() + b"\n", mode=0o600)
        self._previous = previous


def _read_previous(path: Path) -> str | None:
    """The hash of the last token, or None: at the first start, and (with a warning) when it was lost."""
    if not path.exists():
        return None
    try:
        text = read_bounded(path, 64).decode("ascii").strip()
        if len(unb64url(text)) == 32:
            return text
    except (ValueError, LotaBotsError):
        pass
    log.warning("the chain of tokens starts anew", extra={"path": str(path)})
    return None
