"""What is asked for a token or a receipt and what comes back, as lines on the daemon's socket. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lotabotsd.foundation.canonical import canonical_json, strict_json
from lotabotsd.foundation.errors import Code, LotaBotsError

MAX_REQUEST_BYTES = 4 * 1024  # one line, its line end included
MAX_ANSWER_BYTES = 1024 * 1024
ANY_AUDIENCE = "lotabots:any"
MAX_ID_LENGTH = 64
_NONCE = re.compile(r"[A-Za-z0-9_-]{22,88}")  # 22 characters carry 128 bits; RFC 9711 ends at 88
_AUDIENCE = re.compile(r"[\x21-\x7e]{1,255}")
_KEY_ID = re.compile(r"[A-Za-z0-9]{1,32}")


@dataclass(frozen=True, slots=True)
class AttestRequest:
    """One wish for a token. `nonce` is the caller's challenge; `key_id` names the caller's API key."""

    nonce: str | None
    audience: str = ANY_AUDIENCE
    key_id: str = ""

    def to_line(self) -> bytes:
        """The request as one line of JSON."""
        return canonical_json({"audience": self.audience, "key_id": self.key_id, "nonce": self.nonce}) + b"\n"


@dataclass(frozen=True, slots=True)
class ReceiptRequest:
    """The wish for a receipt of before; only one of this organisation is given out."""

    receipt_id: str
    organisation_id: str

    def to_line(self) -> bytes:
        """The request as one line of JSON."""
        return canonical_json({"organisation": self.organisation_id, "receipt": self.receipt_id}) + b"\n"


@dataclass(frozen=True, slots=True)
class FoundReceipt:
    """A receipt, as it was given out with its answer."""

    receipt: str

    def to_line(self) -> bytes:
        """The answer as one line of JSON."""
        return canonical_json({"receipt": self.receipt}) + b"\n"


@dataclass(frozen=True, slots=True)
class Issued:
    """A token, and the submodules that it only names by digest (name → base64url of their JSON)."""

    token: str
    detached: Mapping[str, str] = field(default_factory=dict)

    def to_line(self) -> bytes:
        """The answer as one line of JSON."""
        return canonical_json({"detached": dict(self.detached), "token": self.token}) + b"\n"


def check_nonce(nonce: object) -> str | None:
    """The nonce as it may be signed, or None where none was given. Raises NONCE_INVALID."""
    if nonce is None:
        return None
    if not isinstance(nonce, str) or not _NONCE.fullmatch(nonce):
        raise LotaBotsError(Code.NONCE_INVALID)
    return nonce


def check_audience(audience: object) -> str:
    """The audience as it may be signed: `lotabots:any` where none was given. Raises VALUE_INVALID."""
    if audience is None:
        return ANY_AUDIENCE
    if not isinstance(audience, str) or not _AUDIENCE.fullmatch(audience):
        raise LotaBotsError(
            Code.VALUE_INVALID,
            "the audience is not usable",
            hint="send 1 to 255 visible ASCII characters without spaces, or leave it out",
        )
    return audience


def parse_request(line: bytes) -> AttestRequest | ReceiptRequest:
    """Read a request line. Raises JSON_INVALID, NONCE_INVALID or VALUE_INVALID."""
    found = _object(line)
    if "receipt" in found:
        return _parse_receipt_request(found)
    unknown = set(found) - {"nonce", "audience", "key_id"}
    if unknown:
        raise LotaBotsError(Code.JSON_INVALID, f"unknown members: {', '.join(sorted(unknown))}")
    key_id = found.get("key_id", "")
    if not isinstance(key_id, str) or (key_id and not _KEY_ID.fullmatch(key_id)):
        raise LotaBotsError(Code.VALUE_INVALID, "the key id is not usable")
    return AttestRequest(check_nonce(found.get("nonce")), check_audience(found.get("audience")), key_id)


def _parse_receipt_request(found: Mapping[str, Any]) -> ReceiptRequest:
    if set(found) != {"receipt", "organisation"}:
        raise LotaBotsError(Code.JSON_INVALID, "a receipt is asked for by receipt and organisation alone")
    receipt, organisation = found["receipt"], found["organisation"]
    if not all(isinstance(text, str) and 0 < len(text) <= MAX_ID_LENGTH for text in (receipt, organisation)):
        raise LotaBotsError(Code.VALUE_INVALID, "an id is not usable")
    return ReceiptRequest(receipt, organisation)


def error_line(failure: LotaBotsError) -> bytes:
    """A failure as the answer line."""
    return canonical_json({"error": failure.problem()}) + b"\n"


def parse_answer(line: bytes) -> Issued:
    """Read an answer line. Raises the failure that it tells of, or INTERNAL when it is no answer at all."""
    found = _answer(line)
    token, detached = found.get("token"), found.get("detached", {})
    if (
        not isinstance(token, str)
        or not isinstance(detached, dict)
        or not all(isinstance(item, str) for item in detached.values())
    ):
        raise LotaBotsError(Code.INTERNAL, "the daemon answered without a token")
    return Issued(token, detached)


def parse_receipt_answer(line: bytes) -> FoundReceipt:
    """Read the answer to a `ReceiptRequest`. Raises as `parse_answer` does."""
    receipt = _answer(line).get("receipt")
    if not isinstance(receipt, str):
        raise LotaBotsError(Code.INTERNAL, "the daemon answered without a receipt")
    return FoundReceipt(receipt)


def _answer(line: bytes) -> dict[str, Any]:
    try:
        found = _object(line)
    except LotaBotsError as failure:
        raise LotaBotsError(
            Code.INTERNAL, f"the daemon's answer cannot be read: {failure.detail}"
        ) from failure
    error = found.get("error")
    if isinstance(error, dict):
        raise _told(error)
    return found


def _told(error: Mapping[str, Any]) -> LotaBotsError:
    code, detail, hint = error.get("code"), error.get("detail"), error.get("hint")
    known = Code(code) if isinstance(code, str) and code in set(Code) else Code.INTERNAL
    return LotaBotsError(
        known,
        detail if isinstance(detail, str) and detail != error.get("title") else "",
        hint=hint if isinstance(hint, str) else None,
    )


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = strict_json(line, max_depth=4)
    except ValueError as error:
        raise LotaBotsError(Code.JSON_INVALID, str(error)) from error
    if not isinstance(found, dict):
        raise LotaBotsError(Code.JSON_INVALID, "one JSON object is expected")
    return found
