"""Read a usage report's body into facts, field by field, believing nothing about its shape. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lotabotsd.foundation.identifiers import unb64url

from .report_body import COLUMNS, MAX_FINDINGS, Format, LicenceFacts
from .report_fields import expect_count as _count
from .report_fields import expect_list as _list
from .report_fields import expect_object as _object
from .report_fields import expect_second as _second
from .report_fields import expect_text as _text
from .report_reconciliation import Reconciliation, read_reconciliation
from .windows import Kind, Meters, Row

_MAX_SECOND = 4_102_444_800  # 2100-01-01
_HASH = re.compile(r"[0-9a-f]{64}")
_APPLIANCE = re.compile(r"[A-Za-z0-9_]{1,64}")


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What a report says, signed by `public_key`. Whose key that is, the reader must know from elsewhere."""

    report_hash: str  # SHA-256 of the signed body, hex: the report's identity
    appliance_id: str
    key_id: str
    public_key: bytes
    licence: LicenceFacts | None
    development: bool
    sequence: int
    frozen_at: int  # Unix seconds, as are the period's ends
    period_from: int
    period_until: int
    first: int
    last: int
    previous_head: bytes
    head: bytes
    previous_report_hash: bytes | None
    rows: tuple[Row, ...]
    totals: dict[str, Any]
    data_condition: dict[str, Any]
    organisation_names: dict[str, str]
    key_names: dict[str, str]
    pseudonyms: bool
    reconciliation: Reconciliation | None  # None: format 1 knows nothing of it


def read_facts(document: Any, report_hash: str) -> ReportFacts:
    """The facts of a parsed body. Raises ValueError naming the first field that is not as it must be."""
    body = _object(
        document, "body", "appliance", "columns", "data_condition", "development", "format", "frozen_at",
        "ledger", "licence", "names", "period", "previous_report_hash", "rows", "sequence", "totals",
    )  # fmt: skip
    if isinstance(body["format"], bool) or body["format"] not in list(Format):
        raise ValueError(f"format {body['format']!r} is not known to this release")
    condition, reconciliation = _condition(body["data_condition"], Format(body["format"]))
    if body["columns"] != list(COLUMNS):
        raise ValueError("columns are not those of the format")
    appliance = _object(body["appliance"], "appliance", "id", "key_id", "public_key")
    if not _APPLIANCE.fullmatch(_text(appliance["id"], "appliance.id")):
        raise ValueError("appliance.id is not an id")
    ledger = _object(body["ledger"], "ledger", "first", "head", "last", "previous_head")
    names = _object(body["names"], "names", "keys", "organisations", "pseudonyms")
    period = _object(body["period"], "period", "from", "until")
    previous = body["previous_report_hash"]
    first = _count(ledger["first"], "ledger.first")
    return ReportFacts(
        report_hash=report_hash,
        appliance_id=appliance["id"],
        key_id=_text(appliance["key_id"], "appliance.key_id"),
        public_key=unb64url(_text(appliance["public_key"], "appliance.public_key")),
        licence=_licence(body["licence"]),
        development=_flag(body["development"], "development"),
        sequence=_count(body["sequence"], "sequence"),
        frozen_at=_second(body["frozen_at"], "frozen_at"),
        period_from=_second(period["from"], "period.from"),
        period_until=_second(period["until"], "period.until"),
        first=first,
        last=_count(ledger["last"], "ledger.last"),
        previous_head=_hash(ledger["previous_head"], "ledger.previous_head"),
        head=_hash(ledger["head"], "ledger.head"),
        previous_report_hash=None if previous is None else _hash(previous, "previous_report_hash"),
        rows=tuple(_row(cells, first + index) for index, cells in enumerate(_list(body["rows"], "rows"))),
        totals=_object(body["totals"], "totals", "by_model", "by_outcome", "charged", "uncharged"),
        data_condition=condition,
        reconciliation=reconciliation,
        organisation_names=_names(names["organisations"], "names.organisations"),
        key_names=_names(names["keys"], "names.keys"),
        pseudonyms=_flag(names["pseudonyms"], "names.pseudonyms"),
    )


def _licence(value: Any) -> LicenceFacts | None:
    if value is None:
        return None
    licence = _object(value, "licence", "customer", "id", "tier")
    return LicenceFacts(
        _text(licence["id"], "licence.id"),
        _text(licence["tier"], "licence.tier"),
        _text(licence["customer"], "licence.customer"),
    )


def _condition(value: Any, form: Format) -> tuple[dict[str, Any], Reconciliation | None]:
    more = ("reconciliation",) if form is Format.RECONCILED else ()
    condition = _object(
        value, "data_condition", "clock_suspect_rows", "findings", "gaps", "late_rows", "restarts", "windows",
        "zero_windows", *more,
    )  # fmt: skip
    _count(condition["restarts"], "data_condition.restarts")
    findings = _object(condition["findings"], "data_condition.findings", "by_kind", "first", "total")
    _count(findings["total"], "data_condition.findings.total")
    if not isinstance(findings["by_kind"], dict):
        raise ValueError("data_condition.findings.by_kind is no object")
    for kind, number in findings["by_kind"].items():
        _text(kind, "data_condition.findings.by_kind")
        _count(number, "data_condition.findings.by_kind")
    first = _list(findings["first"], "data_condition.findings.first")
    total = sum(findings["by_kind"].values())
    if findings["total"] != total or len(first) != min(total, MAX_FINDINGS):
        raise ValueError("data_condition.findings do not add up")
    for found in first:
        name = "data_condition.findings.first"
        one = _object(found, name, "at", "count", "detail", "inferences", "kind", "worker")
        _second(one["at"], name)
        _count(one["count"], name)
        _count(one["inferences"], name)
        _text(one["detail"], name, limit=1_000)
        _text(one["kind"], name)
        if type(one["worker"]) is not int:
            raise ValueError(f"{name} has a worker that is no number")
    return condition, read_reconciliation(condition["reconciliation"]) if more else None


def _row(cells: Any, sequence: int) -> Row:
    name = f"row {sequence}"
    if not isinstance(cells, list) or len(cells) != len(COLUMNS):
        raise ValueError(f"{name} has not {len(COLUMNS)} cells")
    kind, organisation, key, model, outcome = (_text(c, name) for c in (cells[0], *cells[3:7]))
    start, end, charged, late_for, *counts, suspect = (
        _count(c, name) for c in (*cells[1:3], *cells[7:9], *cells[9:14], cells[14])
    )
    if kind not in set(Kind) or max(charged, suspect) > 1 or max(start, end, late_for) > _MAX_SECOND:
        raise ValueError(f"{name} has an unknown kind, flag or time")
    return Row(
        sequence, Kind(kind), start, end, organisation, key, model, outcome, charged, late_for,
        Meters(*counts), suspect,
    )  # fmt: skip


def _names(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    return {_text(key, name): _text(text, name) for key, text in value.items()}


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is neither true nor false")
    return value


def _hash(value: Any, name: str) -> bytes:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise ValueError(f"{name} is no SHA-256")
    return bytes.fromhex(value)
