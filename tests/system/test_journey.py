"""The way of one customer: images, keys, a licence, evidence, and the report that the vendor verifies."""

from __future__ import annotations

import base64
import json
import secrets
import time
from pathlib import Path
from typing import Any

import joserfc.jwk
import joserfc.jwt
import jwt
import numpy as np
import pytest
import tritonclient.http as triton
from gate_clients import (
    INFER,
    MODEL,
    MODEL_READY,
    PREDICT,
    Answer,
    Key,
    Load,
    ask_on,
    assert_problem,
    few_numbers,
    tensor_body,
    wait_for,
)
from whole_appliance import Appliance, load_pages

pytestmark = pytest.mark.required

FREE_PER_MINUTE, FREE_BURST = 600, 100
PRO_PER_MINUTE = 60_000
AUDIENCE = "test"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The demo's page, by how many degrees it was turned."""
    written: dict[int, Path] = load_pages().write_pages(tmp_path_factory.mktemp("pages"))
    return written


# -- images
def test_the_four_rotations_of_a_page_are_told_apart(
    shop: Appliance, key: Key, pages: dict[int, Path]
) -> None:
    images = {degrees: path.read_bytes() for degrees, path in pages.items()}
    for degrees, image in images.items():
        raw = shop.ask("POST", PREDICT, key, image, Content_Type="image/png")
        body = json.dumps({"image": base64.b64encode(image).decode()}).encode()
        text = shop.ask("POST", PREDICT, key, body, Content_Type="application/json")
        assert raw.status == text.status == 200, (raw.body, text.body)
        assert raw.json == text.json
        best, *others = raw.json["predictions"]
        assert best["label"] == str(degrees)
        assert best["score"] > 0.5
        assert {best["label"], *(one["label"] for one in others)} == {"0", "90", "180", "270"}
    body = json.dumps({"images": [base64.b64encode(image).decode() for image in images.values()]}).encode()
    together = shop.ask("POST", PREDICT, key, body, Content_Type="application/json")
    assert [found[0]["label"] for found in together.json["predictions"]] == [str(d) for d in images]


def test_a_newcomers_program_of_a_few_lines_works(shop: Appliance, key: Key) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{shop.port}")
    page = triton.InferInput("x", [1, 3, 224, 224], "FP32")
    page.set_data_from_numpy(np.zeros((1, 3, 224, 224), dtype=np.float32))
    answer = client.infer(MODEL, [page], headers={"Authorization": f"Bearer {key.text}"})
    assert answer.as_numpy("fetch_name_0").shape == (1, 4)
    client.close()


# -- keys
def test_a_wrong_key_is_refused_and_only_counted(shop: Appliance, key: Key) -> None:
    body, headers = tensor_body()
    mistyped = Key("", key.text[:-1] + ("0" if key.text[-1] != "0" else "1"))
    for wrong, code in ((None, "key_missing"), (mistyped, "key_invalid")):
        answer = shop.ask("POST", INFER, wrong, body, **headers)
        assert_problem(answer, 401, code)
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_key_is_kept_to_its_models_and_its_quota(shop: Appliance) -> None:
    body, headers = tensor_body()
    elsewhere = shop.key("elsewhere", "--model", "another_model")
    assert_problem(shop.ask("POST", INFER, elsewhere, body, **headers), 403, "model_not_in_scope")
    small = shop.key("small", "--quota-per-month", "3")
    many, many_headers = tensor_body(4)
    assert_problem(shop.ask("POST", INFER, small, many, **many_headers), 429, "quota_spent")
    for _ in range(3):  # the one that was too large took nothing
        assert shop.ask("POST", INFER, small, body, **headers).status == 200
    answer = shop.ask("POST", INFER, small, body, **headers)
    assert_problem(answer, 429, "quota_spent")
    assert (answer.json["scope"], answer.json["limit"], answer.json["remaining"]) == ("key", 3, 0)
    assert int(answer.headers["retry-after"]) >= 1
    shop.drained()
    assert shop.outcomes(small) == {"served": 3, "refused_quota": 2}
    assert shop.outcomes(elsewhere) == {"refused_policy": 1}


def test_retry_after_is_true(shop: Appliance) -> None:
    slow = shop.key("slow", "--rate-per-minute", "30")  # one every two seconds, five at once
    connection = shop.connection()

    def ask() -> Answer:
        return ask_on(connection, "POST", INFER, slow, few_numbers())

    assert [ask().status for _ in range(5)] == [400] * 5
    refused = ask()
    asked = time.monotonic()
    assert_problem(refused, 429, "rate_limited")
    promised = int(refused.headers["retry-after"])
    assert promised in (1, 2)
    wait_for(lambda: ask().status == 400, promised + 1, "a request passes, as Retry-After said")
    assert time.monotonic() - asked > promised - 1
    connection.close()


def test_a_rotated_key_has_two_secrets_until_the_grace_ends(shop: Appliance) -> None:
    old = shop.key("rotated")
    made = shop.ctl_json("key", "rotate", old.key_id, "--grace-seconds", "3600")
    new = Key(made["key_id"], made["text"])
    assert new.key_id == old.key_id
    assert shop.ask("GET", MODEL_READY, old).status == shop.ask("GET", MODEL_READY, new).status == 200
    shop.ctl("key", "rotate", old.key_id, "--grace-seconds", "0")
    assert_problem(shop.ask("GET", MODEL_READY, new), 401, "key_invalid")


def test_a_revoked_key_admits_nothing_once_the_command_has_returned(shop: Appliance) -> None:
    doomed = shop.key("doomed")
    with Load(shop, doomed, threads=4, pause_seconds=0.02) as load:
        load.until(15)
        shop.ctl("key", "revoke", doomed.key_id)
        returned = time.monotonic()
        load.until(20, status=401)
    assert {sent.status for sent in load.sent} <= {200, 401, 429}
    assert {sent.status for sent in load.sent if sent.began >= returned} == {401}
    shop.drained()
    assert shop.outcomes(doomed)["served"] == load.count(200)


# -- the licence
def test_a_damaged_licence_is_refused_and_changes_nothing(shop: Appliance) -> None:
    before = shop.ctl_json("licence", "show")["standing"]
    assert (before["state"], before["tier"]) == ("none", "free")
    good = shop.licence("pro").read_bytes()
    middle = len(good) // 2
    file = shop.folder / "damaged.licence"
    for bad in (
        b"",
        good[:middle],
        good[:middle] + b"A" + good[middle + 1 :],
        bytes(100),
        b"\xff" * 2_000_000,
    ):
        file.write_bytes(bad)
        said = shop.ctl("licence", "install", str(file), exit_code=6)
        assert "error: " in said
        assert " hint: " in said
    assert shop.ctl_json("licence", "show")["standing"] == before


def test_a_licence_raises_the_limits_under_load_without_one_dropped_request(shop: Appliance) -> None:
    shop.ctl("organisation", "create", "second", exit_code=3)  # the free tier has one
    key = shop.key("raised")
    file = shop.licence("pro")
    connection = shop.connection()
    for _ in range(FREE_BURST + 20):  # spend the burst with what costs Triton nothing
        if ask_on(connection, "POST", INFER, key, few_numbers()).status == 429:
            break
    connection.close()
    with Load(shop, key, threads=4, pause_seconds=0.02) as load:
        load.until(5, status=429)
        load.until(5)
        shop.ctl("licence", "install", str(file))
        returned = time.monotonic()
        load.until(40)
    assert {sent.status for sent in load.sent} <= {200, 429}
    before = {sent.limit for sent in load.sent if sent.status == 429 and sent.ended < returned}
    after = [sent for sent in load.sent if sent.began >= returned]
    assert FREE_PER_MINUTE in before
    # The bucket fills at the new rate from where it was: the first few may still find it empty.
    assert {(sent.status, sent.limit) for sent in after} <= {(200, 0), (429, PRO_PER_MINUTE)}
    assert sum(sent.status == 200 for sent in after) >= 40
    body, headers = tensor_body()
    answer = shop.ask("POST", INFER, key, body, **headers)
    assert f'"licence-rate";q={PRO_PER_MINUTE};w=60' in answer.headers["ratelimit-policy"]
    assert shop.ctl_json("licence", "show")["standing"]["tier"] == "pro"
    shop.ctl("organisation", "create", "second")


# -- evidence
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # joserfc would rather see the name Ed25519
def test_a_token_asked_for_at_the_gate_is_verified_offline_and_by_others(shop: Appliance, key: Key) -> None:
    nonce = secrets.token_urlsafe(32)
    request = json.dumps({"nonce": nonce, "audience": AUDIENCE}).encode()
    answer = shop.ask("POST", "/v1/attest", key, request, Content_Type="application/json")
    assert answer.status == 200, answer.body
    token = answer.json["token"]
    published = shop.ask("GET", "/.well-known/jwks.json")
    assert published.headers["content-type"] == "application/jwk-set+json"

    file, trusted = shop.folder / "token.jwt", shop.folder / "jwks.json"
    file.write_text(token)
    trusted.write_bytes(published.body)
    verify = ("verify", "token", str(file), "--jwks", str(trusted), "--audience", AUDIENCE)
    verdict = shop.ctl_json(*verify, "--nonce", nonce)
    assert verdict["valid"] is True
    assert verdict["does_not_establish"]
    shop.ctl(*verify, "--nonce", secrets.token_urlsafe(32), exit_code=1)
    shop.ctl("verify", "token", str(file), "--jwks", str(trusted), "--audience", "others", exit_code=1)

    claims = verdict["claims"]
    assert claims["eat_nonce"] == nonce
    assert {"runtime", "models", "licence", "gpu"} <= set(claims["submods"])
    (model,) = claims["submods"]["models"]["x-lotabots-models"]
    assert model["digest"].removeprefix("sha256:") == shop.ctl_json("model", "show", MODEL)["digest"]
    assert by_pyjwt(token, published.json) == by_joserfc(token, published.json) == claims

    header, payload, signature = token.split(".")
    changed = f"{header}.{_turned(payload)}.{signature}"
    file.write_text(changed)
    shop.ctl(*verify, "--nonce", nonce, exit_code=1)
    with pytest.raises(jwt.PyJWTError):
        by_pyjwt(changed, published.json)
    with pytest.raises(joserfc.errors.JoseError):
        by_joserfc(changed, published.json)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
def test_a_receipt_goes_with_its_answer_and_is_kept_for_its_organisation(
    shop: Appliance, key: Key, pages: dict[int, Path]
) -> None:
    sent = pages[90].read_bytes()
    nonce = secrets.token_urlsafe(32)
    wish = {"Lotabots_Receipt": "1", "Lotabots_Nonce": nonce}
    answer = shop.ask("POST", PREDICT, key, sent, Content_Type="image/png", **wish)
    assert answer.status == 200, answer.body
    receipt, identifier = answer.headers["lotabots-receipt"], answer.headers["lotabots-request-id"]
    files = {name: shop.folder / name for name in ("receipt.jwt", "jwks.json", "sent.png", "answer.json")}
    contents = receipt.encode(), shop.ask("GET", "/.well-known/jwks.json").body, sent, answer.body
    for path, content in zip(files.values(), contents, strict=True):
        path.write_bytes(content)
    verify = ("verify", "receipt", str(files["receipt.jwt"]), "--jwks", str(files["jwks.json"]))
    bodies = ("--request", str(files["sent.png"]), "--response", str(files["answer.json"]))
    verdict = shop.ctl_json(*verify, *bodies, "--nonce", nonce)
    assert verdict["valid"] is True
    assert by_pyjwt(receipt, json.loads(files["jwks.json"].read_text()), audience=None) == verdict["claims"]
    shop.ctl(*verify, "--request", str(files["answer.json"]), exit_code=1)

    path = f"/v1/receipts/{identifier}"
    wait_for(lambda: shop.ask("GET", path, key).status == 200, 15, "the receipt")
    assert shop.ask("GET", path, key).json == {"id": identifier, "receipt": receipt}
    assert shop.ctl_json("receipt", "show", identifier)["receipt"] == receipt
    shop.ctl("receipt", "show", "019abcde-f012-7345-8678-9abcdef01234", exit_code=3)
    shop.ctl("member", "create", "neighbour", "--organisation", "second")
    made = shop.ctl_json("key", "create", "stranger", "--organisation", "second")
    refused = shop.ask("GET", path, Key(made["key_id"], made["text"]))
    assert (refused.status, refused.json["code"], refused.headers["retry-after"]) == (404, "not_found", "1")


def by_pyjwt(token: str, keys: Any, audience: str | None = AUDIENCE) -> Any:
    """The claims as PyJWT reads them."""
    trusted = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, trusted.key, algorithms=["EdDSA"], audience=audience)


def by_joserfc(token: str, keys: Any) -> Any:
    """The claims as joserfc reads them."""
    decoded = joserfc.jwt.decode(token, joserfc.jwk.KeySet.import_key_set(keys), algorithms=["EdDSA"])
    joserfc.jwt.JWTClaimsRegistry(aud={"essential": True, "value": AUDIENCE}).validate(decoded.claims)
    return decoded.claims


def _turned(payload: str) -> str:
    """The payload with one claim changed."""
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    claims["x-lotabots-development"] = not claims["x-lotabots-development"]
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"nonce": "short"}', "nonce_invalid"),
        (b'{"nonce": "' + b"a" * 89 + b'"}', "nonce_invalid"),
        (b'{"nonce": "' + b"!" * 30 + b'"}', "nonce_invalid"),
        (b'{"nonce": 5}', "json_invalid"),
        (b'{"extra": "x"}', "parameter_refused"),
        (b"{", "json_invalid"),
    ],
)
def test_a_request_for_a_token_is_judged_before_anything_is_signed(
    shop: Appliance, key: Key, body: bytes, code: str
) -> None:
    assert_problem(shop.ask("POST", "/v1/attest", key, body), 400, code)


# -- the report
def test_the_report_says_what_the_clients_saw_and_the_vendor_verifies_it(shop: Appliance, key: Key) -> None:
    body, headers = tensor_body()
    assert shop.ask("POST", INFER, key, body, **headers).status == 200
    shop.drained()
    rows = shop.ctl_json("usage", "show", "--by", "outcome")["rows"]
    seen = shop.command("lotabotsctl", "usage", "preview")  # nothing to see before an hour is over
    assert seen.returncode == 0 or "lotabotsctl usage export --cut" in seen.stderr
    (made,) = shop.ctl_json("usage", "export", "--cut", "--output", str(shop.folder))
    shop.ctl("ledger", "verify")
    shop.ctl("audit", "verify")
    report = Path(made["copy"])
    assert report.read_bytes() == Path(made["path"]).read_bytes()
    done = shop.command("lotabots-vendor", "--json", "report", "verify", "--development", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert facts["verdict"] == "valid"
    charged = sum(row["inferences"] for row in rows if row["charged"])
    assert charged > 0
    assert facts["totals"]["charged"]["inferences"] == charged
    shop.ctl("usage", "export", "--cut", "--until", "today", exit_code=2)  # the two contradict each other

    damaged = shop.folder / "damaged.zip"
    data = bytearray(report.read_bytes())
    data[len(data) // 3] ^= 1
    damaged.write_bytes(data)
    done = shop.command("lotabots-vendor", "report", "verify", "--development", str(damaged))
    assert done.returncode == 6, done.stdout + done.stderr
