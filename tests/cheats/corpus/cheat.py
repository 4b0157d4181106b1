"""What one cheat is: who, what, why, and how it ends. The function below each entry carries it out. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from lotabotsd.foundation.errors import Code, LotaBotsError

if TYPE_CHECKING:
    from .world import World


class Who(StrEnum):
    """Who cheats."""

    CUSTOMER = "customer"  # root on the machine
    THIEF = "thief"  # has an issuing key of the vendor's
    CLERK = "clerk"  # the vendor's
    MAIL = "mail"  # somebody between the two


class Side(StrEnum):
    """Who refuses or finds it."""

    APPLIANCE = "appliance"
    VENDOR = "vendor"
    READER = "reader"  # of a token or a receipt, with the offline verifier


GOT_THROUGH = ""  # the answer of a cheat that nobody refused or found
Attempt = Callable[["World"], str]


@dataclass(frozen=True, slots=True)
class Cheat:
    """One entry of the catalogue. `run` carries it out and gives the code that met it."""

    name: str
    what: str
    who: Who
    gain: str  # what the cheat hopes for
    answer: str  # code of the refusal or of the finding; GOT_THROUGH for what is not found
    by: Side | None  # None: nobody
    refused: bool  # else it is found afterwards
    run: Attempt
    bound: str = ""  # of what is not found: how far it goes


def refused(who: Who, gain: str, code: Code | str, by: Side) -> Callable[[Attempt], Cheat]:
    """An entry for what does not happen at all: the document, command or statement is refused with a code."""
    return lambda run: _entry(run, who, gain, str(code), by, refused=True)


def found(who: Who, gain: str, code: str, by: Side) -> Callable[[Attempt], Cheat]:
    """An entry for what happens and is told afterwards, by a finding, a fault or a state."""
    return lambda run: _entry(run, who, gain, str(code), by, refused=False)


def not_found(who: Who, gain: str, bound: str) -> Callable[[Attempt], Cheat]:
    """An entry for what nobody can find; its function proves that, and that the bound holds."""
    return lambda run: _entry(run, who, gain, GOT_THROUGH, None, refused=False, bound=bound)


def code_of(call: Callable[[], Any]) -> str:
    """The code with which a call is refused; GOT_THROUGH where it is not."""
    try:
        call()
    except LotaBotsError as error:
        return error.code.value
    return GOT_THROUGH


def _entry(
    run: Attempt, who: Who, gain: str, answer: str, by: Side | None, *, refused: bool, bound: str = ""
) -> Cheat:
    name = getattr(run, "__name__", "").replace("_", " ")
    return Cheat(name, inspect.getdoc(run) or "", who, gain, answer, by, refused, run, bound)


def entries(module: dict[str, Any]) -> tuple[Cheat, ...]:
    """The entries of a module, in their order in its text; give it `globals()`."""
    return tuple(value for value in module.values() if isinstance(value, Cheat))
