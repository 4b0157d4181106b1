"""One signed envelope for every document that crosses the air gap: DSSE, Ed25519, three spellings. Pure.

The rules are those of DSSE 1.0.2 (secure-systems-lab/dsse, protocol.md and envelope.md), read strictly:
standard base64 only, no field more or less, every signature names its key. A document is written as JSON,
as armour for mail, or as one line to paste; the last two carry the bytes of the first.
"""

from __future__ import annotations

import base64
import codecs
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .canonical import canonical_json, strict_json
from .errors import Code, LotaBotsError
from .identifiers import b64url, unb64url
from .keys import public_key, raw_public, thumbprint
from .mail import base64_of_armour, base64_of_line, unwrapped

MAX_ENVELOPE_BYTES = 1024 * 1024
MAX_SIGNATURES = 16
_ARMOUR_WIDTH = 64
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{43}")
# White space in a marker may be a line end: mail programs wrap at 40 characters too. No name has three words.
_BEGIN = re.compile(r"-----BEGIN\s+LOTABOTS\s+([A-Z]+(?:\s+[A-Z]+)?)\s*-----")
_MARKED = re.compile(r"BEGIN\s+LOTABOTS")
_ONE_LINE = re.compile(r"lotabots-([a-z-]+):(.*)", re.DOTALL)


class PayloadType(StrEnum):
    """What a signed body is; the type is inside the signature, so no document passes for another."""

    LICENCE = "application/vnd.lotabots.licence.v1+json"
    KEYRING = "application/vnd.lotabots.keyring.v1+json"
    REVOCATIONS = "application/vnd.lotabots.revocations.v1+json"
    ACTIVATION_REQUEST = "application/vnd.lotabots.activation-request.v1+json"
    USAGE_REPORT = "application/vnd.lotabots.usage-report.v1+json"
    ACKNOWLEDGEMENT = "application/vnd.lotabots.acknowledgement.v1+json"
    RATE_CARD = "application/vnd.lotabots.rate-card.v1+json"

    @property
    def short_name(self) -> str:
        """`licence`, `activation-request`, …: the name in the one-line form and, spelled large, in armour."""
        return self.value.removeprefix("application/vnd.lotabots.").removesuffix(".v1+json")

    @property
    def label(self) -> str:
        """`LICENCE`, `ACTIVATION REQUEST`, …: the name in armour."""
        return self.short_name.replace("-", " ").upper()


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature and the thumbprint of the key that is said to have made it."""

    keyid: str
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A body as it was signed. Nothing in it is to be believed before `verify` has returned the body."""

    payload_type: PayloadType
    body: bytes
    signatures: tuple[Signature, ...]

    def to_json(self) -> bytes:
        """The DSSE JSON envelope, canonical: sorted, no white space, no line end."""
        return canonical_json(
            {
                "payload": base64.b64encode(self.body).decode(),
                "payloadType": self.payload_type.value,
                "signatures": [
                    {"keyid": s.keyid, "sig": base64.b64encode(s.sig).decode()} for s in self.signatures
                ],
            }
        )


def pae(payload_type: str, body: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding of type and body (lengths in bytes)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def sign(payload_type: PayloadType, body: bytes, keys: Sequence[Ed25519PrivateKey]) -> Envelope:
    """Sign a body with each key; Ed25519 is deterministic, so the same input gives the same bytes."""
    message = pae(payload_type, body)
    signatures = tuple(Signature(thumbprint(raw_public(key)), key.sign(message)) for key in keys)
    return Envelope(payload_type, body, signatures)


def verify(
    envelope: Envelope, expected_type: PayloadType, keys: Mapping[str, bytes], threshold: int = 1
) -> bytes:
    """The exact body bytes, when at least `threshold` of the trusted `keys` (key id → raw public) signed.

    A signature by an unknown key counts for nothing; a wrong one by a trusted key refuses the document.
    Raises ENVELOPE_TYPE, SIGNER_UNKNOWN, SIGNATURE_INVALID, KEY_WEAK.
    """
    if envelope.payload_type != expected_type:
        found, needed = envelope.payload_type.label.lower(), expected_type.label.lower()
        raise LotaBotsError(Code.ENVELOPE_TYPE, f"found: {found}; needed: {needed}")
    if threshold < 1:
        raise ValueError("a threshold is at least 1")
    message = pae(envelope.payload_type, envelope.body)
    signers: set[bytes] = set()
    for signature in envelope.signatures:
        raw = keys.get(signature.keyid)
        if raw is None:
            continue
        try:
            public_key(raw).verify(signature.sig, message)
        except InvalidSignature as error:
            raise LotaBotsError(Code.SIGNATURE_INVALID, f"key {signature.keyid}") from error
        signers.add(raw)
    if len(signers) < threshold:
        named = ", ".join(s.keyid for s in envelope.signatures)
        raise LotaBotsError(
            Code.SIGNER_UNKNOWN, f"{len(signers)} of {threshold} trusted signatures; signed by {named}"
        )
    return envelope.body


def verify_issued(
    envelope: Envelope,
    expected_type: PayloadType,
    trusted: Callable[[datetime | None], Mapping[str, bytes]],
    revoked: Set[str],
    issued_at: Callable[[bytes], datetime],
) -> tuple[bytes, str]:
    """The verified body of a document that an issuing key signed, and that key's id.

    `trusted(at)` gives the keys that may sign at a moment (None: at any). The key must have been valid when
    the document was issued (`issued_at` of its body), not now: a document outlives its key. A revoked key
    refuses it, whatever else signed. Raises ENVELOPE_TYPE, SIGNER_REVOKED, SIGNER_UNKNOWN, SIGNER_NOT_VALID,
    SIGNATURE_INVALID, KEY_WEAK, and what `issued_at` raises.
    """
    gone = [s.keyid for s in envelope.signatures if s.keyid in revoked]
    if gone and envelope.payload_type is expected_type:
        hint = f"ask the vendor for a new {expected_type.label.lower()}"
        raise LotaBotsError(Code.SIGNER_REVOKED, f"key {gone[0]}", hint=hint)
    body = verify(envelope, expected_type, trusted(None))
    then = trusted(issued_at(body))
    signers = [s.keyid for s in envelope.signatures if s.keyid in then]
    if not signers:
        raise LotaBotsError(Code.SIGNER_NOT_VALID, f"key {envelope.signatures[0].keyid}")
    return body, signers[0]


def armour(envelope: Envelope) -> str:
    """The form for mail: base64 of the JSON between two marker lines."""
    content = textwrap.wrap(base64.b64encode(envelope.to_json()).decode(), _ARMOUR_WIDTH)
    label = envelope.payload_type.label
    return "\n".join([f"-----BEGIN LOTABOTS {label}-----", *content, f"-----END LOTABOTS {label}-----", ""])


def one_line(envelope: Envelope) -> str:
    """The form to paste: `lotabots-licence:` and base64url of the JSON."""
    return f"lotabots-{envelope.payload_type.short_name}:{b64url(envelope.to_json())}"


def parse_envelope(data: bytes, *, limit_bytes: int = MAX_ENVELOPE_BYTES) -> Envelope:
    """Read an envelope in any of its three forms; nothing is verified yet.

    Armour and the one-line form survive what mail does to lines (see `mail`): CRLF, wrapping, indentation,
    `> ` quoting, quoted-printable, HTML; armour may have other text around it, a line may not. Each form may
    be UTF-16. Raises ENVELOPE_MALFORMED, and ENVELOPE_TYPE for a type unknown here.
    """
    if len(data) > limit_bytes:
        raise _malformed(f"{len(data)} bytes, more than {limit_bytes}")
    if data.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{":
        return _from_json(data.removeprefix(codecs.BOM_UTF8))
    text = _decode(data)
    if text.lstrip().startswith("{"):  # saved as UTF-16
        return _from_json(text.encode(errors="replace"))
    text = unwrapped(text)
    begin = _BEGIN.search(text)
    if begin:
        return _from_armour(text, begin)
    line = _ONE_LINE.fullmatch(text.strip())
    if line:
        return _from_line(line.group(1), line.group(2))
    if _MARKED.search(text):
        raise _malformed("its first line is not -----BEGIN LOTABOTS …-----, with five hyphens at each end")
    raise _malformed("it is neither JSON, nor armour, nor a lotabots- line")


def _decode(data: bytes) -> str:
    """Text as mail programs and editors write it; what is not text becomes a character that is refused."""
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return data.decode("utf-16" if utf16 else "utf-8-sig", errors="replace")


def _from_armour(text: str, begin: re.Match[str]) -> Envelope:
    label = " ".join(begin.group(1).split())
    content = base64_of_armour(_inside_armour(text, begin.end(), label))
    damaged = "it is damaged inside the armour"
    try:
        inside = _base64(content)
    except ValueError as error:
        raise _malformed(damaged) from error
    envelope = _from_json(inside, damaged)
    if envelope.payload_type.label != label:
        raise _malformed(f"the armour says {label}, the content {envelope.payload_type.label}")
    return envelope


def _inside_armour(text: str, start: int, label: str) -> str:
    words = r"\s+".join(("END", "LOTABOTS", *label.split()))
    end = re.compile(rf"-----{words}\s*-----").search(text, start)
    if end is None:
        raise _malformed(f"it ends before -----END LOTABOTS {label}-----")
    if _BEGIN.search(text, start):
        raise _malformed("it holds more than one document", hint="give one document at a time")
    return text[start : end.start()]


def _from_line(name: str, content: str) -> Envelope:
    damaged = "it is damaged inside the line, or other text stands behind it"
    try:
        inside = unb64url(base64_of_line(content))
    except ValueError as error:
        raise _malformed(damaged) from error
    envelope = _from_json(inside, damaged)
    if envelope.payload_type.short_name != name:
        raise _malformed(f"the line says {name}, the content {envelope.payload_type.label}")
    return envelope


def _from_json(data: bytes, damaged: str = "it is damaged") -> Envelope:
    try:
        found = strict_json(data, max_depth=4)
    except (ValueError, RecursionError) as error:
        raise _malformed(damaged) from error
    try:
        return _from_object(found)
    except ValueError as error:
        raise _malformed(f"it is damaged: {error}") from error


def _from_object(found: Any) -> Envelope:
    """Raises ValueError, and ENVELOPE_TYPE."""
    if not isinstance(found, dict) or set(found) != {"payload", "payloadType", "signatures"}:
        raise ValueError("an envelope has exactly payload, payloadType and signatures")
    entries = found["signatures"]
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_SIGNATURES:
        raise ValueError(f"an envelope has 1 to {MAX_SIGNATURES} signatures")
    signatures = tuple(_signature(entry) for entry in entries)
    if len({s.keyid for s in signatures}) != len(signatures):
        raise ValueError("a key signs once")
    body = _base64(found["payload"])
    kind = found["payloadType"]
    if not isinstance(kind, str):
        raise ValueError("payloadType is text")
    if kind not in set(PayloadType):
        raise LotaBotsError(Code.ENVELOPE_TYPE, f"type {kind[:100]!r} is not known to this release")
    return Envelope(PayloadType(kind), body, signatures)


def _signature(entry: Any) -> Signature:
    if not isinstance(entry, dict) or set(entry) != {"keyid", "sig"}:
        raise ValueError("a signature has exactly keyid and sig")
    keyid = entry["keyid"]
    if not isinstance(keyid, str) or not _KEY_ID.fullmatch(keyid):
        raise ValueError("a keyid is a thumbprint of 43 characters")
    sig = _base64(entry["sig"])
    if len(sig) != 64:
        raise ValueError(f"an Ed25519 signature has 64 bytes, not {len(sig)}")
    return Signature(keyid, sig)


def _base64(text: Any) -> bytes:
    """Standard base64 with its padding and no loose bits (RFC 4648, section 3.5). Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("base64 is text")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError("the base64 is not whole") from error
    if base64.b64encode(data).decode() != text:
        raise ValueError("the base64 is not canonical")
    return data


def _malformed(detail: str, *, hint: str | None = None) -> LotaBotsError:
    return LotaBotsError(Code.ENVELOPE_MALFORMED, detail, hint=hint)
