"""Models: what the inference server has live."""

from __future__ import annotations

from typing import Any

import click

from lotabotsd.cli.session import Session, json_option, pass_session, show
from lotabotsd.cli.tables import Cell, pairs, table


@click.group()
def model() -> None:
    """Models: what the inference server has live."""


@model.command("list")
@json_option
@pass_session
def list_models(session: Session, as_json: bool) -> None:
    """List the enabled models and whether they are ready."""
    show(session.client.all_items("models"), models_text, as_json=as_json)


@model.command("show")
@click.argument("name")
@json_option
@pass_session
def show_model(session: Session, name: str, as_json: bool) -> None:
    """Show the tensors, labels and digest of the model NAME."""
    show(session.client.get("models", name), _model, as_json=as_json)


def models_text(items: list[dict[str, Any]]) -> str:
    """The table of models."""
    rows = [
        (
            item["name"],
            ", ".join(item["versions"]),
            "ready" if item["ready"] else "not ready",
            "yes" if item["predict"] else "no",
            item["digest"][:16],
            item["detail"],
        )
        for item in items
    ]
    return table(("MODEL", "VERSIONS", "STATE", "PREDICT", "DIGEST", "DETAIL"), rows, empty="no models")


def _model(item: dict[str, Any]) -> str:
    entries: list[tuple[str, Cell]] = [
        ("model", item["name"]),
        ("versions", ", ".join(item["versions"])),
        ("state", "ready" if item["ready"] else "not ready"),
        ("detail", item["detail"]),
        ("digest", item["digest"]),
        ("max batch size", item["max_batch_size"]),
    ]
    entries += [("input", _tensor(each)) for each in item["inputs"]]
    entries += [("output", _tensor(each)) for each in item["outputs"]]
    if item["labels"]:
        entries.append(("labels", _some(item["labels"])))
    if item["predict"]:
        spec = item["predict"]
        entries.append(
            ("predict", f"image {spec['width']}x{spec['height']} {spec['mode']}, {spec['resize']}")
        )
    return pairs(entries)


def _tensor(tensor: dict[str, Any]) -> str:
    return f"{tensor['name']} {tensor['datatype']} {tensor['dims']}"


def _some(labels: list[str]) -> str:
    shown = ", ".join(labels[:8])
    return shown if len(labels) <= 8 else f"{shown}, … ({len(labels)})"
