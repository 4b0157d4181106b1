"""lotabotsctl verify receipt: the frozen receipts judged from files, with no appliance anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lotabotsd.cli.ctl import lotabotsctl
from lotabotsd.cli.failures import run

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "receipt"
AT = 1_795_651_200
SALT, NONCE = "AAECAwQFBgcICQoLDA0ODw", "golden-nonce-of-22-chr"
BODIES = ("--request", str(GOLDEN / "request.json"), "--response", str(GOLDEN / "response.json"))
Verify = Callable[..., tuple[int, str, str]]


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Verify:
    """Exit code, output and errors of `verify receipt` with the golden keys."""

    def verified(file: Path | str, *words: str) -> tuple[int, str, str]:
        command = ("verify", "receipt", str(file), "--jwks", str(GOLDEN / "jwks.json"), *words)
        code = run(lotabotsctl, "lotabotsctl", command)
        return code, *capsys.readouterr()

    return verified


def test_a_receipt_is_verified_with_all_that_is_known(verify: Verify) -> None:
    token = ("--token", str(GOLDEN / "token.txt"))
    code, out, _ = verify(
        GOLDEN / "salted.txt", *BODIES, *token, "--salt", SALT, "--nonce", NONCE, "--at", str(AT)
    )
    assert code == 0, out
    assert "claims       pass  request bytes: 24 bytes, salted" in out
    assert "claims       pass  token" in out
    assert "\nvalid; assurance: software\n" in out
    assert "does NOT establish: that this model computed this answer: The key holder states" in out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--at", str(AT - 60)), 0),
        (("--at", str(AT - 61)), 1),
        (("--issuer", "urn:dev:ueid:another"), 1),
        (("--nonce", "B" * 22), 1),
        (("--salt", "short"), 1),
        (("--request", str(GOLDEN / "response.json")), 1),
        (("--token", str(GOLDEN / "plain.txt")), 1),
        (("--request", "absent"), 3),
        (("--token", "absent"), 3),
        (("--policy", "absent"), 3),
        (("--at", "noon"), 3),
        (("--audience", "me"), 3),
    ],
)
def test_each_option_counts_and_ends_with_its_code(verify: Verify, words: tuple[str, ...], code: int) -> None:
    found, out, err = verify(GOLDEN / "plain.txt", "--at", str(AT), *words)
    assert found == code
    assert ("NOT VALID" in out) is (code == 1)
    assert ("does NOT establish: " in out) is (code != 3)
    assert (err != "") is (code == 3)


def test_a_policy_is_a_file(verify: Verify, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("allow_development = false\n")
    code, out, _ = verify(GOLDEN / "plain.txt", "--at", str(AT), "--policy", str(policy))
    assert (code, "valid, but refused" in out) == (2, True)
    policy.write_text("allow_everything = true\n")
    code, out, err = verify(GOLDEN / "plain.txt", "--policy", str(policy))
    assert (code, out) == (3, "")
    assert "allow_everything" in err


def test_the_answer_of_the_appliance_is_taken(verify: Verify, tmp_path: Path) -> None:
    receipt = (GOLDEN / "plain.txt").read_text().strip()
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({"id": "019abcde-f012-7345-8678-9abcdef01234", "receipt": receipt}))
    code, out, _ = verify(answer, "--at", str(AT), "--json")
    assert code == 0
    said = json.loads(out)
    assert said["valid"] is True
    assert said["claims"]["x-lotabots-receipt"]["model"]["name"] == "page_orientation"


def test_standard_input_is_taken() -> None:
    ctl = str(Path(sys.executable).parent / "lotabotsctl")
    done = subprocess.run(
        [ctl, "verify", "receipt", "-", "--jwks", str(GOLDEN / "jwks.json"), "--at", str(AT)],
        input="Lotabots-Receipt: " + (GOLDEN / "plain.txt").read_text(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "\nvalid; assurance: software\n" in done.stdout
