"""Keyrings and lists of revoked licences through the API: judged, audited, published."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "vendor"))

from lotabots_vendor.authority import development_authority
from lotabots_vendor.statements import keyring_body, revocations_body

from lotabotsd.foundation.envelope import PayloadType, sign
from lotabotsd.foundation.keys import raw_public, thumbprint
from lotabotsd.licence.revocations import Revocations, Revoked

NOW = datetime(2026, 3, 17, 10, tzinfo=UTC)


def _root() -> Ed25519PrivateKey:
    folder = resources.files("lotabots_vendor") / "development"
    key = serialization.load_pem_private_key((folder / "root.pem").read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    return key


def _keyring(version: int) -> bytes:
    """The development keyring again, one or more versions up."""
    following = replace(development_authority().keyring, version=version, issued_at=NOW)
    return sign(PayloadType.KEYRING, keyring_body(following), [_root()]).to_json()


def _revocations(version: int, *licence_ids: str) -> bytes:
    listed = Revocations(version, NOW, {name: Revoked("not paid", NOW) for name in licence_ids})
    return development_authority().sign_revocations(revocations_body(listed), NOW).to_json()


def test_a_keyring_is_checked_without_a_trace_then_trusted(ask: Any, daemon: Any) -> None:
    checked = ask("PUT", "/licence/keyring?check=true", content=_keyring(2)).json()
    assert (checked["before"], checked["version"]) == (1, 2)
    assert ask("GET", "/licence").json()["trust"]["keyring"]["version"] == 1
    assert (ask("GET", "/audit").json()["items"], daemon.published) == ([], 0)
    kept = ask("PUT", "/licence/keyring", content=_keyring(2)).json()
    assert (kept["version"], kept["spread"]["complete"]) == (2, True)
    assert ask("GET", "/licence").json()["trust"]["keyring"]["version"] == 2
    assert [row["action"] for row in ask("GET", "/audit").json()["items"]] == ["licence.keyring"]


@pytest.mark.parametrize("data", [_keyring(3), _revocations(1), b"junk"])
def test_a_refused_keyring_is_in_the_audit_trail(ask: Any, daemon: Any, data: bytes) -> None:
    assert ask("PUT", "/licence/keyring", content=data).status_code in (400, 409)
    rows = ask("GET", "/audit").json()["items"]
    assert [(row["action"], row["outcome"]) for row in rows] == [("licence.keyring", "refused")]
    assert daemon.published == 0


def test_a_strangers_keyring_is_refused(ask: Any) -> None:
    stranger = Ed25519PrivateKey.generate()
    roots = {thumbprint(raw_public(stranger)): raw_public(stranger)}
    body = keyring_body(replace(development_authority().keyring, version=2, roots=roots))
    answer = ask("PUT", "/licence/keyring", content=sign(PayloadType.KEYRING, body, [stranger]).to_json())
    assert answer.json()["code"] == "signer_unknown"


def test_a_revoked_licence_is_told_by_the_list_that_revokes_it(ask: Any, tmp_path: Path) -> None:
    golden = Path(__file__).resolve().parents[1] / "golden" / "licence" / "pro.dsse.json"
    assert ask("PUT", "/licence", content=golden.read_bytes()).status_code == 200
    licence_id = ask("GET", "/licence").json()["licence"]["licence_id"]
    checked = ask("PUT", "/licence/revocations?check=true", content=_revocations(1, licence_id)).json()
    assert (checked["here"], checked["version"], checked["licences"]) == (True, 1, 1)
    assert ask("GET", "/licence").json()["standing"]["state"] == "valid"
    assert ask("PUT", "/licence/revocations", content=_revocations(1, licence_id)).json()["here"] is True
    found = ask("GET", "/licence").json()
    assert found["standing"]["code"] == "licence_revoked"
    assert found["trust"]["revocations"]["version"] == 1
    older = ask("PUT", "/licence/revocations", content=_revocations(1))
    assert (older.status_code, older.json()["code"]) == (409, "revocations_older")


def test_a_request_for_a_licence_takes_a_note(ask: Any) -> None:
    assert json.loads(ask("GET", "/licence/request?note=order%204711").text)["note"] == "order 4711"
