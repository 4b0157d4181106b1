"""Failures as exceptions and as JSON problems, both told from the one catalogue. Pure."""

from __future__ import annotations

from typing import Any

from .catalogue import CATALOGUE
from .codes import Code, Exit

__all__ = ["Code", "Exit", "LotaBotsError", "problem"]


class LotaBotsError(Exception):
    """A failure from the catalogue. `detail` says what exactly; `hint` replaces its next step."""

    def __init__(self, code: Code, detail: str = "", *, hint: str | None = None, **extra: Any) -> None:
        entry = CATALOGUE[code]
        self.code = code
        self.detail = detail
        self.hint = hint if hint is not None else entry.hint
        self.extra = extra
        super().__init__(f"{entry.message}: {detail}" if detail else entry.message)

    @property
    def http_status(self) -> int:
        """The status for this code in the one table."""
        return CATALOGUE[self.code].http_status

    @property
    def exit_code(self) -> Exit:
        """The exit code for this code in the one table."""
        return CATALOGUE[self.code].exit_code

    def problem(self, instance: str = "") -> dict[str, Any]:
        """The JSON problem of this failure."""
        return problem(self.code, self.detail, hint=self.hint, instance=instance, **self.extra)


def problem(
    code: Code, detail: str = "", *, hint: str | None = None, instance: str = "", **extra: Any
) -> dict[str, Any]:
    """The one JSON shape of every error (RFC 9457, plus `code` and `hint`; `instance` is the request id)."""
    entry = CATALOGUE[code]
    shape: dict[str, Any] = {
        "type": f"urn:lotabots:error:{code.value}",
        "title": entry.message,
        "status": entry.http_status,
        "code": code.value,
        "detail": detail or entry.message,
        "hint": hint if hint is not None else entry.hint,
    }
    if instance:
        shape["instance"] = f"urn:lotabots:request:{instance}"
    shape.update(extra)
    return shape
