"""The vendor's keys on disk: the roots, the issuing keys that they vouch for, and the public anchors.

In its directory: `offline/` (roots, to be carried away), `issuing/issuing-<keyring version>-<key id>.pem`,
`keyrings/keyring-<version>.dsse.json`, `anchors/production.json`. Private keys are opened by `key_uri` alone.
The development authority is the same with its keys published in this package.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import Envelope, PayloadType, parse_envelope
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically
from lotabotsd.licence.keyring import Keyring, Use, parse_anchors, rotate

from .issuing import open_issuing, refused, why_not
from .key_uri import Passwords, Signer, keyid_of, published_signer, sign_envelope
from .statements import anchors_document

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Authority:
    """Whoever issues documents: the keyring in force and a key that it lets sign them."""

    keyring: Keyring
    issuing: Signer
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
        signer = keyid_of(self.issuing)
        reason = why_not(self.keyring, signer, use, at)
        if reason:
            raise refused(use, at, f"{signer}: {reason}")
        return sign_envelope(kind, body, [self.issuing])


def open_authority(
    directory: Path, use: Use, at: datetime, passwords: Passwords, issuing_key: str | None = None
) -> Authority:
    """The authority in a directory for one kind of document, its keyrings verified.

    `issuing_key` is a URI in the place of the newest fitting key in the directory. Raises SIGNER_UNKNOWN when
    no key may sign this kind now, FILE_UNREADABLE and others.
    """
    keyring = newest_keyring(directory)
    signer = open_issuing(directory, keyring, use, at, passwords, issuing_key)
    return Authority(keyring, signer, development=False)


def development_authority() -> Authority:
    """The authority whose private keys everybody has."""
    anchors = parse_anchors((resources.files("lotabotsd.licence") / "anchors/development.json").read_bytes())
    return Authority(anchors.keyring, published_signer(), development=True)


def newest_keyring(directory: Path) -> Keyring:
    """The last keyring of the chain that starts at the anchors. Raises KEYRING_INVALID and others."""
    return newest_signed(directory)[0]


def newest_signed(directory: Path) -> tuple[Keyring, Envelope]:
    """The last keyring, verified, and the envelope that carries it. Raises as `newest_keyring`."""
    data = read_bounded(anchors_path(directory), MAX_DOCUMENT_BYTES)
    keyring = parse_anchors(data).keyring
    envelope = parse_envelope(canonical_json(json.loads(data)["keyring"]))
    while (path := keyring_path(directory, keyring.version + 1)).exists():
        envelope = parse_envelope(read_bounded(path, MAX_DOCUMENT_BYTES))
        keyring = rotate(keyring, envelope)
    return keyring, envelope


def put_keyring(directory: Path, envelope: Envelope) -> Path:
    """Put the next keyring in force: its file for appliances, then the anchors for releases; its file.

    Judged by the appliance's own rules first. In this order, since the chain that starts at the old anchors
    reaches it too; the same again finishes what was interrupted. For whoever is `alone` in the directory.
    Raises KEYRING_INVALID, and as `rotate`.
    """
    current, newest = newest_signed(directory)
    following = current if newest.body == envelope.body else rotate(current, envelope)
    path = keyring_path(directory, following.version)
    if following is current:
        envelope = newest
    anchors = anchors_document("production", following.roots, following.threshold, envelope)
    parse_anchors(anchors)
    if not path.exists():
        write_atomically(path, envelope.to_json(), mode=0o644)
    write_atomically(anchors_path(directory), anchors, mode=0o644)
    return path


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Wait for whoever puts a keyring in force here, then keep others from it.

    Keyring and anchors are two files: of two commands at once each could write one. The lock is the
    directory's own and goes with the process (flock(2)). Raises FILE_UNREADABLE.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{directory}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def anchors_path(directory: Path) -> Path:
    """Where `build-bundle` finds the anchors."""
    return directory / "anchors" / "production.json"


def keyring_path(directory: Path, version: int) -> Path:
    """Where a keyring lies for appliances."""
    return directory / "keyrings" / f"keyring-{version}.dsse.json"


def is_vendor_directory(directory: Path) -> bool:
    """Whether `root init` made it."""
    return (directory / "anchors").is_dir()


def existing(directory: Path) -> Path:
    """The directory, when `root init` made it. Raises NOT_FOUND."""
    if not is_vendor_directory(directory):
        raise LotaBotsError(
            Code.NOT_FOUND, f"{directory} is no vendor directory", hint="make one: lotabots-vendor root init"
        )
    return directory
