"""How the appliance is: one screen, and what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lotabotsd.cli.session import Session, json_option, pass_session, show
from lotabotsd.cli.tables import (
    Cell,
    duration_text,
    grouped,
    limit_text,
    moment_text,
    pairs,
    printable,
    table,
)
from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.foundation.errors import Exit, LotaBotsError
from lotabotsd.foundation.files import write_atomically

from .gpus import gpus_table

_COLOURS = {"error": "red", "warning": "yellow", "ok": "green"}


@click.command()
@json_option
@pass_session
def status(session: Session, as_json: bool) -> None:
    """Show how everything is, on one screen."""
    show(session.client.get("status"), status_text, as_json=as_json)


@click.command()
@json_option
@pass_session
def doctor(session: Session, as_json: bool) -> int:
    """Name what is wrong and its fix. Exit 0: nothing, 4: warnings only, 3: something does not work."""
    try:
        findings = session.client.get("status")["warnings"]
    except LotaBotsError as error:
        findings = [
            {"code": error.code.value, "severity": "error", "message": str(error), "hint": error.hint}
        ]
    show({"findings": findings}, lambda found: findings_text(found["findings"]), as_json=as_json)
    return exit_of(findings)


@click.command()
@json_option
@pass_session
def logs(session: Session, as_json: bool) -> None:
    """Show the last lines that the inference server wrote."""
    show(session.client.get("runtime", "lines")["items"], _lines, as_json=as_json)


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write FILE whole instead of printing, for node_exporter's textfile collector.",
)
@pass_session
def metrics(session: Session, output: Path | None) -> None:
    """Print the metrics as Prometheus reads them.

    The daemon takes nothing from the network, so Prometheus does not scrape it: run this every 15 seconds
    with --output /var/lib/prometheus/node-exporter/lotabots.prom. The time of that file, which
    node_exporter tells as node_textfile_mtime_seconds, says whether lotabotsd still answers.
    """
    text = session.client.get_bytes("metrics")
    if output is None:
        click.echo(text.decode(), nl=False)
    else:
        write_atomically(output, text, mode=0o644)


def exit_of(findings: Sequence[dict[str, Any]]) -> int:
    """The exit code that findings deserve."""
    if any(finding["severity"] == "error" for finding in findings):
        return Exit.CHECK_FAILED
    warned = any(finding["severity"] == "warning" for finding in findings)
    return Exit.WARNINGS if warned else Exit.OK


def findings_text(findings: Sequence[dict[str, Any]]) -> str:
    """Each finding with its fix below it."""
    if not findings:
        return _coloured("ok", "nothing is wrong")
    lines = []
    for finding in findings:
        lines.append(
            _coloured(finding["severity"], f"{finding['severity']}: {printable(finding['message'])}")
        )
        if finding["hint"]:
            lines.append(f"    fix: {printable(finding['hint'])}")
    return "\n".join(lines)


def status_text(value: dict[str, Any]) -> str:
    """The status value as one screen."""
    sections = [
        _appliance(value),
        _section("Licence", _licence(value)),
        _section("Models", _models(value["models"])),
        _section("GPUs", _indented(gpus_table(value["gpus"]))),
        _section("Gate", _gate(value["gate"])),
        _section("Usage", _usage(value)),
    ]
    if value["warnings"]:
        sections.append(_section("Findings", _indented(findings_text(value["warnings"]))))
    return "\n\n".join(sections)


def _appliance(value: dict[str, Any]) -> str:
    appliance, runtime = value["appliance"], value["runtime"]
    up = duration_text(appliance["now_ns"] - appliance["started_at_ns"])
    runtime_words = f"{runtime['state']} ({runtime['kind']}"
    runtime_words += f", Triton {runtime['version']})" if runtime["version"] else ")"
    entries: list[tuple[str, Cell]] = [
        ("appliance", f"{appliance['name']}  {appliance['id']}"),
        ("lotabotsd", f"{appliance['version']}, up {up}"),
        ("runtime", runtime_words),
    ]
    if runtime["detail"]:
        entries.append(("", runtime["detail"]))
    return pairs(entries)


def _licence(value: dict[str, Any]) -> str:
    standing = value["licence"]
    words = f"{standing['state']}, tier {standing['tier']}"
    if standing["customer"]:
        words += f", {standing['customer']}"
    if standing["development"]:
        words += ", development"
    entries: list[tuple[str, Cell]] = [("state", words), ("effect", standing["effect"])]
    if standing["expires_at_ns"]:
        entries.append(("expires", moment_text(standing["expires_at_ns"])))
    return pairs(entries, indent=2)


def _models(models: list[dict[str, Any]]) -> str:
    rows = [
        (
            item["name"],
            ", ".join(item["versions"]),
            "ready" if item["ready"] else "not ready",
            item["detail"],
        )
        for item in models
    ]
    return _indented(table(("MODEL", "VERSIONS", "STATE", "DETAIL"), rows, empty="none enabled"))


def _gate(gate: dict[str, Any]) -> str:
    rows = [
        (
            str(item["worker"]),
            str(item["pid"] or "-"),
            item["state"],
            "yes" if item["applied_generation"] >= gate["generation"] else "not yet",
        )
        for item in gate["workers"]
    ]
    heading = pairs([("address", gate["listen"]), ("policy", f"generation {gate['generation']}")])
    return _indented(f"{heading}\n{table(('WORKER', 'PROCESS', 'STATE', 'APPLIED'), rows)}")


def _usage(value: dict[str, Any]) -> str:
    usage, ledger, report = value["usage"], value["ledger"], value["report"]
    month = usage["month"]
    quota = limit_text(month["quota"])
    if month["quota"] and not month["quota_hard"]:
        quota += " included"
    entries: list[tuple[str, Cell]] = [
        ("today", f"{grouped(usage['today']['inferences'])} inferences"),
        ("this month", f"{grouped(month['inferences'])} inferences of {quota}"),
        ("ledger", f"{ledger['state']}, {grouped(ledger['rows'])} rows"),
        ("verified", moment_text(ledger["verified_at_ns"])),
        ("sealed until", moment_text(ledger["sealed_until_ns"])),
        ("last report", _last_report(report["last"])),
        ("next report", moment_text(report["next_at_ns"])),
    ]
    duty = report["duty"]
    if duty["state"] != "none":
        words = duty["state"].replace("_", " ")
        entries.append(("acknowledgement", f"{words}, due {moment_text(duty['due_at_ns'])}"))
    return pairs(entries, indent=2)


def _last_report(last: dict[str, Any] | None) -> str:
    if last is None:
        return "none yet"
    return f"{last['name']}, until {moment_text(last['until'] * NANOSECONDS)}"


def _lines(lines: list[str]) -> str:
    return "\n".join(printable(line) for line in lines) or "(it wrote nothing)"


def _section(title: str, text: str) -> str:
    return f"{title}\n{text}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _coloured(severity: str, text: str) -> str:
    """Colour for a terminal; click takes it out again everywhere else."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=_COLOURS.get(severity))
