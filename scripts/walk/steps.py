"""The steps of the demo, in order: each sends something real and checks what comes back."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import client
import numpy as np
from appliance import Answer, Appliance
from pages import HEIGHT, WIDTH, write_pages
from telling import Telling, WrongResultError

from lotabotsd.foundation.identifiers import random_base62
from lotabotsd.identity.api_key import format_api_key

PREDICT = f"/v1/models/{client.MODEL}/predict"
AUDIENCE = "lotabots-demo"
# A key for the rate limit's step: one request every three seconds, five at once (the smallest burst).
SLOW_KEY_PER_MINUTE, SLOW_KEY_BURST = 20, 5


class Walk:
    """What the steps hand on to each other."""

    def __init__(self, appliance: Appliance, telling: Telling, folder: Path) -> None:
        self.appliance = appliance
        self.telling = telling
        self.folder = folder
        self.pages: dict[int, Path] = {}
        self.key = ""
        self.slow_key = ""
        self.answered = 0  # pages that came back with 200: the ledger must say the same
        self.report = Path()

    def predict(self, degrees: int, *, key: str = "", tell: bool = True) -> Answer:
        """Send one page as it lies on disk; tell what went and what came."""
        body = self.pages[degrees].read_bytes()
        if tell:
            shown = f"Authorization: Bearer {(key or self.key)[:12]}…"
            self.telling.sent(f"POST {PREDICT}  {shown}  image/png, {len(body)} bytes, turned by {degrees}°")
        answer = self.appliance.ask("POST", PREDICT, key=key or self.key, body=body, kind="image/png")
        if tell:
            self.telling.came(f"{answer.status} {answer.body.decode(errors='replace')}")
        if answer.status == 200:
            self.answered += 1
        return answer


def make_pages(walk: Walk) -> None:
    """Our own images: rendered text, four rotations."""
    walk.pages = write_pages(walk.folder / "pages")
    for degrees, path in walk.pages.items():
        walk.telling.note(f"{path}  {path.stat().st_size} bytes, turned by {degrees}° clockwise")
    walk.telling.proved(f"four pages of {WIDTH} × {HEIGHT} pixels", len(walk.pages) == 4)


def start(walk: Walk) -> None:
    """Runtime helper with Triton, daemon and gate, as `lotabotsd up` starts them."""
    walk.appliance.start()
    walk.telling.sent("GET /readyz")
    answer = walk.appliance.ask("GET", "/readyz")
    walk.telling.came(f"{answer.status} {answer.body.decode(errors='replace')}")
    walk.telling.proved("the gate is ready", answer.status == 200)
    walk.appliance.wait_for_models()
    walk.appliance.ctl("status")


def make_key(walk: Walk) -> None:
    """An organisation, a service account, and two keys; each text is shown once."""
    walk.appliance.ctl("organisation", "create", "print-room")
    walk.appliance.ctl("member", "create", "scanner", "--kind", "service")
    walk.key = walk.appliance.ctl_json("key", "create", "demo")["text"]
    walk.telling.came(f"{walk.key[:12]}… (shown whole only here, kept in {walk.folder}/env)")
    walk.slow_key = walk.appliance.ctl_json(
        "key", "create", "slow", "--rate-per-minute", str(SLOW_KEY_PER_MINUTE)
    )["text"]
    environment = walk.folder / "env"
    environment.touch(mode=0o600)
    environment.write_text(
        f"export GATE_URL={walk.appliance.url}\nexport API_KEY={walk.key}\n"
        f"export CONTROL_SOCKET={walk.appliance.control_socket}\n"
        f"export LOTABOTS_CONTROL_SOCKET={walk.appliance.control_socket}\n"
    )
    walk.telling.note(f"wrote {environment}: GATE_URL, API_KEY, CONTROL_SOCKET")


def refuse_wrong_key(walk: Walk) -> None:
    """No key, a mistyped key, and a well-formed key that nobody was given."""
    walk.telling.sent(f"POST {PREDICT}  without a key")
    without = walk.appliance.ask("POST", PREDICT, body=b"{}")
    walk.telling.came(f"{without.status} {without.body.decode()}")
    mistyped = walk.predict(0, key=walk.key[:-1] + ("0" if walk.key[-1] != "0" else "1"))
    unknown = walk.predict(0, key=format_api_key("live", random_base62(12), random_base62(32)))
    found = [(answer.status, answer.json["code"]) for answer in (without, mistyped, unknown)]
    walk.telling.proved(
        "each is refused with 401 and a problem that says what to do",
        found == [(401, "key_missing"), (401, "key_invalid"), (401, "key_invalid")]
        and all(answer.json["hint"] for answer in (without, mistyped, unknown)),
    )


def answer_images(walk: Walk) -> None:
    """The four pages as raw PNG; then all of them in one request, as base64."""
    for degrees in walk.pages:
        answer = walk.predict(degrees)
        if answer.status != 200:
            raise WrongResultError(f"the page turned by {degrees}° was answered with {answer.status}")
        best = answer.json["predictions"][0]
        walk.telling.proved(
            f"the model says {best['label']}° with a score of {best['score']:.3f}",
            best["label"] == str(degrees) and best["score"] > 0.5,
        )
    texts = [base64.b64encode(path.read_bytes()).decode() for path in walk.pages.values()]
    answer = walk.appliance.ask("POST", PREDICT, key=walk.key, body=json.dumps({"images": texts}).encode())
    walk.telling.sent(f'POST {PREDICT}  {{"images": [four pages as base64]}}')
    walk.telling.came(f"{answer.status} {answer.body.decode(errors='replace')}")
    labels = [found[0]["label"] for found in answer.json["predictions"]] if answer.status == 200 else []
    walk.answered += len(labels)
    walk.telling.proved(f"one request, four answers: {labels}", labels == [str(d) for d in walk.pages])


def ask_with_tritonclient(walk: Walk) -> None:
    """An unmodified tritonclient.http, binary tensors and JSON."""
    batch = np.concatenate([client.tensor(path) for path in walk.pages.values()])
    expected = [str(degrees) for degrees in walk.pages]
    address = walk.appliance.url.removeprefix("http://")
    for binary in (True, False):
        pages = batch if binary else batch[:1]
        form = "binary" if binary else "JSON"
        walk.telling.sent(f"tritonclient.http infer({client.MODEL!r}), {form} tensor {pages.shape}")
        labels = client.ask(address, walk.key, pages, binary=binary)
        walk.answered += len(labels)
        walk.telling.came(str(labels))
        walk.telling.proved("the labels fit the pages", labels == expected[: len(pages)])


def meet_rate_limit(walk: Walk) -> None:
    """A key with few requests a minute: five at once, then 429, then served after Retry-After."""
    admitted = 0
    answer = walk.predict(0, key=walk.slow_key, tell=False)
    while answer.status == 200 and admitted < 4 * SLOW_KEY_BURST:
        admitted += 1
        answer = walk.predict(0, key=walk.slow_key, tell=False)
    walk.telling.sent(f"POST {PREDICT}  {admitted + 1} times, with a key of {SLOW_KEY_PER_MINUTE} per minute")
    walk.telling.came(f"{admitted} times 200, then {answer.status} {answer.body.decode(errors='replace')}")
    retry_after = answer.headers.get("retry-after", "")
    walk.telling.proved(
        f"429 after a burst of {admitted}, Retry-After: {retry_after}",
        answer.status == 429
        and answer.json["code"] == "rate_limited"
        and admitted >= SLOW_KEY_BURST
        and retry_after.isdigit()
        and 1 <= int(retry_after) <= 60 / SLOW_KEY_PER_MINUTE,
    )
    time.sleep(int(retry_after))
    again = walk.predict(0, key=walk.slow_key)
    walk.telling.proved(f"served after {retry_after} s, as Retry-After said", again.status == 200)


def raise_licence(walk: Walk) -> None:
    """From free to pro while requests run: nothing restarts, nothing is dropped."""
    before = walk.appliance.ctl_json("licence", "show")["standing"]
    walk.telling.came(f"tier {before['tier']}, {before['requests_per_minute']} requests per minute")
    walk.appliance.ctl("organisation", "create", "archive", exit_code=3)
    walk.telling.note("the free tier has one organisation")
    file = walk.folder / "pro.licence"
    walk.appliance.run(
        "lotabots-vendor", "licence", "issue", "--development", "--tier", "pro",
        "--customer", "Demo", "--output", str(file),
    )  # fmt: skip
    with Stream(walk) as stream:
        walk.appliance.ctl("licence", "install", str(file))
        walk.appliance.ctl("organisation", "create", "archive")
    after = walk.appliance.ctl_json("licence", "show")["standing"]
    walk.telling.came(f"tier {after['tier']}, {after['requests_per_minute']} requests per minute")
    walk.telling.proved(
        "pro is in force when the command returns",
        (before["tier"], after["tier"]) == ("free", "pro")
        and after["requests_per_minute"] > before["requests_per_minute"],
    )
    walk.telling.proved(
        f"{len(stream.statuses)} requests ran meanwhile and every one was served",
        len(stream.statuses) > 0 and set(stream.statuses) == {200},
    )


class Stream:
    """One request after the other from a second thread, as long as the block lasts."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self.statuses: list[int] = []

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _send(self) -> None:
        while not self._stop.is_set():
            try:
                self.statuses.append(self._walk.predict(180, tell=False).status)
            except WrongResultError:
                self.statuses.append(0)


def attest(walk: Walk) -> None:
    """A token over our own nonce, verified offline; with another nonce it is refused."""
    nonce = secrets.token_urlsafe(32)
    request = {"nonce": nonce, "audience": AUDIENCE}
    walk.telling.sent(f"POST /v1/attest {json.dumps(request)}")
    answer = walk.appliance.ask("POST", "/v1/attest", key=walk.key, body=json.dumps(request).encode())
    if answer.status != 200:
        raise WrongResultError(f"attest: {answer.status} {answer.body.decode(errors='replace')}")
    walk.telling.came(f"200 a token of {len(answer.json['token'])} characters")
    token, jwks = walk.folder / "token.jwt", walk.folder / "jwks.json"
    token.write_text(answer.json["token"])
    walk.telling.sent("GET /.well-known/jwks.json")
    jwks.write_bytes(walk.appliance.ask("GET", "/.well-known/jwks.json").body)
    verify = ("lotabotsctl", "verify", "token", str(token), "--jwks", str(jwks), "--audience", AUDIENCE)
    walk.appliance.run(*verify, "--nonce", nonce)
    walk.telling.note("the same token, for a nonce that we did not send:")
    walk.appliance.run(*verify, "--nonce", secrets.token_urlsafe(32), exit_code=1)
    walk.telling.note("exit 0 for our nonce, exit 1 for another")


def give_receipt(walk: Walk) -> None:
    """One answer with its receipt, verified offline against the bytes that went and came; then by its id."""
    sent = walk.pages[90]
    asked = {"Lotabots-Receipt": "1", "Lotabots-Nonce": secrets.token_urlsafe(32)}
    walk.telling.sent(f"POST {PREDICT}  Lotabots-Receipt: 1, Lotabots-Nonce: {asked['Lotabots-Nonce']}")
    answer = walk.appliance.ask(
        "POST", PREDICT, key=walk.key, body=sent.read_bytes(), kind="image/png", more=asked
    )
    if answer.status != 200:
        raise WrongResultError(f"receipt: {answer.status} {answer.body.decode(errors='replace')}")
    walk.answered += 1
    signed = answer.headers["lotabots-receipt"]
    walk.telling.came(f"200 {answer.body.decode()}")
    walk.telling.came(f"Lotabots-Receipt: {signed[:40]}… ({len(signed)} characters)")
    receipt, response = walk.folder / "receipt.jwt", walk.folder / "answer.json"
    receipt.write_text(f"{signed}\n")
    response.write_bytes(answer.body)
    verify = ("lotabotsctl", "verify", "receipt", str(receipt), "--jwks", str(walk.folder / "jwks.json"))
    bodies = ("--request", str(sent), "--response", str(response), "--nonce", asked["Lotabots-Nonce"])
    token = ("--token", str(walk.folder / "token.jwt"))
    walk.appliance.run(*verify, *bodies, *token)
    walk.telling.note("the same receipt, for another page:")
    walk.appliance.run(*verify, "--request", str(walk.pages[180]), exit_code=1)
    identifier = answer.headers["lotabots-request-id"]
    walk.telling.proved(
        f"the appliance keeps it: GET /v1/receipts/{identifier}",
        _kept_receipt(walk, identifier) == signed,
    )


def _kept_receipt(walk: Walk, identifier: str) -> str:
    """The receipt by its id; it is there once the daemon has read the journal."""
    deadline = time.monotonic() + 15
    while True:
        answer = walk.appliance.ask("GET", f"/v1/receipts/{identifier}", key=walk.key)
        if answer.status == 200 or time.monotonic() > deadline:
            return str(answer.json.get("receipt", ""))
        time.sleep(min(1, int(answer.headers.get("retry-after", "1"))))  # as it says, with a deadline


def export_usage(walk: Walk) -> None:
    """What was counted, sealed and signed; it must be what we saw answered."""
    # The daemon moves the gate's records into the ledger once a second.
    deadline = time.monotonic() + 15
    while (counted := walk.appliance.charged_inferences()) != walk.answered and time.monotonic() < deadline:
        time.sleep(0.2)  # a poll with a deadline
    walk.appliance.ctl("usage", "show")
    walk.telling.proved(
        f"{counted} inferences are counted, {walk.answered} pages were answered", counted == walk.answered
    )
    walk.appliance.ctl("usage", "export", "--cut")
    walk.appliance.ctl("ledger", "verify")
    reports = sorted((walk.folder / "state" / "outbox" / "new").glob("lotabots-usage-*.zip"))
    walk.telling.proved("one report lies in the outbox", len(reports) == 1)
    walk.report = reports[0]


def verify_at_vendor(walk: Walk) -> None:
    """The vendor's tool on the report, and on a copy with one byte changed."""
    verify = ("report", "verify", "--development")
    walk.appliance.run("lotabots-vendor", *verify, str(walk.report))
    facts: dict[str, Any] = json.loads(
        walk.appliance.run("lotabots-vendor", "--json", *verify, str(walk.report), show=False)
    )
    counted = facts["totals"]["charged"]["inferences"]
    walk.telling.proved(
        f"the report counts {counted} inferences, and {walk.answered} pages were answered",
        counted == walk.answered,
    )
    damaged = walk.folder / "damaged.zip"
    data = bytearray(walk.report.read_bytes())
    data[len(data) // 3] ^= 1
    damaged.write_bytes(data)
    walk.telling.note("a copy with one bit changed:")
    walk.appliance.run("lotabots-vendor", *verify, str(damaged), exit_code=6)


STEPS: tuple[tuple[str, Callable[[Walk], None]], ...] = (
    ("Pages of our own", make_pages),
    ("Start: runtime with Triton, daemon, gate", start),
    ("An organisation and its keys", make_key),
    ("A wrong key is refused", refuse_wrong_key),
    ("Four pages are answered and told apart", answer_images),
    ("An unmodified tritonclient", ask_with_tritonclient),
    ("The rate limit is met", meet_rate_limit),
    ("The licence is raised from free to pro, live", raise_licence),
    ("An attestation token is verified offline", attest),
    ("An answer's receipt is verified offline", give_receipt),
    ("Usage is sealed and exported", export_usage),
    ("The vendor verifies the report", verify_at_vendor),
)
