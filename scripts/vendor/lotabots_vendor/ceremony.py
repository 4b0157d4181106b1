"""Make roots and issuing keys, and bring the next keyring into force: at once, or in steps in several places.

Keys are made in memory and written only when everything that can be refused has been; a private key is
written before the public statement that names it, so that an interruption leaves at most a key that nothing
names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from lotabotsd.foundation.envelope import Envelope, PayloadType
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import sync_directory, write_atomically
from lotabotsd.foundation.identifiers import unb64url
from lotabotsd.licence.keyring import Anchors, IssuingKey, Keyring, Use, parse_anchors, parse_keyring

from . import issuing
from .authority import alone, anchors_path, keyring_path, newest_signed, put_keyring
from .draft import Draft, merged, new_draft
from .key_uri import (
    NewKey,
    Passwords,
    Signer,
    add_signature,
    keyid_of,
    labelled_keyid,
    open_signer,
    sign_envelope,
)
from .keyring_change import Change, fewest_signers, following, still_to_sign
from .statements import anchors_document, keyring_body

OFFLINE = "offline"
# The anchors last: with them it is a vendor's directory.
_FOLDERS = (OFFLINE, issuing.FOLDER, "keyrings", "anchors")
# Passphrases for new keys of these names, one for each.
NewPasswords = Callable[[Sequence[str]], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks of the next keyring."""

    uses: frozenset[Use] = frozenset()  # a new issuing key for these; none: no new key
    issuing_days: int = 1095
    revoke: tuple[str, ...] = ()  # key ids
    new_roots: int = 0  # to be made here
    add_roots: tuple[bytes, ...] = ()  # raw public keys of roots made elsewhere
    remove_roots: tuple[str, ...] = ()  # key ids
    threshold: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The next keyring, and the keys that were made for it and are on no disk yet."""

    current: Keyring
    follows: Envelope
    following: Keyring
    files: dict[Path, NewKey] = field(default_factory=dict)
    new_roots: tuple[NewKey, ...] = ()

    def save_keys(self) -> None:
        """Write the private keys. Raises ALREADY_EXISTS, FILE_UNWRITABLE."""
        for path, key in self.files.items():
            try:
                path.parent.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise LotaBotsError(Code.FILE_UNWRITABLE, f"{path.parent}: {error.strerror}") from error
            key.save(path)


def create(
    directory: Path, passwords: NewPasswords, now: datetime, *, days: int, roots: int = 1, threshold: int = 1
) -> Anchors:
    """Make roots, the first issuing key, keyring and anchors in a new directory, all or nothing.

    In an empty directory they are made inside and moved up, so that whoever stands in it still does.
    Raises ALREADY_EXISTS when there is something in it, VALUE_INVALID for a weak passphrase or a threshold
    that is more than the roots.
    """
    directory = directory.absolute()
    here = directory.exists()
    if here and (not directory.is_dir() or any(directory.iterdir())):
        raise LotaBotsError(
            Code.ALREADY_EXISTS, f"{directory} is not an empty directory", hint="choose another directory"
        )
    if threshold > roots:
        raise LotaBotsError(
            Code.VALUE_INVALID, f"{threshold} of {roots} roots cannot sign", hint="give more --roots"
        )
    names = [f"root-{number}.pem" for number in range(1, roots + 1)]
    *made, first = (NewKey(passphrase) for passphrase in passwords([*names, "the issuing key"]))
    key = _issuing_key(first, frozenset(Use), now, days)
    keyring = Keyring(1, now, {keyid_of(root): root.public for root in made}, threshold, (key,), frozenset())
    envelope = sign_envelope(PayloadType.KEYRING, keyring_body(keyring), made[:threshold])
    anchors = anchors_document("production", keyring.roots, keyring.threshold, envelope)
    checked = parse_anchors(anchors)
    beside = directory / ".new" if here else directory.with_name(f".{directory.name}.new")
    try:
        beside.mkdir(mode=0o700, parents=True)
        for folder in _FOLDERS:
            (beside / folder).mkdir(mode=0o700)
        for name, root in zip(names, made, strict=True):
            root.save(beside / OFFLINE / name)
        first.save(beside / issuing.FOLDER / issuing.file_name(1, key.keyid))
        write_atomically(keyring_path(beside, 1), envelope.to_json(), mode=0o644)
        write_atomically(anchors_path(beside), anchors, mode=0o644)
        _put_in_place(beside, directory, here)
    except OSError as error:
        raise LotaBotsError(
            Code.FILE_UNWRITABLE,
            f"{directory}: {error.strerror}",
            hint=f"check the directory above it, and remove {beside} if it is left from an interrupted run",
        ) from error
    return checked


def _put_in_place(beside: Path, directory: Path, here: bool) -> None:
    if here:
        directory.chmod(0o700)
        for folder in _FOLDERS:
            (beside / folder).rename(directory / folder)
        beside.rmdir()
        sync_directory(directory)
    else:
        beside.rename(directory)
        sync_directory(directory.parent)


def plan(directory: Path, wanted: Wanted, now: datetime, passwords: NewPasswords) -> Plan:
    """The next keyring of a directory, with new keys in memory. Raises as `keyring_change.following`."""
    current, follows = newest_signed(directory)
    version = current.version + 1
    names = [f"new root {number}" for number in range(1, wanted.new_roots + 1)]
    names += ["the new issuing key"] if wanted.uses else []
    made = [NewKey(passphrase) for passphrase in passwords(names)] if names else []
    roots = tuple(made[: wanted.new_roots])
    files = {directory / OFFLINE / f"root-{version}-{keyid_of(root)[:8]}.pem": root for root in roots}
    keys: tuple[IssuingKey, ...] = ()
    if wanted.uses:
        key = _issuing_key(made[-1], wanted.uses, now, wanted.issuing_days)
        keys = (key,)
        files[directory / issuing.FOLDER / issuing.file_name(version, key.keyid)] = made[-1]
    change = Change(
        add_roots=(*wanted.add_roots, *(root.public for root in roots)),
        remove_roots=frozenset(wanted.remove_roots),
        threshold=wanted.threshold,
        add_keys=keys,
        revoke=frozenset(wanted.revoke),
    )
    next_keyring = following(current, change, now)
    parse_keyring(keyring_body(next_keyring))
    return Plan(current, follows, next_keyring, files, roots)


def write_draft(planned: Plan) -> Draft:
    """The planned keyring without a signature; its new keys are written."""
    body = keyring_body(planned.following)
    draft = new_draft(planned.follows, Envelope(PayloadType.KEYRING, body, ()))
    planned.save_keys()
    return draft


def rotate_at_once(directory: Path, planned: Plan, roots: Sequence[Signer]) -> Path:
    """Sign the planned keyring with these roots and the new ones, and put it in force. Returns its file.

    Raises CONFLICT when they are not enough, or another keyring came in between; then nothing was written.
    """
    draft = new_draft(planned.follows, Envelope(PayloadType.KEYRING, keyring_body(planned.following), ()))
    for signer in (*roots, *planned.new_roots):
        draft = signed(draft, signer)
    complete = _complete(
        draft,
        "bring the roots to DIR/offline, or name them: --root-key URI; or go in steps: "
        "keyring draft, keyring sign, keyring finish",
    )
    with alone(directory):
        newest = newest_signed(directory)
        if newest[1].body != planned.follows.body:
            raise _overtaken(newest[0], "give the command again")
        planned.save_keys()
        return put_keyring(directory, complete)


def signed(draft: Draft, signer: Signer) -> Draft:
    """The draft with one signature more. Raises SIGNER_UNKNOWN for a key that is no root of either side."""
    return new_draft(draft.follows, add_signature(draft.statement, signer))


def finish(directory: Path, drafts: Sequence[Draft]) -> Path:
    """Put a keyring in force whose draft has enough signatures; again changes nothing. Returns its file.

    `drafts` are copies of one draft that were signed apart. Raises CONFLICT when signatures are missing, or
    when another keyring came in between.
    """
    draft = merged(drafts)
    with alone(directory):
        current, newest = newest_signed(directory)
        if newest.body == draft.statement.body:
            return put_keyring(directory, newest)
        if newest.body != draft.follows.body:
            raise _overtaken(current, "write it again: lotabots-vendor keyring draft")
        hint = "let a holder of one of these sign: lotabots-vendor keyring sign --key URI FILE"
        return put_keyring(directory, _complete(draft, hint))


def open_roots(directory: Path, planned: Plan, uris: Sequence[str], passwords: Passwords) -> list[Signer]:
    """The roots that sign the planned keyring: those named, or as many of DIR/offline as are needed.

    Raises SIGNER_UNKNOWN for a named key that is none of its roots, and as `open_signer`.
    """
    roots = {**planned.current.roots, **planned.following.roots}
    found: list[Signer] = []
    for uri in uris:
        signer = open_signer(uri, passwords)
        if keyid_of(signer) not in roots:
            raise LotaBotsError(
                Code.SIGNER_UNKNOWN,
                f"{uri} holds {keyid_of(signer)}, no root of this keyring",
                hint="see the roots: lotabots-vendor keyring show --dir DIR",
            )
        found.append(signer)
    if uris:
        return found
    own = [keyid_of(root) for root in planned.new_roots]
    for path in sorted((directory / OFFLINE).glob("*.pem")):
        label = labelled_keyid(path)
        wanted = still_to_sign(planned.current, planned.following, [*own, *map(keyid_of, found)])
        if wanted and (label is None or label in wanted):
            signer = open_signer(str(path.absolute()), passwords)
            found += [signer] if keyid_of(signer) in wanted else []
    return found


def raw_root(text: str) -> bytes:
    """The raw bytes of a root's public key as `root key` prints it. Raises VALUE_INVALID."""
    try:
        raw = unb64url(text)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise LotaBotsError(
            Code.VALUE_INVALID,
            f"{text[:64]!r} is no public key",
            hint="give the 43 characters that root key prints",
        )
    return raw


def _overtaken(newest: Keyring, hint: str) -> LotaBotsError:
    return LotaBotsError(
        Code.CONFLICT, f"it follows another keyring than the newest here, version {newest.version}", hint=hint
    )


def _complete(draft: Draft, hint: str) -> Envelope:
    """The keyring with as few of the draft's signatures as are needed. Raises CONFLICT where some miss."""
    if not draft.support.met:
        wanted = still_to_sign(draft.current, draft.following, draft.signers)
        raise LotaBotsError(
            Code.CONFLICT,
            f"signatures are missing: {draft.support}; these can still sign: {', '.join(wanted)}",
            hint=hint,
        )
    chosen = set(fewest_signers(draft.current, draft.following, draft.signers))
    kept = tuple(s for s in draft.statement.signatures if s.keyid in chosen)
    return Envelope(PayloadType.KEYRING, draft.statement.body, kept)


def _issuing_key(key: NewKey, uses: frozenset[Use], now: datetime, days: int) -> IssuingKey:
    return IssuingKey(keyid_of(key), key.public, uses, now, now + timedelta(days=days))
