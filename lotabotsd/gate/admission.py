"""Steps 1 to 5 and 8 of a request: who asks, what the licence allows, may the key, is there room, on record.

Every "no" is a value (`Refused`) and changes nothing. Clocks arrive as arguments.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from lotabotsd.foundation.catalogue import CATALOGUE
from lotabotsd.foundation.clock import NANOSECONDS, from_ns, month_end_ns, month_window, rfc3339
from lotabotsd.foundation.codes import Code
from lotabotsd.identity.api_key import hash_secret, parse_api_key
from lotabotsd.limits.scope import Busy, Refusal, Scope, Ticket
from lotabotsd.limits.table import Table
from lotabotsd.models.facts import ModelFacts
from lotabotsd.policy.grant import Grant
from lotabotsd.policy.reader import PolicyReader
from lotabotsd.usage.records import Outcome

from .parameters import Namespace, Terms, namespace_secret

MAX_AUTHORIZATION_BYTES = 256
PROVEN_KEPT = 4_096
LOOKS = 8  # at a policy that changes while a request is judged by it
USED_HERE = frozenset({"infer", "predict", "attest", "models_read", "receipts_read"})
_UNIT_CODE = {"rate": Code.RATE_LIMITED, "concurrency": Code.CONCURRENCY_LIMITED, "quota": Code.QUOTA_SPENT}
_UNIT_OUTCOME = {
    "rate": Outcome.REFUSED_RATE,
    "concurrency": Outcome.REFUSED_CONCURRENCY,
    "quota": Outcome.REFUSED_QUOTA,
}


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request may not run, in the words of the catalogue, and how the ledger calls it."""

    code: Code
    detail: str = ""
    outcome: Outcome = Outcome.REFUSED_POLICY
    retry_after_seconds: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    hint: str | None = None  # instead of the catalogue's

    @property
    def status(self) -> int:
        """The HTTP status of this refusal."""
        return CATALOGUE[self.code].http_status


@dataclass(frozen=True, slots=True)
class Reserved:
    """Room was found in every scope."""

    ticket: Ticket
    scopes: tuple[Scope, ...]


@dataclass(frozen=True, slots=True)
class _Proven:
    """A key that was found good: for as long as its grant is in force, and no longer than until then."""

    grant: Grant
    until_ns: int  # wall time, exclusive


class Admission:
    """Judges requests by policy.db and the limits table."""

    def __init__(self, policy: PolicyReader, table: Table, pepper: bytes) -> None:
        self._policy = policy
        self._table = table
        self._pepper = pepper
        self._namespaces = namespace_secret(pepper)
        self._proven: dict[bytes, _Proven] = {}  # by the keyed hash of the header: no secret is kept
        self._scopes: dict[str, tuple[Grant, Scope, tuple[Scope, ...]]] = {}

    def terms(self, grant: Grant, upstream_timeout_seconds: float) -> Terms:
        """On what terms a key's requests run at Triton; the same from every worker."""
        return Terms(
            Namespace(self._namespaces, grant.key_id),
            grant.priority_band,
            int(upstream_timeout_seconds * 1_000_000),
        )

    def identify(self, authorization: bytes | None, wall_ns: int) -> Grant | Refused:
        """Step 1: whose key is it? A typing error is refused by its checksum, without a look-up.

        An unknown key, a wrong secret and a revoked key look the same from outside.
        """
        if authorization is None:
            return Refused(Code.KEY_MISSING)
        mark = blake2b(authorization, key=self._pepper, digest_size=16).digest()
        proven = self._proven.get(mark)
        if (
            proven is not None
            and wall_ns < proven.until_ns
            and self._policy.grant(proven.grant.key_id) is proven.grant  # the reader drops what changed
        ):
            return proven.grant
        found = self._prove(authorization, wall_ns)
        if isinstance(found, Refused):
            return found
        if len(self._proven) >= PROVEN_KEPT:
            self._proven.clear()
        self._proven[mark] = found
        return found.grant

    def _prove(self, authorization: bytes, wall_ns: int) -> _Proven | Refused:
        scheme, _, text = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or len(authorization) > MAX_AUTHORIZATION_BYTES:
            return Refused(Code.KEY_MISSING, "the Authorization header is not 'Bearer KEY'")
        parsed = parse_api_key(text.strip().decode("latin-1"))
        if parsed is None:
            return Refused(Code.KEY_INVALID, "it is mistyped or cut off: its checksum does not fit")
        grant = self._policy.grant(parsed.key_id)
        if grant is None or grant.environment != parsed.environment:
            return Refused(Code.KEY_INVALID)
        offered = hash_secret(self._pepper, parsed.key_id, parsed.secret)
        until_ns = 0
        for expected, expires_at_ns in grant.secrets:
            ends_ns = grant.expires_at_ns if expires_at_ns is None else expires_at_ns
            alive = expires_at_ns is None or wall_ns < expires_at_ns
            if hmac.compare_digest(offered, expected) and alive:
                until_ns = max(until_ns, ends_ns)
        if not until_ns:
            return Refused(Code.KEY_INVALID)
        if wall_ns >= grant.expires_at_ns:
            return Refused(Code.KEY_EXPIRED, f"on {rfc3339(from_ns(grant.expires_at_ns))}")
        return _Proven(grant, min(until_ns, grant.expires_at_ns))

    @property
    def licence_warning(self) -> bytes:
        """What every caller with a key is told of the licence; empty: nothing."""
        return self._policy.standing().warning

    def standing(self, wall_ns: int) -> Refused | None:
        """Step 2: does the licence allow new work now, and is the policy fresh enough to say so?"""
        standing = self._policy.standing()
        if wall_ns >= standing.lease_until_ns:
            return Refused(Code.POLICY_LEASE_ENDED, outcome=Outcome.REFUSED_UNREADY)
        if standing.state == "terminated":
            return Refused(Code.LICENCE_TERMINATED, standing.effect)
        return None

    def permit(self, grant: Grant, permission: str, model: str, version: str = "") -> ModelFacts | Refused:
        """Step 3: may this key do this with this model? Out of scope is 403 whether it exists or not."""
        if permission not in grant.permissions:
            return Refused(Code.PERMISSION_DENIED, f"the key's role {grant.role!r} lacks {permission!r}")
        if not allowed_model(grant, model):
            return Refused(Code.MODEL_NOT_IN_SCOPE, model)
        facts = self._policy.model(model)
        if facts is None:
            return Refused(Code.MODEL_UNKNOWN, model)
        if version and version not in facts.versions:
            return Refused(Code.MODEL_UNKNOWN, f"{model} has no version {version}")
        if not facts.ready:
            return Refused(Code.MODEL_NOT_READY, model, Outcome.REFUSED_UNREADY, retry_after_seconds=1)
        return facts

    def reserve(self, grant: Grant, model: str, rows: int, now_ns: int, wall_ns: int) -> Reserved | Refused:
        """Step 4: reserve in all scopes, all or nothing. `now_ns` is monotonic; `rows` are inferences.

        The body may have taken its time since steps 1 to 3: what they found must be in force still. The
        table says so at the moment of the admission, and where it is not, the key is judged again.
        """
        for _ in range(LOOKS):
            current = self._in_force(grant, model, wall_ns)
            if isinstance(current, Refused):
                return current
            refused = self.standing(wall_ns) if rows else None  # what infers nothing needs no licence
            if refused is not None:
                return refused
            scopes = self._scopes_of(current, model)
            answer = self._table.reserve(
                scopes, rows, now_ns, month_window(wall_ns), generation=self._policy.generation()
            )
            if isinstance(answer, Ticket):
                return Reserved(answer, scopes)
            if isinstance(answer, Refusal):
                return _refused(answer, wall_ns)
            if isinstance(answer, Busy):
                return _unavailable("the limits table is locked")
            self._policy.refresh()
        return _unavailable("the limits table is made anew")

    def _in_force(self, grant: Grant, model: str, wall_ns: int) -> Grant | Refused:
        """The grant as it is now, if it still allows what it allowed when the request was identified."""
        current = self._policy.grant(grant.key_id)
        if current is None:
            return Refused(Code.KEY_INVALID)
        if current is not grant and (refused := _lost(grant, current, model)) is not None:
            return refused
        if wall_ns >= current.expires_at_ns:
            return Refused(Code.KEY_EXPIRED, f"on {rfc3339(from_ns(current.expires_at_ns))}")
        return current

    def _scopes_of(self, grant: Grant, model: str) -> tuple[Scope, ...]:
        """The scopes of a key with those of a model: the same tuple as long as neither changed."""
        scope = self._policy.model_scope(model)
        if scope is None:
            return grant.scopes
        kept = self._scopes.get(f"{grant.key_id}/{model}")
        if kept is None or kept[0] is not grant or kept[1] is not scope:
            if len(self._scopes) >= PROVEN_KEPT:
                self._scopes.clear()
            kept = grant, scope, (*grant.scopes, scope)
            self._scopes[f"{grant.key_id}/{model}"] = kept
        return kept[2]

    def still_valid(self, grant: Grant, model: str, wall_ns: int) -> Refused | None:
        """Judge again what waited in a line: nothing after a revocation runs with the revoked key."""
        if self._table.generation > self._policy.generation():
            self._policy.refresh()
        current = self._in_force(grant, model, wall_ns)
        return current if isinstance(current, Refused) else self.standing(wall_ns)


def _lost(before: Grant, now: Grant, model: str) -> Refused | None:
    """What a request that was identified by `before` must not do any more."""
    secrets = {secret for secret, _ in before.secrets}
    kept = secrets & {secret for secret, _ in now.secrets}
    if not kept:
        return Refused(Code.KEY_INVALID)
    if kept != secrets:  # which one the request came with is forgotten by now
        return _unavailable("the key was changed meanwhile")
    if (before.permissions - now.permissions) & USED_HERE:
        return Refused(Code.PERMISSION_DENIED, f"the key's role is {now.role!r} now")
    if model and not allowed_model(now, model):
        return Refused(Code.MODEL_NOT_IN_SCOPE, model)
    return None


def allowed_model(grant: Grant, model: str) -> bool:
    """Whether the key's scopes name this model."""
    return "*" in grant.models or model in grant.models


def _unavailable(detail: str) -> Refused:
    return Refused(Code.LIMITS_UNAVAILABLE, detail, Outcome.REFUSED_UNREADY, retry_after_seconds=1)


def _refused(refusal: Refusal, wall_ns: int) -> Refused:
    retry_ns = refusal.retry_after_ns
    if refusal.unit == "quota":
        retry_ns = month_end_ns(month_window(wall_ns)) - wall_ns
    elif refusal.unit == "concurrency":
        retry_ns = NANOSECONDS  # nobody knows when a running request ends
    unit = {"rate": "requests per minute", "concurrency": "requests at once", "quota": "inferences per month"}
    return Refused(
        _UNIT_CODE[refusal.unit],
        f"the {refusal.kind} is limited to {refusal.limit} {unit[refusal.unit]}",
        _UNIT_OUTCOME[refusal.unit],
        retry_after_seconds=max(1, -(-retry_ns // NANOSECONDS)),
        extra={
            "scope": refusal.kind,
            "unit": refusal.unit,
            "limit": refusal.limit,
            "remaining": refusal.remaining,
            "retry_after_ms": -(-retry_ns // 1_000_000),
        },
    )
