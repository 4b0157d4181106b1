"""Ed25519 keys on disk and on the wire: made 0600, read with their permissions checked, weak ones refused."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .canonical import canonical_json
from .errors import Code, LotaBotsError
from .files import write_atomically
from .identifiers import b64url

_P = 2**255 - 19
# The y coordinates of the eight points of small order on edwards25519 (order 1, 2, 4, 8): under such a
# key one signature fits many messages. Found by solving 8P = 0; a test multiplies each one out.
_ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})


class KeyNotOpenedError(LotaBotsError):
    """A file that can be read, and gives no private key with the passphrase that was tried."""


def public_key(raw: bytes) -> Ed25519PublicKey:
    """The key of 32 raw bytes. Raises KEY_WEAK for a point of small order or a non-canonical spelling."""
    if len(raw) != 32:
        raise LotaBotsError(Code.KEY_WEAK, f"an Ed25519 public key has 32 bytes, not {len(raw)}")
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y in _SMALL_ORDER_Y or y >= _P:
        raise LotaBotsError(Code.KEY_WEAK, "the point has small order or is not canonical")
    return Ed25519PublicKey.from_public_bytes(raw)


def raw_public(key: Ed25519PrivateKey | Ed25519PublicKey) -> bytes:
    """The 32 raw bytes of a public key."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def jwk(raw: bytes) -> dict[str, str]:
    """The public JWK of a raw Ed25519 key (RFC 8037), without kid."""
    return {"crv": "Ed25519", "kty": "OKP", "x": b64url(raw)}


def thumbprint(raw: bytes) -> str:
    """The RFC 7638 thumbprint (SHA-256, base64url, 43 characters): the key id everywhere."""
    return b64url(hashlib.sha256(canonical_json(jwk(raw))).digest())


def load_or_create_key(path: Path, *, shared: bool = False) -> Ed25519PrivateKey:
    """Read the private key at `path`, or make one there (PKCS #8 PEM, mode 0600; `shared` 0640)."""
    if path.exists():
        return load_key(path, shared=shared)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomically(path, pem, mode=0o640 if shared else 0o600)
    return key


def load_key(path: Path, passphrase: bytes | None = None, *, shared: bool = False) -> Ed25519PrivateKey:
    """Read a private key; `shared` is for one that the file's group may read.

    Raises FILE_UNREADABLE when it is missing, not Ed25519, or readable by others; as `KeyNotOpenedError` when
    the passphrase does not open it, which cannot be told from damage.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        data = path.read_bytes()
    except OSError as error:
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{path}: {error.strerror}") from error
    forbidden, wanted = (0o037, "640") if shared else (0o077, "600")
    if mode & forbidden and os.geteuid() == path.stat().st_uid:
        raise LotaBotsError(
            Code.FILE_UNREADABLE, f"{path} has mode {mode:04o}", hint=f"protect it: chmod {wanted} {path}"
        )
    try:
        key = serialization.load_pem_private_key(data, password=passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyNotOpenedError(Code.FILE_UNREADABLE, f"{path} holds no usable private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise LotaBotsError(Code.FILE_UNREADABLE, f"{path} holds another kind of key than Ed25519")
    return key
