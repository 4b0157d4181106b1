"""The token's claims: RFC 9711's types, honest values, and the frozen shape."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from lotabotsd.attestation.evidence import (
    MAX_ENVELOPE_BYTES,
    Evidence,
    GpuEvidence,
    Image,
    LicenceEvidence,
    Measurement,
    ModelEvidence,
    RuntimeEvidence,
    overall,
    software,
    submodules,
)
from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.token import (
    MAX_TOKEN_BYTES,
    PROFILE,
    Frame,
    claims,
    sign_jws,
    token_hash,
)
from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.identifiers import b64url, unb64url

NONCE = "AAAAAAAAAAAAAAAAAAAAAA"
ISSUED_AT = 1_795_406_706
UEID = "AQEB" * 11
GOLDEN = "36f23a9c873f9941875baa2425db9a19e7ced9008ea7d1f0f885ab1c6fb3a1d9"  # SHA-256 of the whole token
ATTESTATION = "UDDReOZl1ipXAfp9wYsm13sDBMK5og--QWdBjzuf6o4"  # the thumbprint of the key from 32 bytes of 1


@pytest.fixture
def frame(keyset: Keyset) -> Frame:
    return Frame(
        ueid=keyset.ueid,
        keyset=keyset.public(),
        receipt_key=keyset.receipt_thumbprint,
        audience="an-app",
        nonce=NONCE,
        issued_at=ISSUED_AT,
        lifetime_seconds=600,
        token_id="019ab0c0-0000-7000-8000-000000000000",
        previous=None,
    )


def test_the_claims_are_exactly_these(frame: Frame, evidence: Evidence, keyset: Keyset) -> None:
    found, detached = claims(frame, evidence)
    assert detached == {}
    submods = found.pop("submods")
    public = {role: keys[0] for role, keys in keyset.public().items()}
    assert found == {
        "iss": f"urn:dev:ueid:{UEID}",
        "sub": f"urn:dev:ueid:{UEID}",
        "aud": "an-app",
        "iat": ISSUED_AT,
        "nbf": ISSUED_AT,
        "exp": ISSUED_AT + 600,
        "jti": "019ab0c0-0000-7000-8000-000000000000",
        "eat_profile": "urn:lotabots:eat-profile:appliance:v1",
        "eat_nonce": NONCE,
        "ueid": UEID,
        "swname": "lotabotsd",
        "swversion": ["0.1.0", 16384],
        "dbgstat": "enabled",
        "uptime": 3_600,
        "bootseed": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        "measres": [["lotabots", [["models", "success"]]]],
        "cnf": {"jkt": public["receipt"]["kid"]},
        "x-lotabots-keyset": {role: [key] for role, key in public.items()},
        "x-lotabots-assurance": "software",
        "x-lotabots-development": True,
    }
    assert submods == {
        "runtime": {
            "x-lotabots-source": "operator_asserted",
            "x-lotabots-runtime": {"kind": "embedded", "running": True},
            "swname": "tritonserver",
            "swversion": ["2.51.0", 16384],
        },
        "models": {
            "x-lotabots-source": "operator_asserted",
            "x-lotabots-models": [
                {
                    "name": "page_orientation",
                    "versions": ["1"],
                    "digest": "sha256:" + "ab" * 32,
                    "signature": "absent",
                    "backend": "python",
                }
            ],
            "measres": [["lotabots-models", [["page_orientation", "success"]]]],
        },
        "licence": {
            "x-lotabots-source": "operator_asserted",
            "x-lotabots-licence": {"state": "none", "tier": "free"},
        },
        "gpu": {
            "x-lotabots-source": "operator_asserted",
            "x-lotabots-gpu": {"count": 0, "probe": "the NVIDIA driver is not installed"},
        },
    }


def test_the_same_claims_and_key_give_the_same_bytes(
    frame: Frame, evidence: Evidence, keyset: Keyset
) -> None:
    token = sign_jws(claims(frame, evidence)[0], keyset.attestation)
    header, payload, _ = token.split(".")
    assert unb64url(header) == b'{"alg":"EdDSA","kid":"%s","typ":"eat+jwt"}' % ATTESTATION.encode()
    assert unb64url(payload) == canonical_json(json.loads(unb64url(payload)))
    assert token == sign_jws(claims(frame, evidence)[0], keyset.attestation)
    assert hashlib.sha256(token.encode()).hexdigest() == GOLDEN
    assert token_hash(token) == b64url(bytes.fromhex(GOLDEN))


def test_the_other_spelling_of_the_algorithm_can_be_chosen(keyset: Keyset) -> None:
    header = sign_jws({}, keyset.attestation, "Ed25519").split(".")[0]
    assert json.loads(unb64url(header))["alg"] == "Ed25519"


@pytest.mark.parametrize("alg", ["none", "HS256", "ES256", "eddsa", ""])
def test_no_other_algorithm_can_be_chosen(keyset: Keyset, alg: str) -> None:
    with pytest.raises(ValueError, match="is not one of"):
        sign_jws({}, keyset.attestation, alg)


def test_a_float_cannot_be_signed(keyset: Keyset) -> None:
    with pytest.raises(ValueError, match="floating-point"):
        sign_jws({"iat": 1.0}, keyset.attestation)


def test_a_token_beyond_16_kib_cannot_be_signed(keyset: Keyset) -> None:
    with pytest.raises(ValueError, match="16384 are allowed"):
        sign_jws({"x": "y" * 13_000}, keyset.attestation)


def test_without_a_nonce_the_claim_is_absent_and_a_day_is_allowed(frame: Frame, evidence: Evidence) -> None:
    found, _ = claims(replace(frame, nonce=None, lifetime_seconds=86_400), evidence)
    assert "eat_nonce" not in found
    assert found["exp"] - found["iat"] == 86_400


@pytest.mark.parametrize(
    ("nonce", "seconds"), [(NONCE, 601), (NONCE, 0), (NONCE, -1), (None, 86_401), (None, 0)]
)
def test_a_lifetime_outside_the_profile_is_a_bug(
    frame: Frame, evidence: Evidence, nonce: str | None, seconds: int
) -> None:
    with pytest.raises(ValueError, match="lives 1 to"):
        claims(replace(frame, nonce=nonce, lifetime_seconds=seconds), evidence)


def test_the_previous_token_is_named_when_there_is_one(frame: Frame, evidence: Evidence) -> None:
    assert claims(replace(frame, previous="p" * 43), evidence)[0]["x-lotabots-prev"] == "p" * 43


def test_what_does_not_exist_yet_is_not_claimed(frame: Frame, evidence: Evidence) -> None:
    found, _ = claims(frame, evidence)
    assert not {"x-lotabots-log", "bootcount", "oemid", "hwmodel", "oemboot", "nonce"} & set(found)
    assert "tpm" not in found["submods"]


def test_every_submodule_names_its_source(evidence: Evidence) -> None:
    gpus = tuple(GpuEvidence(index, f"GPU-{index}", "NVIDIA H100", "580.1") for index in range(3))
    found = submodules(replace(evidence, gpus=gpus, gpu_probe="nvml"))
    assert set(found) == {"runtime", "models", "licence", "gpu", "gpu-0", "gpu-1", "gpu-2"}
    assert {module["x-lotabots-source"] for module in found.values()} == {"operator_asserted"}
    assert found["gpu"]["x-lotabots-gpu"] == {"count": 3, "probe": "nvml"}


def test_a_gpu_is_described_as_the_driver_does(evidence: Evidence) -> None:
    gpu = GpuEvidence(0, "GPU-1", "NVIDIA H100", "580.1", vbios="96.00", mig=False)
    assert submodules(replace(evidence, gpus=(gpu,)))["gpu-0"]["x-lotabots-gpu"] == {
        "uuid": "GPU-1",
        "name": "NVIDIA H100",
        "driver": "580.1",
        "vbios": "96.00",
        "mig": False,
        "confidential_computing": "unknown",
    }


def test_a_container_is_named_by_both_digests(evidence: Evidence) -> None:
    image = Image("nvcr.io/nvidia/tritonserver:x", "sha256:aa", "sha256:bb")
    runtime = RuntimeEvidence("container", running=False, image=image, arguments_sha256="cc")
    found = submodules(replace(evidence, runtime=runtime))["runtime"]
    assert found["x-lotabots-runtime"] == {
        "kind": "container",
        "running": False,
        "image": {"reference": image.reference, "manifest": "sha256:aa", "configuration": "sha256:bb"},
        "arguments": "sha256:cc",
    }
    assert "swversion" not in found, "a server that does not run has no version"


def test_a_digest_that_is_not_known_is_left_out_and_candidates_are_named(evidence: Evidence) -> None:
    image = Image("sha256:bb", "", "sha256:bb")
    runtime = RuntimeEvidence("container", running=True, image=image, gpus=("GPU-1", "GPU-2"))
    found = submodules(replace(evidence, runtime=runtime))["runtime"]
    assert found["x-lotabots-runtime"] == {
        "kind": "container",
        "running": True,
        "image": {"reference": "sha256:bb", "configuration": "sha256:bb"},
        "gpus": ["GPU-1", "GPU-2"],
    }


def test_an_installed_licence_comes_with_the_vendors_signature(evidence: Evidence) -> None:
    licence = LicenceEvidence("valid", "pro", "lic_1", expires_at=7, envelope=b'{"payload":""}')
    assert submodules(replace(evidence, licence=licence))["licence"]["x-lotabots-licence"] == {
        "state": "valid",
        "tier": "pro",
        "id": "lic_1",
        "expires_at": 7,
        "envelope": b64url(b'{"payload":""}'),
        "sha256": hashlib.sha256(b'{"payload":""}').hexdigest(),
    }


def test_a_licence_too_large_to_carry_is_named_by_its_hash(evidence: Evidence) -> None:
    for size, carried in ((MAX_ENVELOPE_BYTES, True), (MAX_ENVELOPE_BYTES + 1, False)):
        licence = LicenceEvidence("valid", "pro", "lic_1", envelope=bytes(size))
        content = submodules(replace(evidence, licence=licence))["licence"]["x-lotabots-licence"]
        assert ("envelope" in content) == carried
        assert content["sha256"] == hashlib.sha256(bytes(size)).hexdigest()


def test_models_are_listed_by_name_each_with_its_own_result(evidence: Evidence) -> None:
    models = (
        ModelEvidence("b", ("1", "2"), "00" * 32, Measurement.NOT_RUN, loaded_at=9),
        ModelEvidence("a", (), "11" * 32, Measurement.FAIL),
    )
    found = submodules(replace(evidence, models=models))["models"]
    assert [model["name"] for model in found["x-lotabots-models"]] == ["a", "b"]
    assert found["x-lotabots-models"][1]["loaded_at"] == 9
    assert found["measres"] == [["lotabots-models", [["a", "fail"], ["b", "not-run"]]]]


def test_without_models_there_is_no_empty_result(evidence: Evidence) -> None:
    found = submodules(replace(evidence, models=()))["models"]
    assert found["x-lotabots-models"] == []
    assert "measres" not in found


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("", "absent"),
        ("s", "success"),
        ("ss", "success"),
        ("sn", "not-run"),
        ("na", "not-run"),
        ("sa", "absent"),
        ("sanf", "fail"),
    ],
)
def test_the_worst_model_decides(results: str, expected: str) -> None:
    by_letter = {result.value[0]: result for result in Measurement}
    models = tuple(ModelEvidence("m", ("1",), "", by_letter[letter]) for letter in results)
    assert overall(models) == expected


@pytest.mark.parametrize(
    ("version", "claim"),
    [
        ("2.51.0", ["2.51.0", 16384]),
        ("0.1.0-rc.1+build", ["0.1.0-rc.1+build", 16384]),
        ("25.09", ["25.09"]),
        ("0.1.0.dev1", ["0.1.0.dev1"]),
        ("1.x.0", ["1.x.0"]),
    ],
)
def test_the_version_scheme_is_named_only_where_it_fits(version: str, claim: list[Any]) -> None:
    assert software("s", version) == {"swname": "s", "swversion": claim}


def test_an_unknown_version_is_left_out() -> None:
    assert software("s", "") == {"swname": "s"}


def many_models(count: int) -> tuple[ModelEvidence, ...]:
    return tuple(
        ModelEvidence(f"model_{number:04d}", ("1",), "ab" * 32, Measurement.SUCCESS)
        for number in range(count)
    )


def test_models_that_do_not_fit_are_named_by_digest_and_given_beside(
    frame: Frame, evidence: Evidence, keyset: Keyset
) -> None:
    large = replace(evidence, models=many_models(500))
    found, detached = claims(frame, large)
    assert set(detached) == {"models"}
    data = unb64url(detached["models"])
    assert json.loads(data) == submodules(large)["models"]
    assert found["submods"]["models"] == ["DIGEST", ["SHA-256", b64url(hashlib.sha256(data).digest())]]
    assert found["measres"] == [["lotabots", [["models", "success"]]]]
    assert len(sign_jws(found, keyset.attestation)) <= MAX_TOKEN_BYTES


def test_the_largest_submodule_leaves_first_and_only_as_many_as_needed(
    frame: Frame, evidence: Evidence, keyset: Keyset
) -> None:
    licence = LicenceEvidence("valid", "pro", "lic_1", envelope=bytes(8_000))
    found, detached = claims(frame, replace(evidence, models=many_models(20), licence=licence))
    assert set(detached) == {"licence"}
    assert isinstance(found["submods"]["models"], dict)
    found, detached = claims(frame, replace(evidence, models=many_models(100), licence=licence))
    assert set(detached) == {"licence", "models"}
    assert len(sign_jws(found, keyset.attestation)) <= MAX_TOKEN_BYTES


def test_the_profile_is_the_one_in_the_claims(frame: Frame, evidence: Evidence) -> None:
    assert claims(frame, evidence)[0]["eat_profile"] == PROFILE
