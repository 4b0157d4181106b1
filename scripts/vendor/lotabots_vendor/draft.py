"""A keyring on its way between the holders of roots: what it says, what it follows, who signed so far. Pure.

The file is JSON with exactly `format` (1), `follows` (the signed keyring before it, an envelope) and
`statement` (an envelope that may have no signature yet), so that whoever signs sees what changes without the
vendor's directory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lotabotsd.foundation.canonical import canonical_json, strict_json
from lotabotsd.foundation.envelope import (
    MAX_SIGNATURES,
    Envelope,
    PayloadType,
    Signature,
    parse_envelope,
    verify,
)
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.licence.keyring import Keyring, parse_keyring

from .keyring_change import Support, support

_FORMAT = 1
_FIELDS = {"format", "follows", "statement"}
_STAND_IN = {"keyid": "A" * 43, "sig": "A" * 86 + "=="}


@dataclass(frozen=True, slots=True)
class Draft:
    """A keyring statement that is being signed; everything in it is checked."""

    follows: Envelope
    statement: Envelope
    current: Keyring
    following: Keyring

    @property
    def signers(self) -> list[str]:
        """The key ids that have signed."""
        return [signature.keyid for signature in self.statement.signatures]

    @property
    def support(self) -> Support:
        """How many of the signatures needed are there."""
        return support(self.current, self.following, self.signers)


def new_draft(follows: Envelope, statement: Envelope) -> Draft:
    """A draft of its two parts. Raises KEYRING_INVALID, SIGNER_UNKNOWN, SIGNATURE_INVALID and others.

    The keyring before it is judged by its own roots alone: who signs compares their ids with those he knows.
    """
    unproven = parse_keyring(follows.body)
    current = parse_keyring(verify(follows, PayloadType.KEYRING, unproven.roots, unproven.threshold))
    if statement.payload_type is not PayloadType.KEYRING:
        raise LotaBotsError(Code.ENVELOPE_TYPE, f"this is a {statement.payload_type.short_name}")
    made = parse_keyring(statement.body)
    if made.version != current.version + 1:
        raise _invalid(f"version {made.version} does not follow version {current.version}")
    if not current.revoked <= made.revoked:
        raise _invalid("a revoked key is trusted again")
    roots = {**current.roots, **made.roots}
    for signature in statement.signatures:
        if signature.keyid not in roots:
            raise LotaBotsError(
                Code.SIGNER_UNKNOWN,
                f"{signature.keyid} is neither a present root nor a new one",
                hint="sign with a root; keyring sign shows which ones there are",
            )
        verify(replace(statement, signatures=(signature,)), PayloadType.KEYRING, roots)
    return Draft(follows, statement, current, made)


def draft_bytes(draft: Draft) -> bytes:
    """The content of a draft's file."""
    value = {
        "format": _FORMAT,
        "follows": json.loads(draft.follows.to_json()),
        "statement": json.loads(draft.statement.to_json()),
    }
    return canonical_json(value) + b"\n"


def parse_draft(data: bytes) -> Draft:
    """Read and check a draft's file. Raises KEYRING_INVALID where it is none, and as `new_draft`."""
    try:
        value = strict_json(data, max_depth=6)
    except (ValueError, RecursionError) as error:
        raise _invalid("this is no draft of a keyring") from error
    if not isinstance(value, dict) or set(value) != _FIELDS or value["format"] != _FORMAT:
        raise _invalid("this is no draft of a keyring, or one of another release")
    return new_draft(_envelope(value["follows"]), _perhaps_unsigned(value["statement"]))


def merged(drafts: Sequence[Draft]) -> Draft:
    """One draft with the signatures of all. Raises CONFLICT where they are not copies of one draft."""
    first = drafts[0]
    signatures: dict[str, Signature] = {}
    for draft in drafts:
        if (draft.follows.body, draft.statement.body) != (first.follows.body, first.statement.body):
            raise LotaBotsError(
                Code.CONFLICT, "the files are not copies of one draft", hint="give the copies of one draft"
            )
        signatures.update({signature.keyid: signature for signature in draft.statement.signatures})
    if len(signatures) > MAX_SIGNATURES:
        raise LotaBotsError(
            Code.CONFLICT,
            f"{len(signatures)} signatures, and a document carries {MAX_SIGNATURES}",
            hint="give fewer of the files",
        )
    return replace(first, statement=replace(first.statement, signatures=tuple(signatures.values())))


def _perhaps_unsigned(value: Any) -> Envelope:
    """An envelope, read as strictly as any, that may have no signature."""
    if isinstance(value, dict) and value.get("signatures") == []:
        # With a signature put in, so that the one strict reader judges everything else.
        return replace(_envelope({**value, "signatures": [_STAND_IN]}), signatures=())
    return _envelope(value)


def _envelope(value: Any) -> Envelope:
    try:
        return parse_envelope(canonical_json(value))
    except ValueError as error:
        raise _invalid(f"the draft is damaged: {error}") from error


def _invalid(detail: str) -> LotaBotsError:
    return LotaBotsError(
        Code.KEYRING_INVALID, detail, hint="write it again: lotabots-vendor keyring draft --dir DIR"
    )
