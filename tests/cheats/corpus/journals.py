"""Cheats with the journals of usage before the daemon has read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zlib import crc32

from lotabotsd.usage.records import RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, Outcome, record_length

from .cheat import Cheat, Side, Who, entries, found, not_found
from .rooms import UsageRoom
from .world import World


@found(Who.CUSTOMER, "usage that was never counted", "missing_segment", Side.APPLIANCE)
def a_journal_deleted_before_it_is_read(world: World) -> str:
    """Deletes a worker's segments between two rounds of the daemon."""
    room = world.room()
    room.use()
    room.drain()
    room.use(1_000)
    room.end_worker()
    for segment in room.journal_directory.rglob("*.seg"):
        segment.unlink()
    room.drain()
    return kinds(room)


@found(Who.CUSTOMER, "usage that was never counted", "damage,missing_records", Side.APPLIANCE)
def a_journal_record_edited(world: World) -> str:
    """Changes a number inside a record that was not read yet; its checksum and the numbering tell."""
    room = world.room()
    for inferences in (5, 1_000, 5):
        room.use(inferences)
    journal_changed(room, lambda data: data.replace((1_000).to_bytes(4, "little"), (1).to_bytes(4, "little")))
    return kinds(room)


@found(
    Who.CUSTOMER,
    "that the request after it is all that there was",
    "damage,missing_records,orphan_close",
    Side.APPLIANCE,
)
def journal_records_overwritten_with_zeros(world: World) -> str:
    """Blanks records in the middle of a segment."""
    room = world.room()
    for _ in range(4):
        room.use()
    file = segment_of(room)
    data = bytearray(file.read_bytes())
    data[512:576] = bytes(64)
    room.end_worker()
    file.write_bytes(data)
    room.drain()
    return kinds(room)


@found(
    Who.CUSTOMER, "that the worker's last second was not written", "damage,missing_records", Side.APPLIANCE
)
def the_last_records_of_a_living_worker_cut_off(world: World) -> str:
    """Blanks the newest records of a worker that goes on: its next record has a number that does not
    follow."""
    room = world.room()
    room.use()
    room.drain()
    file = segment_of(room)
    before = file.read_bytes()
    room.use(1_000)
    cut(file, before)
    room.use()
    room.end_worker()
    room.drain()
    assert requests(room) == 2
    return kinds(room)


@not_found(
    Who.CUSTOMER,
    "that the worker's last second was not written",
    "At most what the daemon has not read yet when a worker ends, a second's records: they look like "
    "those that a power cut took. Answers that went out meanwhile may have receipts, which name their "
    "record's number.",
)
def the_last_records_of_a_dead_worker_cut_off(world: World) -> str:
    """Kills a worker and blanks its newest records before they are read."""
    room = world.room()
    room.use()
    room.drain()
    file = segment_of(room)
    before = file.read_bytes()
    room.use(1_000)
    room.end_worker()
    cut(file, before)
    room.drain()
    assert requests(room) == 1
    return kinds(room)


@found(Who.CUSTOMER, "one request paid for by another's record", "repeated_records", Side.APPLIANCE)
def journal_records_replayed(world: World) -> str:
    """Copies records of before behind the newest one; their numbers were there already."""
    room = world.room()
    room.use()
    file = segment_of(room)
    room.end_worker()
    data = file.read_bytes()
    end = len(data.rstrip(b"\0")) + 7 & ~7
    file.write_bytes((data[:end] + data[SEGMENT_HEADER_BYTES:end]).ljust(len(data), b"\0"))
    room.drain()
    assert requests(room) == 1
    return kinds(room)


@found(Who.CUSTOMER, "another worker's segment read as this one's", "misplaced", Side.APPLIANCE)
def a_journal_segment_renamed(world: World) -> str:
    """Gives a segment the name of a later life, in the hope that it is counted in the place of the real
    one."""
    room = world.room()
    room.use(1_000)
    file = segment_of(room)
    room.end_worker()
    file.rename(file.with_name(f"{99:016x}-00000000.seg"))
    room.drain()
    assert requests(room) == 0
    return kinds(room)


@not_found(
    Who.CUSTOMER,
    "usage that was written down and not yet counted",
    "At most what the daemon has not read yet, a second's records: a checksum guards against the disk "
    "and not against root. From then on it is in the ledger.",
)
def a_journal_record_edited_with_its_checksum(world: World) -> str:
    """Writes a smaller number into a record before it is read, and makes the checksum fit."""
    room = world.room()
    room.use(1_000)
    file = segment_of(room)
    data = bytearray(file.read_bytes())
    at = data.index((1_000).to_bytes(4, "little"))
    data[at : at + 4] = (1).to_bytes(4, "little")
    start = SEGMENT_HEADER_BYTES
    while (
        length := record_length(bytes(data[start : start + RECORD_HEADER_BYTES]))
    ) and start + length <= at:
        start += length
    data[start : start + 4] = crc32(data[start + 4 : start + length]).to_bytes(4, "little")
    room.end_worker()
    file.write_bytes(data)
    room.drain()
    (served,) = room.ledger.usage()
    assert served.meters.inferences == 1
    return kinds(room)


def kinds(room: UsageRoom) -> str:
    """The kinds of what the ledger found about journals."""
    return ",".join(sorted({recorded.finding.kind.value for recorded in room.ledger.findings()}))


def requests(room: UsageRoom) -> int:
    """How many requests are counted."""
    return sum(row.meters.requests for row in room.ledger.usage() if row.outcome == Outcome.SERVED.label)


def segment_of(room: UsageRoom) -> Path:
    """The first segment of the room's worker."""
    return min(room.journal_directory.rglob("*.seg"))


def cut(file: Path, before: bytes) -> None:
    """Put back what a segment held, in place, as it is also mapped or open elsewhere."""
    with file.open("r+b") as stream:
        stream.write(before)


def journal_changed(room: UsageRoom, change: Callable[[bytes], bytes]) -> None:
    """Change a segment behind the worker's back, end the worker, and count."""
    file = segment_of(room)
    data = file.read_bytes()
    changed = change(data)
    assert changed != data
    room.end_worker()
    file.write_bytes(changed)
    room.drain()


CHEATS: tuple[Cheat, ...] = entries(globals())
