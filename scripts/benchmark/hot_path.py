"""What each step of a request costs: samples of a loaded worker, told apart by their functions. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Frame = tuple[str, str]  # file name, qualified name; the innermost first
# The first frame from within that one of these names decides. In the order in which a request passes them.
STEPS: tuple[tuple[str, tuple[Frame, ...]], ...] = (
    (
        "read and parse HTTP, make the task",
        (
            ("protocol.py", "GateProtocol."),
            ("cycle.py", "GateCycle.__init__"),
            ("cycle.py", "GateCycle.feed"),
            ("cycle.py", "GateCycle.take"),
            ("exchange.py", "Exchange.__init__"),
            ("exchange.py", "Exchange.read_body"),
            ("httptools_impl.py", "HttpToolsProtocol."),
        ),
    ),
    ("match the route, name the request", (("routes.py", ""), ("identifiers.py", "uuid"))),
    ("1 identify the key", (("admission.py", "Admission.identify"), ("api_key.py", ""))),
    (
        "2 standing, and is the policy new",
        (("admission.py", "Admission.standing"), ("parts.py", "Parts.serving")),
    ),
    ("3 may this key call this model", (("admission.py", "Admission.permit"),)),
    (
        "judge the body, put it into the key's terms",
        (("bodies.py", ""), ("parameters.py", ""), ("intake.py", ""), ("admission.py", "Admission.terms")),
    ),
    ("4 reserve in every limit", (("admission.py", "Admission.reserve"), ("table.py", "Table.reserve"))),
    ("5 journal OPEN", (("metering.py", "Meter.open"),)),
    ("6 to Triton and back", (("upstream.py", ""), ("turns.py", ""))),
    ("8 sign a receipt", (("receipts.py", ""), ("receipt.py", ""), ("token.py", ""))),
    ("8 commit the limits", (("table.py", "Table.commit"), ("table.py", "Table.refund"))),
    ("7 journal CLOSE, durable", (("metering.py", "Meter."), ("durability.py", ""))),
    (
        "9 write the answer",
        (("exchange.py", ""), ("cycle.py", "GateCycle."), ("rate_headers.py", "")),
    ),
    ("hand both over to the kernel (send)", (("outbox.py", ""),)),
    ("count for the metrics", (("counting.py", ""), ("application.py", "Application._count"))),
    ("between the steps", (("application.py", ""), ("inference.py", ""), ("httptools_impl.py", ""))),
    ("every 50 ms: beat, look for a new policy", (("worker.py", "Worker._"),)),
)
REST = "event loop, and receiving from the kernel"


@dataclass(frozen=True, slots=True)
class StepCost:
    """One line of the table."""

    step: str
    share: float  # of the worker's processor time
    microseconds: float  # per request


def costs(samples: Iterable[tuple[Sequence[Frame], int]], microseconds: float) -> list[StepCost]:
    """The steps with their part of `microseconds`, in the order in which a request passes them."""
    counted = dict.fromkeys([*(step for step, _ in STEPS), REST], 0)
    for stack, count in samples:
        counted[step_of(stack)] += count
    total = sum(counted.values()) or 1
    return [StepCost(step, count / total, microseconds * count / total) for step, count in counted.items()]


def step_of(stack: Sequence[Frame]) -> str:
    """The step that a stack is in."""
    for file, name in stack:
        for step, places in STEPS:
            if any(file == place[0] and name.startswith(place[1]) for place in places):
                return step
    return REST
