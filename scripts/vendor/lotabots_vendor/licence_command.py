"""`licence issue`: write licences from a tier's values, and whose keys sign them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lotabotsd.foundation.envelope import Envelope, armour, one_line, parse_envelope
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import write_atomically
from lotabotsd.foundation.identifiers import new_id
from lotabotsd.licence.activation import ActivationRequest
from lotabotsd.licence.claims import (
    COMPONENT_DIGITS,
    Fingerprint,
    Kind,
    Match,
    Overage,
    Tier,
    parse_licence,
    to_claims,
)
from lotabotsd.licence.keyring import Use
from lotabotsd.usage.rate_card import parse_rate_card

from .authority import Authority, development_authority, existing, is_vendor_directory, open_authority
from .card_file import read_rate_card
from .customers import admit
from .desk import Desk, pairs
from .keyring_command import refuse_existing
from .passphrase import Passphrases, passphrase_option
from .records import Records, Seat
from .request_command import bound_to, read_request, refuse_another_machine, warn_of_few_parts
from .statements import Order, licence_body

directory_option = click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="The vendor's directory, from `root init`."
)
form_option = click.option(
    "--format", "form", type=click.Choice(["armour", "json", "line"]), default="armour", show_default=True
)
output_option = click.option(
    "--output", type=click.Path(path_type=Path), help="New file.  [default: standard output]"
)
development_option = click.option(
    "--development", is_flag=True, help="Use the published development keys; worth nothing in production."
)
issuing_key_option = click.option(
    "--issuing-key",
    metavar="URI",
    help="The key that signs, file:PATH.  [default: the newest in DIR/issuing that may]",
)


@click.group()
def licence() -> None:
    """Licences: what customers pay for."""


@licence.command("issue", short_help="Issue a licence from a tier's values.")
@directory_option
@development_option
@passphrase_option
@issuing_key_option
@click.option("--tier", type=click.Choice([t.value for t in Tier]), required=True)
@click.option("--customer", required=True, help="Whom it is for, as the bill says.")
@click.option(
    "--new-customer", is_flag=True, help="Another customer although the name is known in another spelling."
)
@click.option("--kind", type=click.Choice([k.value for k in Kind]), help="[default: paid, or development]")
@click.option(
    "--days", type=click.IntRange(1, 3660), default=365, show_default=True, help="How long it lasts."
)
@click.option("--starts", type=click.DateTime(["%Y-%m-%d"]), help="First day in UTC.  [default: now]")
@click.option("--grace-days", type=click.IntRange(0, 365), default=14, show_default=True)
@click.option(
    "--terminates-after-days", type=click.IntRange(0, 3660), help="After the grace.  [default: never]"
)
@click.option("--requests-per-minute", type=click.IntRange(0), help="0 is unlimited, here and below.")
@click.option(
    "--inferences-per-month", type=click.IntRange(0), help="Included; the hard limit with --overage none."
)
@click.option(
    "--overage", type=click.Choice([o.value for o in Overage]), help="Beyond the inferences included."
)
@click.option(
    "--ratio-percent", type=click.IntRange(0), default=0, help="With --overage capped: refuse beyond it."
)
@click.option("--gpus", type=click.IntRange(0))
@click.option("--models", type=click.IntRange(0))
@click.option("--organisations", type=click.IntRange(0))
@click.option("--members", type=click.IntRange(0))
@click.option("--priority-band", type=click.IntRange(1, 9))
@click.option("--feature", "features", multiple=True, help="Just these instead of the tier's (repeatable).")
@click.option(
    "--request",
    "request_file",
    type=click.Path(path_type=Path),
    help="Bind it to the machine that made this activation request.",
)
@click.option(
    "--other-machine",
    is_flag=True,
    help="The appliance that asks was moved or set up anew: it is known from another machine.",
)
@click.option("--bind", multiple=True, metavar="COMPONENT=HEX", help="Fingerprint component (repeatable).")
@click.option("--match", type=click.Choice([m.value for m in Match]), default="most", show_default=True)
@click.option("--max-release-date", type=click.DateTime(["%Y-%m-%d"]), help="Last release that it covers.")
@click.option(
    "--rate-card", type=click.Path(path_type=Path), help="Embed this rate card, signed or plain JSON."
)
@click.option("--report-days", type=click.IntRange(1, 366), default=31, show_default=True)
@click.option("--report-grace-days", type=click.IntRange(0, 365), default=14, show_default=True)
@form_option
@output_option
@click.pass_obj
def issue(
    desk: Desk,
    /,
    directory: Path | None,
    development: bool,
    passphrases: Passphrases,
    issuing_key: str | None,
    new_customer: bool,
    form: str,
    output: Path | None,
    request_file: Path | None,
    other_machine: bool,
    **asked: Any,
) -> None:
    """Issue a licence: the tier's values, with those given here in their place."""
    now = desk.now()
    refuse_existing(output)
    authority = authority_of(directory, development, passphrases, issuing_key, Use.LICENCE, now)
    order = _with_card(
        _order(asked, now, Kind.DEVELOPMENT if authority.development else Kind.PAID), asked["rate_card"]
    )
    request = read_request(request_file) if request_file else None
    if request is not None:
        order = replace(order, fingerprint=bound_to(request, order.fingerprint, Match(asked["match"])))
    # Without a directory nothing is counted: milliseconds keep development licences in their order.
    at_least = desk.clock.wall_ns() // 1_000_000 if authority.development else 1
    records = Records(directory)
    try:
        with records.writing():
            admit(order.customer, records.customers(), as_new=new_customer)
            # Above what the appliance has seen, also where these records are an older copy.
            seen = request.sequence if request is not None else 0
            sequence = records.next_sequence(max(at_least, seen + 1))
            body = licence_body(order, licence_id=new_id("lic"), sequence=sequence, issued_at=now)
            envelope = authority.sign_licence(body, now)
            records.add_customer(order.customer, now)
            records.add_licence(parse_licence(body), envelope.to_json())
            if request is not None:
                seat = _seat(request, parse_licence(body).licence_id, desk.clock.wall_ns())
                refuse_another_machine(seat, records.seat(seat.appliance_id), known_otherwise=other_machine)
                records.move_seat(seat)
    finally:
        records.close()
    if request is not None and order.fingerprint is not None:
        warn_of_few_parts(order.fingerprint)
    # Only now, so that no file is out that the books do not know.
    hand_out(desk, envelope, form, output, kept=directory is not None and not development)


def _seat(request: ActivationRequest, licence_id: str, since_ns: int) -> Seat:
    """The seat of an appliance that asked for a licence; its reports come later."""
    return Seat(request.appliance_id, since_ns, request.key_id, licence_id, request.components)


def issued_claims(records: Records, licence_id: str) -> dict[str, Any] | None:
    """The claims of a licence in the vendor's own books."""
    envelope = records.licence(licence_id)
    return to_claims(parse_licence(parse_envelope(envelope).body)) if envelope else None


def authority_of(
    directory: Path | None,
    development: bool,
    passphrases: Passphrases,
    issuing_key: str | None,
    use: Use,
    at: datetime,
) -> Authority:
    """Whose keys sign this kind of document.

    Raises USAGE when that is not said, CONFLICT for development keys with the books of real ones, and as
    `open_authority`.
    """
    if development:
        if directory is not None and is_vendor_directory(directory):
            raise LotaBotsError(
                Code.CONFLICT,
                f"{directory} has keys and books of its own, and development documents do not go into them",
                hint="leave --development out; or give a directory of its own for development",
            )
        if issuing_key is not None:
            raise LotaBotsError(
                Code.USAGE, "--development has a key of its own", hint="leave --issuing-key out"
            )
        return development_authority()
    if directory is None:
        raise one_of_both()
    return open_authority(existing(directory), use, at, passphrases.to_open, issuing_key)


def one_of_both() -> LotaBotsError:
    """What to say when it is not clear whose keys and books are meant."""
    return LotaBotsError(Code.USAGE, "whose keys?", hint="give --dir DIR, or --development")


def _order(asked: dict[str, Any], now: datetime, kind: Kind) -> Order:
    starts: datetime | None = asked["starts"]
    last: datetime | None = asked["max_release_date"]
    return Order(
        tier=Tier(asked["tier"]),
        customer=asked["customer"],
        kind=Kind(asked["kind"]) if asked["kind"] else kind,
        starts_at=starts.replace(tzinfo=UTC) if starts else now,
        days=asked["days"],
        grace_days=asked["grace_days"],
        terminates_after_days=asked["terminates_after_days"],
        report_cadence_days=asked["report_days"],
        report_grace_days=asked["report_grace_days"],
        requests_per_minute=asked["requests_per_minute"],
        gpus=asked["gpus"],
        models=asked["models"],
        organisations=asked["organisations"],
        members=asked["members"],
        priority_band=asked["priority_band"],
        features=asked["features"] or None,
        inferences_per_month=asked["inferences_per_month"],
        overage=Overage(asked["overage"]) if asked["overage"] else None,
        ratio_percent=asked["ratio_percent"],
        fingerprint=_fingerprint(asked["bind"], Match(asked["match"])),
        max_release_date=last.date() if last else None,
    )


def _with_card(order: Order, file: Path | None) -> Order:
    """The order with the rate card of a file. Raises CONFLICT where the two do not fit together."""
    if file is None:
        return order
    body = read_rate_card(file)
    included = order.inferences_per_month if order.overage is not Overage.NONE else None
    if parse_rate_card(body).prices_overage and not included:
        raise LotaBotsError(
            Code.CONFLICT,
            "the rate card prices overage, and the licence includes no number of inferences",
            hint="give --inferences-per-month, and --overage billed or capped",
        )
    return replace(order, rate_card=body)


def _fingerprint(bind: tuple[str, ...], match: Match) -> Fingerprint | None:
    if not bind:
        return None
    pairs_found = [text.partition("=")[::2] for text in bind]
    unknown = [name for name, _ in pairs_found if name not in COMPONENT_DIGITS]
    if unknown:
        known = ", ".join(COMPONENT_DIGITS)
        raise LotaBotsError(Code.VALUE_INVALID, f"--bind {unknown[0]}", hint=f"a component is one of {known}")
    return Fingerprint(tuple(sorted(dict(pairs_found).items())), match)


def spelled(envelope: Envelope, form: str) -> str:
    """A document in one of its three forms."""
    if form == "json":
        return envelope.to_json().decode()
    return armour(envelope) if form == "armour" else one_line(envelope) + "\n"


def hand_out(desk: Desk, envelope: Envelope, form: str, output: Path | None, *, kept: bool) -> None:
    """Write a licence to its new file, or print it. `kept`: it is in books, to be had again.

    Raises FILE_UNWRITABLE, DISK_FULL.
    """
    text = spelled(envelope, form)
    claims = to_claims(parse_licence(envelope.body))
    if output is not None:
        try:
            write_atomically(output, text.encode(), mode=0o640)
        except LotaBotsError as error:
            if not kept:
                raise
            again = f"lotabots-vendor licence show --dir DIR {claims['licence_id']} --output FILE"
            raise LotaBotsError(error.code, error.detail, hint=f"it is in the books: {again}") from error
    elif not desk.as_json:
        click.echo(text, nl=not text.endswith("\n"))
        click.echo(
            f"licence {claims['licence_id']}, sequence {claims['sequence']}, until {claims['expires_at']}",
            err=True,
        )
        return
    facts = {"licence": claims, "file": str(output) if output else None, "text": None if output else text}
    desk.answer(facts, summary(claims, ("file", output)))


def _inferences(included: int, refused: int) -> str:
    beyond = f"refused beyond {refused} a month" if refused else "never refused"
    return f"{included} a month included, {beyond}" if included else beyond


def summary(claims: dict[str, Any], *also: tuple[str, object]) -> list[str]:
    """The claims that people look for, and what else there is to say."""
    limits = claims["limits"]
    inferences = limits["inferences_per_month"]
    shown: list[tuple[str, object]] = [
        ("licence", claims["licence_id"]),
        ("sequence", claims["sequence"]),
        ("customer", claims["customer"]),
        ("tier", f"{claims['tier']} ({claims['kind']})"),
        ("starts", claims["starts_at"]),
        ("expires", f"{claims['expires_at']}, then {claims['grace_days']} days of grace"),
        ("terminates", claims["terminates_at"] or "never"),
        ("requests/min", limits["requests_per_minute"]["hard"] or "unlimited"),
        ("inferences", _inferences(inferences["soft"], inferences["hard"])),
        ("overage", claims["overage"]["mode"]),
        ("GPUs", claims["gpus"] or "unlimited"),
        ("models", claims["models"] or "unlimited"),
        ("rate card", claims["rate_card"]["card_id"] if claims["rate_card"] else "-"),
        ("features", ", ".join(claims["features"]) or "-"),
    ]
    return pairs([*shown, *also])
