"""The status value: one picture of the whole appliance, the same for status, doctor and the console."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import Any

from lotabotsd import __version__
from lotabotsd.foundation.clock import NANOSECONDS, from_ns, month_window
from lotabotsd.models.facts import ModelFacts
from lotabotsd.runtime.seen import Seen, SeenModel
from lotabotsd.usage.acknowledgement import AckVerdict

from .appliance import Appliance
from .findings import findings_of
from .models import EnabledModel
from .publishing import SILENT_NS
from .timetable import next_alarm

DAY = 86_400
ACCEPTED = frozenset(set(AckVerdict) - {AckVerdict.REJECTED})
_UNKNOWN = SeenModel(name="", status="absent", digest="", refused="", reason="", next_step="")


def status_of(appliance: Appliance) -> dict[str, Any]:
    """Look at everything; takes some milliseconds. Raises what a damaged ledger raises."""
    status: dict[str, Any] = {
        "appliance": _appliance(appliance),
        "licence": appliance.licence.standing().to_dict(),
        "runtime": _runtime(appliance),
        "models": models_of(appliance),
        "gpus": appliance.gpus.value(),
        "gate": _gate(appliance),
        "usage": _usage(appliance),
        "ledger": _ledger(appliance),
        "report": _report(appliance),
        "loops": _loops(appliance),
    }
    return {**status, "warnings": findings_of(status)}


def models_of(appliance: Appliance) -> list[dict[str, Any]]:
    """The enabled models with their facts, by the order of the configuration."""
    seen = appliance.supervisor.seen
    ready = appliance.ready()
    states = {model.name: model for model in seen.models}
    return [model_value(model, states.get(model.name, _UNKNOWN), ready) for model in appliance.models()]


def model_value(model: EnabledModel, state: SeenModel, ready: frozenset[str]) -> dict[str, Any]:
    """One model; `problem` says why it is not in the live repository."""
    facts = model.facts or ModelFacts(model.name, (), "", 0, (), ())
    problem = str(model.problem) if model.problem else ""
    return {
        **replace(facts, ready=model.name in ready).to_dict(),
        "state": state.status,
        "detail": problem or state.reason,
        "problem": problem,
        "hint": model.problem.hint if model.problem else state.next_step,
    }


def _appliance(appliance: Appliance) -> dict[str, Any]:
    return {
        "id": appliance.appliance_id,
        "name": appliance.config.appliance.name,
        "version": __version__,
        "started_at_ns": appliance.started_at_ns,
        "now_ns": appliance.clock.wall_ns(),
        "pid": os.getpid(),
    }


def _runtime(appliance: Appliance) -> dict[str, Any]:
    seen: Seen = appliance.supervisor.seen
    return {
        "kind": appliance.config.runtime.kind,
        "state": seen.state,
        "seconds_in_state": seen.seconds_in_state,
        "pid": seen.pid,
        "version": seen.version,
        "failures": seen.failures,
        "helper_answers": seen.helper_answers,
        "trouble": seen.trouble,
        "detail": seen.problem,
        "next_step": seen.next_step,
        "upgrade": asdict(seen.upgrade) if seen.upgrade is not None else None,
    }


def _gate(appliance: Appliance) -> dict[str, Any]:
    now_ns = appliance.clock.monotonic_ns()
    workers = []
    for number, cell in enumerate(appliance.publishing.cells()[: appliance.workers]):
        age_ns = now_ns - cell.heartbeat_ns
        state = "absent" if not cell.lives else "live" if age_ns <= SILENT_NS else "silent"
        workers.append(
            {
                "worker": number,
                "pid": cell.pid,
                "state": state,
                "heartbeat_age_ms": age_ns // 1_000_000 if cell.pid else None,
                "applied_generation": cell.applied_generation,
            }
        )
    return {
        "listen": appliance.config.gate.listen,
        "generation": appliance.publishing.generation(),
        "workers": workers,
    }


def _usage(appliance: Appliance) -> dict[str, Any]:
    now_ns = appliance.clock.wall_ns()
    today = now_ns // NANOSECONDS // DAY * DAY
    rows = appliance.ledger.usage(today, by=("outcome",))
    standing = appliance.licence.standing()
    window = month_window(now_ns)
    return {
        "today": {
            "requests": sum(row.meters.requests for row in rows),
            "inferences": sum(row.meters.inferences for row in rows if row.charged),
        },
        "month": {
            "window": window,
            "inferences": appliance.ledger.month_usage(window).get(("licence", ""), 0),
            "quota": standing.inferences_per_month,
            "quota_hard": standing.quota_hard,
        },
    }


def _ledger(appliance: Appliance) -> dict[str, Any]:
    room = os.statvfs(appliance.config.paths.state)
    drained = appliance.health.pulses().get("drain")
    looked = appliance.ledger_watch.last
    damage = looked.verdict.integrity.text if looked else ""
    return {
        "state": "damaged" if damage else "behind" if drained and drained.failure else "good",
        "verified_at_ns": looked.at_ns if looked else 0,
        "damage": damage,
        "incomplete": looked.verdict.completeness.text if looked else "",
        "rows": appliance.ledger.head().sequence,
        "purged_rows": appliance.ledger.anchor.head.sequence,
        "sealed_until_ns": appliance.ledger.sealed_until * NANOSECONDS,
        "in_flight": appliance.ledger.in_flight(),
        "findings": len(appliance.ledger.findings()),
        "problems": list(appliance.bookkeeping.problems()),
        "free_bytes": room.f_bavail * room.f_frsize,
        "reserve_bytes": appliance.config.usage.reserve_bytes,
        "reconciliation": appliance.reconciling.value(),
    }


def _report(appliance: Appliance) -> dict[str, Any]:
    written = appliance.reports.written()
    following = next_alarm(appliance.report_rule, from_ns(appliance.clock.wall_ns()))
    accepted = [report for report in written if report["verdict"] in ACCEPTED]
    return {
        "last": written[-1] if written else None,
        "acknowledged": accepted[-1] if accepted else None,
        "rejected": [report["name"] for report in written if report["verdict"] == AckVerdict.REJECTED],
        "duty": appliance.licence.duty().to_dict(),
        "next_at_ns": int(following.timestamp()) * NANOSECONDS if following else 0,
    }


def _loops(appliance: Appliance) -> list[dict[str, Any]]:
    now_ns = appliance.clock.monotonic_ns()
    return [
        {
            "name": pulse.name,
            "succeeded_ns": pulse.succeeded_wall_ns,
            "failures": pulse.failures,
            "failure": str(pulse.failure) if pulse.failure else "",
            "code": pulse.failure.code.value if pulse.failure else "",
            "hint": pulse.failure.hint if pulse.failure else "",
            "stuck_ns": now_ns - pulse.ended_ns if now_ns - pulse.ended_ns > pulse.bound_ns else 0,
        }
        for pulse in appliance.health.pulses().values()
    ]
