"""Read checked fields out of a JSON object and collect every problem found on the way. Pure."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, TypeVar

from .canonical import canonical_json, strict_json
from .clock import parse_rfc3339, rfc3339
from .errors import Code, LotaBotsError
from .identifiers import unb64url
from .keys import thumbprint

MAX_INTEGER = 10**15
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Choice = TypeVar("_Choice", bound=StrEnum)


class Fields:
    """One JSON object that must have exactly the fields asked for.

    A wrong field gives a stand-in value and a problem; `finish` raises when there is any problem, so that
    no stand-in ever leaves the function that reads.
    """

    def __init__(self, value: Any, place: str, problems: list[str]) -> None:
        self._place = place
        self._problems = problems
        self._asked: set[str] = set()
        self._value: dict[str, Any] = value if isinstance(value, dict) else {}
        if not isinstance(value, dict):
            problems.append(f"{place or 'the document'} must be an object")

    @classmethod
    def of_body(cls, body: bytes, code: Code) -> Fields:
        """The fields of a JSON body; duplicate keys, NaN and deep nesting are refused with `code`."""
        try:
            value = strict_json(body, max_depth=16)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise LotaBotsError(code, "what was signed is no JSON") from error
        except ValueError as error:
            raise LotaBotsError(code, str(error)) from error
        return cls(value, "", [])

    def finish(self, code: Code, *also: str) -> None:
        """Raise `code` with all problems, `also` those that the caller found, if there are any."""
        self.close()
        problems = [*self._problems, *also]
        if problems:
            raise LotaBotsError(code, "; ".join(problems), problems=problems)

    def close(self) -> None:
        """Note fields that nobody asked for; a release that does not know a field must not ignore it."""
        unknown = sorted(set(self._value) - self._asked)
        self._problems.extend(f"{self._at(name)} is not known to this release" for name in unknown)

    @property
    def problems(self) -> list[str]:
        """What was wrong so far, here and in the objects inside."""
        return self._problems

    def wrong(self, name: str, why: str) -> None:
        """Note a problem of one field; of a field that is missing, only that."""
        problem = f"{self._at(name)} {why if name in self._value else 'is missing'}"
        if problem not in self._problems:
            self._problems.append(problem)

    def inside(self, name: str) -> Fields:
        """The object in a field; call its `close` when all of its fields are read."""
        return Fields(self._take(name), self._at(name), self._problems)

    def optional_inside(self, name: str) -> Fields | None:
        """The object in a field, or None where it is null."""
        value = self._take(name)
        return None if value is None else Fields(value, self._at(name), self._problems)

    def objects(self, name: str, *, at_most: int) -> list[Fields]:
        """The objects of a list, each to be closed."""
        value = self._take(name)
        if not isinstance(value, list) or len(value) > at_most:
            self.wrong(name, f"must be a list of at most {at_most}")
            return []
        return [Fields(item, f"{self._at(name)}[{i}]", self._problems) for i, item in enumerate(value)]

    def names(self) -> list[str]:
        """The fields that are there, sorted."""
        return sorted(self._value)

    def document(self, name: str, *, at_most_bytes: int) -> bytes:
        """The canonical JSON of an object whose content somebody else checks."""
        value = self._take(name)
        try:
            data = canonical_json(value)
        except ValueError as error:
            self.wrong(name, f"is refused: {error}")
            return b""
        if not isinstance(value, dict) or len(data) > at_most_bytes:
            self.wrong(name, f"must be an object of at most {at_most_bytes} bytes")
        return data

    def optional_document(self, name: str, *, at_most_bytes: int) -> bytes | None:
        """A document, or None where it is null."""
        if self._take(name) is None:
            return None
        return self.document(name, at_most_bytes=at_most_bytes)

    def integer(self, name: str, low: int = 0, high: int = MAX_INTEGER) -> int:
        """A whole number between both bounds, inclusive; 1.0 and true are none."""
        value = self._take(name)
        if type(value) is int and low <= value <= high:
            return value
        self.wrong(name, f"must be a whole number from {low} to {high}")
        return low

    def optional_integer(self, name: str, low: int = 0, high: int = MAX_INTEGER) -> int | None:
        """A whole number, or None where it is null."""
        return None if self._take(name) is None else self.integer(name, low, high)

    def text(self, name: str, pattern: str, what: str) -> str:
        """Text that matches a pattern as a whole."""
        value = self._take(name)
        if isinstance(value, str) and value.isprintable() and re.fullmatch(pattern, value):
            return value
        self.wrong(name, f"must be {what}")
        return ""

    def optional_text(self, name: str, pattern: str, what: str) -> str | None:
        """Text, or None where it is null."""
        return None if self._take(name) is None else self.text(name, pattern, what)

    def texts(self, name: str, pattern: str, what: str, *, at_most: int = 64) -> tuple[str, ...]:
        """A sorted list of different texts that match a pattern."""
        value = self._take(name)
        good = isinstance(value, list) and len(value) <= at_most
        if good and all(isinstance(v, str) and re.fullmatch(pattern, v) for v in value):
            if sorted(set(value)) == value:
                return tuple(value)
            self.wrong(name, "must be sorted, each once")
            return ()
        self.wrong(name, f"must be a list of at most {at_most}, each {what}")
        return ()

    def choice(self, name: str, choices: type[_Choice]) -> _Choice:
        """One value of an enumeration."""
        value = self._take(name)
        if isinstance(value, str) and value in set(choices):
            return choices(value)
        self.wrong(name, f"must be one of {', '.join(choices)}")
        return next(iter(choices))

    def moment(self, name: str) -> datetime:
        """`2026-11-23T04:05:06Z`, in just this spelling."""
        value = self._take(name)
        return self._moment(name, value)

    def optional_moment(self, name: str) -> datetime | None:
        """A moment, or None where it is null."""
        value = self._take(name)
        return None if value is None else self._moment(name, value)

    def optional_day(self, name: str) -> date | None:
        """`2026-11-23`, or None where it is null."""
        value = self._take(name)
        if value is None:
            return None
        try:
            day = date.fromisoformat(value)
            if day.isoformat() == value:
                return day
        except (TypeError, ValueError):
            pass  # told below, as for any other spelling
        self.wrong(name, "must be a day as in 2026-11-23")
        return None

    def public_keys(self, name: str, *, at_most: int) -> dict[str, bytes]:
        """A list of {keyid, public}: the raw keys by their id, which must be their thumbprint."""
        found: dict[str, bytes] = {}
        for entry in self.objects(name, at_most=at_most):
            keyid, raw = entry.key()
            entry.close()
            if keyid in found:
                self.wrong(name, f"names the key {keyid} twice")
            found[keyid] = raw
        return found

    def key(self) -> tuple[str, bytes]:
        """The fields keyid and public of this object: 32 raw bytes whose thumbprint is the id."""
        keyid = self.text("keyid", r"[A-Za-z0-9_-]{43}", "a thumbprint of 43 characters")
        text = self.text("public", r"[A-Za-z0-9_-]{43}", "32 bytes in base64url")
        try:
            raw = unb64url(text)
        except ValueError as error:
            self.wrong("public", f"is {error}")
            raw = b""
        if thumbprint(raw) != keyid:
            self.wrong("keyid", "is not the thumbprint of public")
        return keyid, raw

    def _moment(self, name: str, value: Any) -> datetime:
        try:
            moment = parse_rfc3339(value)
            if rfc3339(moment) == value and 2000 <= moment.year <= 2200:  # 64 bits of nanoseconds end in 2262
                return moment
        except (TypeError, ValueError):
            pass  # told below, as for any other spelling
        self.wrong(name, "must be a moment as in 2026-11-23T04:05:06Z")
        return _EPOCH

    def _take(self, name: str) -> Any:
        self._asked.add(name)
        if name not in self._value:
            self.wrong(name, "is missing")
        return self._value.get(name)

    def _at(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name
