"""Cheats with what was counted: open hours, sealed hours, whole copies of the ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from lotabotsd.foundation.errors import Code

from .cheat import GOT_THROUGH, Cheat, Side, Who, code_of, entries, found, not_found, refused
from .rooms import HOUR, UsageRoom
from .world import World, codes


def filled(world: World) -> UsageRoom:
    """Three sealed hours of use: rows 1-2, 3-4, 5-6."""
    room = world.room()
    room.hours(3, inferences=5)
    assert room.verdict() == GOT_THROUGH
    return room


def tampered(world: World, script: str) -> str:
    """The verdict on a ledger of three hours after a script with every trigger dropped."""
    room = filled(world)
    room.tamper(script)
    return room.verdict()


@refused(Who.CUSTOMER, "fewer inferences on the bill", "a sealed window cannot be changed", Side.APPLIANCE)
def a_sealed_row_edited_with_sqlite(world: World) -> str:
    """Runs UPDATE on every table that only grows, without dropping its trigger first."""
    room = filled(world)
    room.freeze()
    connection = sqlite3.connect(room.path / "ledger.db")
    answers = []
    for statement in (
        "UPDATE windows SET inferences = 0", "DELETE FROM windows", "UPDATE reports SET last = 0",
        "DELETE FROM reports",
    ):  # fmt: skip
        try:
            connection.execute(statement)
        except sqlite3.IntegrityError as error:
            answers.append(str(error))
    connection.close()
    return answers[0] if len(answers) == 4 else GOT_THROUGH


@found(Who.CUSTOMER, "fewer inferences on the bill", "ROW_HASH_MISMATCH", Side.APPLIANCE)
def a_row_edited_with_the_triggers_dropped(world: World) -> str:
    """Drops the triggers first, then edits each field of a row in turn."""
    room = filled(world)
    answers = set()
    for change in (
        "inferences = 0", "requests = 0", "input_bytes = 0", "output_bytes = 0", "gate_us = 0",
        "model = 'cheap'", "organisation = 'nobody'", "key = 'nobody'", "late_for = 1", "clock_suspect = 1",
        "start = start - 3600", '"end" = "end" + 1', "kind = 'appliance'",
    ):  # fmt: skip
        (before,) = list(room.ledger.rows(3, 3))
        room.tamper("CREATE TABLE kept AS SELECT * FROM windows")
        room.tamper(f"UPDATE windows SET {change} WHERE sequence = 3")  # noqa: S608 - those of above
        answers.add(room.verdict())
        room.tamper("DELETE FROM windows; INSERT INTO windows SELECT * FROM kept; DROP TABLE kept")
        assert list(room.ledger.rows(3, 3)) == [before]
    return ",".join(sorted(answers))


@found(Who.CUSTOMER, "served requests that cost nothing", "ROW_HASH_MISMATCH", Side.APPLIANCE)
def an_outcome_made_free(world: World) -> str:
    """Changes served to refused, and charged to not charged."""
    return tampered(world, "UPDATE windows SET outcome = 'refused_rate', charged = 0 WHERE sequence = 3")


@found(Who.CUSTOMER, "an hour that never was", "GAP", Side.APPLIANCE)
def a_row_deleted(world: World) -> str:
    """Deletes a row in the middle."""
    return tampered(world, "DELETE FROM windows WHERE sequence = 3")


@found(Who.CUSTOMER, "the same, without a hole in the numbers", "PREDECESSOR_MISMATCH", Side.APPLIANCE)
def a_row_deleted_and_the_rest_moved_up(world: World) -> str:
    """Deletes a row and numbers the others anew."""
    return tampered(
        world,
        "DELETE FROM windows WHERE sequence = 3;"
        "UPDATE windows SET sequence = sequence - 1 WHERE sequence > 3",
    )


@found(Who.CUSTOMER, "a cheap hour in the place of a dear one", "PREDECESSOR_MISMATCH", Side.APPLIANCE)
def two_rows_swapped(world: World) -> str:
    """Exchanges the numbers of two rows."""
    swap = "UPDATE windows SET sequence = {} WHERE sequence = {};"
    return tampered(world, swap.format(99, 3) + swap.format(3, 5) + swap.format(5, 99))


@found(Who.CUSTOMER, "usage moved to another organisation", "PREDECESSOR_MISMATCH", Side.APPLIANCE)
def a_row_inserted(world: World) -> str:
    """Makes room for a row of his own between two others."""
    return tampered(
        world,
        "UPDATE windows SET sequence = -sequence - 1 WHERE sequence >= 4;"
        "UPDATE windows SET sequence = -sequence WHERE sequence < 0;"
        "INSERT INTO windows SELECT 4, kind, start, \"end\", 'org_other', key, model, outcome, charged, "
        "late_for, 0, 0, 0, 0, 0, clock_suspect, previous_hash, row_hash FROM windows WHERE sequence = 3",
    )


@found(Who.CUSTOMER, "that the last day was not yet written", "TAIL_TRUNCATED", Side.APPLIANCE)
def the_tail_cut_off(world: World) -> str:
    """Deletes the newest rows; ledger.head and the newest report know them."""
    return tampered(world, "DELETE FROM windows WHERE sequence > 4")


@found(Who.CUSTOMER, "the same, with nobody left who knows", "GAP", Side.APPLIANCE)
def the_tail_cut_off_and_the_head_file_deleted(world: World) -> str:
    """Deletes the newest rows and ledger.head too: the next hour that is sealed does not follow in time."""
    room = filled(world)
    room.tamper("DELETE FROM windows WHERE sequence > 4")
    (room.path / "ledger.head").unlink()
    room.hours(1)
    return room.verdict()


@found(Who.CUSTOMER, "a tail of his own, with good hashes", "FORKED", Side.APPLIANCE)
def the_chain_rebuilt_and_the_head_file_kept(world: World) -> str:
    """Edits a row and chains all rows behind it anew; ledger.head knows another last row."""
    room = filled(world)
    head = (room.path / "ledger.head").read_bytes()
    room.tamper("UPDATE windows SET inferences = 0 WHERE sequence = 3")
    room.rebuild(3)
    (room.path / "ledger.head").write_bytes(head)
    return room.verdict()


@found(Who.CUSTOMER, "the same, before what was reported", "FORKED", Side.APPLIANCE)
def the_chain_rebuilt_behind_a_report(world: World) -> str:
    """Rebuilds rows that are in a report already, and deletes ledger.head: the report knows its last row."""
    room = filled(world)
    room.freeze()
    room.tamper("UPDATE windows SET inferences = 0 WHERE sequence = 3")
    room.rebuild(3)
    return room.verdict()


@found(Who.CUSTOMER, "a cheap month reported", Code.LEDGER_DAMAGED, Side.APPLIANCE)
def a_report_over_an_edited_ledger(world: World) -> str:
    """Edits a row, then lets the appliance write the report that is due."""
    house = world.house
    house.days(1)
    house.tamper("UPDATE windows SET requests = 9 WHERE sequence = 2")
    return code_of(lambda: house.appliance.reports.export(""))


@found(Who.CUSTOMER, "the state of last week again", "TAIL_TRUNCATED", Side.APPLIANCE)
def an_older_copy_of_the_database_put_back(world: World) -> str:
    """Stops the appliance, puts last week's ledger.db back, and starts it."""
    room = filled(world)
    restored(room, lambda: room.hours(2), keep_head=True)
    return room.verdict()


@found(Who.CUSTOMER, "a ledger that begins today", "ledger_damaged", Side.APPLIANCE)
def the_ledger_deleted_alone(world: World) -> str:
    """Deletes ledger.db and keeps the rest."""
    house = world.house
    house.days(1)
    house.close()
    for path in house.config.paths.state.glob("ledger.db*"):
        path.unlink()
    house.start()
    house.days(1)
    house.appliance.ledger_watch.look()
    return "ledger_damaged" if "ledger_damaged" in house.warnings() else GOT_THROUGH


@found(Who.CUSTOMER, "usage in a month that is closed", "clock_suspect,late", Side.VENDOR)
def the_clock_set_back_into_a_reported_month(world: World) -> str:
    """Sets the clock back by a month, uses the appliance, and sets it right: the usage comes as late rows
    of the next window, and the report says that the clock was in doubt."""
    room = world.billed_room()
    world.clock.advance(31 * 24 * HOUR)
    room.seal()
    world.desk.verify(room.written(room.freeze()))
    world.clock.advance(-31 * 24 * HOUR)
    room.use(1_000)
    room.seal()
    world.clock.advance(31 * 24 * HOUR)
    said = world.desk.verify(room.report())
    assert said["totals"]["charged"]["inferences"] == 1_001
    return ",".join(sorted({finding["code"] for finding in said["findings"]}))


@found(Who.CUSTOMER, "usage in a month that was purged", "clock_suspect,late", Side.VENDOR)
def the_clock_set_back_behind_everything(world: World) -> str:
    """Sets the clock to a year before the appliance was there: nothing is lost, all of it is late."""
    room = world.billed_room()
    world.clock.advance(-400 * 24 * HOUR)
    room.use(1_000)
    room.seal()
    world.clock.advance(400 * 24 * HOUR)
    said = world.desk.verify(room.report())
    assert said["totals"]["charged"]["inferences"] == 1_001
    return ",".join(sorted({finding["code"] for finding in said["findings"]}))


@not_found(
    Who.CUSTOMER,
    "usage that was counted and not yet sealed",
    "At most the running hour, and what the daemon had not read yet: after that it is in the chain. "
    "Whoever does it every hour forges the tail, which is the next entry.",
)
def the_open_hour_edited(world: World) -> str:
    """Edits the accumulators, the ledger's workplace for the hour that still runs, before it is sealed."""
    room = world.room()
    room.use(1_000)
    room.drain()
    room.tamper("UPDATE accumulators SET inferences = 1, requests = 1")
    world.clock.advance(HOUR)
    room.seal()
    charged = sum(row.meters.inferences for row in room.ledger.usage() if row.charged)
    return GOT_THROUGH if charged == 1 and not room.verdict() else room.verdict()


@not_found(
    Who.CUSTOMER,
    "a cheaper month",
    "Only rows that were not reported yet: each report names the head of the one before, and the vendor "
    "keeps it. A short report cadence makes the tail short.",
)
def the_tail_rebuilt_before_it_is_reported(world: World) -> str:
    """Edits rows since the last report, chains them anew, deletes ledger.head, and lets the appliance
    report them with its own key."""
    room = world.billed_room()
    assert world.desk.finds(room.report()) == GOT_THROUGH
    room.hours(3, inferences=1_000)
    room.tamper("UPDATE windows SET inferences = 1 WHERE sequence > 2")
    room.rebuild(3)
    said = world.desk.verify(room.report())
    assert said["billable"]
    assert said["totals"]["charged"]["inferences"] == 4
    return codes(said, "error") or codes(said, "warning") or room.verdict()


@not_found(
    Who.CUSTOMER,
    "the days since the last report never happened",
    "As for the rebuilt tail: what was reported is known to the vendor, and a copy from before a report is a "
    "fork.",
)
def an_older_copy_put_back_with_its_head_file(world: World) -> str:
    """Restores the whole data directory of yesterday; nothing was reported in between."""
    room = world.billed_room()
    world.desk.verify(room.report())
    restored(room, lambda: room.hours(5, inferences=1_000), keep_head=False)
    assert room.verdict() == GOT_THROUGH
    return world.desk.finds(room.report())


@not_found(
    Who.CUSTOMER,
    "this month's quota again",
    "The sums of the month are only what refills the limits table after a restart. The ledger's windows "
    "and the report still hold every inference, and the bill is made from those.",
)
def the_quota_of_the_month_forgotten(world: World) -> str:
    """Deletes the sums of the month and restarts the machine."""
    house = world.house
    house.tamper("INSERT INTO months VALUES (202603, 'licence', '', 900)")
    house.tamper("DELETE FROM months")
    house.restart()
    house.appliance.ledger_watch.look()
    assert house.appliance.ledger.month_usage(202603) == {}
    return GOT_THROUGH if "ledger_damaged" not in house.warnings() else "ledger_damaged"


def restored(room: UsageRoom, work: Callable[[], None], *, keep_head: bool) -> None:
    """Copy the room's files, work, and put the copy back."""
    room.restart()
    room.drain()
    room.close()
    before = {path: path.read_bytes() for path in room.path.rglob("*") if path.is_file()}
    room.open()
    work()
    room.close()
    head = (room.path / "ledger.head").read_bytes()
    for path in [path for path in room.path.rglob("*") if path.is_file()]:
        path.unlink()
    for path, data in before.items():
        path.write_bytes(data)
    if keep_head:
        (room.path / "ledger.head").write_bytes(head)
    room.epoch += 10  # a worker's life never has the number of another
    room.open()


CHEATS: tuple[Cheat, ...] = entries(globals())
