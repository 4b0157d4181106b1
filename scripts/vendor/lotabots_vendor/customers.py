"""Customers by name: one spelling each. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from lotabotsd.foundation.errors import Code, LotaBotsError


def folded(name: str) -> str:
    """A name without what people write differently: case, white space, forms of a character (NFKC)."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def admit(name: str, known: Sequence[str], *, as_new: bool) -> None:
    """Let a name through that is known or new; `as_new`: somebody says that it is another customer's.

    Raises CONFLICT for another spelling of a known name, ALREADY_EXISTS for a known name that is called new.
    """
    if name in known:
        if as_new:
            raise LotaBotsError(
                Code.ALREADY_EXISTS,
                f"the customer {name!r}",
                hint="leave --new-customer out, or write the other one's name differently",
            )
        return
    alike = [other for other in known if folded(other) == folded(name)]
    if alike and not as_new:
        raise LotaBotsError(
            Code.CONFLICT,
            f"{name!r} is {alike[0]!r} in another spelling",
            hint=f"write --customer '{alike[0]}'; if it is another customer, add --new-customer",
        )


def known_as(name: str, known: Sequence[str]) -> str:
    """The customer that is meant, whose name may be written otherwise.

    Raises NOT_FOUND, and CONFLICT where several are spelled like it and none is it.
    """
    if name in known:
        return name
    alike = [other for other in known if folded(other) == folded(name)]
    if not alike:
        raise LotaBotsError(
            Code.NOT_FOUND, f"the customer {name!r}", hint="see them: lotabots-vendor customer list --dir DIR"
        )
    if len(alike) > 1:
        raise LotaBotsError(
            Code.CONFLICT,
            f"{name!r} may be {' or '.join(map(repr, alike))}",
            hint="write the name exactly so",
        )
    return alike[0]
