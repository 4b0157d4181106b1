"""GPUs: how each is, what its parts are, and what to do about one that is not well."""

from __future__ import annotations

from typing import Any

import click

from lotabotsd.cli.session import Session, json_option, pass_session, show
from lotabotsd.cli.tables import Cell, printable, table

NAME_COLUMNS = 20
UUID_COLUMNS = 12  # "GPU-" and the first eight digits, as nvidia-smi takes them
HEADINGS = ("GPU", "NAME", "UUID", "MEMORY", "UTIL", "TEMP", "POWER", "HEALTH")


@click.group()
def gpu() -> None:
    """GPUs."""


@gpu.command("list")
@json_option
@pass_session
def list_gpus(session: Session, as_json: bool) -> None:
    """List the GPUs with their parts (MIG) and their health."""
    show(session.client.get("gpus"), gpus_text, as_json=as_json)


def gpus_text(found: dict[str, Any]) -> str:
    """The table of GPUs; below it why one is not well, and what to do."""
    lines = [gpus_table(found)]
    for item in found["items"]:
        if item["health"] != "healthy":
            lines.append(f"GPU {item['index']}, {item['health']}: {printable(item['detail'])}")
            lines.append(f"    fix: {printable(item['hint'])}")
    return "\n".join(lines)


def gpus_table(found: dict[str, Any]) -> str:
    """A line for each GPU and each of its parts, at most 96 columns wide."""
    rows = [row for item in found["items"] for row in _rows(item)]
    return table(HEADINGS, rows, empty=f"none: {printable(found['detail'])}")


def _rows(item: dict[str, Any]) -> list[tuple[Cell, ...]]:
    """The row of one GPU, and below it those of its parts: `0.7` is GPU instance 7 of GPU 0."""
    whole = (
        str(item["index"]),
        _short(item["name"].removeprefix("NVIDIA "), NAME_COLUMNS),
        item["uuid"][:UUID_COLUMNS],
        _memory(item),
        _of(item["utilisation_percent"], "%"),
        _of(item["temperature_celsius"], "°C"),
        _power(item["power_watts"], item["power_limit_watts"]),
        item["health"],
    )
    parts = [
        (
            f"{item['index']}.{part['gpu_instance']}"
            + (f".{part['compute_instance']}" if part["compute_instance"] else ""),
            f"MIG {part['profile']}",
            part["uuid"][:UUID_COLUMNS],
            _memory(part),
            "",
            "",
            "",
            "",
        )
        for part in item["mig_devices"]
    ]
    return [whole, *parts]


def _memory(item: dict[str, Any]) -> str | None:
    used, total = item["memory_used_mib"], item["memory_total_mib"]
    if used is None or total is None:
        return None
    return f"{used / 1_024:.1f}/{total / 1_024:.1f} GiB"


def _power(now: float | None, limit: float | None) -> str | None:
    if now is None:
        return None
    return f"{now:.0f} W" if limit is None else f"{now:.0f}/{limit:.0f} W"


def _of(value: int | float | None, unit: str) -> str | None:
    return None if value is None else f"{value:g} {unit}"


def _short(text: str, columns: int) -> str:
    return text if len(text) <= columns else f"{text[: columns - 1]}…"
