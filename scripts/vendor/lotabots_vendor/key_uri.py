"""Private keys by URI: the one module that holds them; everybody else sees signers and public bytes.

A key is named `file:PATH` (RFC 8089) or by a bare path: PKCS #8 in PEM, encrypted, mode 0600, with a line
before it that says its key id, so that it is known without its passphrase (RFC 7468, section 2: text outside
the boundaries is for people). Another kind of store, as behind `pkcs11:` (RFC 7512), is another `Signer`
here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.envelope import Envelope, PayloadType, Signature, pae
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically
from lotabotsd.foundation.keys import KeyNotOpenedError, load_key, raw_public, thumbprint

MIN_PASSPHRASE_BYTES = 12
_MAX_KEY_BYTES = 16 * 1024
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_LABEL = re.compile(rb"lotabots key ([A-Za-z0-9_-]{43})\r?\n")

# What to try for the key of that name, in this order.
Passwords = Callable[[str], Sequence[bytes]]


class Signer(Protocol):
    """Whatever can sign; where the private key lies is its own affair."""

    @property
    def public(self) -> bytes:
        """The 32 raw bytes of the Ed25519 public key."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the Ed25519 signature of a message."""
        ...


class _KeyInMemory:
    """A private key that a file held."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = raw_public(private)

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)


class NewKey(_KeyInMemory):
    """A key that is on no disk yet."""

    __slots__ = ("_passphrase",)

    def __init__(self, passphrase: bytes) -> None:
        """Raises VALUE_INVALID for a passphrase that is too short to protect a key on a stolen disk."""
        if len(passphrase) < MIN_PASSPHRASE_BYTES:
            raise LotaBotsError(
                Code.VALUE_INVALID,
                f"the passphrase has fewer than {MIN_PASSPHRASE_BYTES} characters",
                hint="choose a longer passphrase",
            )
        super().__init__(Ed25519PrivateKey.generate())
        self._passphrase = passphrase

    def save(self, path: Path) -> None:
        """Write it to a new file. Raises ALREADY_EXISTS: a private key is never overwritten."""
        if path.exists():
            raise LotaBotsError(
                Code.ALREADY_EXISTS, str(path), hint="a key is never overwritten: move it away"
            )
        pem = self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(self._passphrase),
        )
        write_atomically(path, f"lotabots key {keyid_of(self)}\n".encode() + pem, mode=0o600)


def keyid_of(signer: Signer) -> str:
    """The key id of a signer: its public key's thumbprint."""
    return thumbprint(signer.public)


def open_signer(uri: str, passwords: Passwords) -> Signer:
    """The signer that a URI names.

    Raises KEY_URI_UNSUPPORTED; FILE_UNREADABLE for a file that is missing, open to others, not encrypted or
    no Ed25519 key; VALUE_INVALID where none of the passphrases opens it.
    """
    path = path_of(uri)
    data = read_bounded(path, _MAX_KEY_BYTES)
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" not in data:
        raise LotaBotsError(
            Code.FILE_UNREADABLE,
            f"{path} holds no encrypted private key",
            hint="give a key that this tool made, or encrypt it: openssl pkcs8 -topk8",
        )
    for passphrase in passwords(path.name):
        try:
            return _KeyInMemory(load_key(path, passphrase))
        except KeyNotOpenedError:
            continue
    raise LotaBotsError(
        Code.VALUE_INVALID,
        f"the passphrase does not open {path}",
        hint="check the passphrase; if it is right, the file is damaged: take its backup",
    )


def path_of(uri: str) -> Path:
    """The file that a URI names. Raises KEY_URI_UNSUPPORTED for anything but a file of this machine."""
    found = _SCHEME.fullmatch(uri)
    if found is None:
        path = uri
    elif found[1].lower() != "file":
        raise LotaBotsError(Code.KEY_URI_UNSUPPORTED, f"{found[1]}:")
    else:
        path = unquote(found[2])
        if path.startswith("//"):
            host, _, rest = path[2:].partition("/")
            if host not in ("", "localhost"):
                raise LotaBotsError(Code.KEY_URI_UNSUPPORTED, f"a file of another machine, {host}")
            path = f"/{rest}"
    if not path or "\0" in path:
        raise LotaBotsError(Code.VALUE_INVALID, "the key's path is empty", hint="give file:PATH, or a path")
    return Path(path)


def labelled_keyid(path: Path) -> str | None:
    """The key id that a key file says of itself; None where it says none, as in those of older releases.

    Raises FILE_UNREADABLE.
    """
    label = _LABEL.match(read_bounded(path, _MAX_KEY_BYTES))
    return label[1].decode() if label else None


def published_signer() -> Signer:
    """The development issuing key, which is in this package for everybody."""
    pem = (resources.files("lotabots_vendor") / "development" / "issuing.pem").read_bytes()
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise LotaBotsError(Code.FILE_UNREADABLE, "the development issuing key is no Ed25519 key")
    return _KeyInMemory(key)


def sign_envelope(kind: PayloadType, body: bytes, signers: Sequence[Signer]) -> Envelope:
    """An envelope that each of the signers signed; none at all is for drafts alone."""
    envelope = Envelope(kind, body, ())
    for signer in signers:
        envelope = add_signature(envelope, signer)
    return envelope


def add_signature(envelope: Envelope, signer: Signer) -> Envelope:
    """The envelope with one signature more; a key signs once (Ed25519 gives the same one each time)."""
    keyid = keyid_of(signer)
    others = tuple(signature for signature in envelope.signatures if signature.keyid != keyid)
    made = Signature(keyid, signer.sign(pae(envelope.payload_type, envelope.body)))
    return replace(envelope, signatures=(*others, made))
