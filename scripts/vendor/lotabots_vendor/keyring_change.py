"""What the next keyring says, what it changes, and whose signatures it needs. Pure.

The rule is TUF's for its root (TUF specification, 5.3): one version up, signed by the threshold of the
present roots and by that of the new ones.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from lotabotsd.foundation.clock import rfc3339
from lotabotsd.foundation.envelope import MAX_SIGNATURES
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.keys import public_key, thumbprint
from lotabotsd.licence.keyring import DEVELOPMENT_ROOT, MAX_KEYS, IssuingKey, Keyring, Use

MAX_ROOTS = 16  # as many as a document carries signatures


@dataclass(frozen=True, slots=True)
class Change:
    """What the next keyring is to say differently."""

    add_roots: tuple[bytes, ...] = ()  # raw public keys
    remove_roots: frozenset[str] = frozenset()  # key ids, as are the revoked ones
    threshold: int | None = None  # None: as it is
    add_keys: tuple[IssuingKey, ...] = ()
    revoke: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Support:
    """How many of the signatures that a keyring needs are there."""

    present: int
    present_needed: int
    new: int
    new_needed: int

    @property
    def met(self) -> bool:
        """Whether an appliance would follow it."""
        return self.present >= self.present_needed and self.new >= self.new_needed

    def __str__(self) -> str:
        return (
            f"{self.present} of {self.present_needed} by the present roots, "
            f"{self.new} of {self.new_needed} by the new ones"
        )


def following(current: Keyring, change: Change, now: datetime) -> Keyring:
    """The keyring after `current`; of keys that were revoked before only the revocation stays.

    Raises NOT_FOUND for a key that `current` does not name, ALREADY_EXISTS for one that it has, VALUE_INVALID
    for roots or a threshold that cannot be, KEY_WEAK, and CONFLICT when nothing would change.
    """
    _refuse_unknown("root", change.remove_roots, set(current.roots))
    _refuse_unknown("key", change.revoke, {key.keyid for key in current.keys})
    added = {thumbprint(raw): raw for raw in change.add_roots}
    _refuse_unfit_roots(current, change, added)
    roots = {keyid: raw for keyid, raw in current.roots.items() if keyid not in change.remove_roots} | added
    threshold = current.threshold if change.threshold is None else change.threshold
    made = replace(
        current,
        version=current.version + 1,
        issued_at=now,
        roots=roots,
        threshold=threshold,
        keys=(*(key for key in current.keys if key.keyid not in current.revoked), *change.add_keys),
        revoked=current.revoked | change.revoke,
    )
    same = (made.roots, made.threshold, made.revoked) == (current.roots, current.threshold, current.revoked)
    if same and not change.add_keys:
        raise LotaBotsError(
            Code.CONFLICT, "nothing would change", hint="say what the next keyring is to change"
        )
    _refuse_impossible(current, made)
    return made


def fewest_signatures(current: Keyring, made: Keyring) -> int:
    """How many keys must sign at least; a root that stays counts on both sides."""
    both = len(set(current.roots) & set(made.roots))
    return current.threshold + made.threshold - min(current.threshold, made.threshold, both)


def support(current: Keyring, made: Keyring, signers: Collection[str]) -> Support:
    """Whether these key ids are enough."""
    named = set(signers)
    return Support(
        len(named & set(current.roots)), current.threshold, len(named & set(made.roots)), made.threshold
    )


def fewest_signers(current: Keyring, made: Keyring, signers: Sequence[str]) -> list[str]:
    """Of signers that are enough, as few as are needed: first those that count on both sides."""
    both = [s for s in signers if s in current.roots and s in made.roots]
    chosen: list[str] = []
    for candidate in (*both, *(s for s in signers if s not in both)):
        now = support(current, made, chosen)
        useful_before = candidate in current.roots and now.present < now.present_needed
        useful_after = candidate in made.roots and now.new < now.new_needed
        if useful_before or useful_after:
            chosen.append(candidate)
    return chosen


def still_to_sign(current: Keyring, made: Keyring, signers: Collection[str]) -> list[str]:
    """The roots, present and new, whose signatures would bring it further; none when there are enough."""
    now = support(current, made, signers)
    wanted: set[str] = set()
    if now.present < now.present_needed:
        wanted |= set(current.roots)
    if now.new < now.new_needed:
        wanted |= set(made.roots)
    return sorted(wanted - set(signers))


def differences(current: Keyring, made: Keyring) -> list[tuple[str, str]]:
    """What changes, as names and values for people to read before they sign."""
    found = [("version", f"{current.version} -> {made.version}"), ("issued", rfc3339(made.issued_at))]
    found += [("root goes", keyid) for keyid in sorted(set(current.roots) - set(made.roots))]
    found += [("root comes", keyid) for keyid in sorted(set(made.roots) - set(current.roots))]
    found += [("root stays", keyid) for keyid in sorted(set(made.roots) & set(current.roots))]
    before = f"{current.threshold} of {len(current.roots)} roots"
    after = f"{made.threshold} of {len(made.roots)} roots"
    found.append(("threshold", after if before == after else f"{before} -> {after}"))
    known = {key.keyid: key for key in current.keys}
    for key in made.keys:
        if known.get(key.keyid) != key:
            found.append(
                ("issuing key comes", f"{key.keyid} for {words(key.uses)} until {rfc3339(key.not_after)}")
            )
    gone = set(known) - {key.keyid for key in made.keys}
    found += [("issuing key goes", keyid) for keyid in sorted(gone)]
    found += [("revoked", keyid) for keyid in sorted(made.revoked - current.revoked)]
    return found


def words(uses: Collection[Use]) -> str:
    """The uses of a key as people read them."""
    return ", ".join(sorted(use.value for use in uses))


def _refuse_unknown(kind: str, asked: frozenset[str], known: set[str]) -> None:
    unknown = sorted(asked - known)
    if unknown:
        raise LotaBotsError(
            Code.NOT_FOUND,
            f"the keyring names no {kind} {', '.join(unknown)}",
            hint="see what it names: lotabots-vendor keyring show --dir DIR",
        )


def _refuse_unfit_roots(current: Keyring, change: Change, added: dict[str, bytes]) -> None:
    issuing = {key.keyid for key in (*current.keys, *change.add_keys)}
    for keyid, raw in added.items():
        public_key(raw)
        if keyid in current.roots:
            raise LotaBotsError(Code.ALREADY_EXISTS, f"{keyid} is a root", hint="add another key")
        if keyid in issuing:
            raise LotaBotsError(
                Code.VALUE_INVALID,
                f"{keyid} is an issuing key",
                hint="a root signs keyrings only: make one with root key",
            )
        if keyid == DEVELOPMENT_ROOT:
            raise LotaBotsError(
                Code.VALUE_INVALID,
                "this is the published development root, which everybody has",
                hint="make a root of your own: lotabots-vendor root key FILE",
            )
    if len(added) != len(change.add_roots):
        raise LotaBotsError(Code.VALUE_INVALID, "a root is added twice", hint="name each root once")


def _refuse_impossible(current: Keyring, made: Keyring) -> None:
    """Raises VALUE_INVALID for what no document can say or no signatures can carry."""
    roots, keys, fewest = len(made.roots), len(made.keys), fewest_signatures(current, made)
    if roots > MAX_ROOTS:
        raise LotaBotsError(Code.VALUE_INVALID, f"{roots} roots, more than {MAX_ROOTS}", hint="remove some")
    if not 1 <= made.threshold <= roots:
        raise LotaBotsError(
            Code.VALUE_INVALID,
            f"{made.threshold} of {roots} roots cannot sign",
            hint="give a --threshold from 1 to the number of roots",
        )
    if keys > MAX_KEYS:
        raise LotaBotsError(
            Code.VALUE_INVALID,
            f"{keys} issuing keys, and a keyring names {MAX_KEYS}",
            hint="--revoke those that nobody needs; the keyring after that has room",
        )
    if fewest > MAX_SIGNATURES:
        raise LotaBotsError(
            Code.VALUE_INVALID,
            f"it needs {fewest} signatures, and a document carries {MAX_SIGNATURES}",
            hint="choose a lower --threshold, or replace the roots in two steps",
        )
