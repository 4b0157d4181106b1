"""The vendor's keys on disk: an offline root, the issuing keys that it vouches for, and the public anchors.

In its directory: `offline/root.pem` (to be carried away), `issuing/issuing-<keyring version>.pem`,
`keyrings/keyring-<version>.dsse.json`, `anchors/production.json`. Private keys are encrypted PKCS #8, 0600.
The development authority is the same with its keys published in this package.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.envelope import Envelope, PayloadType, parse_envelope, sign
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, sync_directory, write_atomically
from lotabotsd.foundation.keys import load_key, raw_public, thumbprint
from lotabotsd.licence.keyring import (
    Anchors,
    IssuingKey,
    Keyring,
    Use,
    parse_anchors,
    parse_keyring,
    rotate,
)

from .statements import anchors_document, keyring_body

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
MIN_PASSPHRASE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Authority:
    """Whoever issues licences: the keyring in force and the private key of its newest issuing key."""

    keyring: Keyring
    issuing: Ed25519PrivateKey
    development: bool

    def sign_licence(self, body: bytes, at: datetime) -> Envelope:
        """A licence signed by the issuing key. Raises SIGNER_UNKNOWN when it may not sign at that moment."""
        return self._sign(PayloadType.LICENCE, Use.LICENCE, body, at)

    def sign_revocations(self, body: bytes, at: datetime) -> Envelope:
        """A list of revoked licences: who may issue them may revoke them. Raises SIGNER_UNKNOWN."""
        return self._sign(PayloadType.REVOCATIONS, Use.LICENCE, body, at)

    def sign_rate_card(self, body: bytes, at: datetime) -> Envelope:
        """A signed rate card. Raises SIGNER_UNKNOWN when the key may not sign at that moment."""
        return self._sign(PayloadType.RATE_CARD, Use.RATE_CARD, body, at)

    def sign_acknowledgement(self, body: bytes, at: datetime) -> Envelope:
        """An acknowledgement signed by the issuing key. Raises SIGNER_UNKNOWN as `sign_licence`."""
        return self._sign(PayloadType.ACKNOWLEDGEMENT, Use.ACKNOWLEDGEMENT, body, at)

    def _sign(self, kind: PayloadType, use: Use, body: bytes, at: datetime) -> Envelope:
        signer = thumbprint(raw_public(self.issuing))
        if signer not in self.keyring.trusted_keys(use, at):
            raise LotaBotsError(
                Code.SIGNER_UNKNOWN,
                f"the keyring does not trust {signer} on {at:%Y-%m-%d}",
                hint="make a new issuing key: lotabots-vendor keyring rotate",
            )
        return sign(kind, body, [self.issuing])


def create(directory: Path, passphrase: bytes, now: datetime, days: int) -> Anchors:
    """Make root, first issuing key, keyring and anchors in a new directory, all or nothing.

    Raises ALREADY_EXISTS when there is something in it, VALUE_INVALID for a weak passphrase.
    """
    check_passphrase(passphrase)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise LotaBotsError(
            Code.ALREADY_EXISTS, f"{directory} is not an empty directory", hint="choose another directory"
        )
    root, issuing = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    keyring = first_keyring(root, issuing, now, days)
    envelope = sign(PayloadType.KEYRING, keyring_body(keyring), [root])
    anchors = anchors_document("production", keyring.roots, keyring.threshold, envelope)
    beside = directory.with_name(f".{directory.name}.new")
    try:
        beside.mkdir(mode=0o700, parents=True)
        for folder in ("offline", "issuing", "keyrings", "anchors"):
            (beside / folder).mkdir(mode=0o700)
        _write_key(beside / "offline" / "root.pem", root, passphrase)
        _write_key(beside / "issuing" / "issuing-1.pem", issuing, passphrase)
        write_atomically(_keyring_path(beside, 1), envelope.to_json(), mode=0o644)
        write_atomically(beside / "anchors" / "production.json", anchors, mode=0o644)
        beside.rename(directory)
        sync_directory(directory.parent)
    except OSError as error:
        raise LotaBotsError(
            Code.FILE_UNWRITABLE,
            f"{directory}: {error.strerror}",
            hint=f"check the directory above it, and remove {beside} if it is left from an interrupted run",
        ) from error
    return parse_anchors(anchors)


def first_keyring(root: Ed25519PrivateKey, issuing: Ed25519PrivateKey, now: datetime, days: int) -> Keyring:
    """Version 1: one root, one issuing key for every use."""
    raw_root = raw_public(root)
    key = _issuing_key(issuing, now, days)
    return Keyring(1, now, {thumbprint(raw_root): raw_root}, 1, (key,), frozenset())


def open_authority(directory: Path, passphrase: bytes) -> Authority:
    """The authority in a directory, its keyrings verified. Raises FILE_UNREADABLE and others."""
    keyring = newest_keyring(directory)
    issuing = _load(directory / "issuing" / f"issuing-{keyring.version}.pem", passphrase)
    return Authority(keyring, issuing, development=False)


def development_authority() -> Authority:
    """The authority whose private keys everybody has."""
    folder = resources.files("lotabots_vendor") / "development"
    anchors = parse_anchors((resources.files("lotabotsd.licence") / "anchors/development.json").read_bytes())
    key = serialization.load_pem_private_key((folder / "issuing.pem").read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise LotaBotsError(Code.FILE_UNREADABLE, "the development issuing key is no Ed25519 key")
    return Authority(anchors.keyring, key, development=True)


def newest_keyring(directory: Path) -> Keyring:
    """The last keyring of the chain that starts at the anchors. Raises KEYRING_INVALID and others."""
    anchors = parse_anchors(read_bounded(directory / "anchors" / "production.json", MAX_DOCUMENT_BYTES))
    keyring = anchors.keyring
    while (path := _keyring_path(directory, keyring.version + 1)).exists():
        keyring = rotate(keyring, parse_envelope(read_bounded(path, MAX_DOCUMENT_BYTES)))
    return keyring


def rotate_issuing(
    directory: Path, passphrase: bytes, now: datetime, days: int, revoke: tuple[str, ...]
) -> tuple[Keyring, Path]:
    """A new issuing key and the keyring that names it; older keys stay trusted unless revoked.

    Needs the root. Raises NOT_FOUND for a key to revoke that the keyring does not name.
    """
    keyring = newest_keyring(directory)
    root = _load(directory / "offline" / "root.pem", passphrase)
    unknown = set(revoke) - {key.keyid for key in keyring.keys}
    if unknown:
        raise LotaBotsError(Code.NOT_FOUND, f"the keyring names no key {', '.join(sorted(unknown))}")
    version = keyring.version + 1
    issuing = Ed25519PrivateKey.generate()
    following = replace(
        keyring,
        version=version,
        issued_at=now,
        keys=(*keyring.keys, _issuing_key(issuing, now, days)),
        revoked=keyring.revoked | set(revoke),
    )
    body = keyring_body(following)
    parse_keyring(body)
    path = _keyring_path(directory, version)
    # The key first: a crash between the two leaves a key that no keyring names, and the next run replaces it.
    _write_key(directory / "issuing" / f"issuing-{version}.pem", issuing, passphrase)
    write_atomically(path, sign(PayloadType.KEYRING, body, [root]).to_json(), mode=0o644)
    return newest_keyring(directory), path


def check_passphrase(passphrase: bytes) -> None:
    """Raises VALUE_INVALID for one that is too short to protect a key on a stolen disk."""
    if len(passphrase) < MIN_PASSPHRASE_BYTES:
        raise LotaBotsError(
            Code.VALUE_INVALID,
            f"the passphrase has fewer than {MIN_PASSPHRASE_BYTES} characters",
            hint="choose a longer passphrase",
        )


def _issuing_key(key: Ed25519PrivateKey, now: datetime, days: int) -> IssuingKey:
    raw = raw_public(key)
    return IssuingKey(thumbprint(raw), raw, frozenset(Use), now, now + timedelta(days=days))


def _keyring_path(directory: Path, version: int) -> Path:
    return directory / "keyrings" / f"keyring-{version}.dsse.json"


def _write_key(path: Path, key: Ed25519PrivateKey, passphrase: bytes) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )
    write_atomically(path, pem, mode=0o600)


def _load(path: Path, passphrase: bytes) -> Ed25519PrivateKey:
    try:
        return load_key(path, passphrase)
    except LotaBotsError as error:
        if "no usable private key" not in str(error):
            raise
        raise LotaBotsError(Code.FILE_UNREADABLE, str(path), hint="check the passphrase") from error
