"""Ed25519 keys: thumbprints, files, and the points of small order worked out with our own arithmetic."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.identifiers import unb64url
from lotabotsd.foundation.keys import (
    jwk,
    load_key,
    load_or_create_key,
    public_key,
    raw_public,
    thumbprint,
)

# RFC 8032, section 5.1: the curve -x² + y² = 1 + d x² y² over the field of p elements.
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def add(one: Point, other: Point) -> Point:
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P,
    )


def times(point: Point, factor: int) -> Point:
    result = IDENTITY
    for _ in range(factor):
        result = add(result, point)
    return result


def square_root(value: int) -> int:
    """A square root in the field (RFC 8032, section 5.1.3); raises StopIteration where there is none."""
    candidate = pow(value, (P + 3) // 8, P)
    return next(
        root for root in (candidate, candidate * pow(2, (P - 1) // 4, P) % P) if root * root % P == value % P
    )


def small_order_points() -> set[Point]:
    """All points with 8P = 0, from their equations and not from the list under test.

    Order 1, 2, 4: (0, ±1) and (±√-1, 0). Order 8: doubling gives y = 0, so y² = -x² and -d y⁴ + 2 y² = 1.
    """
    root = square_root(-1)
    points = {(0, 1), (0, P - 1), (root, 0), (P - root, 0)}
    for sign in (1, -1):
        y_squared = (1 + sign * square_root(1 + D)) * pow(D, -1, P) % P
        y_squared = -y_squared % P
        if pow(y_squared, (P - 1) // 2, P) != 1:
            continue
        y = square_root(y_squared)
        x = square_root(-y_squared)
        points |= {(x, y), (P - x, y), (x, P - y), (P - x, P - y)}
    return points


def every_encoding(point: Point) -> list[bytes]:
    """The 32 bytes of a point: y with x's sign bit; also y + p, and the wrong sign where x is 0."""
    x, y = point
    ys = [y] + ([y + P] if y + P < 2**255 else [])
    signs = {x & 1} | ({0, 1} if x == 0 else set())
    return [(spelt | sign << 255).to_bytes(32, "little") for spelt in ys for sign in signs]


ENCODINGS = [data for point in sorted(small_order_points()) for data in every_encoding(point)]


def test_there_are_exactly_eight_points_and_eight_times_each_is_the_identity() -> None:
    points = small_order_points()
    assert len(points) == 8
    for x, y in points:
        assert (-x * x + y * y - 1 - D * x * x * y * y) % P == 0
        assert times((x, y), 8) == IDENTITY


def test_their_orders_are_one_two_four_and_eight() -> None:
    orders = sorted(
        next(n for n in (1, 2, 4, 8) if times(point, n) == IDENTITY) for point in small_order_points()
    )
    assert orders == [1, 2, 4, 4, 8, 8, 8, 8]


def test_all_encodings_are_counted() -> None:
    assert len(set(ENCODINGS)) == 14  # 8 points, 2 wrong signs, and y + p for y = 0 (twice) and 1 (twice)


@pytest.mark.parametrize("data", ENCODINGS, ids=lambda data: data.hex()[:8] + data.hex()[-4:])
def test_every_encoding_of_a_small_order_point_is_refused(data: bytes) -> None:
    with pytest.raises(LotaBotsError) as failure:
        public_key(data)
    assert failure.value.code is Code.KEY_WEAK


@pytest.mark.parametrize("y", [P, P + 2, 2**255 - 1])
@pytest.mark.parametrize("sign", [0, 1])
def test_a_coordinate_beyond_the_field_is_refused(y: int, sign: int) -> None:
    with pytest.raises(LotaBotsError, match="not canonical"):
        public_key((y | sign << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(LotaBotsError, match=f"not {length}"):
        public_key(bytes(length))


def test_an_honest_key_is_taken_and_gives_its_bytes_back() -> None:
    private = Ed25519PrivateKey.generate()
    raw = raw_public(private)
    assert raw_public(public_key(raw)) == raw
    public_key(raw).verify(private.sign(b"message"), b"message")


def test_the_thumbprint_is_the_one_of_rfc_8037() -> None:
    raw = unb64url("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")  # RFC 8037, appendix A.2 and A.3
    assert thumbprint(raw) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert jwk(raw) == {"crv": "Ed25519", "kty": "OKP", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


def test_a_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "some.key"
    first = load_or_create_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert raw_public(load_or_create_key(path)) == raw_public(first)
    assert [file.name for file in tmp_path.iterdir()] == ["some.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o660])
def test_a_key_that_others_may_touch_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "some.key"
    load_or_create_key(path)
    path.chmod(mode)
    with pytest.raises(LotaBotsError) as failure:
        load_key(path)
    assert failure.value.code is Code.FILE_UNREADABLE
    assert failure.value.hint == f"protect it: chmod 600 {path}"


def pem_of(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


# A PKCS #8 wrapping of an algorithm that does not exist (OID 1.3.101.121).
UNKNOWN_KIND = (
    b"-----BEGIN PRIVATE KEY-----\n"
    b"MC4CAQAwBQYDK2V5BCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
    b"-----END PRIVATE KEY-----\n"
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a key",
        pem_of(Ed25519PrivateKey.generate())[:60],
        pem_of(Ed25519PrivateKey.generate(), b"secret"),
        pem_of(ec.generate_private_key(ec.SECP256R1())),
        UNKNOWN_KIND,
    ],
    ids=["empty", "text", "cut off", "encrypted", "another kind", "an unknown kind"],
)
def test_a_file_without_a_usable_key_is_unreadable_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(LotaBotsError) as failure:
        load_or_create_key(path)
    assert failure.value.code is Code.FILE_UNREADABLE
    assert path.read_bytes() == content


def test_an_encrypted_key_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    path = tmp_path / "some.key"
    key = Ed25519PrivateKey.generate()
    path.write_bytes(pem_of(key, b"secret"))
    path.chmod(0o600)
    assert raw_public(load_key(path, b"secret")) == raw_public(key)
    with pytest.raises(LotaBotsError):
        load_key(path, b"wrong")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(LotaBotsError, match=r"absent\.key"):
        load_key(tmp_path / "absent.key")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away: run the tests as root")
def test_a_key_of_another_owner_is_read_with_its_group_permission(tmp_path: Path) -> None:
    path = tmp_path / "some.key"
    load_or_create_key(path)
    os.chown(path, 65_534, 65_534)
    path.chmod(0o640)
    assert load_key(path)
