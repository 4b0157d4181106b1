"""The keyset: made once, one key per role, nothing private in what is published."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from lotabotsd.attestation.keyset import ROLES, Keyset
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.identifiers import unb64url
from lotabotsd.foundation.keys import raw_public, thumbprint


def test_keys_and_name_are_made_at_the_first_start_and_kept(tmp_path: Path) -> None:
    first = Keyset.load_or_create(tmp_path, tmp_path / "receipt.key")
    again = Keyset.load_or_create(tmp_path, tmp_path / "receipt.key")
    assert again.public() == first.public()
    assert (again.ueid, again.digest) == (first.ueid, first.digest)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        [f"{role}.key" for role in ROLES] + ["ueid"]
    )
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert modes.pop("receipt.key") == 0o640  # the gate's group reads this one
    assert set(modes.values()) == {0o600}


def test_two_appliances_have_nothing_in_common(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = (
        Keyset.load_or_create(tmp_path / "a", tmp_path / "a" / "receipt.key"),
        Keyset.load_or_create(tmp_path / "b", tmp_path / "b" / "receipt.key"),
    )
    assert one.ueid != other.ueid
    assert one.digest != other.digest
    assert not {key["kid"] for key in one.jwks()["keys"]} & {key["kid"] for key in other.jwks()["keys"]}


def test_the_name_is_a_ueid_of_33_bytes_of_type_rand(tmp_path: Path) -> None:
    data = unb64url(Keyset.load_or_create(tmp_path, tmp_path / "receipt.key").ueid)
    assert (len(data), data[0]) == (33, 0x01)


def test_roles_never_share_a_key(tmp_path: Path) -> None:
    keyset = Keyset.load_or_create(tmp_path, tmp_path / "receipt.key")
    assert len({raw_public(keyset.key(role)) for role in ROLES}) == 3


@pytest.mark.parametrize(("kept", "copied"), [("attestation", "receipt"), ("receipt", "report")])
def test_a_key_copied_to_another_role_is_refused_with_the_way_out(
    tmp_path: Path, kept: str, copied: str
) -> None:
    Keyset.load_or_create(tmp_path, tmp_path / "receipt.key")
    shutil.copyfile(tmp_path / f"{kept}.key", tmp_path / f"{copied}.key")
    with pytest.raises(LotaBotsError, match=rf"{copied}\.key is a copy of \S*{kept}\.key") as failure:
        Keyset.load_or_create(tmp_path, tmp_path / "receipt.key")
    assert failure.value.code is Code.CONFLICT
    assert "put your own copy" in failure.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"x", b"AQ", b"A" * 44, b"\xff" * 44, b"A" * 500, b"AQEB" * 11 + b"="]
)
def test_a_damaged_name_is_refused_and_not_replaced(tmp_path: Path, content: bytes) -> None:
    Keyset.load_or_create(tmp_path, tmp_path / "receipt.key")
    (tmp_path / "ueid").write_bytes(content)
    with pytest.raises(LotaBotsError) as failure:
        Keyset.load_or_create(tmp_path, tmp_path / "receipt.key")
    assert failure.value.code is Code.FILE_UNREADABLE
    assert (tmp_path / "ueid").read_bytes() == content


def test_a_damaged_key_is_refused_and_not_replaced(tmp_path: Path) -> None:
    Keyset.load_or_create(tmp_path, tmp_path / "receipt.key")
    (tmp_path / "receipt.key").write_bytes(b"damaged")
    with pytest.raises(LotaBotsError, match=r"receipt\.key"):
        Keyset.load_or_create(tmp_path, tmp_path / "receipt.key")
    assert (tmp_path / "receipt.key").read_bytes() == b"damaged"


def test_published_are_the_two_keys_that_others_verify_with(tmp_path: Path) -> None:
    keyset = Keyset.load_or_create(tmp_path, tmp_path / "receipt.key")
    keys = keyset.jwks()["keys"]
    assert [key["x-lotabots-role"] for key in keys] == ["attestation", "receipt"]
    for key in keys:
        assert set(key) == {"kty", "crv", "x", "kid", "alg", "use", "x-lotabots-role"}
        assert key["kid"] == thumbprint(unb64url(key["x"]))
        assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
    assert {key["alg"] for key in keyset.jwks("Ed25519")["keys"]} == {"Ed25519"}


def test_the_digest_names_exactly_these_keys(tmp_path: Path) -> None:
    keyset = Keyset.load_or_create(tmp_path, tmp_path / "receipt.key")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", keyset.digest)
    (tmp_path / "report.key").unlink()
    changed = Keyset.load_or_create(tmp_path, tmp_path / "receipt.key")
    assert changed.digest != keyset.digest
    assert changed.public()["attestation"] == keyset.public()["attestation"]


def test_nothing_private_is_shown(tmp_path: Path) -> None:
    keyset = Keyset.load_or_create(tmp_path, tmp_path / "receipt.key")
    shown = repr(keyset) + json.dumps(keyset.jwks()) + json.dumps(keyset.public())
    assert "PrivateKey" not in shown
    assert '"d"' not in shown
