"""Keys by URI: files only in this release, encrypted, and nobody else ever holds a private key."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from lotabots_vendor import key_uri
from lotabots_vendor.key_uri import NewKey, labelled_keyid, open_signer, path_of, sign_envelope

from lotabotsd.foundation.envelope import PayloadType, sign, verify
from lotabotsd.foundation.errors import Code, Exit, LotaBotsError
from lotabotsd.foundation.keys import thumbprint

PASSPHRASE = b"correct horse battery staple"
FOLDER = Path(key_uri.__file__).parent


def never(name: str) -> list[bytes]:
    raise AssertionError(f"asked for the passphrase of {name}")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("offline/root-1.pem", "offline/root-1.pem"),
        ("/media/stick/root.pem", "/media/stick/root.pem"),
        ("./pkcs11:token", "./pkcs11:token"),
        ("100%20.pem", "100%20.pem"),
        ("file:root.pem", "root.pem"),
        ("file:/media/my%20stick/root.pem", "/media/my stick/root.pem"),
        ("file:///media/stick/root.pem", "/media/stick/root.pem"),
        ("file://localhost/media/root.pem", "/media/root.pem"),
        ("FILE:root.pem", "root.pem"),
    ],
)
def test_a_path_and_a_file_uri_name_a_file(uri: str, path: str) -> None:
    assert path_of(uri) == Path(path)


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:token=vendor;object=root?pin-source=/etc/pin",
        "PKCS11:object=x",
        "https://x/key",
        "file://other/key",
    ],
)
def test_any_other_store_is_refused_with_an_error_of_its_own(uri: str) -> None:
    with pytest.raises(LotaBotsError) as caught:
        open_signer(uri, never)
    assert caught.value.code is Code.KEY_URI_UNSUPPORTED
    assert caught.value.exit_code is Exit.USAGE
    assert str(caught.value).startswith("this release signs with key files only: ")
    assert "pin" not in str(caught.value), "what may be secret in a URI is not repeated"


@pytest.mark.parametrize("uri", ["", "file:", "a\0b"])
def test_an_empty_path_is_refused(uri: str) -> None:
    with pytest.raises(LotaBotsError) as caught:
        open_signer(uri, never)
    assert caught.value.code is Code.VALUE_INVALID


def test_a_key_signs_what_the_product_verifies_with_the_same_bytes(tmp_path: Path) -> None:
    made = NewKey(PASSPHRASE)
    made.save(tmp_path / "key.pem")
    opened = open_signer(str(tmp_path / "key.pem"), lambda name: [b"not this one, but another", PASSPHRASE])
    assert opened.public == made.public
    assert labelled_keyid(tmp_path / "key.pem") == thumbprint(made.public)
    envelope = sign_envelope(PayloadType.RATE_CARD, b"{}", [opened])
    assert verify(envelope, PayloadType.RATE_CARD, {thumbprint(made.public): made.public}) == b"{}"
    private = serialization.load_pem_private_key((tmp_path / "key.pem").read_bytes(), PASSPHRASE)
    assert isinstance(private, Ed25519PrivateKey)
    assert envelope == sign(PayloadType.RATE_CARD, b"{}", [private])


def refused(path: Path) -> LotaBotsError:
    with pytest.raises(LotaBotsError) as caught:
        open_signer(str(path), lambda name: [PASSPHRASE])
    return caught.value


def test_a_key_that_is_missing_open_to_others_or_not_encrypted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LotaBotsError) as caught:
        open_signer(str(tmp_path / "none.pem"), never)
    assert caught.value.code is Code.FILE_UNREADABLE
    path = tmp_path / "key.pem"
    NewKey(PASSPHRASE).save(path)
    path.chmod(0o644)
    assert "chmod 600" in refused(path).hint
    path.chmod(0o600)
    path.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    assert "no encrypted private key" in str(refused(path))
    path.write_bytes(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert "the file is damaged" in refused(path).hint


def test_none_of_the_passphrases_fits(tmp_path: Path) -> None:
    NewKey(b"another passphrase of some length").save(tmp_path / "key.pem")
    error = refused(tmp_path / "key.pem")
    assert (error.code, error.detail) == (
        Code.VALUE_INVALID,
        f"the passphrase does not open {tmp_path / 'key.pem'}",
    )
    assert "check the passphrase" in error.hint


def test_only_the_one_module_knows_private_keys() -> None:
    knowing = {
        path.name
        for path in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cryptography"))
        or (isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & {"load_key", "sign"})
        or (isinstance(node, ast.Attribute) and node.attr == "_private")
    }
    assert knowing == {"key_uri.py"}
