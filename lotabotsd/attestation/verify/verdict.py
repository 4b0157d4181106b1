"""What the verifier answers, and what a reader may demand beyond validity. Pure."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

LEVELS = ("software", "tpm", "cc-gpu")
SOFTWARE = "Tamper-evident to everyone who does not control the appliance. Its administrator could forge it."


@dataclass(frozen=True, slots=True)
class Check:
    """One question put to a token or receipt, at the level parse, cryptography, claims or policy."""

    level: str
    name: str
    passed: bool | None  # None: the question could not be put
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a reader demands beyond validity. One policy serves tokens and receipts."""

    minimum_assurance: str = "software"
    allow_development: bool = True
    allow_failed_measurements: bool = False  # of a token; a receipt holds none and says "not run"
    require_challenge: bool = False
    max_age_seconds: int = 0  # 0: a token as old as it allows, a receipt of any age
    models: Mapping[str, str] = field(default_factory=dict)  # name → "sha256:…"; live, or a receipt's only


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer. `claims` is empty unless the signature is good; `assurance` is what was proven here."""

    checks: tuple[Check, ...]
    claims: Mapping[str, Any] = field(default_factory=dict)
    assurance: str = "none"
    not_established: tuple[str, ...] = ("anything: the token is not valid",)

    @property
    def exit_code(self) -> int:
        """0 valid, 1 invalid, 2 valid but refused by policy."""
        failed = {check.level for check in self.checks if check.passed is False}
        return 0 if not failed else 2 if failed == {"policy"} else 1

    @property
    def valid(self) -> bool:
        """Whether this is what it says it is, whatever a policy thinks of it."""
        return self.exit_code != 1


class InvalidError(Exception):
    """A check failed after which no other makes sense."""


def need(checks: list[Check], level: str, name: str, passed: bool, detail: str = "") -> None:
    """Note the answer to a question on which all others depend. Raises InvalidError when it is no."""
    checks.append(Check(level, name, passed, detail))
    if not passed:
        raise InvalidError


def read_policy(data: bytes) -> Policy:
    """The policy in a TOML file. Raises ValueError for an unknown key or a value of another type."""
    found = tomllib.loads(data.decode())
    kinds = {one.name: type(getattr(Policy(), one.name)) for one in fields(Policy)}
    wrong = [name for name, value in found.items() if type(value) is not kinds.get(name)]
    if wrong or found.get("minimum_assurance", "software") not in LEVELS:
        raise ValueError(f"a key or value is not usable: {', '.join(wrong or ['minimum_assurance'])}")
    return Policy(**found)
