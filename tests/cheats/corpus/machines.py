"""Cheats of whoever owns the machine: its memory of licences, its state, its activation requests."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.daemon.activating import licence_request
from lotabotsd.daemon.rounds import Rounds
from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import PayloadType, parse_envelope, sign
from lotabotsd.foundation.errors import Code
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import thumbprint
from lotabotsd.licence.activation import open_request

from .cheat import GOT_THROUGH, Cheat, Side, Who, code_of, entries, found, not_found, refused
from .rooms import DAY, OTHER_KEY, House
from .world import World, public

# The published identity (y = 1): one of the points of small order; the others are tried in keyrings.
WEAK = bytes([1]) + bytes(31)


def request_of(house: House) -> bytes:
    """The activation request of the house's appliance, as JSON."""
    return parse_envelope(licence_request(house.appliance, "order 4711")["text"].encode()).to_json()


def restated(request: bytes, key: Ed25519PrivateKey, change: Callable[[Any], object]) -> bytes:
    """The request with another body, signed by `key` in its own name."""
    body = json.loads(parse_envelope(request).body)
    change(body)
    return sign(PayloadType.ACTIVATION_REQUEST, canonical_json(body), [key]).to_json()


def shown(world: World, request: bytes) -> str:
    """The code with which the vendor's desk refuses a request."""
    file = world.folder / "request.json"
    file.write_bytes(request)
    return world.desk.ask("request", "show", file).code


@refused(Who.MAIL, "a licence bound to his own machine", Code.SIGNATURE_INVALID, Side.VENDOR)
def an_activation_request_edited(world: World) -> str:
    """Puts his machine's fingerprint into the customer's request."""
    request = json.loads(request_of(world.house))
    body = json.loads(base64.b64decode(request["payload"]))
    body["components"] = {"machine-id": "a" * 64}
    request["payload"] = base64.b64encode(canonical_json(body)).decode()
    return shown(world, canonical_json(request))


@refused(Who.MAIL, "the same, signed", Code.SIGNER_UNKNOWN, Side.VENDOR)
def an_activation_request_signed_by_another_key(world: World) -> str:
    """Changes the fingerprint and signs with his own key; the body still names the appliance's."""
    data = restated(
        request_of(world.house), OTHER_KEY, lambda b: b.update(components={"machine-id": "a" * 64})
    )
    return shown(world, data)


@found(Who.MAIL, "the same, with his key inside", "another short code", Side.VENDOR)
def an_activation_request_made_anew(world: World) -> str:
    """Makes a whole new request in the customer's name: it is well signed, and its code is not the one
    that the customer reads out on the telephone."""
    genuine = request_of(world.house)
    data = restated(genuine, OTHER_KEY, lambda body: body.update(key=public(OTHER_KEY)))
    assert shown(world, data) == GOT_THROUGH
    codes = {open_request(one).short_code for one in (genuine, data)}
    return "another short code" if len(codes) == 2 else GOT_THROUGH


@refused(Who.CUSTOMER, "reports that anybody's signature fits", Code.KEY_WEAK, Side.VENDOR)
def an_activation_request_of_a_weak_key(world: World) -> str:
    """Names a key of small order as the one that will sign his reports."""
    weak = {"keyid": thumbprint(WEAK), "public": b64url(WEAK)}
    request = json.loads(restated(request_of(world.house), OTHER_KEY, lambda body: body.update(key=weak)))
    request["signatures"][0]["keyid"] = weak["keyid"]
    return shown(world, canonical_json(request))


@refused(Who.CUSTOMER, "a licence without any machine", Code.ACTIVATION_INVALID, Side.VENDOR)
def an_activation_request_without_a_fingerprint(world: World) -> str:
    """Leaves every component out, so that the answer fits everywhere."""
    key = world.house.appliance.keyset.report
    return shown(world, restated(request_of(world.house), key, lambda body: body.update(components={})))


@refused(Who.CUSTOMER, "older licences again", Code.LICENCE_ROLLBACK, Side.APPLIANCE)
def the_memory_of_sequences_deleted(world: World) -> str:
    """Deletes memory.json: the installed licence itself still says how far its sequence is."""
    store = world.store()
    store.install(world.workshop.licence(sequence=8, gpus=1))
    (world.licence_directory / "memory.json").unlink()
    return code_of(lambda: world.store().install(world.workshop.licence(sequence=7, gpus=8)))


@not_found(
    Who.CUSTOMER,
    "an older licence again, whose rights were larger",
    "Only until that licence ends, and only one that the vendor signed for this customer: the clock's "
    "floor comes back from the ledger, and the next report names the licence that was in force.",
)
def the_licence_directory_deleted(world: World) -> str:
    """Deletes the whole directory, and installs last month's larger licence as if it were the first."""
    house = world.house
    larger = house.licence("--gpus", 8)
    world.clock.advance(60)
    smaller = house.licence("--gpus", 1)
    for data in (larger, smaller):
        house.appliance.licence.install(data)
    assert code_of(lambda: house.appliance.licence.install(larger)) == Code.LICENCE_ROLLBACK
    directory = house.config.paths.licence
    house.close()
    shutil.rmtree(directory)
    directory.mkdir(mode=0o700)
    appliance = house.start()
    answer = code_of(lambda: appliance.licence.install(larger))
    assert appliance.licence.standing().gpus == 8
    house.days(1)
    named = appliance.reports.preview()["body"]["licence"]["id"]
    assert named == json.loads(parse_envelope(larger).body)["licence_id"]
    return answer


@not_found(
    Who.CUSTOMER,
    "never to be overdue",
    "No report reaches the vendor meanwhile, and that is what the vendor sees; the licence's own end holds.",
)
def the_duty_to_report_begun_anew(world: World) -> str:
    """Deletes memory.json and the installed file when the limits have ended, and installs the same licence
    again."""
    house = world.house
    licence = house.licence()
    house.appliance.licence.install(licence)
    house.days(60)
    assert house.appliance.licence.standing().code == "licence_unreported"
    for name in ("memory.json", "current.dsse.json"):
        (house.config.paths.licence / name).unlink()
    house.appliance.licence.install(licence)
    standing = house.appliance.licence.standing()
    return GOT_THROUGH if standing.tier == "pro" else standing.code


@not_found(
    Who.CUSTOMER,
    "to stay months behind with his reports",
    "Each report puts the duty off once, and each says which time it is about: the vendor sees how far "
    "behind they are, and decides whether to answer.",
)
def the_oldest_report_sent_first(world: World) -> str:
    """Keeps two reports back, and sends the older one when his limits have ended."""
    house = world.house
    house.appliance.licence.install(house.licence())
    kept = []
    for _ in range(2):
        house.days(23)
        kept.append(house.report())
    assert house.appliance.licence.standing().code == "licence_unreported"
    house.appliance.acknowledging.accept(house.answer(kept[0]))
    standing = house.appliance.licence.standing()
    return GOT_THROUGH if standing.tier == "pro" else standing.code


@found(Who.CUSTOMER, "the duty to report begun anew each month", "licence_unreported", Side.APPLIANCE)
def the_same_licence_installed_again_and_again(world: World) -> str:
    """Installs the licence that is there already, each month, to begin its days anew."""
    house = world.house
    licence = house.licence()
    for _ in range(3):
        house.appliance.licence.install(licence)
        house.days(20)
    return house.appliance.licence.standing().code


@found(Who.CUSTOMER, "to use it and never report", "licence_unreported", Side.APPLIANCE)
def no_report_sent_at_all(world: World) -> str:
    """Uses the licence and sends nothing."""
    house = world.house
    house.appliance.licence.install(house.licence())
    house.days(46)
    assert house.appliance.licence.standing().tier == "free"
    return house.appliance.licence.standing().code


@not_found(
    Who.CUSTOMER,
    "a licence that never ends and a report that is never due",
    "The clock is the owner's. While it is below its floor status, metrics and every report say "
    "`clock_suspect`, no hour is closed that was closed before, and the vendor gets no reports for all "
    "that time.",
)
def the_clock_run_in_circles(world: World) -> str:
    """Sets the clock back by twenty days every twenty days, for a year: no moment is ever later than the
    floor."""
    house = world.house
    house.appliance.licence.install(house.licence("--days", 30, "--grace-days", 0))
    for _ in range(18):
        house.days(20)
        asyncio.run(Rounds(house.appliance).raise_floor())
        world.clock.advance(-20 * DAY)
        house.appliance.bookkeeping.drain_and_seal()
        assert "clock_suspect" in house.warnings()
    asyncio.run(Rounds(house.appliance).verify_ledger())
    assert "ledger_findings" in house.warnings()
    standing = house.appliance.licence.standing()
    return GOT_THROUGH if standing.tier == "pro" else standing.code


@refused(Who.CUSTOMER, "every key and limit made anew", Code.DATABASE_DAMAGED, Side.APPLIANCE)
def the_identities_deleted_alone(world: World) -> str:
    """Deletes state.db, so that keys and their limits begin anew, and keeps the rest."""
    house = world.house
    house.close()
    moved = _moved_away(house.config.paths.state_db)
    answer = code_of(house.start)
    for path, data in moved.items():
        path.write_bytes(data)
    house.start()
    return answer


@not_found(
    Who.CUSTOMER,
    "the free tier's quota again",
    "The free tier alone: without a licence there is nobody to tell. With one, a new appliance has no "
    "licence, and its first report is a fork or names an appliance that asked for none.",
)
def the_quota_of_the_free_tier_reset(world: World) -> str:
    """Deletes the whole data directory: a new appliance begins, whose month has used nothing."""
    house = world.house
    before = house.appliance.appliance_id
    house.tamper("INSERT INTO months VALUES (202603, 'licence', '', 900)")
    assert house.appliance.ledger.month_usage(202603) == {("licence", ""): 900}
    house.close()
    for directory in (house.config.paths.state, house.folder / "run"):
        shutil.rmtree(directory)
    for path, mode in house.config.paths.directories():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    again = house.start()
    assert again.appliance_id != before
    used = again.ledger.month_usage(202603)
    return GOT_THROUGH if not used and not house.warnings() & {"ledger_damaged"} else "ledger_damaged"


def _moved_away(database: Path) -> dict[Path, bytes]:
    """A database's files, removed; to be put back."""
    files = {path: path.read_bytes() for path in database.parent.glob(f"{database.name}*")}
    for path in files:
        path.unlink()
    return files


CHEATS: tuple[Cheat, ...] = entries(globals())
