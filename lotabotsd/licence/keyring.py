"""Whom this release trusts: the vendor's roots in the package, and the keys that they vouch for.

Everything but `load_anchors` is pure. Roots sign a keyring statement; its keys sign licences,
acknowledgements and rate cards. A newer keyring is one version up and signed under the old and the new
roots, the rule by which TUF rotates its root (TUF specification, 5.3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from importlib import resources

from lotabotsd.foundation.envelope import (
    MAX_ENVELOPE_BYTES,
    Envelope,
    PayloadType,
    parse_envelope,
    verify,
    verify_issued,
)
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.fields import Fields
from lotabotsd.foundation.keys import public_key

# The root whose private key is published in scripts/vendor: whatever it vouches for is development.
DEVELOPMENT_ROOT = "zIaCIOhgSFmAKQ8LCDLQzj5RKIrx6dml-eQen_PpEY4"
MAX_KEYS = 64
_KEY_ID = r"[A-Za-z0-9_-]{43}"


class Use(StrEnum):
    """What a key of the keyring may sign."""

    LICENCE = "licence"
    ACKNOWLEDGEMENT = "acknowledgement"
    RATE_CARD = "rate-card"


@dataclass(frozen=True, slots=True)
class IssuingKey:
    """One key of the keyring; it may sign from `not_before` until just before `not_after`."""

    keyid: str
    public: bytes
    uses: frozenset[Use]
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Keyring:
    """A verified keyring statement."""

    version: int
    issued_at: datetime
    roots: Mapping[str, bytes]
    threshold: int
    keys: tuple[IssuingKey, ...]
    revoked: frozenset[str]

    def trusted_keys(self, use: Use, at: datetime | None = None) -> dict[str, bytes]:
        """Key id → raw public key of those that may sign this at that moment (None: at any)."""
        return {
            key.keyid: key.public
            for key in self.keys
            if use in key.uses
            and key.keyid not in self.revoked
            and (at is None or key.not_before <= at < key.not_after)
        }


@dataclass(frozen=True, slots=True)
class Anchors:
    """What a package carries: pinned roots, the keyring of its day, and when it was built."""

    roots: Mapping[str, bytes]
    threshold: int
    keyring: Keyring
    development: bool
    built_at: datetime | None


def load_anchors() -> Anchors:
    """The anchors of this package: production ones where a release was built with them, else development.

    They are never read from configuration. Raises KEYRING_INVALID.
    """
    folder = resources.files("lotabotsd.licence") / "anchors"
    for name in ("production.json", "development.json"):
        file = folder / name
        if file.is_file():
            return parse_anchors(file.read_bytes())
    raise LotaBotsError(Code.KEYRING_INVALID, "this package has no anchors", hint="install the package again")


def parse_anchors(data: bytes) -> Anchors:
    """Check an anchors document, and the keyring in it under its roots. Raises KEYRING_INVALID and others."""
    fields = Fields.of_body(data, Code.KEYRING_INVALID)
    kind = fields.text("kind", "development|production", "development or production")
    roots = fields.public_keys("roots", at_most=MAX_KEYS)
    threshold = fields.integer("threshold", 1, MAX_KEYS)
    built_at = fields.optional_moment("built_at")
    statement = fields.document("keyring", at_most_bytes=MAX_ENVELOPE_BYTES)
    also = _unusable_roots(roots, threshold)
    if kind == "production" and DEVELOPMENT_ROOT in roots:
        also.append("roots holds the published development root, which nobody may trust in production")
    fields.finish(Code.KEYRING_INVALID, *also)
    envelope = parse_envelope(statement)
    keyring = parse_keyring(verify(envelope, PayloadType.KEYRING, roots, threshold))
    if dict(keyring.roots) != roots or keyring.threshold != threshold:
        raise LotaBotsError(Code.KEYRING_INVALID, "the keyring names other roots than the anchors")
    return Anchors(roots, threshold, keyring, kind == "development", built_at)


def parse_keyring(body: bytes) -> Keyring:
    """Check the verified body of a keyring statement. Raises KEYRING_INVALID with every problem, KEY_WEAK."""
    fields = Fields.of_body(body, Code.KEYRING_INVALID)
    version = fields.integer("version", 1)
    issued_at = fields.moment("issued_at")
    roots = fields.public_keys("roots", at_most=MAX_KEYS)
    threshold = fields.integer("threshold", 1, MAX_KEYS)
    keys = tuple(_issuing_key(entry) for entry in fields.objects("keys", at_most=MAX_KEYS))
    revoked = fields.texts("revoked", _KEY_ID, "a key id", at_most=1024)
    also = _unusable_roots(roots, threshold)
    if len({key.keyid for key in keys}) != len(keys):
        also.append("keys names a key twice")
    fields.finish(Code.KEYRING_INVALID, *also)
    for raw in [*roots.values(), *(key.public for key in keys)]:
        public_key(raw)
    return Keyring(version, issued_at, roots, threshold, keys, frozenset(revoked))


def is_current(current: Keyring, envelope: Envelope) -> bool:
    """Whether a document only says again what is trusted already, from the package or from a file."""
    try:
        body = verify(envelope, PayloadType.KEYRING, current.roots, current.threshold)
        return parse_keyring(body) == current
    except LotaBotsError:
        return False  # what is wrong with it, `rotate` says


def rotate(current: Keyring, envelope: Envelope) -> Keyring:
    """The keyring that follows `current`. Raises KEYRING_INVALID, KEYRING_ORDER, and what `verify` raises.

    Signed under both sets of roots, exactly one version up, nothing revoked comes back, and the published
    development root does not join others: it would make everybody a vendor.
    """
    body = verify(envelope, PayloadType.KEYRING, current.roots, current.threshold)
    following = parse_keyring(body)
    verify(envelope, PayloadType.KEYRING, following.roots, following.threshold)
    if following.version != current.version + 1:
        raise LotaBotsError(
            Code.KEYRING_ORDER,
            f"version {following.version} does not follow version {current.version}",
            hint="install every keyring in its order"
            if following.version > current.version
            else "leave it out: a newer keyring is trusted already",
        )
    if not current.revoked <= following.revoked:
        raise LotaBotsError(Code.KEYRING_INVALID, "a revoked key is trusted again")
    if DEVELOPMENT_ROOT in following.roots and DEVELOPMENT_ROOT not in current.roots:
        raise LotaBotsError(Code.KEYRING_INVALID, "the published development root may not become a root")
    return following


def signer_of(
    envelope: Envelope,
    expected_type: PayloadType,
    keyring: Keyring,
    use: Use,
    issued_at: Callable[[bytes], datetime],
) -> tuple[bytes, str]:
    """The verified body of a document that an issuing key of the keyring signed, and that key's id.

    Raises as `verify_issued`.
    """
    trusted = partial(keyring.trusted_keys, use)
    return verify_issued(envelope, expected_type, trusted, keyring.revoked, issued_at)


def _issuing_key(fields: Fields) -> IssuingKey:
    keyid, raw = fields.key()
    uses = fields.texts("uses", "|".join(Use), f"one of {', '.join(Use)}")
    not_before, not_after = fields.moment("not_before"), fields.moment("not_after")
    if not not_before < not_after:
        fields.wrong("not_after", "must be after not_before")
    fields.close()
    return IssuingKey(keyid, raw, frozenset(Use(use) for use in uses), not_before, not_after)


def _unusable_roots(roots: Mapping[str, bytes], threshold: int) -> list[str]:
    return [] if threshold <= len(roots) else [f"threshold {threshold} is more than {len(roots)} roots"]
