"""Attestation: ask for a token or a receipt, and verify them without the appliance."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from lotabotsd.cli.session import Session, json_option, pass_session, show, warn
from lotabotsd.cli.tables import printable
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded

if TYPE_CHECKING:
    from lotabotsd.attestation.verify import Policy, Verdict

ANY_AUDIENCE = "lotabots:any"  # what the appliance signs where no audience was asked for
MAX_TOKEN_BYTES = 64 * 1024
MAX_TRUST_BYTES = 1024 * 1024
MAX_BODY_BYTES = 2 << 30  # an answer can be larger than the largest request that a gate takes, 1 GiB
USAGE_EXIT = 3  # of `verify` alone: its 1 and 2 are verdicts
_MARKS = {True: "pass", False: "FAIL", None: "-"}


@click.command(short_help="Ask for a signed statement about this appliance, now.")
@click.option("--nonce", help="22 to 88 characters of A-Z a-z 0-9 - _; shows that the token is fresh.")
@click.option("--audience", help="Whom the token is for.  [default: anybody]")
@json_option
@pass_session
def attest(session: Session, nonce: str | None, audience: str | None, as_json: bool) -> None:
    """Ask for an attestation token: a signed statement about this appliance, now."""
    answer = session.client.post("attest", body={"nonce": nonce, "audience": audience})
    show(answer, lambda found: str(found["token"]), as_json=as_json)
    if answer["detached"] and not as_json:
        warn("some submodules did not fit into the token: --json shows them")


@click.group(short_help="Receipts: signed statements about single answers.")
def receipt() -> None:
    """Receipts: signed statements about single answers."""


@receipt.command("show")
@click.argument("receipt_id", metavar="ID")
@json_option
@pass_session
def receipt_show(session: Session, receipt_id: str, as_json: bool) -> None:
    """Show the receipt of the answer whose Lotabots-Request-Id is ID."""
    answer = session.client.get(f"receipts/{quote(receipt_id, safe='')}")
    show(answer, lambda found: str(found["receipt"]), as_json=as_json)


class VerifyCommand(click.Command):
    """A command whose exit codes 1 and 2 are verdicts, so that a mistyped one ends with 3."""

    usage_exit = USAGE_EXIT


@click.group(short_help="Verify evidence offline, without appliance and network.")
def verify() -> None:
    """Verify evidence offline: needs neither the appliance nor a network."""


@verify.command("token", cls=VerifyCommand)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--jwks", required=True, type=click.Path(path_type=Path), help="The appliance's public keys.")
@click.option("--audience", default=ANY_AUDIENCE, show_default=True, help="Whom the token must be for.")
@click.option("--nonce", help="The nonce that was asked for.")
@click.option(
    "--allow-development/--refuse-development", default=True, help="Accept a development appliance."
)
@json_option
def verify_token_file(
    file: Path, jwks: Path, audience: str, nonce: str | None, allow_development: bool, as_json: bool
) -> int:
    """Verify the token in FILE (or - for standard input).

    Exit 0: valid, 1: not valid, 2: valid but refused by a rule given here, 3: wrong usage.
    """
    from lotabotsd.attestation.verify import Policy, verify_token

    verdict = verify_token(
        _read_statement(file),
        _read_trust(jwks),
        audience=audience,
        nonce=nonce,
        now=int(time.time()),
        policy=Policy(allow_development=allow_development, require_challenge=nonce is not None),
    )
    return _show_verdict(verdict, as_json=as_json)


@verify.command("receipt", cls=VerifyCommand)
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--jwks", required=True, type=click.Path(path_type=Path), help="The appliance's public keys.")
@click.option("--request", type=click.Path(path_type=Path), help="The body that was sent.")
@click.option("--response", type=click.Path(path_type=Path), help="The body that came back.")
@click.option("--salt", help="The salt that came with the receipt, where it is salted.")
@click.option("--nonce", help="The nonce that was sent with the request.")
@click.option("--issuer", help="The appliance it must come from: urn:dev:ueid:…")
@click.option("--token", type=click.Path(path_type=Path), help="The attestation token that was in force.")
@click.option("--policy", type=click.Path(path_type=Path), help="TOML: what you demand beyond validity.")
@click.option("--at", type=int, help="Judge as of this Unix time.  [default: now]")
@json_option
def verify_receipt_file(
    file: Path,
    jwks: Path,
    request: Path | None,
    response: Path | None,
    salt: str | None,
    nonce: str | None,
    issuer: str | None,
    token: Path | None,
    policy: Path | None,
    at: int | None,
    as_json: bool,
) -> int:
    """Verify the receipt in FILE (or - for standard input).

    FILE holds the receipt alone, its header line, or the answer of GET /v1/receipts/ID.
    Exit 0: valid, 1: not valid, 2: valid but refused by the policy, 3: wrong usage.
    """
    from lotabotsd.attestation.verify import receipt_in, verify_receipt

    verdict = verify_receipt(
        receipt_in(_read_statement(file)),
        _read_trust(jwks),
        now=int(time.time()) if at is None else at,
        request=None if request is None else read_bounded(request, MAX_BODY_BYTES),
        response=None if response is None else read_bounded(response, MAX_BODY_BYTES),
        salt=salt,
        nonce=nonce,
        issuer=issuer,
        token=None if token is None else _read_statement(token),
        policy=None if policy is None else _read_policy(policy),
    )
    return _show_verdict(verdict, as_json=as_json)


def _read_statement(file: Path) -> str:
    """The text of a token or receipt."""
    data = sys.stdin.buffer.read(MAX_TOKEN_BYTES) if str(file) == "-" else read_bounded(file, MAX_TOKEN_BYTES)
    return data.decode("ascii", errors="replace").strip()


def _read_trust(jwks: Path) -> Any:
    try:
        return json.loads(read_bounded(jwks, MAX_TRUST_BYTES))
    except ValueError as error:
        raise LotaBotsError(
            Code.FILE_UNREADABLE, f"{jwks} holds no JSON", hint="save GET /.well-known/jwks.json there"
        ) from error


def _read_policy(file: Path) -> Policy:
    from lotabotsd.attestation.verify import read_policy

    try:
        return read_policy(read_bounded(file, MAX_TRUST_BYTES))
    except ValueError as error:
        raise LotaBotsError(
            Code.FILE_UNREADABLE,
            f"{file}: {error}",
            hint="the keys of a policy are in ARCHITECTURE.md, The verifier",
        ) from error


def _show_verdict(verdict: Verdict, *, as_json: bool) -> int:
    show(_as_value(verdict), lambda _: _as_text(verdict), as_json=as_json)
    return verdict.exit_code


def _as_value(verdict: Verdict) -> dict[str, Any]:
    return {
        "valid": verdict.valid,
        "accepted": verdict.exit_code == 0,
        "assurance": verdict.assurance,
        "checks": [
            {"level": check.level, "name": check.name, "passed": check.passed, "detail": check.detail}
            for check in verdict.checks
        ],
        "does_not_establish": list(verdict.not_established),
        "claims": dict(verdict.claims),
    }


def _as_text(verdict: Verdict) -> str:
    lines = [
        f"{check.level:<13}{_MARKS[check.passed]:<6}{printable(check.name)}"
        + (f": {printable(check.detail)}" if check.detail else "")
        for check in verdict.checks
    ]
    words = "valid" if verdict.exit_code == 0 else "valid, but refused" if verdict.valid else "NOT VALID"
    lines += ["", f"{words}; assurance: {verdict.assurance}"]
    lines += [f"does NOT establish: {printable(limit)}" for limit in verdict.not_established]
    return "\n".join(lines)
