"""`request show`: what an appliance says of itself when it asks for a licence."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lotabotsd.foundation.clock import rfc3339
from lotabotsd.foundation.envelope import MAX_ENVELOPE_BYTES
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded
from lotabotsd.licence.activation import ActivationRequest, OpenedRequest, open_request
from lotabotsd.licence.claims import Fingerprint, Match

from .desk import Desk, pairs
from .records import Seat

OPERATOR = "operator"


@click.group()
def request() -> None:
    """Activation requests: a licence for one machine."""


@request.command("show", short_help="Check the request in FILE (or -) and show it.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.pass_obj
def show(desk: Desk, file: Path) -> None:
    """Check the request in FILE (or - for standard input) and show what it says.

    Its signature only proves that whoever made it holds the appliance's key: let the customer read the code
    to you. The answer is a licence: licence issue --request FILE.
    """
    opened = _open(file)
    asked = opened.request
    facts = {
        "code": opened.short_code,
        "appliance": asked.appliance_id,
        "appliance_key": asked.key_id,
        "requested_at": rfc3339(asked.requested_at),
        "release": asked.release,
        "components": dict(asked.components),
        "gpus": asked.gpus,
        "licence": asked.licence_id or None,
        "sequence": asked.sequence,
        "note": asked.note or None,
        "digest": opened.digest,
    }
    shown = {**facts, "components": ", ".join(asked.components), "licence": asked.licence_id or "-"}
    desk.answer(facts, pairs([(name.replace("_", " "), value or "-") for name, value in shown.items()]))


def read_request(file: Path) -> ActivationRequest:
    """A request whose signature is good. Raises as `open_request`, and FILE_UNREADABLE."""
    return _open(file).request


def bound_to(request: ActivationRequest, also: Fingerprint | None, match: Match) -> Fingerprint:
    """The fingerprint of a licence that answers a request. Raises CONFLICT.

    The operator's value is bound by itself or not at all: it is there for machines whose other components
    come and go.
    """
    if also is not None:
        raise LotaBotsError(Code.CONFLICT, "--request or --bind?", hint="give one of the two")
    components = dict(request.components)
    operator = components.pop(OPERATOR, None)
    if match is Match.OPERATOR:
        if operator is None:
            raise LotaBotsError(
                Code.CONFLICT,
                "the request has no operator's value",
                hint="set licence.operator_fingerprint on the appliance, then make a new request",
            )
        components = {OPERATOR: operator}
    if not components:
        raise LotaBotsError(
            Code.CONFLICT, "the request has the operator's value alone", hint="give --match operator"
        )
    return Fingerprint(tuple(sorted(components.items())), match)


def warn_of_few_parts(bound: Fingerprint) -> None:
    """Say on standard error that "most of the parts" is a hard or an easy condition, with so few of them."""
    number = len(bound.components)
    if bound.match is not Match.MOST or number > 2:
        return
    names = " and ".join(name for name, _ in bound.components)
    what = (
        "both must stay the same"
        if number == 2
        else "it must stay the same, and a copied disk may have it too"
    )
    parts = "2 parts" if number == 2 else "1 part"
    click.echo(f"warning: the request names {parts}, {names}: {what}", err=True)


def refuse_another_machine(asking: Seat, known: Seat | None, *, known_otherwise: bool) -> None:
    """Whether the appliance that asks is the one that is known by its name. Raises CONFLICT.

    Another key, or other parts for the most, is a machine that was moved or set up anew, or a copy of its
    disk: a person has to know which (`known_otherwise`).
    """
    if known is None or known_otherwise:
        return
    before, now = known.fingerprint or {}, asking.fingerprint or {}
    same = sum(now.get(name) == value for name, value in before.items())
    if known.key_id not in (None, asking.key_id):
        what = "with another key than the one that signs its reports"
    elif before and 2 * same <= len(before):
        what = f"from another machine: {len(before) - same} of {len(before)} parts are others"
    else:
        return
    raise LotaBotsError(
        Code.CONFLICT,
        f"{asking.appliance_id} asks {what}",
        hint="ask the customer whether it was moved, set up anew or copied; if all is well: --other-machine",
    )


def _open(file: Path) -> OpenedRequest:
    if str(file) == "-":
        return open_request(sys.stdin.buffer.read(MAX_ENVELOPE_BYTES + 1))
    return open_request(read_bounded(file, MAX_ENVELOPE_BYTES))
