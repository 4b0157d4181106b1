"""Cheats with keyrings and lists of revoked licences: skipped, forked, weakened, shrunk, dropped."""

from __future__ import annotations

from lotabotsd.foundation.errors import Code
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import thumbprint

from .cheat import GOT_THROUGH, Cheat, Side, Who, code_of, entries, found, not_found, refused
from .world import World, public, sorted_roots

P = 2**255 - 19
ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
# Every spelling of a point of small order: y below and above p, with and without the sign bit.
WEAK = tuple(
    (y | sign << 255).to_bytes(32, "little")
    for y in (0, 1, P - 1, ORDER_8, P - ORDER_8, P, P + 1)
    for sign in (0, 1)
)
OURS, OTHER = "lic_0123456789ABCDEF", "lic_00000000000000AA"


@refused(Who.THIEF, "one signature that fits every licence", Code.KEY_WEAK, Side.APPLIANCE)
def a_weak_key_in_a_keyring(world: World) -> str:
    """Gets a key of small order into a keyring that the roots sign."""
    workshop, store = world.workshop, world.store()
    answers = set()
    for raw in WEAK:
        weak = workshop.entry(workshop.second, keyid=thumbprint(raw), public=b64url(raw))
        keyring = workshop.keyring(version=2, keys=workshop.keys(weak)).to_json()
        answers.add(code_of(lambda data=keyring: store.trust.install_keyring(data)))
        root = {"keyid": thumbprint(raw), "public": b64url(raw)}
        roots = sorted([public(workshop.root), root], key=lambda entry: entry["keyid"])
        answers.add(
            code_of(
                lambda roots=roots: store.trust.install_keyring(
                    workshop.keyring(version=2, roots=roots).to_json()
                )
            )
        )
    return ",".join(sorted(answers))


@refused(Who.CUSTOMER, "to trust a key of his own", Code.SIGNER_UNKNOWN, Side.APPLIANCE)
def a_keyring_signed_by_oneself(world: World) -> str:
    """Writes a keyring with his own issuing key and signs it with his own root."""
    workshop = world.workshop
    keys = workshop.keys(workshop.entry(workshop.stranger))
    data = workshop.keyring(workshop.stranger, version=2, keys=keys).to_json()
    return code_of(lambda: world.store().trust.install_keyring(data))


@refused(Who.THIEF, "to trust a key of his own", Code.SIGNER_UNKNOWN, Side.APPLIANCE)
def a_keyring_signed_with_an_issuing_key(world: World) -> str:
    """Signs a keyring with the stolen issuing key; only roots may."""
    workshop = world.workshop
    keys = workshop.keys(workshop.entry(workshop.stranger))
    data = workshop.keyring(workshop.issuing, version=2, keys=keys).to_json()
    return code_of(lambda: world.store().trust.install_keyring(data))


@refused(Who.CUSTOMER, "to jump over the keyring that revokes a key", Code.KEYRING_ORDER, Side.APPLIANCE)
def a_keyring_skipped(world: World) -> str:
    """Installs version 3 and leaves version 2 out."""
    return code_of(lambda: world.store().trust.install_keyring(world.workshop.keyring(version=3).to_json()))


@refused(Who.CUSTOMER, "to go back behind a revocation", Code.KEYRING_ORDER, Side.APPLIANCE)
def an_older_keyring_replayed(world: World) -> str:
    """Installs version 2 again when version 3 is in force."""
    workshop, trust = world.workshop, world.store().trust
    second, third = (workshop.keyring(version=version).to_json() for version in (2, 3))
    trust.install_keyring(second)
    trust.install_keyring(third)
    return code_of(lambda: trust.install_keyring(second))


@refused(Who.THIEF, "two worlds with one number", Code.KEYRING_ORDER, Side.APPLIANCE)
def two_keyrings_of_one_version(world: World) -> str:
    """Made the root sign another version 2, and sends it to an appliance that has the first."""
    workshop, trust = world.workshop, world.store().trust
    trust.install_keyring(workshop.keyring(version=2).to_json())
    fork = workshop.keyring(version=2, keys=workshop.keys(workshop.entry(workshop.second))).to_json()
    return code_of(lambda: trust.install_keyring(fork))


@refused(Who.THIEF, "to be one of two people who must agree", Code.SIGNER_UNKNOWN, Side.APPLIANCE)
def a_threshold_not_met(world: World) -> str:
    """Holds one of two roots, and signs twice with it."""
    workshop = world.workshop
    trust = world.store().trust
    roots = sorted_roots(workshop.root, workshop.second)
    both = {"roots": roots, "threshold": 2}
    trust.install_keyring(workshop.keyring(workshop.root, workshop.second, version=2, **both).to_json())
    alone = workshop.keyring(workshop.root, version=3, **both).to_json()
    return code_of(lambda: trust.install_keyring(alone))


@refused(Who.THIEF, "to be one of two people who must agree", Code.SIGNER_UNKNOWN, Side.APPLIANCE)
def a_threshold_lowered_by_one_of_two(world: World) -> str:
    """Holds one of two roots, and signs a keyring that says that one is enough."""
    workshop, trust = world.workshop, world.store().trust
    roots = sorted_roots(workshop.root, workshop.second)
    both = {"roots": roots, "threshold": 2}
    trust.install_keyring(workshop.keyring(workshop.root, workshop.second, version=2, **both).to_json())
    lowered = workshop.keyring(workshop.root, version=3, roots=roots, threshold=1).to_json()
    return code_of(lambda: trust.install_keyring(lowered))


@refused(Who.THIEF, "to take the vendor's name over", Code.SIGNER_UNKNOWN, Side.APPLIANCE)
def new_roots_that_the_old_did_not_sign(world: World) -> str:
    """Signs a keyring with new roots of his own by those new roots alone."""
    workshop = world.workshop
    data = workshop.keyring(workshop.stranger, version=2, roots=[public(workshop.stranger)]).to_json()
    return code_of(lambda: world.store().trust.install_keyring(data))


@refused(Who.THIEF, "his key trusted again", Code.KEYRING_INVALID, Side.APPLIANCE)
def a_revoked_key_brought_back(world: World) -> str:
    """Gets the roots to sign a keyring that no longer names his key among the revoked."""
    workshop, trust = world.workshop, world.store().trust
    stolen = workshop.entry(workshop.issuing)["keyid"]
    trust.install_keyring(workshop.keyring(version=2, revoked=[stolen]).to_json())
    return code_of(lambda: trust.install_keyring(workshop.keyring(version=3).to_json()))


@found(Who.CUSTOMER, "a key of his own, around the command", "licence_unusable", Side.APPLIANCE)
def a_keyring_file_put_into_the_directory(world: World) -> str:
    """Writes his own keyring-2.dsse.json beside the installed licence."""
    workshop, store = world.workshop, world.store()
    store.install(workshop.licence())
    own = workshop.keyring(workshop.stranger, version=2, keys=[workshop.entry(workshop.stranger)])
    (world.licence_directory / "keyring-2.dsse.json").write_bytes(own.to_json())
    return world.store().standing().code


@refused(Who.CUSTOMER, "to lose the line with his licence", Code.REVOCATIONS_OLDER, Side.APPLIANCE)
def an_older_list_of_revocations(world: World) -> str:
    """Installs the list of before his licence was on it."""
    workshop, trust = world.workshop, world.store().trust
    trust.install_revocations(workshop.revocations(2, OURS, OTHER))
    return code_of(lambda: trust.install_revocations(workshop.revocations(1, OTHER)))


@refused(Who.CLERK, "to lose the line with a friend's licence", Code.REVOCATIONS_INVALID, Side.APPLIANCE)
def a_newer_list_that_is_shorter(world: World) -> str:
    """Signs a list of a higher version in which a licence is missing."""
    workshop, trust = world.workshop, world.store().trust
    trust.install_revocations(workshop.revocations(2, OURS, OTHER))
    return code_of(lambda: trust.install_revocations(workshop.revocations(3, OTHER)))


@refused(Who.CLERK, "two lists of one number", Code.REVOCATIONS_OLDER, Side.APPLIANCE)
def two_lists_of_one_version(world: World) -> str:
    """Signs another list under the version of the first."""
    workshop, trust = world.workshop, world.store().trust
    trust.install_revocations(workshop.revocations(2, OURS))
    return code_of(lambda: trust.install_revocations(workshop.revocations(2, OTHER)))


@refused(Who.CUSTOMER, "to take others' licences back", Code.SIGNER_UNKNOWN, Side.APPLIANCE)
def a_list_signed_with_the_rate_card_key(world: World) -> str:
    """Signs a list with a key that may not issue licences."""
    data = world.workshop.revocations(1, OURS, by=world.workshop.cards)
    return code_of(lambda: world.store().trust.install_revocations(data))


@refused(
    Who.CUSTOMER, "the revoked licence on a machine that does not know", Code.LICENCE_REVOKED, Side.APPLIANCE
)
def a_revoked_licence_installed_again(world: World) -> str:
    """Installs it once more after the list came."""
    store = world.store()
    store.trust.install_revocations(world.workshop.revocations(1, OURS))
    return code_of(lambda: store.install(world.workshop.licence()))


@not_found(
    Who.CUSTOMER,
    "to keep a licence that was taken back",
    "A machine without a connection learns of a revocation from a file, and its owner may leave or "
    "delete the file. The licence's own end and its duty to report hold: a vendor who answers its "
    "reports no more ends its limits after the days that `report` names.",
)
def a_list_of_revocations_dropped(world: World) -> str:
    """Deletes revocations.dsse.json and keeps the newest list for himself."""
    store = world.store()
    store.install(world.workshop.licence())
    store.trust.install_revocations(world.workshop.revocations(1, OURS))
    assert store.standing().code == "licence_revoked"
    (world.licence_directory / "revocations.dsse.json").unlink()
    standing = world.store().standing()
    return GOT_THROUGH if standing.tier == "pro" else standing.code


@refused(Who.THIEF, "a key for everything", Code.KEYRING_INVALID, Side.APPLIANCE)
def a_keyring_that_names_a_use_that_is_none(world: World) -> str:
    """Hopes that an unknown use is taken for all of them; signed by the roots themselves."""
    workshop = world.workshop
    keys = [workshop.entry(workshop.issuing, uses=["everything"])]
    data = workshop.keyring(version=2, keys=keys).to_json()
    return code_of(lambda: world.store().trust.install_keyring(data))


CHEATS: tuple[Cheat, ...] = entries(globals())
