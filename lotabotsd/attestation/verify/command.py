"""The command `lotabots-verify`: read files, judge them, print the verdict check by check."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from .jose import strict_json
from .receipt import receipt_in, verify_receipt
from .token import verify_token
from .verdict import Verdict, read_policy


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(3, f"{self.format_usage()}{self.prog}: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code, except for usage errors and --help, which raise SystemExit."""
    parser = _command_line()
    given = parser.parse_args(arguments)
    read, verify = _KINDS[given.kind]
    try:
        files = read(given)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        parser.error(str(error))
    verdict = verify(**files)
    for check in verdict.checks:
        mark = {True: "ok", False: "FAILED", None: "not run"}[check.passed]
        _say(f"{check.level:<13} {mark:<8} {check.name}{': ' if check.detail else ''}{check.detail}")
    for line in verdict.not_established:
        _say(f"does NOT establish: {line}")
    _say(("valid", "invalid", "valid, but refused by policy")[verdict.exit_code])
    return verdict.exit_code


def _command_line() -> _Parser:
    parser = _Parser(prog="lotabots-verify", description="Verify an attestation token or a receipt offline.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="token|receipt")
    token = kinds.add_parser("token", description="Verify an attestation token.")
    receipt = kinds.add_parser("receipt", description="Verify a receipt: alone, as its header, or as JSON.")
    for kind, one in (("token", token), ("receipt", receipt)):
        one.add_argument("file", type=Path, help=f"the {kind}")
        one.add_argument("--jwks", type=Path, required=True, help="the appliance's public keys (JWK set)")
        one.add_argument("--nonce", help="your challenge")
        one.add_argument("--issuer", help="the appliance it must come from: urn:dev:ueid:…")
        one.add_argument("--policy", type=Path, help="TOML: what you demand beyond validity")
        one.add_argument("--at", type=int, default=int(time.time()), help="judge as of this Unix time")
    token.add_argument("--audience", required=True, help="whom the token must be meant for")
    token.add_argument("--detached", type=Path, help="JSON: submodules given as digests")
    receipt.add_argument("--request", type=Path, help="the body that was sent")
    receipt.add_argument("--response", type=Path, help="the body that came back")
    receipt.add_argument("--salt", help="the salt that came with the receipt, where it is salted")
    receipt.add_argument("--token", type=Path, help="the attestation token that was in force")
    return parser


def _read_for_token(given: argparse.Namespace) -> dict[str, Any]:
    return {
        "text": _read_text(given.file),
        **_read_for_both(given),
        "audience": given.audience,
        "detached": dict(strict_json(given.detached.read_bytes() if given.detached else b"{}")),
    }


def _read_for_receipt(given: argparse.Namespace) -> dict[str, Any]:
    return {
        "text": receipt_in(_read_text(given.file)),
        **_read_for_both(given),
        "request": given.request.read_bytes() if given.request else None,
        "response": given.response.read_bytes() if given.response else None,
        "salt": given.salt,
        "token": _read_text(given.token) if given.token else None,
    }


def _read_for_both(given: argparse.Namespace) -> dict[str, Any]:
    return {
        "jwks": strict_json(given.jwks.read_bytes()),
        "now": given.at,
        "nonce": given.nonce,
        "issuer": given.issuer,
        "policy": read_policy(given.policy.read_bytes() if given.policy else b""),
    }


def _read_text(file: Path) -> str:
    return file.read_bytes().decode(errors="replace").strip()


def _say(line: str) -> None:
    sys.stdout.write(ascii(line)[1:-1] + "\n")  # a token cannot write control characters to a terminal


_KINDS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], Callable[..., Verdict]]] = {
    "token": (_read_for_token, verify_token),
    "receipt": (_read_for_receipt, verify_receipt),
}
