"""Cheats with acknowledgements, and with what may be purged after them."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import PayloadType, parse_envelope
from lotabotsd.foundation.errors import Code
from lotabotsd.licence.keyring import Keyring, Use
from lotabotsd.usage.acknowledged import record_acknowledgement
from lotabotsd.usage.acknowledgement import OpenedAcknowledgement, open_acknowledgement

from .cheat import GOT_THROUGH, Cheat, Side, Who, code_of, entries, found, refused
from .world import World


def opened(answer: bytes, keyring: Keyring) -> OpenedAcknowledgement:
    """Open an answer as an appliance with this keyring does."""

    def trusted(at: datetime | None) -> Mapping[str, bytes]:
        return keyring.trusted_keys(Use.ACKNOWLEDGEMENT, at)

    return open_acknowledgement(answer, trusted, keyring.revoked)


def edited(answer: bytes, **changes: Any) -> bytes:
    """An answer with other content under its signature."""
    envelope = json.loads(answer)
    body = json.loads(base64.b64decode(envelope["payload"]))
    envelope["payload"] = base64.b64encode(canonical_json({**body, **changes})).decode()
    return canonical_json(envelope)


@found(Who.CUSTOMER, "the duty to report begun anew", "known", Side.APPLIANCE)
def an_acknowledgement_replayed(world: World) -> str:
    """Gives the same answer again each month: it changes nothing, and the days go on from the first time."""
    house = world.house
    house.appliance.licence.install(house.licence())
    house.days(10)
    answer = house.answer(house.report())
    house.appliance.acknowledging.accept(answer)
    house.days(40)
    again = house.appliance.acknowledging.accept(answer)
    house.days(10)
    assert house.appliance.licence.standing().code == "licence_unreported"
    return "known" if again.value["known"] else GOT_THROUGH


@refused(Who.CUSTOMER, "one answer for two appliances", Code.ACKNOWLEDGEMENT_ELSEWHERE, Side.APPLIANCE)
def an_acknowledgement_for_another_appliance(world: World) -> str:
    """Takes the answer to one appliance's report to another one."""
    house = world.house
    answer = house.answer(house.report())
    house.close()
    (house.config.paths.state / "appliance_id").write_text("apl_anotherOneOfThem\n")
    house.start()
    return code_of(lambda: house.appliance.acknowledging.accept(answer))


@refused(
    Who.CUSTOMER, "an answer for a report that was never sent", Code.ACKNOWLEDGEMENT_UNKNOWN, Side.APPLIANCE
)
def an_acknowledgement_of_a_report_that_is_not_there(world: World) -> str:
    """Restores a backup of before the report, and gives the answer to the later one."""
    house = world.house
    house.days(1)
    house.close()
    state = house.config.paths.state
    before = {path: path.read_bytes() for path in state.glob("ledger.*")}
    house.start()
    answer = house.answer(house.report())
    house.close()
    for path in state.glob("ledger.*"):
        path.unlink()
    for path, data in before.items():
        path.write_bytes(data)
    house.start()
    return code_of(lambda: house.appliance.acknowledging.accept(answer))


@refused(
    Who.CUSTOMER, "rows acknowledged that the vendor never saw", Code.ACKNOWLEDGEMENT_MISMATCH, Side.APPLIANCE
)
def an_acknowledgement_of_an_edited_report(world: World) -> str:
    """Sends a report made of other rows under the same number, and gives the answer to the appliance."""
    room = world.billed_room()
    honest = room.copy("honest")
    answer = world.desk.answer(room.report(1))
    honest.report(1_000)
    said = opened(answer, world.desk.anchors.keyring)
    code = code_of(lambda: record_acknowledgement(honest.ledger, said, "apl_test", honest.now()))
    honest.close()
    return code


@refused(Who.CUSTOMER, "a rejected report done with", Code.SIGNATURE_INVALID, Side.APPLIANCE)
def rejected_turned_into_accepted(world: World) -> str:
    """Edits the verdict in the vendor's answer."""
    house = world.house
    answer = house.answer(house.report(), "--reject", "it is somebody else's")
    return code_of(
        lambda: house.appliance.acknowledging.accept(edited(answer, verdict="accepted", reasons=[]))
    )


@refused(Who.THIEF, "answers from a key that may only price", Code.SIGNER_UNKNOWN, Side.APPLIANCE)
def an_acknowledgement_signed_with_the_rate_card_key(world: World) -> str:
    """Signs an answer with the billing machine's key, and with one that is in no keyring."""
    body = json.loads(parse_envelope(world.house.answer(world.house.report())).body)
    keyring = world.workshop.anchors().keyring
    answers = set()
    for key in (world.workshop.cards, world.workshop.stranger):
        data = world.workshop.signed(PayloadType.ACKNOWLEDGEMENT, body, key)
        answers.add(code_of(lambda data=data: opened(data, keyring)))
    genuine = world.workshop.signed(PayloadType.ACKNOWLEDGEMENT, body, world.workshop.issuing)
    assert code_of(lambda: opened(genuine, keyring)) == GOT_THROUGH
    return ",".join(sorted(answers))


@refused(Who.CUSTOMER, "a rejection undone by an older answer", Code.ACKNOWLEDGEMENT_OLDER, Side.APPLIANCE)
def an_older_answer_after_a_newer(world: World) -> str:
    """Was sent an acceptance by mistake and its rejection after it, and gives them in the wrong order."""
    house = world.house
    report = house.report()
    older = house.answer(report)
    (house.books / "vendor.db").unlink()
    newer = house.answer(report, "--reject", "sent by mistake")
    house.appliance.acknowledging.accept(newer)
    return code_of(lambda: house.appliance.acknowledging.accept(older))


@refused(
    Who.CUSTOMER,
    "rows that nobody can ask about",
    "only acknowledged windows may be purged",
    Side.APPLIANCE,
)
def a_purge_without_an_acknowledgement(world: World) -> str:
    """Purges what is old enough, before the vendor has seen it; then inserts the purge by hand."""
    house = world.house
    house.report()
    house.days(60)
    assert house.appliance.acknowledging.purge("uid:0") is None
    connection = sqlite3.connect(house.config.paths.ledger_db)
    said = ""
    try:
        connection.execute(
            "INSERT INTO purges SELECT NULL, 1, sequence, row_hash, \"end\", 'root' FROM windows LIMIT 1"
        )
    except sqlite3.IntegrityError as error:
        said = str(error)
    connection.close()
    return said


@found(Who.CUSTOMER, "rows taken out unseen", "FORKED", Side.APPLIANCE)
def a_purge_forged_with_the_triggers_dropped(world: World) -> str:
    """Drops the triggers, writes a purge row, and deletes the rows."""
    room = world.room()
    room.hours(3)
    room.freeze()
    room.hours(1)
    room.tamper(
        "INSERT INTO purges SELECT NULL, 1, sequence, row_hash, \"end\", 'root' FROM windows "
        "WHERE sequence = 4; DELETE FROM windows WHERE sequence <= 4"
    )
    return room.verdict()


FORGED = (
    "INSERT INTO acknowledgements SELECT NULL, zeroblob(32), sequence, 'accepted', {issued}, {issued}, head, "
    "zeroblob(8) FROM reports"
)


@found(Who.CUSTOMER, "never to be overdue", "licence_unreported", Side.APPLIANCE)
def an_acknowledgement_written_into_the_database(world: World) -> str:
    """Inserts a row into the table of acknowledgements: its envelope is not the vendor's."""
    house = world.house
    house.appliance.licence.install(house.licence())
    house.report()
    house.days(60)
    issued = world.clock.wall_ns() // 1_000_000_000
    house.tamper(FORGED.format(issued=issued))
    house.restart()
    return house.appliance.licence.standing().code


@found(Who.CUSTOMER, "rows taken out unseen", Code.LEDGER_DAMAGED, Side.APPLIANCE)
def a_purge_after_an_acknowledgement_written_into_the_database(world: World) -> str:
    """Inserts such a row so that the purge is allowed by every trigger."""
    house = world.house
    house.report()
    house.days(60)
    house.tamper(FORGED.format(issued=1))
    return code_of(lambda: house.appliance.acknowledging.purge("uid:0"))


@refused(Who.CLERK, "an acceptance taken back after the appliance has purged", Code.CONFLICT, Side.VENDOR)
def an_acceptance_taken_back(world: World) -> str:
    """Rejects a report that was accepted."""
    report = world.billed_room().report()
    first = world.desk.answer(report)
    world.clock.advance(60)
    assert world.desk.answer(report) == first  # the same report has one answer
    return world.desk.ask("ack", "issue", *world.desk.keys, report, "--reject", "not paid").code


@refused(Who.CLERK, "a friend's fork answered as if it were nothing", Code.CONFLICT, Side.VENDOR)
def a_fork_acknowledged_without_a_word(world: World) -> str:
    """Answers a cloned machine's report; with --accept it goes out, and says for ever what was found."""
    room = world.billed_room()
    world.desk.verify(room.report())
    clone = room.copy("clone")
    world.desk.verify(room.report())
    report = clone.report(1_000)
    clone.close()
    world.desk.verify(report)
    code = world.desk.ask("ack", "issue", *world.desk.keys, report).code
    said = world.desk.run("ack", "issue", *world.desk.keys, report, "--accept").json
    assert (said["verdict"], said["reasons"][0][:6]) == ("accepted_with_findings", "forked")
    return code


@refused(Who.CLERK, "an answer to what nobody verified", Code.NOT_FOUND, Side.VENDOR)
def an_unverified_report_acknowledged(world: World) -> str:
    """Answers a report that was never verified."""
    return world.desk.ask("ack", "issue", *world.desk.keys, world.billed_room().report()).code


@refused(Who.CLERK, "a licence smuggled in with an answer", Code.SIGNER_UNKNOWN, Side.VENDOR)
def an_answer_with_a_licence_of_another_root(world: World) -> str:
    """Puts a licence that the published keys signed into a production answer."""
    report = world.billed_room().report()
    world.desk.verify(report)
    file = world.folder / "demo.licence"
    file.write_bytes(world.house.licence(tier="enterprise"))
    return world.desk.ask("ack", "issue", *world.desk.keys, report, "--licence", file).code


CHEATS: tuple[Cheat, ...] = entries(globals())
