"""Cheats that pass one signed document for another, and those with the appliance's tokens and receipts."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

from lotabots_vendor.card_file import open_rate_card

from lotabotsd.attestation.verify import verify_receipt, verify_token
from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import PayloadType, parse_envelope, sign
from lotabotsd.foundation.errors import Code
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.licence.activation import open_request
from lotabotsd.licence.document import open_licence
from lotabotsd.licence.keyring import Keyring, Use, rotate
from lotabotsd.licence.revocations import open_revocations
from lotabotsd.usage.acknowledgement import open_acknowledgement
from lotabotsd.usage.report import check_report
from lotabotsd.usage.report_zip import CSV, README, REPORT, pack, unpack

from .cheat import GOT_THROUGH, Cheat, Side, Who, code_of, entries, refused
from .rooms import REPORT_KEY
from .world import GOLDEN, World, public, sorted_roots

RECEIPTS = GOLDEN / "receipt"
NOW = 1_795_651_300  # shortly after the golden token was issued
NONCE = "golden-nonce-of-22-chr"


class Readers:
    """One key that may sign everything, so that only the type keeps the documents apart; and each one's
    reader."""

    def __init__(self, world: World) -> None:
        workshop = world.workshop
        workshop.root = workshop.issuing = REPORT_KEY
        self.keyring: Keyring = workshop.anchors().keyring
        self.bodies = self._bodies(world)
        self.report = world.room().report()
        self.file = world.folder / "document"

    def _bodies(self, world: World) -> dict[PayloadType, bytes]:
        """A well-formed body of each type."""
        workshop, golden = world.workshop, GOLDEN
        room = world.room("reporting")
        report = unpack(room.report().read_bytes())[REPORT]
        request = json.loads((golden / "activation-request" / "request.json").read_bytes())
        request["key"] = public(REPORT_KEY)
        return {
            PayloadType.LICENCE: canonical_json(workshop.claims()),
            PayloadType.KEYRING: workshop.keyring(version=2, roots=sorted_roots(workshop.root)).body,
            PayloadType.REVOCATIONS: (golden / "revocations" / "revocations.json").read_bytes(),
            PayloadType.ACTIVATION_REQUEST: canonical_json(request),
            PayloadType.USAGE_REPORT: parse_envelope(report).body,
            PayloadType.ACKNOWLEDGEMENT: (golden / "acknowledgement" / "accepted.json").read_bytes(),
            PayloadType.RATE_CARD: (golden / "rate-card" / "standard.json").read_bytes(),
        }

    def read(self, kind: PayloadType, data: bytes) -> str:
        """Give a document to the reader of a type; the code of its refusal."""
        keyring = self.keyring
        readers: dict[PayloadType, Callable[[], Any]] = {
            PayloadType.LICENCE: lambda: open_licence(data, keyring),
            PayloadType.KEYRING: lambda: rotate(keyring, parse_envelope(data)),
            PayloadType.REVOCATIONS: lambda: open_revocations(data, keyring),
            PayloadType.ACTIVATION_REQUEST: lambda: open_request(data),
            PayloadType.ACKNOWLEDGEMENT: lambda: open_acknowledgement(
                data, lambda at: keyring.trusted_keys(Use.ACKNOWLEDGEMENT, at), keyring.revoked
            ),
            PayloadType.RATE_CARD: lambda: open_rate_card(self._written(data), keyring),
        }
        if kind is not PayloadType.USAGE_REPORT:
            return code_of(readers[kind])
        contents = unpack(self.report.read_bytes())
        check = check_report(pack(data, contents[CSV], contents[README]))
        errors = [finding.code for finding in check.findings if finding.severity == "error"]
        return errors[0] if errors else GOT_THROUGH

    def _written(self, data: bytes) -> Path:
        self.file.write_bytes(data)
        return self.file


def relabelled(data: bytes, kind: PayloadType) -> bytes:
    """The envelope with another type written on it."""
    return canonical_json({**json.loads(data), "payloadType": kind.value})


@refused(Who.CUSTOMER, "one document's signature for another's content", Code.ENVELOPE_TYPE, Side.APPLIANCE)
def every_document_given_for_every_other(world: World) -> str:
    """Gives each of the seven documents, signed by a key that may sign all of them, to the reader of each
    other one; also with the content that this reader wants."""
    readers = Readers(world)
    for kind in PayloadType:  # so that the refusals below are for the type and for nothing else
        genuine = sign(kind, readers.bodies[kind], [REPORT_KEY]).to_json()
        assert readers.read(kind, genuine) == GOT_THROUGH, kind
    answers = {
        readers.read(wanted, sign(given, readers.bodies[content], [REPORT_KEY]).to_json())
        for wanted, given in permutations(PayloadType, 2)
        for content in (given, wanted)
    }
    return ",".join(sorted(answers))


@refused(Who.CUSTOMER, "the same, with the label changed", Code.SIGNATURE_INVALID, Side.APPLIANCE)
def every_document_under_every_other_label(world: World) -> str:
    """Writes the wanted type on an envelope whose content fits it, but which was signed as another type."""
    readers = Readers(world)
    answers = {
        readers.read(wanted, relabelled(sign(given, readers.bodies[wanted], [REPORT_KEY]).to_json(), wanted))
        for wanted, given in permutations(PayloadType, 2)
    }
    return ",".join(sorted(answers))


def _golden(name: str) -> str:
    return (RECEIPTS / name).read_text().strip()


def _jwks() -> Any:
    return json.loads((RECEIPTS / "jwks.json").read_bytes())


def _failed(verdict: Any) -> str:
    """The names of the failed checks."""
    return ",".join(check.name for check in verdict.checks if check.passed is False)


def _restated(text: str, part: int, change: Callable[[Any], object]) -> str:
    """A JWS with its header (0) or payload (1) changed, under the old signature."""
    parts = text.split(".")
    value = json.loads(base64.urlsafe_b64decode(parts[part] + "=="))
    change(value)
    parts[part] = b64url(canonical_json(value))
    return ".".join(parts)


def _token(text: str, *, audience: str = "golden", now: int = NOW, nonce: str = NONCE) -> str:
    return _failed(verify_token(text, _jwks(), audience=audience, now=now, nonce=nonce))


@refused(Who.CUSTOMER, "yesterday's good state shown today", "challenge", Side.READER)
def a_token_replayed_to_another_challenge(world: World) -> str:
    """Answers a new nonce with an old token."""
    assert _token(_golden("token.txt")) == GOT_THROUGH
    return _token(_golden("token.txt"), nonce="another-nonce-of-22-ch")


@refused(Who.MAIL, "a token that was meant for somebody else", "audience", Side.READER)
def a_token_for_another_audience(world: World) -> str:
    """Shows one reader the token that another one asked for."""
    return _token(_golden("token.txt"), audience="somebody-else")


@refused(Who.CUSTOMER, "an old token for ever", "not expired", Side.READER)
def an_expired_token(world: World) -> str:
    """Shows the token a day later."""
    return _token(_golden("token.txt"), now=NOW + 86_400)


@refused(Who.CUSTOMER, "no signature at all", "algorithm", Side.READER)
def a_token_of_algorithm_none(world: World) -> str:
    """Writes `none` into the header and leaves the signature out; then the public key as a shared secret."""
    token = _golden("token.txt")
    unsigned = _restated(token, 0, lambda header: header.update(alg="none")).rpartition(".")[0] + "."
    shared = _restated(token, 0, lambda header: header.update(alg="HS256")).rpartition(".")[0]
    public_key = base64.urlsafe_b64decode(_jwks()["keys"][0]["x"] + "=")
    forged = f"{shared}.{b64url(hmac.digest(public_key, shared.encode(), 'sha256'))}"
    answers = {_token(unsigned), _token(forged)}
    return ",".join(sorted(answers))


@refused(Who.CUSTOMER, "a receipt shown as a token", "type", Side.READER)
def a_receipt_given_for_a_token_and_the_reverse(world: World) -> str:
    """Gives each to the other's verifier."""
    answers = {
        _token(_golden("plain.txt")),
        _failed(verify_receipt(_golden("token.txt"), _jwks(), now=NOW)),
    }
    return ",".join(sorted(answers))


@refused(Who.CUSTOMER, "a receipt for an answer that was never given", "response bytes", Side.READER)
def a_receipt_with_another_answer(world: World) -> str:
    """Shows the receipt beside an answer with one character changed."""
    response = (RECEIPTS / "response.json").read_bytes()
    receipt = _golden("plain.txt")
    assert _failed(verify_receipt(receipt, _jwks(), now=NOW, response=response)) == GOT_THROUGH
    changed = response.replace(b"0", b"9", 1) if b"0" in response else response[:-1] + b" "
    return _failed(verify_receipt(receipt, _jwks(), now=NOW, response=changed))


@refused(Who.CUSTOMER, "another model's name under the answer", "signature", Side.READER)
def a_receipt_edited(world: World) -> str:
    """Changes the model in the receipt."""
    changed = _restated(
        _golden("plain.txt"), 1, lambda c: c["x-lotabots-receipt"]["model"].update(name="other")
    )
    return _failed(verify_receipt(changed, _jwks(), now=NOW))


CHEATS: tuple[Cheat, ...] = entries(globals())
