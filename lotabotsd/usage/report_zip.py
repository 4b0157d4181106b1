"""The zip around a report: four files, stored, always the same bytes; read back strictly. Pure."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Mapping

from lotabotsd.foundation.errors import Code, LotaBotsError

from .focus import focus_csv
from .report_facts import ReportFacts
from .report_fields import instant

REPORT = "report.dsse.json"
CSV = "usage.focus.csv"
SUMS = "SHA256SUMS"
README = "README.txt"
FILES = (README, SUMS, REPORT, CSV)
MAX_ZIP_BYTES = 128 * 1024 * 1024
# What zipfile raises on bytes that are no zip, or half of one.
_NO_ZIP = (
    zipfile.BadZipFile,
    ValueError,
    KeyError,
    EOFError,
    OSError,
    RuntimeError,
    OverflowError,
    struct.error,
)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date that a zip can hold


_README = """\
Usage report {sequence} of the LotaBots appliance {appliance}
from {since} until {until}

report.dsse.json   the report: signed, and alone authoritative
usage.focus.csv    the same usage for spreadsheets (FOCUS 1.2 columns, no prices); informational
SHA256SUMS         checksums of these files

Report hash (SHA-256 of the signed body):
{report_hash}

Send this zip to the vendor unchanged. Opening the CSV in a spreadsheet and saving it changes it; the vendor
bills from report.dsse.json. To see what is inside: lotabotsctl usage export --preview
"""


def companions(facts: ReportFacts) -> tuple[bytes, bytes]:
    """The CSV and the README that go with a report; made from what it says and nothing else."""
    csv = focus_csv(
        facts.rows,
        period_from=facts.period_from,
        period_until=facts.period_until,
        appliance_id=facts.appliance_id,
        customer=facts.licence.customer if facts.licence else "",
        organisation_names=facts.organisation_names,
        key_names=facts.key_names,
        first_format=facts.reconciliation is None,
    )
    readme = _README.format(
        sequence=facts.sequence,
        appliance=facts.appliance_id,
        since=instant(facts.period_from),
        until=instant(facts.period_until),
        report_hash=facts.report_hash,
    )
    return csv, readme.encode()


def pack(report: bytes, csv: bytes, readme: bytes) -> bytes:
    """The zip of a report; the same arguments give the same bytes."""
    contents = {REPORT: report, CSV: csv, README: readme}
    contents[SUMS] = sums(contents)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in FILES:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, contents[name])
    return buffer.getvalue()


def sums(contents: Mapping[str, bytes]) -> bytes:
    """SHA256SUMS over everything but itself, as sha256sum --check reads it."""
    lines = [f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in (README, REPORT, CSV)]
    return "".join(lines).encode()


def unpack(data: bytes) -> dict[str, bytes]:
    """The four files of a report's zip, with their checksums checked.

    Nothing is inflated and no name leaves this function, so neither bombs nor paths do harm.
    Raises REPORT_INVALID naming the first thing that `pack` would not have written.
    """
    if len(data) > MAX_ZIP_BYTES:
        raise _invalid(f"{len(data)} bytes, more than {MAX_ZIP_BYTES}")
    try:
        contents = _read(data)
    except _NO_ZIP as error:
        raise _invalid("it is no whole zip file") from error
    if contents[SUMS] != sums(contents):
        raise _invalid("a file does not have the checksum in SHA256SUMS")
    if pack(contents[REPORT], contents[CSV], contents[README]) != data:
        raise _invalid("it was packed again, or carries more than its four files")
    return contents


def _read(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if sorted(entry.filename for entry in entries) != sorted(FILES):
            raise _invalid(f"it must hold exactly {', '.join(FILES)}")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise _invalid(f"{entry.filename} is compressed or encrypted: it was packed again")
            if entry.file_size > len(data):
                raise _invalid(f"{entry.filename} claims {entry.file_size} bytes")
        return {entry.filename: archive.read(entry) for entry in entries}


def _invalid(detail: str) -> LotaBotsError:
    return LotaBotsError(Code.REPORT_INVALID, detail)
