"""The body of a usage report: what it says, in one spelling, made from frozen facts and ledger rows. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import thumbprint

from .batch import HARMLESS, FindingKind, RecordedFinding
from .reconciliation import State
from .report_fields import instant
from .report_reconciliation import difference_since, sums_of, value_of
from .windows import Kind, Meters, Row

COLUMNS = (
    "kind", "start", "end", "organisation", "key", "model", "outcome", "charged", "late_for", "requests",
    "inferences", "input_bytes", "output_bytes", "gate_us", "clock_suspect",
)  # fmt: skip
MAX_FINDINGS = 100  # listed one by one; the rest is counted


class Format(IntEnum):
    """The formats of the body, each of which is read and written for ever."""

    FIRST = 1
    RECONCILED = 2  # with data_condition.reconciliation


@dataclass(frozen=True, slots=True)
class LicenceFacts:
    """What a report says about the licence in force when it was frozen."""

    id: str
    tier: str
    customer: str


@dataclass(frozen=True, slots=True)
class About:
    """What a report says beside the ledger's numbers."""

    appliance_id: str
    public_key: bytes  # raw, of the key that signs the report
    licence: LicenceFacts | None  # None: free tier, no licence
    development: bool
    organisation_names: Mapping[str, str]  # by id; only those that occur in the rows leave the building
    key_names: Mapping[str, str]
    pseudonym_secret: bytes | None = None  # given: names leave only as pseudonyms
    compared: State | None = None  # with Triton's counters; None makes a report of format 1


@dataclass(frozen=True, slots=True)
class Frozen:
    """A report's range and everything its bytes are made from; kept before anything is written."""

    sequence: int
    frozen_at: int  # Unix seconds, as are the period's ends
    first: int
    last: int
    previous_head: bytes
    head: bytes
    period_from: int
    period_until: int
    previous_report_hash: bytes | None
    report_hash: bytes  # SHA-256 of the body
    last_finding: int
    context: Mapping[str, Any]  # appliance, development, findings, licence, names, restarts, and from
    # format 2 on: reconciliation, and the reconciled_sums that the next report begins with

    @property
    def file_name(self) -> str:
        """The name of the zip."""
        return f"lotabots-usage-{self.context['appliance']['id']}-{self.sequence:06d}.zip"


def context_of(
    about: About,
    rows: Sequence[Row],
    findings: Sequence[RecordedFinding],
    sums: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The part of a report that comes from outside the rows, to be frozen with the range.

    `sums` are the `reconciled_sums` of the report before.
    """
    organisations = {row.organisation for row in rows}
    keys = {row.key for row in rows}
    licence = about.licence
    return {
        "appliance": {
            "id": about.appliance_id,
            "key_id": thumbprint(about.public_key),
            "public_key": b64url(about.public_key),
        },
        "development": about.development,
        "findings": _findings([f for f in findings if f.finding.kind not in HARMLESS]),
        "licence": {"customer": licence.customer, "id": licence.id, "tier": licence.tier}
        if licence
        else None,
        "names": {
            "keys": _names("key", about.key_names, keys, about.pseudonym_secret),
            "organisations": _names(
                "organisation", about.organisation_names, organisations, about.pseudonym_secret
            ),
            "pseudonyms": about.pseudonym_secret is not None,
        },
        "restarts": sum(f.finding.kind is FindingKind.WORKER_STARTED for f in findings),
        **_compared(about.compared, rows, sums),
    }


def _compared(state: State | None, rows: Sequence[Row], sums: Mapping[str, Any] | None) -> dict[str, Any]:
    if state is None:
        return {}
    models = {row.model for row in rows if row.kind is Kind.USAGE}
    found = difference_since(state, sums, models)
    return {"reconciled_sums": sums_of(state), "reconciliation": value_of(found)}


def pseudonym(secret: bytes, kind: str, name: str) -> str:
    """A stable stand-in for a name: the same for the same secret, kind and name, and telling nothing else."""
    digest = hmac.digest(secret, f"{kind}\0{name}".encode(), hashlib.sha256)
    return f"p-{b64url(digest)[:22]}"


def printable(text: str) -> str:
    """A name as reports carry it: one line of at most 255 printable characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:255])


def _names(kind: str, names: Mapping[str, str], used: set[str], secret: bytes | None) -> dict[str, str]:
    return {
        id_: printable(name) if secret is None else pseudonym(secret, kind, name)
        for id_, name in names.items()
        if id_ in used
    }


def _findings(findings: Sequence[RecordedFinding]) -> dict[str, Any]:
    by_kind: dict[str, int] = {}
    for found in findings:
        by_kind[found.finding.kind.value] = by_kind.get(found.finding.kind.value, 0) + 1
    return {
        "by_kind": by_kind,
        "first": [
            {
                "at": instant(found.at),
                "count": found.finding.count,
                "detail": printable(found.finding.detail),
                "inferences": found.finding.inferences,
                "kind": found.finding.kind.value,
                "worker": found.finding.worker,
            }
            for found in findings[:MAX_FINDINGS]
        ],
        "total": len(findings),
    }


def compose_body(frozen: Frozen, rows: Sequence[Row]) -> bytes:
    """The canonical JSON that is signed. The same arguments give the same bytes, for ever."""
    context = frozen.context
    previous = frozen.previous_report_hash
    reconciled = {name: context[name] for name in ("reconciliation",) if name in context}
    return canonical_json(
        {
            "appliance": context["appliance"],
            "columns": list(COLUMNS),
            "data_condition": {
                **condition_of_rows(rows),
                "findings": context["findings"],
                "restarts": context["restarts"],
                **reconciled,
            },
            "development": context["development"],
            "format": int(Format.RECONCILED if reconciled else Format.FIRST),
            "frozen_at": instant(frozen.frozen_at),
            "ledger": {
                "first": frozen.first,
                "head": frozen.head.hex(),
                "last": frozen.last,
                "previous_head": frozen.previous_head.hex(),
            },
            "licence": context["licence"],
            "names": context["names"],
            "period": {"from": instant(frozen.period_from), "until": instant(frozen.period_until)},
            "previous_report_hash": previous.hex() if previous is not None else None,
            "rows": [_cells(row) for row in rows],
            "sequence": frozen.sequence,
            "totals": totals_of_rows(rows),
        }
    )


def _cells(row: Row) -> list[str | int]:
    m = row.meters
    return [
        row.kind.value, row.start, row.end, row.organisation, row.key, row.model, row.outcome, row.charged,
        row.late_for, m.requests, m.inferences, m.input_bytes, m.output_bytes, m.gate_us, row.clock_suspect,
    ]  # fmt: skip


def condition_of_rows(rows: Iterable[Row]) -> dict[str, Any]:
    """What the rows themselves say about their making."""
    gaps = []
    windows = zero_windows = late_rows = suspect = 0
    for row in rows:
        suspect += row.clock_suspect
        late_rows += bool(row.late_for)
        if row.kind is Kind.GAP:
            gaps.append({"from": instant(row.start), "until": instant(row.end)})
        elif row.kind is Kind.APPLIANCE:
            windows += 1
            zero_windows += row.meters == Meters()
    return {
        "clock_suspect_rows": suspect,
        "gaps": gaps,
        "late_rows": late_rows,
        "windows": windows,
        "zero_windows": zero_windows,
    }


def totals_of_rows(rows: Iterable[Row]) -> dict[str, Any]:
    """Sums of the usage rows: charged and uncharged, charged by model, all by outcome."""
    charged = uncharged = Meters()
    by_model: dict[str, Meters] = {}
    by_outcome: dict[str, Meters] = {}
    for row in rows:
        if row.kind is not Kind.USAGE:
            continue
        by_outcome[row.outcome] = by_outcome.get(row.outcome, Meters()) + row.meters
        if row.charged:
            charged += row.meters
            by_model[row.model] = by_model.get(row.model, Meters()) + row.meters
        else:
            uncharged += row.meters
    return {
        "by_model": {name: _meters(sums) for name, sums in by_model.items()},
        "by_outcome": {name: _meters(sums) for name, sums in by_outcome.items()},
        "charged": _meters(charged),
        "uncharged": _meters(uncharged),
    }


def _meters(meters: Meters) -> dict[str, int]:
    return {
        "gate_us": meters.gate_us,
        "inferences": meters.inferences,
        "input_bytes": meters.input_bytes,
        "output_bytes": meters.output_bytes,
        "requests": meters.requests,
    }
