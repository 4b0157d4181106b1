"""What the gate judges by, as frozen values: one key's grant, the licence's standing, the appliance. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.limits.scope import Scope


@dataclass(frozen=True, slots=True)
class Grant:
    """Everything about one API key: whose it is, what it may do, until when, and its places in the limits."""

    key_id: str
    organisation_id: str
    organisation_name: str
    team_id: str | None
    member_id: str
    role: str
    environment: str  # live or test
    permissions: frozenset[str]
    models: tuple[str, ...]  # names, or ("*",) for all
    expires_at_ns: int
    # (hash, end of its grace time or None), the present secret first
    secrets: tuple[tuple[bytes, int | None], ...] = field(repr=False)
    scopes: tuple[Scope, ...]  # licence, organisation, team if any, key
    priority_band: int


@dataclass(frozen=True, slots=True)
class StandingFacts:
    """What the gate needs of the licence's standing, and until when all of policy.db may be believed."""

    state: str
    code: str
    effect: str
    tier: str
    licence_id: str
    customer: str
    development: bool
    clock_suspect: bool
    expires_at_ns: int  # wall time; 0 without a licence
    features: frozenset[str]
    warning: bytes  # the value of Lotabots-Licence; empty where nothing is to be said
    lease_until_ns: int  # wall time; renewed by the daemon without a new generation

    @classmethod
    def from_standing(cls, standing: Mapping[str, Any], lease_until_ns: int) -> StandingFacts:
        """Out of what `licence.standing.Standing.to_dict` gives. Raises KeyError when a field is missing."""
        return cls(
            state=str(standing["state"]),
            code=str(standing["code"]),
            effect=str(standing["effect"]),
            tier=str(standing["tier"]),
            licence_id=str(standing["licence_id"]),
            customer=str(standing["customer"]),
            development=bool(standing["development"]),
            clock_suspect=bool(standing["clock_suspect"]),
            expires_at_ns=int(standing["expires_at_ns"]),
            features=frozenset(standing["features"]),
            warning=_warning(standing),
            lease_until_ns=lease_until_ns,
        )


def _warning(standing: Mapping[str, Any]) -> bytes:
    """`expiring;code=licence_expiring;expires=@1798761600`: an Item of RFC 9651, its date in Unix seconds.

    Callers hear of what a person should do something about; without a licence, or with a good one, nothing.
    """
    if standing["state"] in ("none", "valid"):
        return b""
    expires_ns = int(standing["expires_at_ns"])
    when = f";expires=@{expires_ns // NANOSECONDS}" if expires_ns else ""
    return f"{standing['state']};code={standing['code']}{when}".encode()


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """The appliance itself, as the daemon tells the gate."""

    appliance_id: str
    release: str
    ueid: str = ""  # the name that tokens and receipts are issued under
    caps: Mapping[str, int] = field(default_factory=dict)  # named bounds, as in {"in_flight": 16}
    image: str = ""  # of the inference server that runs, `sha256:…`; empty: none, or not known
    gpus: tuple[str, ...] = ()  # those that may run a request

    def to_dict(self) -> dict[str, Any]:
        """The shape that `from_dict` reads."""
        return {
            "appliance_id": self.appliance_id,
            "release": self.release,
            "ueid": self.ueid,
            "caps": dict(self.caps),
            "image": self.image,
            "gpus": list(self.gpus),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> InstanceFacts:
        """Raises KeyError when a field is missing; a daemon of before wrote neither image nor GPUs."""
        return cls(
            str(value["appliance_id"]),
            str(value["release"]),
            str(value["ueid"]),
            dict(value["caps"]),
            str(value.get("image", "")),
            tuple(str(gpu) for gpu in value.get("gpus", ())),
        )
