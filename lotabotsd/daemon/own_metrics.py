"""The appliance's own metrics, `lotabots_…`, read off its status value and its counts. Pure.

Cardinality is bounded: every label is one of a fixed list, a worker, a loop, a GPU, or one of MAX_MODELS
models. Organisations, keys and people are never in a label: who used how much is for `lotabotsctl usage`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.licence.reporting import Due
from lotabotsd.licence.standing import State as LicenceState
from lotabotsd.limits.counters import Counter
from lotabotsd.runtime.plan import State as RuntimeState
from lotabotsd.usage.records import Outcome
from lotabotsd.usage.windows import Meters

from .exposition import Family, Sample, counter, gauge, known, one_of

MAX_MODELS = 100
MICROSECONDS = 1_000_000
Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted since the installation, and what is under way now."""

    by_outcome: Mapping[str, Meters]
    inferences_by_model: Mapping[str, int]  # charged ones, of at most MAX_MODELS
    in_flight: int | None  # None: there is no limits table yet
    gate: Mapping[Counter, int]  # of the workers, since the boot; empty while they do not count
    journal_segments: int


def own_families(status: Status, counts: Counts) -> Iterator[Family]:
    """Every family of the appliance."""
    yield from _appliance(status)
    yield from _usage(counts)
    yield from _gate(counts.gate)
    yield from _runtime(status)
    yield from _licence(status)
    yield from _ledger(status, counts)
    yield from _loops(status)


def _appliance(status: Status) -> Iterator[Family]:
    appliance, gate = status["appliance"], status["gate"]
    yield gauge("lotabots_build_info", "1, with the release.", known(1, {"version": appliance["version"]}))
    yield gauge(
        "lotabots_start_time_seconds", "When lotabotsd started.", known(_seconds(appliance["started_at_ns"]))
    )
    states = [worker["state"] for worker in gate["workers"]]
    yield gauge(
        "lotabots_gate_workers",
        "Gate workers by state.",
        [Sample(states.count(state), {"state": state}) for state in ("live", "silent", "absent")],
    )
    yield gauge(
        "lotabots_policy_generation",
        "The policy in force.",
        known(gate["generation"]),
    )
    severities = [finding["severity"] for finding in status["warnings"]]
    yield gauge(
        "lotabots_findings",
        "What lotabotsctl doctor finds, by severity.",
        [Sample(severities.count(s), {"severity": s}) for s in ("error", "warning", "note")],
    )


def _usage(counts: Counts) -> Iterator[Family]:
    meters = counts.by_outcome
    all_of_them = sum(meters.values(), Meters())
    yield counter(
        "lotabots_requests_total",
        "Requests in the ledger since the installation, by outcome; refused_rate, refused_concurrency and "
        "refused_quota are those that a limit refused.",
        [
            Sample(meters.get(outcome.label, Meters()).requests, {"outcome": outcome.label})
            for outcome in Outcome
        ],
    )
    yield counter(
        "lotabots_inferences_total",
        "Charged inferences in the ledger since the installation, of the enabled models.",
        [Sample(count, {"model": model}) for model, count in sorted(counts.inferences_by_model.items())],
    )
    yield counter(
        "lotabots_request_bytes_total", "Bytes of measured request bodies.", known(all_of_them.input_bytes)
    )
    yield counter(
        "lotabots_response_bytes_total", "Bytes of measured answers.", known(all_of_them.output_bytes)
    )
    yield counter(
        "lotabots_request_seconds_total",
        "Time that measured requests spent in the gate, Triton's included.",
        known(all_of_them.gate_us / MICROSECONDS),
    )
    yield gauge(
        "lotabots_requests_in_flight", "Requests admitted and not settled yet.", known(counts.in_flight)
    )


_GATE: tuple[tuple[Counter, str, str], ...] = (
    (Counter.CONNECTIONS, "connections_total", "Connections accepted."),
    (Counter.CONNECTIONS_REFUSED, "connections_refused_total", "Connections closed at once: too many."),
    (Counter.REQUESTS, "requests_total", "Requests begun, of any route."),
    (Counter.UNAUTHENTICATED, "unauthenticated_total", "Requests without a valid key."),
    (Counter.OVERLOADED, "overloaded_total", "Requests refused because the gate was full."),
    (Counter.UPSTREAM_REQUESTS, "upstream_requests_total", "Requests sent to Triton."),
    (Counter.UPSTREAM_FAILED, "upstream_failures_total", "Requests that Triton did not answer."),
    (Counter.RECEIVED_BYTES, "received_bytes_total", "Bytes of bodies received."),
    (Counter.SENT_BYTES, "sent_bytes_total", "Bytes of bodies sent."),
    (Counter.JOURNAL_SYNCS, "journal_syncs_total", "Syncs of the usage journals."),
    (Counter.LOCK_BUSY, "limits_busy_total", "Times that the lock of the limits was not free in time."),
    (Counter.DECODED_IMAGES, "decoded_images_total", "Images decoded."),
    (Counter.DECODER_DEATHS, "decoder_deaths_total", "Image decoders that died."),
    (Counter.CLIENTS_GONE, "clients_gone_total", "Clients that hung up before their answer was sent."),
)
_GATE_TIMES: tuple[tuple[Counter, str, str], ...] = (
    (Counter.LINE_WAIT_US, "wait_seconds_total", "Time that requests waited for their turn at Triton."),
    (Counter.UPSTREAM_US, "upstream_seconds_total", "Time that Triton took."),
    (Counter.JOURNAL_SYNC_US, "journal_sync_seconds_total", "Time that syncs of the usage journals took."),
)
_ANSWERS = {"2xx": Counter.ANSWERS_2XX, "4xx": Counter.ANSWERS_4XX, "5xx": Counter.ANSWERS_5XX}


def _gate(cells: Mapping[Counter, int]) -> Iterator[Family]:
    """The sums of the workers' own counters; nothing while no worker counts."""
    if not cells:
        return
    for which, name, text in _GATE:
        yield counter(f"lotabots_gate_{name}", text, known(cells[which]))
    for which, name, text in _GATE_TIMES:
        yield counter(f"lotabots_gate_{name}", text, known(cells[which] / MICROSECONDS))
    yield counter(
        "lotabots_gate_answers_total",
        "Answers by the class of their status.",
        [Sample(cells[which], {"class": name}) for name, which in _ANSWERS.items()],
    )
    yield gauge(
        "lotabots_gate_requests_waiting",
        "Requests that wait for their turn at Triton.",
        known(max(0, cells[Counter.LINE_ENTERED] - cells[Counter.LINE_LEFT])),
    )


def _runtime(status: Status) -> Iterator[Family]:
    runtime, models = status["runtime"], status["models"][:MAX_MODELS]
    yield gauge(
        "lotabots_runtime_state",
        "What Triton does: 1 for the state that holds.",
        one_of("state", list(RuntimeState), runtime["state"]),
    )
    yield gauge(
        "lotabots_runtime_failures", "Failures of Triton in the last ten minutes.", known(runtime["failures"])
    )
    yield gauge("lotabots_models_enabled", "Models that are to be live.", known(len(status["models"])))
    yield gauge(
        "lotabots_models_ready",
        "Models that answer.",
        known(sum(1 for model in status["models"] if model["ready"])),
    )
    yield gauge(
        "lotabots_model_ready",
        "Whether a model answers.",
        [Sample(float(model["ready"]), {"model": model["name"]}) for model in models],
    )


def _licence(status: Status) -> Iterator[Family]:
    standing, month = status["licence"], status["usage"]["month"]
    expires_ns, now_ns = standing["expires_at_ns"], status["appliance"]["now_ns"]
    yield gauge(
        "lotabots_licence_state",
        "How the licence stands: 1 for the state that holds.",
        one_of("state", list(LicenceState), standing["state"]),
    )
    yield gauge(
        "lotabots_licence_expires_timestamp_seconds",
        "When the licence expires; absent without one.",
        known(_moment(expires_ns)),
    )
    yield gauge(
        "lotabots_licence_remaining_seconds",
        "Time until the licence expires, negative afterwards; absent without one.",
        known(_seconds(expires_ns - now_ns) if expires_ns else None),
    )
    yield gauge("lotabots_month_inferences", "Charged inferences of this month.", known(month["inferences"]))
    yield gauge(
        "lotabots_month_inferences_quota",
        "Inferences that the licence has for a month; absent where unlimited.",
        known(month["quota"] or None),
    )


def _ledger(status: Status, counts: Counts) -> Iterator[Family]:
    ledger, last = status["ledger"], status["report"]["last"]
    verified = ledger["verified_at_ns"]
    yield gauge(
        "lotabots_ledger_verified",
        "1: the ledger's chain was walked and is intact, 0: damaged; absent until the first walk.",
        known(float(not ledger["damage"]) if verified else None),
    )
    yield gauge(
        "lotabots_ledger_verified_timestamp_seconds",
        "When the ledger was verified last.",
        known(_moment(verified)),
    )
    yield gauge("lotabots_ledger_rows", "Rows of the ledger.", known(ledger["rows"]))
    yield gauge(
        "lotabots_ledger_findings",
        "Findings about the journals that stand in the ledger.",
        known(ledger["findings"]),
    )
    yield from _reconciliation(ledger["reconciliation"])
    yield gauge(
        "lotabots_ledger_sealed_timestamp_seconds",
        "The end of the last sealed window.",
        known(_moment(ledger["sealed_until_ns"])),
    )
    yield gauge(
        "lotabots_report_last_timestamp_seconds",
        "Until when the last usage report reaches; absent before the first.",
        known(last["until"] if last else None),
    )
    yield gauge(
        "lotabots_report_next_timestamp_seconds",
        "When the next usage report is due.",
        known(_moment(status["report"]["next_at_ns"])),
    )
    yield from _report(status["report"])
    yield gauge(
        "lotabots_journal_segments",
        "Journal files that are not yet counted to their end; each worker has one that it writes.",
        known(counts.journal_segments),
    )
    yield gauge("lotabots_disk_free_bytes", "Room on the ledger's disk.", known(ledger["free_bytes"]))


def _reconciliation(found: Status) -> Iterator[Family]:
    yield counter(
        "lotabots_unaccounted_requests_total",
        "Requests that Triton certainly ran and the ledger does not hold.",
        known(found["requests"]),
    )
    yield counter(
        "lotabots_unaccounted_inferences_total",
        "Inferences that Triton certainly ran and the ledger does not hold.",
        known(found["inferences"]),
    )
    yield gauge(
        "lotabots_reconciled_timestamp_seconds",
        "When Triton's counters were last compared with the ledger; absent before the first time.",
        known(_moment(found["until_ns"])),
    )


def _report(report: Status) -> Iterator[Family]:
    duty, acknowledged = report["duty"], report["acknowledged"]
    yield gauge(
        "lotabots_report_state",
        "How the duty to report stands: 1 for the state that holds.",
        one_of("state", list(Due), duty["state"]),
    )
    yield gauge(
        "lotabots_report_due_timestamp_seconds",
        "By when the vendor must have acknowledged a usage report; absent where none is asked for.",
        known(_moment(duty["due_at_ns"])),
    )
    yield gauge(
        "lotabots_report_restricted_timestamp_seconds",
        "When the licence's limits end without an acknowledgement; absent where no report is asked for.",
        known(_moment(duty["restricted_at_ns"])),
    )
    yield gauge(
        "lotabots_report_acknowledged_timestamp_seconds",
        "Until when the newest acknowledged usage report reaches; absent before the first.",
        known(acknowledged["until"] if acknowledged else None),
    )


def _loops(status: Status) -> Iterator[Family]:
    loops = status["loops"]
    yield gauge(
        "lotabots_loop_success_timestamp_seconds",
        "When a loop of the daemon last ended a round well; that of drain is the age of the journal backlog.",
        [
            Sample(_seconds(loop["succeeded_ns"]), {"loop": loop["name"]})
            for loop in loops
            if loop["succeeded_ns"]
        ],
    )
    yield gauge(
        "lotabots_loop_failures",
        "Failures in a row of a loop of the daemon.",
        [Sample(loop["failures"], {"loop": loop["name"]}) for loop in loops],
    )


def _seconds(wall_ns: int) -> float:
    return wall_ns / NANOSECONDS


def _moment(wall_ns: int) -> float | None:
    return _seconds(wall_ns) if wall_ns else None
