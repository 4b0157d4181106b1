"""Keep what the vendor says of trust: the keyrings that followed the package's, and the revoked licences.

In the licence directory: `keyring-<version>.dsse.json` and `revocations.dsse.json`, each written atomically.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lotabotsd.foundation.clock import rfc3339
from lotabotsd.foundation.envelope import MAX_ENVELOPE_BYTES, parse_envelope
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically

from .keyring import Anchors, Keyring, Use, is_current, rotate
from .revocations import OpenedRevocations, Revoked, open_revocations, refuse_older

_REVOCATIONS = "revocations.dsse.json"
_Identity = tuple[tuple[str, int, int, int, int], ...]  # name, inode, size, mtime, ctime of each file


class Trust:
    """The trust files of one appliance; used from any of the daemon's threads."""

    def __init__(self, directory: Path, anchors: Anchors) -> None:
        self._directory = directory
        self._anchors = anchors
        self._lock = threading.RLock()
        self._known: tuple[bytes, int, OpenedRevocations | None] = (b"", 0, None)
        self._verified: tuple[_Identity, tuple[Keyring, ...]] = ((), ())

    def keyring(self) -> Keyring:
        """The newest keyring: the package's, then every installed one after it. Raises KEYRING_INVALID."""
        return self._keyrings()[-1]

    def keys_ever(self, use: Use) -> dict[str, bytes]:
        """Key id → raw public key of all that any of the keyrings named for a use, the revoked ones too.

        For what was judged when it was taken and is kept: it stays taken when its key is revoked later. Empty
        where a keyring is damaged: no licence can be used then either.
        """
        try:
            keyrings = self._keyrings()
        except LotaBotsError:
            return {}
        return {key.keyid: key.public for keyring in keyrings for key in keyring.keys if use in key.uses}

    def _keyrings(self) -> tuple[Keyring, ...]:
        """The keyrings in their order, verified again only when a file is another than it was.

        Raises KEYRING_INVALID, FILE_UNREADABLE, each time anew: what is damaged is never remembered.
        """
        identity = self._identity()  # before they are read: a file that changes in between is seen next time
        known, keyrings = self._verified
        if not keyrings or known != identity:
            keyrings = tuple(self._read_keyrings())
            self._verified = (identity, keyrings)
        return keyrings

    def _identity(self) -> _Identity:
        """What changes with every change of a keyring file; ctime too, since mtime can be set back."""
        found = []
        for version in itertools.count(self._anchors.keyring.version + 1):
            path = self._directory / _keyring_name(version)
            try:
                status = path.stat()
            except FileNotFoundError:
                break
            except OSError as error:
                raise LotaBotsError(Code.FILE_UNREADABLE, f"{path}: {error.strerror}") from error
            found.append((path.name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        return tuple(found)

    def _read_keyrings(self) -> Iterator[Keyring]:
        keyring = self._anchors.keyring
        yield keyring
        while data := self._read(_keyring_name(keyring.version + 1)):
            try:
                keyring = rotate(keyring, parse_envelope(data))
            except LotaBotsError as error:
                name = _keyring_name(keyring.version + 1)
                raise LotaBotsError(Code.KEYRING_INVALID, f"{name}: {error}") from error
            yield keyring

    def newest_sound(self) -> Keyring:
        """The newest keyring before a damaged file: what an installation goes on from, to mend that file."""
        sound = self._anchors.keyring
        try:
            for keyring in self._read_keyrings():
                sound = keyring
        except LotaBotsError:
            pass  # the standing tells of it
        return sound

    def install_keyring(self, data: bytes, *, check_only: bool = False) -> Keyring:
        """Trust the vendor's next keyring; one that is trusted already changes nothing.

        A damaged one is replaced by the same again. Raises KEYRING_INVALID, KEYRING_ORDER, and what `verify`
        raises.
        """
        with self._lock:
            keyring, envelope = self.newest_sound(), parse_envelope(data)
            if is_current(keyring, envelope):
                return keyring
            following = rotate(keyring, envelope)
            if not check_only:
                self._write(_keyring_name(following.version), envelope.to_json())
            return following

    def revocations(self) -> OpenedRevocations | None:
        """The newest list of revoked licences.

        One that cannot be verified counts for nothing: a thief's list goes with his key, and whoever can
        damage the file could as well delete it.
        """
        data = self._read(_REVOCATIONS)
        if not data:
            return None
        with self._lock:
            keyring = self.keyring()
            known_data, known_version, known = self._known
            if (known_data, known_version) != (data, keyring.version):
                try:
                    known = open_revocations(data, keyring)
                except LotaBotsError:
                    known = None
                self._known = (data, keyring.version, known)
            return known

    def install_revocations(self, data: bytes, *, check_only: bool = False) -> OpenedRevocations:
        """Keep a newer list; the one that is here already changes nothing.

        Raises REVOCATIONS_OLDER, REVOCATIONS_INVALID, and what `open_revocations` raises.
        """
        with self._lock:
            opened = open_revocations(data, self.keyring())
            refuse_older(self.revocations(), opened)
            if not check_only:
                self._write(_REVOCATIONS, opened.envelope.to_json())
            return opened

    def revoked(self, licence_id: str) -> Revoked | None:
        """Why a licence was taken back, if it was."""
        opened = self.revocations()
        return opened.revocations.licences.get(licence_id) if opened else None

    def to_dict(self) -> dict[str, Any]:
        """Whom this appliance trusts, as JSON takes it. Raises KEYRING_INVALID."""
        keyring, listed = self.keyring(), self.revocations()
        return {
            "keyring": {
                "version": keyring.version,
                "issued_at": rfc3339(keyring.issued_at),
                "threshold": keyring.threshold,
                "roots": sorted(keyring.roots),
                "keys": [
                    {
                        "keyid": key.keyid,
                        "uses": sorted(key.uses),
                        "not_before": rfc3339(key.not_before),
                        "not_after": rfc3339(key.not_after),
                        "revoked": key.keyid in keyring.revoked,
                    }
                    for key in keyring.keys
                ],
            },
            "revocations": {
                "version": listed.revocations.version,
                "issued_at": rfc3339(listed.revocations.issued_at),
                "licences": len(listed.revocations.licences),
            }
            if listed
            else None,
        }

    def _read(self, name: str) -> bytes:
        """A file of the directory; empty where it is not there."""
        path = self._directory / name
        return read_bounded(path, 2 * MAX_ENVELOPE_BYTES) if path.exists() else b""

    def _write(self, name: str, data: bytes) -> None:
        write_atomically(self._directory / name, data, mode=0o600)


def _keyring_name(version: int) -> str:
    return f"keyring-{version}.dsse.json"
