"""`rate-card sign | show`: write the vendor's prices, and read them back."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lotabotsd.foundation.clock import rfc3339
from lotabotsd.foundation.envelope import armour
from lotabotsd.foundation.files import write_atomically
from lotabotsd.licence.keyring import Use
from lotabotsd.usage.bill_lines import plain
from lotabotsd.usage.rate_card import Basis, Component, RateCard, parse_rate_card

from .authority import development_authority, existing, newest_keyring
from .card_file import open_rate_card, read_rate_card
from .desk import Desk, pairs
from .keyring_command import refuse_existing
from .licence_command import (
    authority_of,
    development_option,
    directory_option,
    issuing_key_option,
    one_of_both,
)
from .passphrase import Passphrases, passphrase_option


@click.group("rate-card")
def rate_card() -> None:
    """Rate cards: what usage costs."""


@rate_card.command("sign", short_help="Check the rate card in FILE (JSON) and sign it.")
@directory_option
@development_option
@passphrase_option
@issuing_key_option
@click.option("--output", type=click.Path(path_type=Path), help="New file.  [default: standard output]")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def sign(
    desk: Desk,
    directory: Path | None,
    development: bool,
    passphrases: Passphrases,
    issuing_key: str | None,
    output: Path | None,
    file: Path,
) -> None:
    """Check the rate card in FILE (JSON) and sign it; every problem is named at once."""
    body = read_rate_card(file)
    refuse_existing(output)
    authority = authority_of(directory, development, passphrases, issuing_key, Use.RATE_CARD, desk.now())
    text = armour(authority.sign_rate_card(body, desk.now()))
    card = parse_rate_card(body)
    if output is not None:
        write_atomically(output, text.encode(), mode=0o640)
    elif not desk.as_json:
        click.echo(text, nl=not text.endswith("\n"))
        return
    facts = {
        "card": json.loads(body),
        "digest": card.digest,
        "file": str(output) if output else None,
        "text": None if output else text,
    }
    desk.answer(facts, _lines(card))


@rate_card.command("show")
@directory_option
@development_option
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def show(desk: Desk, directory: Path | None, development: bool, file: Path) -> None:
    """Verify the signed rate card in FILE and show its prices."""
    if development == (directory is not None):
        raise one_of_both()
    keyring = newest_keyring(existing(directory)) if directory else development_authority().keyring
    card, body = open_rate_card(file, keyring)
    desk.answer({"card": json.loads(body), "digest": card.digest}, _lines(card))


def _lines(card: RateCard) -> list[str]:
    entries: list[tuple[str, object]] = [
        ("rate card", card.card_id),
        ("digest", card.digest),
        ("currency", f"{card.currency}, {card.decimal_places} decimal places, {card.rounding}"),
        ("from", rfc3339(card.valid_from)),
        ("until", rfc3339(card.valid_until) if card.valid_until else "open"),
        ("minimum", f"{plain(card.minimum)} a month" if card.minimum else "none"),
        ("discounts", ", ".join(f"{tier} {plain(p)} %" for tier, p in card.discounts) or "none"),
    ]
    return pairs([*entries, *((component.id, _price(component)) for component in card.components)])


def _price(component: Component) -> str:
    what = f"{component.meter}{'' if component.per == 1 else f' per {component.per}'}"
    beyond = "what the licence includes" if component.basis is Basis.OVERAGE else f"{component.free} free"
    steps = ", ".join(
        f"{plain(step.amount)}" + (f" up to {step.up_to}" if step.up_to else "") for step in component.steps
    )
    models = f" of {', '.join(component.models)}" if component.models else ""
    return f"{steps} for {what}{models}, beyond {beyond}"
