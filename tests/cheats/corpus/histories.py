"""Cheats with reports in their order: left out, sent again, made anew, cloned, in others' names."""

from __future__ import annotations

from typing import Any

from lotabotsd.foundation.errors import Code

from .cheat import GOT_THROUGH, Cheat, Side, Who, entries, found, not_found, refused
from .rooms import OTHER_KEY, forge
from .world import World, public


@found(Who.MAIL, "the same, with his key inside", "forked,key_changed", Side.VENDOR)
def a_report_signed_anew_with_another_key_inside(world: World) -> str:
    """Puts his key into the body too; the vendor knows the appliance's key from its earlier reports."""
    room = world.billed_room()
    world.desk.verify(room.report())
    genuine = room.report()
    world.desk.verify(genuine)
    return world.desk.finds(forge(genuine, with_key, key=OTHER_KEY))


@found(
    Who.CUSTOMER, "one appliance's small usage for another's large one", "key_changed,rewound", Side.VENDOR
)
def a_report_presented_as_that_of_another_appliance(world: World) -> str:
    """Writes the large appliance's name into the small one's second report and signs with the small one's
    key."""
    large, small = world.billed_room("large"), world.room("small", key=OTHER_KEY, appliance_id="apl_small")
    small.licence = large.licence
    first = large.report(1_000)
    world.desk.verify(first)
    small.report()
    previous = world.desk.verify(first)["report"]

    def rename(body: Any) -> None:
        body["appliance"]["id"] = "apl_test"
        body["previous_report_hash"] = previous

    return world.desk.finds(forge(small.report(), rename, key=OTHER_KEY))


@found(Who.CUSTOMER, "last month's report for this month", "already verified", Side.VENDOR)
def an_older_report_sent_again(world: World) -> str:
    """Sends the same zip a second time: nothing is counted twice, and the vendor sees when it came first."""
    room = world.billed_room()
    first = room.report()
    world.desk.verify(first)
    world.clock.advance(31 * 86_400)
    said = world.desk.verify(first)
    assert said["sequence"] == 1
    return "already verified" if said["already_verified"] else GOT_THROUGH


@found(Who.CUSTOMER, "a report that never comes", "report_missing", Side.VENDOR)
def a_report_left_out(world: World) -> str:
    """Keeps the dear second report for himself and sends the third: it names the hash of the one before."""
    room = world.billed_room()
    world.desk.verify(room.report())
    room.report(100_000)
    return world.desk.finds(room.report(), severity="warning")


@found(Who.CUSTOMER, "the same, and no gap in the numbers", "rewound", Side.VENDOR)
def a_report_left_out_and_the_next_renumbered(world: World) -> str:
    """Gives the third report the number of the second and the hash of the first as its predecessor."""
    room = world.billed_room()
    first = world.desk.verify(room.report())["report"]
    room.report(100_000)
    third = forge(room.report(), lambda body: body.update(sequence=2, previous_report_hash=first))
    return world.desk.finds(third)


@found(Who.CUSTOMER, "a cheap report in the place of the dear one", "forked", Side.VENDOR)
def a_missing_report_made_anew_and_cheaper(world: World) -> str:
    """Sends the first and the third report, and then a second one of other rows, well chained and well
    signed, for the one that was missed: the third names another."""
    room = world.billed_room()
    world.desk.verify(room.report())
    cheap = room.copy("cheap")
    room.report(100_000)
    assert world.desk.finds(room.report(), severity="warning") == "report_missing"
    world.clock.advance(-3_600)
    answer = world.desk.finds(cheap.report(1))
    cheap.close()
    return answer


@found(Who.CUSTOMER, "two machines for one bill", "forked", Side.VENDOR)
def a_cloned_disk(world: World) -> str:
    """Copies the whole disk to a second machine; both go on and report."""
    room = world.billed_room()
    world.desk.verify(room.report())
    clone = room.copy("clone")
    world.desk.verify(room.report(10))
    answer = world.desk.finds(clone.report(100_000))
    clone.close()
    return answer


@found(Who.CUSTOMER, "the dear month undone", "forked", Side.VENDOR)
def a_restored_disk(world: World) -> str:
    """Restores a backup from before the dear report, which the vendor has, and reports again."""
    room = world.billed_room()
    world.desk.verify(room.report())
    backup = room.copy("backup")
    world.desk.verify(room.report(100_000))
    answer = world.desk.finds(backup.report(1))
    backup.close()
    return answer


@found(Who.CUSTOMER, "a ledger that begins anew under the old name", "forked", Side.VENDOR)
def an_appliance_begun_anew_under_its_old_name(world: World) -> str:
    """Deletes the ledger with its head file, and keeps appliance_id and report.key."""
    room = world.billed_room()
    for _ in range(2):
        world.desk.verify(room.report(1_000))
    fresh = world.room("fresh", licence=room.licence)
    return world.desk.finds(fresh.report())


@found(Who.CUSTOMER, "another customer pays", "licence_mismatch", Side.VENDOR)
def a_report_under_the_licence_of_another_customer(world: World) -> str:
    """Names somebody else's licence in a report that says his own name."""
    room = world.billed_room()
    others = world.desk.licence(customer="Somebody Else")["licence_id"]
    return world.desk.finds(forge(room.report(), lambda body: body["licence"].update(id=others)))


@found(Who.CUSTOMER, "the cheaper tier's prices", "licence_mismatch", Side.VENDOR)
def a_report_under_another_tier(world: World) -> str:
    """Writes `enterprise`, whose discount is larger, beside a pro licence."""
    room = world.billed_room()
    return world.desk.finds(forge(room.report(), lambda body: body["licence"].update(tier="enterprise")))


@refused(Who.CUSTOMER, "usage that nobody can be charged for", Code.CONFLICT, Side.VENDOR)
def a_report_under_a_licence_that_was_never_issued(world: World) -> str:
    """Invents a licence id."""
    room = world.billed_room()
    report = forge(room.report(), lambda body: body["licence"].update(id="lic_00000000000000AA"))
    assert world.desk.finds(report, severity="warning") == "licence_unknown"
    return world.desk.rate("--incomplete", report).code


@not_found(
    Who.MAIL,
    "to be the customer from the first day",
    "Only before the vendor has seen anything of the appliance, and only until the customer's own report "
    "comes, which is then a fork with another key: a person decides, and the customer can read his key out.",
)
def the_first_report_made_by_somebody_else(world: World) -> str:
    """Makes the first report of an appliance with his own key, before the customer's own arrives."""
    room = world.billed_room()
    genuine = room.report(1_000)
    answer = world.desk.finds(forge(genuine, with_key, key=OTHER_KEY))
    assert world.desk.finds(genuine) == "forked,key_changed"
    return answer


@not_found(
    Who.CUSTOMER,
    "two machines under one licence that is bound to none",
    "Each machine reports and is billed under its own name, so no usage is lost; only the licence's "
    "limits hold once for each. A licence that is bound to a machine (`licence issue --request`) stops "
    "it.",
)
def one_unbound_licence_on_two_appliances(world: World) -> str:
    """Installs the same licence on two appliances that were both installed properly."""
    first = world.billed_room("first")
    second = world.room("second", licence=first.licence, key=OTHER_KEY, appliance_id="apl_second")
    answers = {world.desk.finds(room.report()) for room in (first, second)}
    warnings = {world.desk.finds(room.report(), severity="warning") for room in (first, second)}
    return ",".join(sorted((answers | warnings) - {GOT_THROUGH}))


def with_key(body: Any) -> None:
    """Name another key as the appliance's."""
    entry = public(OTHER_KEY)
    body["appliance"].update(key_id=entry["keyid"], public_key=entry["public"])


CHEATS: tuple[Cheat, ...] = entries(globals())
