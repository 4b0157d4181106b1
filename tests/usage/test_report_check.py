"""The vendor's check: genuine reports pass with their facts, everything else is named and refused."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import PayloadType, parse_envelope, sign
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import raw_public, thumbprint
from lotabotsd.usage.batch import Finding, FindingKind
from lotabotsd.usage.report import ReportVerdict, Severity, build_report, check_report, freeze
from lotabotsd.usage.report_zip import CSV, README, REPORT, SUMS, pack, sums, unpack
from lotabotsd.usage.windows import MAX_ZERO_WINDOWS

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)


def report_of(box: Any) -> bytes:
    """A genuine second report: rows 3 to 6, two hours of use."""
    journal = box.worker()
    for _ in range(3):
        box.serve(journal, inferences=4)
        box.clock.advance(3_600)
        box.seal()
        if box.ledger.head().sequence == 2:
            freeze(box.ledger, box.ledger.sealed_until, box.about(), box.now())
    return build_report(box.ledger, freeze(box.ledger, box.ledger.sealed_until, box.about(), box.now()), KEY)


@pytest.fixture(scope="module")
def genuine(make_box: Any) -> bytes:
    return report_of(make_box())


def signed(data: bytes, body: bytes, *, key: Ed25519PrivateKey = KEY) -> bytes:
    """The zip with another body, signed again by the appliance's own key."""
    contents = unpack(data)
    return pack(sign(PayloadType.USAGE_REPORT, body, [key]).to_json(), contents[CSV], contents[README])


def body_of(data: bytes) -> Any:
    return json.loads(parse_envelope(unpack(data)[REPORT]).body)


def changed(data: bytes, change: Callable[[Any], object]) -> bytes:
    """What the machine's owner can make: any body, well signed."""
    body = body_of(data)
    change(body)
    return signed(data, canonical_json(body))


def codes(data: bytes) -> set[str]:
    """The codes of the errors; the verdict is INVALID when there are any."""
    check = check_report(data)
    errors = {finding.code for finding in check.findings if finding.severity is Severity.ERROR}
    assert (check.verdict is ReportVerdict.INVALID) == bool(errors)
    return errors


def test_a_genuine_report_is_valid(genuine: bytes) -> None:
    check = check_report(genuine)
    assert (check.verdict, check.findings) == (ReportVerdict.VALID, ())
    assert check.facts.sequence == 2
    assert [row.sequence for row in check.facts.rows] == [3, 4, 5, 6]
    assert check.facts.public_key == raw_public(KEY)
    assert check.facts.key_id == thumbprint(raw_public(KEY))
    assert check.facts.licence.customer == "Example GmbH"
    assert check.facts.organisation_names == {"org_aaaaaaaaaaaaaaaa": "Research"}


def test_a_wellsigned_copy_of_the_body_is_the_same_report(genuine: bytes) -> None:
    assert changed(genuine, lambda body: None) == genuine


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_changed_byte_of_the_zip_is_refused(genuine: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(genuine) - 1))
    damaged = bytearray(genuine)
    damaged[position] ^= data.draw(st.integers(1, 255))
    assert codes(bytes(damaged))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_part_of_the_zip_is_refused(genuine: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 50))
    end = data.draw(st.integers(start, len(genuine) - (start == 0)))
    assert codes(genuine[start:end])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=500))
def test_any_bytes_at_all_are_refused_without_failing(data: bytes) -> None:
    assert codes(data) == {"report_invalid"}


def zipped(
    contents: list[tuple[str, bytes]], *, compression: int = zipfile.ZIP_STORED, comment: bytes = b""
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in contents:
            archive.writestr(name, data)
        archive.comment = comment
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("extra", "options"),
    [
        ([("more.txt", b"x")], {}),
        ([("../../etc/passwd", b"x")], {}),
        ([("/absolute", b"x")], {}),
        ([(README, b"x")], {}),
        ([("folder/", b"")], {}),
        ([], {"compression": zipfile.ZIP_DEFLATED}),
        ([], {"comment": b"hidden"}),
        ([], {}),  # the same files with other dates and modes
    ],
)
def test_a_zip_that_was_packed_again_is_refused(
    genuine: bytes, extra: list[tuple[str, bytes]], options: dict[str, Any]
) -> None:
    assert codes(zipped([*unpack(genuine).items(), *extra], **options)) == {"report_invalid"}


def test_a_zip_without_one_of_its_files_is_refused(genuine: bytes) -> None:
    contents = unpack(genuine)
    for name in contents:
        assert codes(zipped([item for item in contents.items() if item[0] != name])) == {"report_invalid"}


def test_a_bomb_is_refused_without_inflating_it() -> None:
    bomb = zipped(
        [(name, b"0" * 5_000_000) for name in (README, SUMS, REPORT, CSV)], compression=zipfile.ZIP_DEFLATED
    )
    assert len(bomb) < 100_000
    assert codes(bomb) == {"report_invalid"}


@pytest.mark.parametrize("more", [b"\0", b"PK\5\6" + bytes(18)])
def test_bytes_before_or_behind_the_zip_are_refused(genuine: bytes, more: bytes) -> None:
    assert codes(genuine + more) == {"report_invalid"}
    assert codes(more + genuine) == {"report_invalid"}


def test_a_wrong_checksum_is_refused(genuine: bytes) -> None:
    contents = unpack(genuine)
    contents[SUMS] = sums({**contents, CSV: b"other"})
    assert codes(zipped([(name, contents[name]) for name in (README, SUMS, REPORT, CSV)])) == {
        "report_invalid"
    }


@pytest.mark.parametrize("name", [CSV, README])
def test_a_changed_companion_is_a_finding_but_the_report_still_counts(genuine: bytes, name: str) -> None:
    contents = unpack(genuine)
    contents[name] += b"12/31/2026"
    check = check_report(pack(contents[REPORT], contents[CSV], contents[README]))
    assert check.verdict is ReportVerdict.VALID_WITH_FINDINGS
    assert [finding.code for finding in check.findings] == ["companion"]
    assert check.facts is not None


def repacked(genuine: bytes, report: bytes) -> bytes:
    contents = unpack(genuine)
    return pack(report, contents[CSV], contents[README])


def test_a_signature_by_another_key_is_refused(genuine: bytes) -> None:
    body = parse_envelope(unpack(genuine)[REPORT]).body
    check = check_report(signed(genuine, body, key=OTHER))
    assert check.verdict is ReportVerdict.INVALID
    assert check.facts is None
    assert check.findings[0].code == "signer_unknown"


def test_a_changed_body_under_the_old_signature_is_refused(genuine: bytes) -> None:
    envelope = json.loads(unpack(genuine)[REPORT])
    body = base64.b64decode(envelope["payload"]).replace(b'"sequence":2', b'"sequence":3')
    envelope["payload"] = base64.b64encode(body).decode()
    assert codes(repacked(genuine, canonical_json(envelope))) == {"signature_invalid"}


def test_another_kind_of_document_is_refused(genuine: bytes) -> None:
    body = parse_envelope(unpack(genuine)[REPORT]).body
    licence = sign(PayloadType.LICENCE, body, [KEY]).to_json()
    assert codes(repacked(genuine, licence)) == {"envelope_type"}
    assert codes(repacked(genuine, sign(PayloadType.LICENCE, b"{}", [KEY]).to_json())) == {"envelope_type"}


def test_two_signatures_are_refused(genuine: bytes) -> None:
    body = parse_envelope(unpack(genuine)[REPORT]).body
    assert codes(repacked(genuine, sign(PayloadType.USAGE_REPORT, body, [KEY, OTHER]).to_json())) == {"body"}


@pytest.mark.parametrize("report", [b"", b"{}", b"garbage", b"[" * 100_000, b'{"payload":"","payload":""}'])
def test_an_envelope_that_is_none_is_refused(genuine: bytes, report: bytes) -> None:
    assert codes(repacked(genuine, report)) == {"envelope_malformed"}


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"\xff", b'{"a":1e5}', b'{"a":NaN}', b"1" * 5_000, b"[" * 1_000]
)
def test_a_body_that_is_none_is_refused(genuine: bytes, body: bytes) -> None:
    assert codes(signed(genuine, body)) == {"body"}


def test_a_body_spelled_otherwise_is_refused(genuine: bytes) -> None:
    assert codes(signed(genuine, json.dumps(body_of(genuine)).encode())) == {"body"}


def test_a_key_id_of_another_key_is_refused(genuine: bytes) -> None:
    other = thumbprint(raw_public(OTHER))
    assert codes(changed(genuine, lambda body: body["appliance"].update(key_id=other))) == {"body"}


def test_a_weak_key_is_refused(genuine: bytes) -> None:
    weak = bytes([1] + [0] * 31)

    def weaken(body: Any) -> None:
        body["appliance"].update(public_key=b64url(weak), key_id=thumbprint(weak))

    body = body_of(genuine)
    weaken(body)
    envelope = json.loads(sign(PayloadType.USAGE_REPORT, canonical_json(body), [KEY]).to_json())
    envelope["signatures"][0]["keyid"] = thumbprint(weak)
    assert codes(repacked(genuine, canonical_json(envelope))) == {"key_weak"}


PLACES: list[tuple[str, ...]] = [
    ("appliance",), ("appliance", "id"), ("appliance", "public_key"), ("columns",), ("data_condition",),
    ("data_condition", "findings"), ("data_condition", "findings", "by_kind"),
    ("data_condition", "findings", "first"), ("data_condition", "findings", "total"),
    ("data_condition", "restarts"), ("development",), ("format",), ("frozen_at",), ("ledger",),
    ("ledger", "first"), ("ledger", "head"), ("ledger", "last"), ("ledger", "previous_head"), ("licence",),
    ("licence", "id"), ("names",), ("names", "keys"), ("names", "pseudonyms"), ("period",),
    ("period", "from"), ("previous_report_hash",), ("rows",), ("sequence",), ("totals",),
    ("totals", "by_outcome"),
]  # fmt: skip


WRONG_VALUES: list[Any] = ["x", "", -1, 2**63, True, [[]], {"a": 1}, [1], "x" * 300, "a\nb"]
RIGHT_VALUES = {
    ("appliance", "id"): ["x"],
    ("licence", "id"): ["x", ""],
    ("development",): [True],
    ("names", "pseudonyms"): [True],
}


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_field_of_another_type_is_refused(genuine: bytes, place: tuple[str, ...]) -> None:
    for value in WRONG_VALUES:
        if value in RIGHT_VALUES.get(place, []):
            continue

        def put(body: Any, value: Any = value) -> None:
            for name in place[:-1]:
                body = body[name]
            body[place[-1]] = value

        assert codes(changed(genuine, put)), value


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_missing_or_additional_field_is_refused(genuine: bytes, place: tuple[str, ...]) -> None:
    def parent(body: Any) -> Any:
        for name in place[:-1]:
            body = body[name]
        return body

    assert "body" in codes(changed(genuine, lambda body: parent(body).pop(place[-1]))) | codes(
        changed(genuine, lambda body: parent(body).update(more=1))
    )


@pytest.mark.parametrize("column", range(15))
def test_a_cell_of_another_value_is_refused(genuine: bytes, column: int) -> None:
    for value in (None, -1, "a\0b", [], 2**63, "gap", 5):

        def put(body: Any, value: Any = value) -> None:
            body["rows"][0][column] = value

        assert codes(changed(genuine, put)), value


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda b: b["rows"].pop(), "range"),
        (lambda b: b["rows"].clear(), "range"),
        (lambda b: b["rows"].reverse(), "chain"),
        (lambda b: b["rows"].insert(0, b["rows"][0]), "range"),
        (lambda b: b["rows"][0].__setitem__(10, 0), "chain"),
        (lambda b: b["rows"][0].__setitem__(10, 0), "totals"),
        (lambda b: b["rows"][0].__setitem__(10, 0), "tiling"),
        (lambda b: b["rows"][0].__setitem__(7, 0), "charged"),
        (lambda b: b["rows"][0].__setitem__(6, "nonsense"), "charged"),
        (lambda b: b["rows"][1].__setitem__(4, "key"), "rows"),
        (lambda b: b["rows"][0].__setitem__(8, b["rows"][0][2]), "rows"),
        (lambda b: b["rows"][1].__setitem__(2, b["rows"][1][2] + 1), "tiling"),
        (lambda b: b["ledger"].update(head="0" * 64), "chain"),
        (lambda b: b["ledger"].update(previous_head="1" * 64), "chain"),
        (lambda b: b["ledger"].update(first=4, last=7), "chain"),
        (lambda b: b["ledger"].update(first=1, last=4), "range"),
        (lambda b: b.update(sequence=1), "range"),
        (lambda b: b.update(previous_report_hash=None), "range"),
        (lambda b: b["period"].update({"from": "2026-11-23T04:00:00Z"}), "tiling"),
        (lambda b: b["period"].update(until="2026-11-23T08:00:00Z"), "tiling"),
        (lambda b: b["totals"]["charged"].update(inferences=1), "totals"),
        (lambda b: b["totals"]["by_model"].clear(), "totals"),
        (lambda b: b["data_condition"].update(windows=9), "data_condition"),
        (lambda b: b["data_condition"].update(gaps=[{}]), "data_condition"),
    ],
)
def test_a_well_signed_report_that_does_not_add_up_is_refused(
    genuine: bytes, change: Callable[[Any], object], code: str
) -> None:
    assert code in codes(changed(genuine, change))


def test_a_report_of_the_development_root_says_so(genuine: bytes) -> None:
    check = check_report(changed(genuine, lambda body: body.update(development=True)))
    assert check.verdict is ReportVerdict.VALID_WITH_FINDINGS
    assert check.facts.development
    assert "development" in {finding.code for finding in check.findings}


def findings_of(box: Any) -> list[tuple[str, Severity]]:
    frozen = freeze(box.ledger, box.ledger.sealed_until, box.about(), box.now())
    check = check_report(build_report(box.ledger, frozen, KEY))
    assert check.verdict is not ReportVerdict.INVALID
    return [(finding.code, finding.severity) for finding in check.findings]


def test_a_gap_is_a_warning_with_its_time(box: Any) -> None:
    box.clock.advance((MAX_ZERO_WINDOWS + 50) * 3_600)
    box.seal()
    frozen = freeze(box.ledger, box.ledger.sealed_until, box.about(), box.now(), max_rows=3)
    [finding] = check_report(build_report(box.ledger, frozen, KEY)).findings
    assert (finding.code, finding.severity) == ("gap", Severity.WARNING)
    assert (finding.since, finding.until) == ("2026-11-23T05:00:00Z", "2026-11-25T06:00:00Z")


def test_late_rows_are_a_note(box: Any) -> None:
    journal = box.worker()
    then = box.clock.wall_ns()
    box.clock.advance(3_600)
    box.seal()
    box.close(journal, box.open(journal), wall_ns=then)
    box.clock.advance(3_600)
    box.seal()
    assert findings_of(box) == [("late", Severity.NOTE)]


def test_a_doubted_clock_is_a_warning(box: Any) -> None:
    box.clock.advance(3_600)
    box.ledger.seal(box.clock.wall_ns(), clock_suspect=True)
    assert findings_of(box) == [("clock_suspect", Severity.WARNING)]


def test_a_report_made_before_its_end_is_a_warning(box: Any) -> None:
    box.clock.advance(2 * 3_600)
    box.seal()
    box.clock.advance(-86_400)
    box.seal(cut=True)
    assert ("clock_suspect", Severity.WARNING) in findings_of(box)


def test_damage_is_a_warning(box: Any) -> None:
    box.ledger.note(Finding(FindingKind.MISSING_RECORDS, 0, 1, 2, 3, count=4))
    box.clock.advance(3_600)
    box.seal()
    assert findings_of(box) == [("missing_records", Severity.WARNING)]


def test_requests_cut_by_a_restart_are_a_note(box: Any) -> None:
    journal = box.worker()
    box.open(journal)
    journal.close()
    box.clock.advance(3_600)
    box.seal()
    assert findings_of(box) == [("aborted", Severity.NOTE)]
