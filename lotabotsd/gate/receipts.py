"""Receipts at the gate: who wants one, which bytes it binds, and what is signed with the answer.

The gate holds the receipt key and no other. A receipt is written into the usage journal behind the CLOSE of
its request, so that it survives what that survives and the daemon can hand it out later.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from lotabotsd.attestation.receipt import Body, ReceiptSigner, Stated
from lotabotsd.attestation.request import check_nonce
from lotabotsd.foundation.clock import NANOSECONDS, Clock
from lotabotsd.foundation.codes import Code
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.models.facts import ModelFacts
from lotabotsd.policy.reader import PolicyReader

from .metering import Closed, MakeReceipt, Measured

RECEIPT = b"lotabots-receipt"
RECEIPT_ID = b"lotabots-receipt-id"
SALT = b"lotabots-receipt-salt"
NONCE = b"lotabots-nonce"
HOLD_BYTES = 64 * 1024  # an answer up to this size waits for its end, so that its receipt goes with its head
_SALT_BYTES = 16


class BodyDigest:
    """Counts and hashes a body as it passes."""

    def __init__(self, salt: bytes) -> None:
        self._hash = hmac.new(salt, digestmod="sha256") if salt else hashlib.sha256()
        self._scheme = "hmac-sha256" if salt else "sha256"
        self._byte_count = 0

    def update(self, part: bytes) -> None:
        """The next part of the body."""
        self._hash.update(part)
        self._byte_count += len(part)

    def body(self) -> Body:
        """What binds the body as far as it passed."""
        return Body(self._byte_count, f"{self._scheme}:{self._hash.hexdigest()}")


@dataclass(slots=True)
class Wish:
    """A caller's wish for a receipt, and what has been seen of both bodies."""

    nonce: str | None
    salt: bytes  # empty: anybody who has the bodies can check the receipt
    request: BodyDigest = field(init=False)
    response: BodyDigest = field(init=False)
    upstream_us: int | None = None

    def __post_init__(self) -> None:
        self.request, self.response = BodyDigest(self.salt), BodyDigest(self.salt)

    def headers_before(self, receipt_id: str) -> list[tuple[bytes, bytes]]:
        """For an answer whose receipt is made only behind it: where to ask for it."""
        return [(RECEIPT_ID, receipt_id.encode()), *self._salt_header()]

    def headers_with(self, closed: Closed) -> list[tuple[bytes, bytes]]:
        """The headers of an answer that takes its receipt along; none when there is no receipt."""
        if closed.receipt is None:
            return []
        return [(RECEIPT, closed.receipt.encode()), *self._salt_header()]

    def _salt_header(self) -> list[tuple[bytes, bytes]]:
        return [(SALT, b64url(self.salt).encode())] if self.salt else []


def wish_of(headers: Mapping[bytes, bytes]) -> Wish | None:
    """The wish in a request's headers. Raises REQUEST_MALFORMED or NONCE_INVALID.

    `Lotabots-Receipt: 1` binds the bodies by their digests; with `hiding` by a salted hash whose salt goes to
    the caller alone, so that the receipt can be shown around without letting anybody guess at the bodies.
    """
    asked = headers.get(RECEIPT, b"0").strip().lower()
    if asked == b"0":
        return None
    if asked not in (b"1", b"hiding"):
        raise LotaBotsError(
            Code.REQUEST_MALFORMED,
            "Lotabots-Receipt says neither 1 nor hiding",
            hint="send 'Lotabots-Receipt: 1', or leave the header out",
        )
    nonce = headers.get(NONCE)
    checked = check_nonce(None if nonce is None else nonce.decode("latin-1"))
    return Wish(checked, secrets.token_bytes(_SALT_BYTES) if asked == b"hiding" else b"")


@dataclass(frozen=True, slots=True)
class About:
    """The request that a receipt is about."""

    receipt_id: str
    method: str
    path: str
    key_id: str
    model: str
    version: str
    facts: ModelFacts | None  # None: refused before it was known


class Receipts:
    """Signs the receipts of one worker."""

    def __init__(
        self, signer: ReceiptSigner, policy: PolicyReader, clock: Clock, *, worker: int, epoch: int
    ) -> None:
        self._signer = signer
        self._policy = policy
        self._clock = clock
        self._worker = worker
        self._epoch = epoch

    def maker(self, wish: Wish | None, about: About, measured: Measured) -> MakeReceipt | None:
        """What makes the receipt once the CLOSE has its number; None where nobody wants one."""
        if wish is None:
            return None

        def make(record: int, gate_us: int) -> str:
            return self._signer.sign(self._stated(wish, about, measured, record, gate_us))

        return make

    def _stated(self, wish: Wish, about: About, measured: Measured, record: int, gate_us: int) -> Stated:
        policy = self._policy
        standing, instance, facts = policy.standing(), policy.instance(), about.facts
        return Stated(
            issuer=instance.ueid,
            receipt_id=about.receipt_id,
            issued_at=self._clock.wall_ns() // NANOSECONDS,
            nonce=wish.nonce,
            token_hash=policy.token_hash(),
            development=standing.development,
            worker=self._worker,
            epoch=self._epoch,
            record=record,
            method=about.method,
            path=about.path,
            request=wish.request.body(),
            status=measured.status,
            outcome=measured.outcome.label,
            response=wish.response.body(),
            model=about.model,
            version=about.version or _only_version(facts),
            digest="" if facts is None else facts.digest,
            licence_id=standing.licence_id,
            tier=standing.tier,
            key_id=about.key_id,
            gate_us=gate_us,
            upstream_us=wish.upstream_us,
            image=instance.image,
            gpus=instance.gpus,
        )


def _only_version(facts: ModelFacts | None) -> str:
    """Triton chooses among several versions and does not say which, before it answers."""
    return facts.versions[0] if facts is not None and len(facts.versions) == 1 else ""
