"""What is wrong with an appliance, read off its status value: each finding with its fix. Pure.

status, doctor and the console show the same list.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lotabotsd.foundation.catalogue import CATALOGUE
from lotabotsd.foundation.clock import NANOSECONDS, from_ns, rfc3339
from lotabotsd.foundation.codes import Code

Status = dict[str, Any]
Finding = dict[str, str]
NEARLY_SPENT_PERCENT = 80
NOT_COMPARED_SECONDS = 600
_REPORT = (
    "send the vendor the reports that lotabotsctl usage reports shows as not acknowledged, and install what "
    "comes back: lotabotsctl usage acknowledge FILE"
)


def findings_of(status: Status) -> list[Finding]:
    """Errors first, then warnings, then notes."""
    found = [
        *_runtime(status["runtime"]),
        *_models(status["models"]),
        *_licence(status["licence"]),
        *_gate(status["gate"]),
        *_ledger(status["ledger"]),
        *_reconciliation(status["ledger"]["reconciliation"], status),
        *_report(status["report"]),
        *_quota(status["usage"]["month"]),
        *_gpus(status["gpus"]),
        *_loops(status["loops"]),
    ]
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda finding: order[finding["severity"]])


def _finding(severity: str, code: str, message: str, hint: str) -> Finding:
    return {"severity": severity, "code": code, "message": message, "hint": hint}


def _runtime(runtime: Status) -> Iterator[Finding]:
    state, problem = runtime["state"], runtime["detail"]
    fix = runtime["next_step"] or "look at journalctl -u lotabotsd -u lotabots-runtime"
    if not runtime["helper_answers"]:
        yield _finding("error", "helper_unavailable", f"the runtime helper does not answer: {problem}", fix)
    elif runtime["trouble"]:
        severity = "warning" if runtime["trouble"] == "image_loading" else "error"
        yield _finding(severity, runtime["trouble"], problem, fix)
    elif state == "held":
        yield _finding("error", "runtime_unavailable", f"Triton is {state}: {problem}", fix)
    elif state == "backing_off":
        yield _finding("error", "runtime_unavailable", f"Triton failed and is tried again: {problem}", fix)
    elif state in ("stopped", "starting", "loading", "draining"):
        yield _finding("warning", "model_not_ready", f"Triton is {state}", "wait a little, then look again")
    if (upgrade := runtime["upgrade"]) is not None:
        refused = upgrade["kind"] == "refused"
        words = "was refused, the one before serves" if refused else f"has its trial ({upgrade['kind']})"
        why = f": {upgrade['why']}" if upgrade["why"] else ""
        yield _finding(
            "warning" if refused else "note",
            "image_refused" if refused else "image_on_trial",
            f"the image {upgrade['image']} {words}{why}",
            upgrade["next_step"],
        )
    if runtime["kind"] == "embedded":
        yield _finding(
            "note",
            "runtime_embedded",
            "the embedded runtime is for evaluation: an old Triton, without GPU",
            'not for production: set runtime.kind = "container"',
        )


def _models(models: list[Status]) -> Iterator[Finding]:
    for model in models:
        if model["problem"]:
            yield _finding("error", "package_invalid", f"{model['name']}: {model['problem']}", model["hint"])
        elif not model["ready"] and model["state"] not in ("absent", "loaded"):
            message = f"{model['name']} is {model['state']}: {model['detail']}"
            yield _finding("error", "model_not_ready", message, model["hint"])
    if not models:
        hint = "name some in models.enabled, then restart lotabotsd"
        yield _finding("warning", "model_unknown", "no model is enabled", hint)


def _licence(standing: Status) -> Iterator[Finding]:
    severity = {
        "expiring": "warning",
        "grace": "warning",
        "restricted": "error",
        "terminated": "error",
    }.get(standing["state"])
    renew = "install a renewed licence: lotabotsctl licence install FILE"
    again = "copy the file again and install it: lotabotsctl licence install FILE"
    fixes = {"licence_unusable": again, "licence_unreported": _REPORT}
    if severity:
        detail = f" ({standing['detail']})" if standing["detail"] else ""
        fix = fixes.get(standing["code"], renew)
        yield _finding(severity, standing["code"], f"{standing['effect']}{detail}", fix)
    if standing["clock_suspect"]:
        yield _finding(
            "warning",
            "clock_suspect",
            "the clock stands before moments that were already seen",
            "set the clock right (timedatectl); until then expiry is judged by the latest moment seen",
        )
    if standing["development"]:
        yield _finding(
            "note",
            "development",
            "this package trusts the published development keys: nothing here is billed",
            "for production install the vendor's own package",
        )


def _gate(gate: Status) -> Iterator[Finding]:
    live = [worker for worker in gate["workers"] if worker["state"] == "live"]
    start = "start it: systemctl start lotabots-gate"
    if not live:
        yield _finding("error", "gate_unavailable", "no gate worker is running", start)
    elif len(live) < len(gate["workers"]):
        missing = len(gate["workers"]) - len(live)
        yield _finding("warning", "gate_unavailable", f"{missing} gate workers are not running", start)
    late = [worker for worker in live if worker["applied_generation"] < gate["generation"]]
    if late:
        yield _finding(
            "warning",
            "policy_not_applied",
            f"{len(late)} gate workers have not applied the newest policy",
            "they are replaced when silent; look at journalctl -u lotabots-gate",
        )


def _ledger(ledger: Status) -> Iterator[Finding]:
    for problem in ledger["problems"]:
        yield _finding("error", "journal_damaged", problem, "check the disk and the file's permissions")
    if ledger["damage"]:
        yield _finding(
            "error",
            "ledger_damaged",
            f"the usage ledger is damaged, no report can be written: {ledger['damage']}",
            CATALOGUE[Code.LEDGER_DAMAGED].hint,
        )
    if ledger["findings"]:
        yield _finding(
            "warning",
            "ledger_findings",
            f"{ledger['findings']} findings about journals stand in the ledger; they are part of the report",
            "lotabotsctl ledger verify names the first",
        )
    elif ledger["incomplete"]:
        yield _finding(
            "warning",
            "ledger_incomplete",
            f"the ledger is intact, but not complete: {ledger['incomplete']}",
            "reports can be written and tell of it; the vendor may ask why",
        )
    if ledger["free_bytes"] < ledger["reserve_bytes"]:
        mebibytes = ledger["free_bytes"] // (1024 * 1024)
        yield _finding(
            "error", "disk_full", f"only {mebibytes} MiB are free for the ledger", "free disk space"
        )


def _reconciliation(found: Status, status: Status) -> Iterator[Finding]:
    if found["new_requests"] or found["new_inferences"]:
        models = f" ({', '.join(found['models'])})" if found["models"] else ""
        yield _finding(
            "warning",
            "unaccounted",
            f"Triton ran at least {found['new_requests']} requests with {found['new_inferences']} inferences "
            f"since the last report that the ledger does not hold{models}",
            "find who reaches Triton's sockets around the gate (members of the group lotabots-gate, whoever "
            "uses runtime.tcp_port), or which records were lost; the next report tells the vendor",
        )
    waited = status["appliance"]["now_ns"] - max(found["until_ns"], status["appliance"]["started_at_ns"])
    runtime = status["runtime"]
    if (
        runtime["state"] == "ready"
        and min(runtime["seconds_in_state"], waited // NANOSECONDS) > NOT_COMPARED_SECONDS
    ):
        yield _finding(
            "warning",
            "not_compared",
            f"Triton's counters have not been compared with the ledger for {waited // NANOSECONDS} s",
            "lotabotsctl doctor names journals that cannot be read; else look at journalctl -u lotabotsd",
        )


def _report(report: Status) -> Iterator[Finding]:
    duty = report["duty"]
    day = rfc3339(from_ns(duty["restricted_at_ns"]))
    if duty["state"] == "soon":
        yield _finding("note", "report_soon", duty["effect"], _REPORT)
    elif duty["state"] == "overdue":
        message = f"{duty['effect']} until {day}, then the free tier's limits hold"
        yield _finding("warning", "report_overdue", message, _REPORT)
    for name in report["rejected"]:
        hint = "ask the vendor what is to be done; it is not delivered until it is accepted"
        yield _finding("error", "report_rejected", f"the vendor rejected {name}", hint)


def _quota(month: Status) -> Iterator[Finding]:
    if not month["quota"] or not month["quota_hard"]:
        return
    if month["inferences"] >= month["quota"]:
        yield _finding(
            "error",
            "quota_spent",
            "the quota of this month is spent: requests are refused",
            "install a larger licence: lotabotsctl licence install FILE",
        )
    elif month["inferences"] * 100 >= month["quota"] * NEARLY_SPENT_PERCENT:
        percent = month["inferences"] * 100 // month["quota"]
        hint = "ask the vendor for a larger licence before it is spent"
        yield _finding("warning", "quota_spent", f"{percent} % of this month's quota is used", hint)


def _gpus(gpus: Status) -> Iterator[Finding]:
    for gpu in gpus["items"]:
        if gpu["health"] != "healthy":
            text = f"GPU {gpu['index']} is {gpu['health']}: {gpu['detail']}"
            severity = "error" if gpu["health"] == "critical" else "warning"
            yield _finding(severity, "gpu_unhealthy", text, gpu["hint"])


def _loops(loops: list[Status]) -> Iterator[Finding]:
    for loop in loops:
        if loop["stuck_ns"]:
            text = f"{loop['name']} has not ended a round for {loop['stuck_ns'] // NANOSECONDS} s"
            yield _finding("error", "internal", text, "look at journalctl -u lotabotsd")
        if loop["failure"]:
            yield _finding("error", loop["code"], f"{loop['name']}: {loop['failure']}", loop["hint"])
