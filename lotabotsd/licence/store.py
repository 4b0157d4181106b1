"""Keep the installed licence: judge a new one, put it in place whole, keep the one before for an undo.

In its directory (0700): `current.dsse.json`, `previous.dsse.json`, `memory.json` (highest sequence seen),
`clock.json` (the clock's floor), `licence-<id>.dsse.json` of the last 64 that were installed, and the files
of `trust`. Each is written atomically, in an order in which a crash between two files leaves a state that is
right by itself; doing the same again finishes it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lotabotsd.foundation.catalogue import CATALOGUE
from lotabotsd.foundation.clock import NANOSECONDS, Clock, from_ns, rfc3339, to_ns
from lotabotsd.foundation.envelope import MAX_ENVELOPE_BYTES
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically

from .claims import Licence, to_claims
from .document import Opened, open_licence
from .fingerprint import matches
from .keyring import Anchors
from .memory import Memory, Seen, floor_bytes, memory_bytes, parse_floor, parse_memory
from .reporting import NO_DUTY, Duty, duty_of
from .standing import Standing, judge
from .trust import Trust

# An undo, not a way back to a larger licence that was replaced long ago.
ROLLBACK_WINDOW_NS = 7 * 86_400 * NANOSECONDS
LICENCES_KEPT = 64
_LICENCE_ID = re.compile(r"lic_[0-9A-Za-z]{16}")
FLOOR_STEP_NS = 60 * NANOSECONDS  # the floor on disk may be behind by this much

# Why a licence is not installed: by the code of the standing that it would give.
_REFUSED: dict[str, Code] = {
    "licence_fingerprint": Code.LICENCE_FINGERPRINT,
    "licence_not_yet_valid": Code.LICENCE_NOT_YET_VALID,
    "licence_revoked": Code.LICENCE_REVOKED,
    "licence_release": Code.LICENCE_EXPIRED,
    "licence_restricted": Code.LICENCE_EXPIRED,
    "licence_terminated": Code.LICENCE_EXPIRED,
}


@dataclass(frozen=True, slots=True)
class Change:
    """What an installation changes, or would change."""

    before: Standing
    after: Standing
    licence: Licence

    def differences(self) -> dict[str, tuple[Any, Any]]:
        """The fields of the standing that differ: name → (before, after)."""
        before, after = self.before.to_dict(), self.after.to_dict()
        return {name: (before[name], after[name]) for name in before if before[name] != after[name]}

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "licence": to_claims(self.licence),
        }


class LicenceStore:
    """The licence directory of one appliance; used by the daemon alone, from any of its threads."""

    def __init__(
        self,
        directory: Path,
        anchors: Anchors,
        clock: Clock,
        *,
        components: Callable[[], Mapping[str, str]] = dict,
        reported_ns: Callable[[], int] | None = None,
        trust: Trust | None = None,
    ) -> None:
        """`components` reads this machine's fingerprint (fingerprint.read_components).

        `reported_ns` says when the vendor last accepted a usage report (nanoseconds since 1970, 0: never); it
        must not raise. Without it, as for a store with no ledger beside it, there is no duty to report.
        `trust` is that of the same directory and anchors, where others ask it too.
        """
        self.trust = trust or Trust(directory, anchors)
        self._directory = directory
        self._anchors = anchors
        self._clock = clock
        self._components = components
        self._reported_ns = reported_ns
        self._lock = threading.RLock()
        self._floor_ns = self._written_floor_ns = parse_floor(self._read("clock.json"))

    def current(self) -> Licence | None:
        """The installed licence, verified. Raises what is wrong with it."""
        opened = self._opened("current.dsse.json")
        return opened.licence if opened else None

    def standing(self) -> Standing:
        """What is allowed now; never raises for a licence that cannot be used."""
        try:
            licence = self.current()
        except LotaBotsError as error:
            floor_ns = self._floor(None)
            return judge(
                None, self._clock.wall_ns(), floor_ns, development=self._anchors.development, unusable=error
            )
        return self._judge(licence, self._memory().installed_at_ns)

    def duty(self) -> Duty:
        """How the usage reports that the licence asks for stand now; none for a licence that is unusable."""
        try:
            licence = self.current()
        except LotaBotsError:
            return NO_DUTY
        return self._duty(licence, self._memory().installed_at_ns)

    def install(self, data: bytes, *, check_only: bool = False) -> Change:
        """Put a licence in place, or only say what it would change.

        Raises what `open_licence` raises, LICENCE_FINGERPRINT, LICENCE_NOT_YET_VALID, LICENCE_EXPIRED,
        LICENCE_REVOKED, LICENCE_ROLLBACK for a sequence below the highest seen, and
        FILE_UNWRITABLE or DISK_FULL.
        """
        with self._lock:
            opened = open_licence(data, self.trust.keyring())
            remembered = self._memory_with_current().with_licence(
                opened.signer, _seen(opened), self._now_ns()
            )
            after = self._judge(opened.licence, remembered.installed_at_ns)
            change = Change(self.standing(), after, opened.licence)
            self._refuse_unusable(change)
            self._refuse_older(opened)
            if not check_only:
                self._keep(opened)
            return change

    def rollback(self) -> Change:
        """Undo the last installation within seven days. Raises NOT_FOUND, LICENCE_ROLLBACK and others.

        The highest sequence stays, so that no other old licence can follow.
        """
        with self._lock:
            opened = self._opened("previous.dsse.json")
            if opened is None:
                raise LotaBotsError(Code.NOT_FOUND, "no licence was installed before this one")
            memory = self._memory()
            if self._now_ns() - memory.installed_at_ns > ROLLBACK_WINDOW_NS:
                replaced = rfc3339(from_ns(memory.installed_at_ns))
                raise LotaBotsError(Code.LICENCE_ROLLBACK, f"it was replaced on {replaced}, over 7 days ago")
            after = self._judge(opened.licence, memory.installed_at_ns)
            change = Change(self.standing(), after, opened.licence)
            self._refuse_unusable(change)
            self._write("memory.json", memory_bytes(replace(memory, undone_to=opened.digest)))
            self._write("current.dsse.json", opened.envelope.to_json())
            (self._directory / "previous.dsse.json").unlink()
            return change

    def kept(self, licence_id: str) -> Licence | None:
        """A licence that was installed here once, verified; None where it is not kept or trusted any more."""
        data = self._read(_kept_name(licence_id)) if _LICENCE_ID.fullmatch(licence_id) else b""
        try:
            return open_licence(data, self.trust.keyring()).licence if data else None
        except LotaBotsError:
            return None

    def components(self) -> dict[str, str]:
        """This machine's fingerprint components as they are now."""
        return dict(self._components())

    def highest_sequence(self) -> int:
        """The highest sequence of a licence that was ever installed; 0: none. Raises KEYRING_INVALID."""
        return self._memory_with_current().newest(self.trust.keyring().revoked).sequence

    def raise_floor(self, *moments_ns: int) -> None:
        """Note that it is at least this late: the clock now, and moments such as the last ledger row's."""
        with self._lock:
            self._floor_ns = max(self._floor_ns, self._clock.wall_ns(), *moments_ns)
            if self._floor_ns - self._written_floor_ns >= FLOOR_STEP_NS:
                self._write("clock.json", floor_bytes(self._floor_ns))
                self._written_floor_ns = self._floor_ns

    def _duty(self, licence: Licence | None, installed_ns: int) -> Duty:
        if self._reported_ns is None:
            return NO_DUTY
        moment_ns = max(self._clock.wall_ns(), self._floor(licence))
        return duty_of(licence, installed_ns, self._reported_ns(), moment_ns)

    def _judge(self, licence: Licence | None, installed_ns: int) -> Standing:
        bound = licence.fingerprint if licence else None
        built_at = self._anchors.built_at
        revoked = self.trust.revoked(licence.licence_id) if licence else None
        return judge(
            licence,
            self._clock.wall_ns(),
            self._floor(licence),
            development=self._anchors.development,
            here=bound is None or matches(bound, self._components()),
            released_on=built_at.date() if built_at else None,
            duty=self._duty(licence, installed_ns),
            revoked=f"{revoked.reason}, on {rfc3339(revoked.revoked_at)}" if revoked else None,
        )

    def _floor(self, licence: Licence | None) -> int:
        """It is at least as late as all of these say."""
        known = [self._anchors.built_at, licence.issued_at if licence else None]
        return max([self._floor_ns, *(to_ns(moment) for moment in known if moment)])

    def _now_ns(self) -> int:
        return max(self._clock.wall_ns(), self._floor_ns)

    def _opened(self, name: str) -> Opened | None:
        data = self._read(name)
        if not data:
            return None
        keyring = self.trust.keyring()
        opened = open_licence(data, keyring)
        memory = self._memory()
        older = opened.licence.sequence < memory.newest(keyring.revoked).sequence
        if name == "current.dsse.json" and older and opened.digest != memory.undone_to:
            raise LotaBotsError(
                Code.LICENCE_ROLLBACK, "the installed file is older than one installed before"
            )
        return opened

    def _refuse_unusable(self, change: Change) -> None:
        code = _REFUSED.get(change.after.code)
        if code is not None:
            effect, name = change.after.effect, change.licence.licence_id
            said = effect.startswith(CATALOGUE[code].message)  # once is enough
            raise LotaBotsError(code, name if said else f"{name}: {effect}")

    def _refuse_older(self, opened: Opened) -> None:
        newest = self._memory_with_current().newest(self.trust.keyring().revoked)
        sequence = opened.licence.sequence
        if sequence < newest.sequence:
            raise LotaBotsError(
                Code.LICENCE_ROLLBACK, f"sequence {sequence} is below {newest.sequence}, the highest seen"
            )
        if sequence == newest.sequence and opened.digest != newest.digest:
            raise LotaBotsError(
                Code.LICENCE_ROLLBACK,
                f"sequence {sequence} was used by another licence",
                hint="ask the vendor for a licence with a new sequence",
            )

    def _keep(self, opened: Opened) -> None:
        memory = self._memory_with_current()
        replaced = self._usable_current()
        if replaced is not None and replaced.digest != opened.digest:
            self._write("previous.dsse.json", replaced.envelope.to_json())
        self._write(_kept_name(opened.licence.licence_id), opened.envelope.to_json())
        self._forget_oldest()
        self._write("current.dsse.json", opened.envelope.to_json())
        self._write(
            "memory.json", memory_bytes(memory.with_licence(opened.signer, _seen(opened), self._now_ns()))
        )

    def _forget_oldest(self) -> None:
        """Keep the last licences that were installed: past months are reckoned under theirs."""
        kept = sorted(self._directory.glob(_kept_name("lic_*")), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[:-LICENCES_KEPT]:
            path.unlink(missing_ok=True)

    def _usable_current(self) -> Opened | None:
        """The installed licence; none where it cannot be used, which is not worth an undo either."""
        try:
            return self._opened("current.dsse.json")
        except LotaBotsError:
            return None

    def _memory_with_current(self) -> Memory:
        """The memory, with the installed licence even if a crash kept it from being remembered."""
        memory, current = self._memory(), self._usable_current()
        if current is None:
            return memory
        return memory.with_licence(current.signer, _seen(current), self._now_ns())

    def _memory(self) -> Memory:
        return parse_memory(self._read("memory.json"))

    def _read(self, name: str) -> bytes:
        """A file of the directory; empty where it is not there."""
        path = self._directory / name
        return read_bounded(path, 2 * MAX_ENVELOPE_BYTES) if path.exists() else b""

    def _write(self, name: str, data: bytes) -> None:
        write_atomically(self._directory / name, data, mode=0o600)


def _seen(opened: Opened) -> Seen:
    return Seen(opened.licence.sequence, opened.digest)


def _kept_name(licence_id: str) -> str:
    return f"licence-{licence_id}.dsse.json"
