"""Layout 1 is frozen: offsets and bytes as they were when it was first written."""

from __future__ import annotations

import json
from pathlib import Path

from lotabotsd.limits import layout
from lotabotsd.limits.layout import Geometry
from lotabotsd.limits.table import Scope, Table, Ticket, create_table

GOLDEN = Path(__file__).parent.parent / "golden"
BOOT = b"0123456789abcdef"


def offsets() -> dict[str, object]:
    """Everything that another program must know to read a table."""
    geometry = Geometry(slots=100, workers=3)
    return {
        "magic": layout.MAGIC.decode(),
        "layout": layout.LAYOUT,
        "header": {
            "bytes": layout.HEADER_BYTES,
            "format": layout.HEADER.format,
            "crc": layout.HEADER_CRC,
            "generation": layout.GENERATION,
            "replays": layout.REPLAYS,
            "retired": layout.RETIRED,
            "holder": layout.HOLDER,
            "dirty": layout.DIRTY,
        },
        "worker": {
            "bytes": layout.WORKER_BYTES,
            "format": layout.WORKER.format,
            "epoch": layout.WORKER_EPOCH,
            "counters": layout.COUNTER_AREA,
            "counter_count": layout.COUNTERS,
            "intent": layout.INTENT_AREA,
            "intent_state": layout.INTENT_STATE,
            "intent_head": 1,
            "intent_head_format": layout.INTENT_HEAD.format,
            "intent_entries": layout.INTENT_ENTRIES,
            "entry_bytes": layout.ENTRY_BYTES,
            "entry_format": layout.ENTRIES[1].format,
            "entries": layout.MAX_SCOPES,
            "notes": layout.NOTE_AREA,
            "note_bytes": layout.NOTE_BYTES,
            "note_count": layout.NOTES,
            "note_state": layout.NOTE_STATE,
            "note_head": 1,
            "note_head_format": layout.NOTE_HEAD.format,
            "note_slots": layout.NOTE_SLOTS,
            "note_format": layout.NOTED[1].format,
        },
        "slot": {"bytes": layout.SLOT_BYTES, "format": layout.SLOT.format},
        "cell": {"bytes": layout.CELL_BYTES, "format": layout.CELL.format},
        "bounds": {"slots": layout.MAX_SLOTS, "workers": layout.MAX_WORKERS},
        "example of 100 slots and 3 workers": {
            "worker 2": geometry.worker_at(2),
            "slot 99": geometry.slot_at(99),
            "cell of worker 2 and slot 99": geometry.cell_at(2, 99),
            "file": geometry.file_bytes,
        },
    }


def small_table(path: Path) -> dict[str, str]:
    """The bytes that are not zero in a table of 2 slots and 2 workers after a known history, by offset."""
    create_table(path, slots=2, workers=2, boot_id=BOOT, fill=[(0, 0x1122334455667788, 202611, 40)])
    licence = Scope("licence", 0, 0x1122334455667788, rate_per_minute=600, burst=5, quota=1_000)
    key = Scope("key", 1, 0xFEDCBA9876543210, concurrency=4)
    table = Table.open(path, 1, boot_id=BOOT)
    table.begin(0x0102030405060708)
    for record, rows in enumerate((2, 3, 5), start=300):
        ticket = table.reserve((licence, key), rows, 7_000_000_000, 202611)
        assert isinstance(ticket, Ticket)
        if rows != 3:
            table.closing(ticket, rows - 1, record)
        if rows == 2:
            table.commit(ticket, 1)
        elif rows == 3:
            table.refund(ticket)
    table.set_generation(258)
    table.count(3, 513)
    table.beat(8_000_000_000, 257)
    table.close()
    data = bytearray(path.read_bytes())
    pid = layout.HEADER_BYTES + layout.WORKER_BYTES + layout.WORKER_PID
    data[pid : pid + 4] = bytes(4)
    lines = {at: bytes(data[at : at + 16]) for at in range(0, len(data), 16)}
    return {f"{at:05x}": line.hex() for at, line in lines.items() if any(line)}


def test_the_layout_is_as_it_was_frozen(tmp_path: Path) -> None:
    frozen = json.loads((GOLDEN / "limits-layout.json").read_text(encoding="utf-8"))
    assert offsets() == frozen["offsets"]
    assert small_table(tmp_path / "limits.table") == frozen["table"]


def test_every_area_fits_into_its_page() -> None:
    assert layout.HEADER.size == layout.SLOT.size == layout.SLOT_BYTES == 64
    assert layout.CELL.size == layout.CELL_BYTES
    assert layout.ENTRIES[layout.MAX_SCOPES].size == layout.MAX_SCOPES * layout.ENTRY_BYTES
    assert layout.WORKER.size <= layout.COUNTER_AREA
    assert layout.COUNTER_AREA + 8 * layout.COUNTERS <= layout.INTENT_AREA
    end = layout.INTENT_AREA + layout.INTENT_ENTRIES + layout.MAX_SCOPES * layout.ENTRY_BYTES
    assert end <= layout.NOTE_AREA
    assert layout.NOTED[layout.MAX_SCOPES].size + 1 == layout.NOTE_BYTES
    assert layout.NOTE_AREA + layout.NOTES * layout.NOTE_BYTES <= layout.WORKER_BYTES
