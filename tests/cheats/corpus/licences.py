"""Cheats with licences: edited, replayed, signed by the wrong key, moved to other machines, moved in time."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from datetime import UTC, datetime
from typing import Any

from lotabotsd.daemon.rounds import Rounds
from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import PayloadType, armour, parse_envelope, sign
from lotabotsd.foundation.errors import Code
from lotabotsd.licence.fingerprint import component
from lotabotsd.licence.keyring import DEVELOPMENT_ROOT, load_anchors

from .cheat import GOT_THROUGH, Cheat, Side, Who, code_of, entries, found, not_found, refused
from .world import World

HERE = {name: component(name, f"this {name}") for name in ("machine-id", "first-mac", "gpus")}
ELSEWHERE = {name: component(name, f"that {name}") for name in HERE}
BOUND = {"match": "most", "components": HERE}
IN_MARCH = {"starts_at": "2026-03-01T00:00:00Z", "expires_at": "2026-04-01T00:00:00Z", "grace_days": 0,
            "terminates_at": None}  # fmt: skip


def edited(data: bytes, **changes: Any) -> bytes:
    """The envelope with other claims under the signature that it had."""
    envelope = json.loads(data)
    body = json.loads(base64.b64decode(envelope["payload"]))
    envelope["payload"] = base64.b64encode(canonical_json({**body, **changes})).decode()
    return canonical_json(envelope)


@refused(Who.CUSTOMER, "more GPUs, a later end", Code.SIGNATURE_INVALID, Side.APPLIANCE)
def a_claim_edited(world: World) -> str:
    """Raises a number in the licence file and installs it under the old signature."""
    store = world.store()
    genuine = world.workshop.licence()
    answers = {
        code_of(lambda change={name: value}: store.install(edited(genuine, **change)))
        for name, value in {
            "gpus": 0, "models": 0, "expires_at": "2036-01-01T00:00:00Z", "tier": "enterprise",
            "sequence": 900, "customer": "Somebody Else", "kind": "trial", "grace_days": 365,
            "terminates_at": None, "fingerprint": BOUND, "max_release_date": "2030-01-01",
            "report": {"cadence_days": 366, "grace_days": 365}, "rate_card": {}, "features": [],
            "limits": {}, "overage": {"mode": "none", "ratio_percent": 0}, "priority_band": 1,
            "issued_at": "2026-02-01T00:00:00Z", "starts_at": "2020-01-01T00:00:00Z",
            "licence_id": "lic_00000000000000AA",
        }.items()
    }  # fmt: skip
    assert set(world.workshop.claims()) == {
        "gpus", "models", "expires_at", "tier", "sequence", "customer", "kind", "grace_days", "terminates_at",
        "fingerprint", "max_release_date", "report", "rate_card", "features", "limits", "overage",
        "priority_band", "issued_at", "starts_at", "licence_id",
    }  # fmt: skip
    assert store.standing().tier == "free"
    return ",".join(sorted(answers))


@refused(Who.CUSTOMER, "the enterprise tier's limits", Code.SIGNER_UNKNOWN, Side.APPLIANCE)
def a_licence_signed_by_oneself(world: World) -> str:
    """Makes a key pair and signs a larger licence with it."""
    stranger = world.workshop.stranger
    return code_of(lambda: world.store().install(world.workshop.licence(by=stranger, tier="enterprise")))


@refused(Who.CUSTOMER, "the enterprise tier's limits", Code.SIGNATURE_INVALID, Side.APPLIANCE)
def a_signature_in_the_name_of_the_vendor(world: World) -> str:
    """Signs with his own key and names the vendor's key beside the signature."""
    envelope = json.loads(world.workshop.licence(by=world.workshop.stranger))
    genuine = json.loads(world.workshop.licence())
    envelope["signatures"][0]["keyid"] = genuine["signatures"][0]["keyid"]
    return code_of(lambda: world.store().install(canonical_json(envelope)))


@refused(Who.CUSTOMER, "a licence without a valid signature", Code.SIGNATURE_INVALID, Side.APPLIANCE)
def a_good_signature_beside_a_wrong_one(world: World) -> str:
    """Adds a second trusted key's name with a made-up signature, and hopes that one good one is enough."""
    licence = json.loads(world.workshop.licence())
    licence["signatures"] += json.loads(world.workshop.licence(by=world.workshop.old, gpus=64))["signatures"]
    return code_of(lambda: world.store().install(canonical_json(licence)))


@refused(Who.THIEF, "to issue licences with a key for rate cards", Code.SIGNER_UNKNOWN, Side.APPLIANCE)
def a_licence_signed_with_the_rate_card_key(world: World) -> str:
    """Stole the billing machine's key, which may sign rate cards alone."""
    return code_of(lambda: world.store().install(world.workshop.licence(by=world.workshop.cards)))


@refused(Who.THIEF, "to issue licences with a key whose time is over", Code.SIGNER_NOT_VALID, Side.APPLIANCE)
def a_licence_signed_with_an_expired_key(world: World) -> str:
    """Signs today with a key that was valid until last December."""
    return code_of(lambda: world.store().install(world.workshop.licence(by=world.workshop.old)))


@not_found(
    Who.THIEF,
    "licences from an expired key",
    "Until the key is revoked: its own dates are the only thing that says when it signed. A licence issued "
    "and ended within those dates is all it gives; `keyring rotate --revoke` ends it.",
)
def a_licence_dated_back_into_the_time_of_its_key(world: World) -> str:
    """Signs today with the expired key and writes a day of issue into the licence on which it was valid."""
    workshop = world.workshop
    store = world.store()
    data = workshop.licence(by=workshop.old, issued_at="2025-11-01T00:00:00Z")
    answer = code_of(lambda: store.install(data))
    revoked = [json.loads(data)["signatures"][0]["keyid"]]
    store.trust.install_keyring(workshop.keyring(version=2, revoked=revoked).to_json())
    assert store.standing().code == "licence_unusable"
    return answer


@refused(Who.THIEF, "to go on after the theft was noticed", Code.SIGNER_REVOKED, Side.APPLIANCE)
def a_licence_signed_with_a_revoked_key(world: World) -> str:
    """Signs with the stolen key after the vendor's next keyring revoked it."""
    workshop, store = world.workshop, world.store()
    stolen = workshop.entry(workshop.issuing)
    keys = workshop.keys(workshop.entry(workshop.second))
    store.trust.install_keyring(workshop.keyring(version=2, keys=keys, revoked=[stolen["keyid"]]).to_json())
    return code_of(lambda: store.install(workshop.licence()))


@found(Who.THIEF, "that his licence goes on", "licence_unusable", Side.APPLIANCE)
def an_installed_licence_of_a_stolen_key(world: World) -> str:
    """Installed it before the theft was noticed."""
    workshop, store = world.workshop, world.store()
    store.install(workshop.licence())
    keys = workshop.keys(workshop.entry(workshop.second))
    stolen = workshop.entry(workshop.issuing)["keyid"]
    store.trust.install_keyring(workshop.keyring(version=2, keys=keys, revoked=[stolen]).to_json())
    assert store.standing().tier == "free"
    return store.standing().code


@refused(Who.CUSTOMER, "the demo's enterprise licence in production", Code.SIGNER_UNKNOWN, Side.APPLIANCE)
def a_development_licence_in_a_production_package(world: World) -> str:
    """Issues himself a licence with the published development keys."""
    data = world.house.licence(tier="enterprise")
    assert load_anchors().development
    return code_of(lambda: world.store().install(data))


@refused(
    Who.CLERK, "a production package that trusts the published keys", Code.KEYRING_INVALID, Side.APPLIANCE
)
def the_development_root_in_production_anchors(world: World) -> str:
    """Builds a release whose anchors call themselves production and name the published root."""
    raw = load_anchors().roots[DEVELOPMENT_ROOT]
    published = {"keyid": DEVELOPMENT_ROOT, "public": base64.urlsafe_b64encode(raw).decode().rstrip("=")}
    own = world.workshop.keyring()
    roots = [json.loads(own.body)["roots"][0], published]
    return code_of(lambda: world.workshop.anchors(roots=roots))


@refused(Who.CUSTOMER, "the rights of last year's licence", Code.LICENCE_ROLLBACK, Side.APPLIANCE)
def an_older_licence_with_more_rights(world: World) -> str:
    """Installs the licence of last year again, which allowed more."""
    store = world.store()
    store.install(world.workshop.licence(sequence=8, gpus=1))
    answer = code_of(lambda: world.store().install(world.workshop.licence(sequence=7, gpus=8)))
    assert store.standing().gpus == 1
    return answer


@found(Who.CUSTOMER, "the same, around the command", "licence_unusable", Side.APPLIANCE)
def an_older_licence_copied_over_the_installed_one(world: World) -> str:
    """Puts the old file into the licence directory with `cp`."""
    store = world.store()
    for sequence in (7, 8):
        store.install(world.workshop.licence(sequence=sequence, gpus=15 - sequence))
    shutil.copy(world.licence_directory / "previous.dsse.json", world.licence_directory / "current.dsse.json")
    return world.store().standing().code


@refused(Who.CUSTOMER, "to go back to the larger licence for good", Code.LICENCE_ROLLBACK, Side.APPLIANCE)
def an_undo_long_after(world: World) -> str:
    """Uses `licence rollback`, which is for a bad licence, eight days after the new one came."""
    store = world.store()
    store.install(world.workshop.licence(sequence=7, gpus=8))
    store.install(world.workshop.licence(sequence=8, gpus=1))
    world.clock.advance(8 * 86_400)
    store.raise_floor()
    world.clock.advance(-7 * 86_400)  # the floor counts, not the clock
    return code_of(store.rollback)


@refused(Who.CLERK, "two customers on one number", Code.LICENCE_ROLLBACK, Side.APPLIANCE)
def a_sequence_used_twice(world: World) -> str:
    """Issues a second licence under a sequence that is taken."""
    store = world.store()
    store.install(world.workshop.licence(sequence=7))
    return code_of(lambda: store.install(world.workshop.licence(sequence=7, gpus=64)))


@refused(Who.THIEF, "to lock the vendor out with the highest number", Code.LICENCE_ROLLBACK, Side.APPLIANCE)
def the_highest_sequence_there_is(world: World) -> str:
    """Signs sequence 10^15, so that no later licence would be newer. Revoking his key forgets his number."""
    workshop, store = world.workshop, world.store()
    store.install(workshop.licence(sequence=10**15))
    answer = code_of(lambda: store.install(workshop.licence(sequence=8)))
    keys = workshop.keys(workshop.entry(workshop.second))
    stolen = workshop.entry(workshop.issuing)["keyid"]
    store.trust.install_keyring(workshop.keyring(version=2, keys=keys, revoked=[stolen]).to_json())
    assert store.install(workshop.licence(by=workshop.second, sequence=8)).after.state == "valid"
    return answer


@refused(Who.CUSTOMER, "another customer's larger licence", Code.LICENCE_FINGERPRINT, Side.APPLIANCE)
def a_bound_licence_of_another_customer(world: World) -> str:
    """Installs a licence that was made for somebody else's machine."""
    data = world.workshop.licence(fingerprint=BOUND, customer="Somebody Else", gpus=64)
    return code_of(lambda: world.store(here=ELSEWHERE).install(data))


@found(Who.CUSTOMER, "two machines for one licence", "licence_fingerprint", Side.APPLIANCE)
def a_bound_licence_copied_with_its_directory(world: World) -> str:
    """Copies the whole licence directory to a second machine."""
    world.store(here=HERE).install(world.workshop.licence(fingerprint=BOUND))
    second = world.store(here=ELSEWHERE).standing()
    assert second.tier == "free"
    return second.code


@found(Who.CUSTOMER, "the same, with one identifier made equal", "licence_fingerprint", Side.APPLIANCE)
def one_of_three_identifiers_copied_too(world: World) -> str:
    """Gives the second machine the first one's machine-id."""
    world.store(here=HERE).install(world.workshop.licence(fingerprint=BOUND))
    return world.store(here={**ELSEWHERE, "machine-id": HERE["machine-id"]}).standing().code


@found(Who.CUSTOMER, "the same, where the licence wants all of them", "licence_fingerprint", Side.APPLIANCE)
def two_of_three_identifiers_copied_where_all_count(world: World) -> str:
    """Gives the second machine the first one's machine-id and network address; the licence says `all`."""
    world.store(here=HERE).install(world.workshop.licence(fingerprint={**BOUND, "match": "all"}))
    return world.store(here={**HERE, "gpus": ELSEWHERE["gpus"]}).standing().code


@not_found(
    Who.CUSTOMER,
    "two machines for one licence",
    "`--match most` lets fewer than half of the parts be swapped, and identifiers are the owner's to set. "
    "The second machine's reports are a fork, or come from an appliance that nobody asked a licence for. "
    "`--match all` is stricter.",
)
def two_of_three_identifiers_copied_where_most_count(world: World) -> str:
    """Gives the second machine the first one's machine-id and network address; the licence says `most`."""
    world.store(here=HERE).install(world.workshop.licence(fingerprint=BOUND))
    standing = world.store(here={**HERE, "gpus": ELSEWHERE["gpus"]}).standing()
    return GOT_THROUGH if standing.tier == "pro" else standing.code


@found(Who.CUSTOMER, "a licence that never ends", "licence_restricted", Side.APPLIANCE)
def the_clock_set_back_after_the_end(world: World) -> str:
    """Lets the licence end, sets the clock back to a month when it was valid, and restarts."""
    store = world.store()
    store.install(world.workshop.licence(**IN_MARCH))
    world.clock.set_wall(datetime(2026, 5, 1, tzinfo=UTC))
    store.raise_floor()
    world.clock.set_wall(datetime(2026, 3, 15, tzinfo=UTC))
    again = world.store().standing()
    assert again.clock_suspect
    return again.code


@found(Who.CUSTOMER, "that nobody notices the year that he borrowed", "licence_restricted", Side.APPLIANCE)
def the_clock_set_forward_and_back(world: World) -> str:
    """Sets the clock forward past the end, sees that it is over, and sets it right again."""
    store = world.store()
    store.install(world.workshop.licence(**IN_MARCH))
    world.clock.set_wall(datetime(2027, 3, 1, tzinfo=UTC))
    store.raise_floor()
    world.clock.set_wall(datetime(2026, 3, 2, tzinfo=UTC))
    assert store.standing().clock_suspect
    return store.standing().code


@found(
    Who.CUSTOMER, "an ended licence on a machine that is new each day", "licence_restricted", Side.APPLIANCE
)
def the_clock_set_back_and_the_floor_deleted(world: World) -> str:
    """Deletes clock.json after setting the clock back; the ledger's last hour is a floor of its own."""
    house = world.house
    house.appliance.licence.install(house.licence("--days", 10, "--grace-days", 0))
    house.days(20)
    house.close()
    (house.config.paths.licence / "clock.json").unlink(missing_ok=True)
    world.clock.advance(-15 * 86_400)
    appliance = house.start()
    asyncio.run(Rounds(appliance).raise_floor())
    assert appliance.licence.standing().clock_suspect
    return appliance.licence.standing().code


@refused(Who.CUSTOMER, "an ended licence again", Code.LICENCE_EXPIRED, Side.APPLIANCE)
def the_ended_licence_installed_again(world: World) -> str:
    """Installs the licence of last year on a fresh appliance."""
    ended = {"issued_at": "2025-06-01T00:00:00Z", "starts_at": "2024-01-01T00:00:00Z",
             "expires_at": "2025-12-01T00:00:00Z", "grace_days": 0, "terminates_at": None}  # fmt: skip
    return code_of(lambda: world.store().install(world.workshop.licence(**ended)))


@refused(Who.CUSTOMER, "next year's licence this year", Code.LICENCE_NOT_YET_VALID, Side.APPLIANCE)
def a_licence_before_its_day(world: World) -> str:
    """Installs the larger licence that begins next year."""
    later = {"starts_at": "2026-12-01T00:00:00Z", "issued_at": "2026-02-01T00:00:00Z"}
    return code_of(lambda: world.store().install(world.workshop.licence(**later)))


@refused(Who.CUSTOMER, "a newer release than was paid for", Code.LICENCE_EXPIRED, Side.APPLIANCE)
def a_release_that_the_licence_does_not_cover(world: World) -> str:
    """Upgrades to a release that came out after the last day that the licence names."""
    store = world.store(anchors=world.workshop.anchors(built_at="2026-02-01T00:00:00Z"))
    return code_of(lambda: store.install(world.workshop.licence(max_release_date="2026-01-31")))


@refused(Who.MAIL, "a licence read as something else", Code.ENVELOPE_MALFORMED, Side.APPLIANCE)
def a_licence_under_the_name_of_another_document(world: World) -> str:
    """Writes ACKNOWLEDGEMENT into the armour's two lines."""
    text = armour(parse_envelope(world.workshop.licence()))
    return code_of(lambda: world.store().install(text.replace("LICENCE", "ACKNOWLEDGEMENT").encode()))


@refused(Who.MAIL, "that the second of two is read", Code.ENVELOPE_MALFORMED, Side.APPLIANCE)
def two_licences_in_one_file(world: World) -> str:
    """Sends a small licence in front and a large one behind it."""
    text = armour(parse_envelope(world.workshop.licence())) * 2
    return code_of(lambda: world.store().install(text.encode()))


@refused(Who.MAIL, "a half licence", Code.ENVELOPE_MALFORMED, Side.APPLIANCE)
def a_truncated_licence(world: World) -> str:
    """Cuts the file at every place."""
    data, store = world.workshop.licence(), world.store()
    return ",".join(sorted({code_of(lambda end=end: store.install(data[:end])) for end in range(len(data))}))


@refused(Who.THIEF, "a restriction that this release overlooks", Code.LICENCE_INVALID, Side.APPLIANCE)
def a_claim_twice_or_unknown(world: World) -> str:
    """Signs a licence whose JSON names a claim twice, or one that no release knows."""
    workshop, store = world.workshop, world.store()
    body = canonical_json(workshop.claims())
    twice = body[:-1] + b',"gpus":64}'
    unknown = canonical_json(workshop.claims(unlimited=True))
    signed = [sign(PayloadType.LICENCE, one, [workshop.issuing]).to_json() for one in (twice, unknown)]
    return ",".join(sorted({code_of(lambda data=data: store.install(data)) for data in signed}))


@found(Who.CUSTOMER, "to keep a licence that was taken back", "licence_revoked", Side.APPLIANCE)
def a_revoked_licence_kept(world: World) -> str:
    """Does nothing, after the list came."""
    store = world.store()
    store.install(world.workshop.licence())
    store.trust.install_revocations(world.workshop.revocations(1, world.workshop.claims()["licence_id"]))
    assert store.standing().tier == "free"
    return store.standing().code


CHEATS: tuple[Cheat, ...] = entries(globals())
