"""Verify attestation tokens and receipts offline: the standard library and `cryptography`, no network.

    lotabots-verify token FILE --jwks FILE --audience TEXT [--nonce TEXT] [--policy FILE.toml]
    lotabots-verify receipt FILE --jwks FILE [--request FILE] [--response FILE] [--salt TEXT]

Exit codes: 0 valid, 1 invalid, 2 valid but refused by policy, 3 usage. ARCHITECTURE.md, "Attestation", says
how this narrows RFC 7515, 8037, 8725, 9711 and 9864. Published as one file, `lotabots_verify.py`, into which
`scripts/verify` merges these modules.
"""

from __future__ import annotations

from .command import main
from .jose import ALGORITHMS, read_jwks
from .receipt import (
    MAX_RECEIPT_CHARACTERS,
    RECEIPT_PROFILE,
    RECEIPT_STATES,
    RECEIPT_TYPE,
    receipt_in,
    verify_receipt,
)
from .token import LONGEST_SECONDS, MAX_TOKEN_BYTES, PROFILE, TOKEN_TYPE, verify_token
from .verdict import Check, Policy, Verdict, read_policy

__all__ = [
    "ALGORITHMS",
    "LONGEST_SECONDS",
    "MAX_RECEIPT_CHARACTERS",
    "MAX_TOKEN_BYTES",
    "PROFILE",
    "RECEIPT_PROFILE",
    "RECEIPT_STATES",
    "RECEIPT_TYPE",
    "TOKEN_TYPE",
    "Check",
    "Policy",
    "Verdict",
    "main",
    "read_jwks",
    "read_policy",
    "receipt_in",
    "verify_receipt",
    "verify_token",
]
