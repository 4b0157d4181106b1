"""What a usage report says of the comparison with Triton's counters: composed, read back, judged. Pure.

Models that have no row in the report are summed up without their names: no name leaves by this way alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .reconciliation import NOTHING, Account, Count, State
from .report_fields import expect_count, expect_object, expect_second, instant

LATE_SECONDS = 3_600  # the last sample may be so much older than the end of the period
_COUNTS = ("answered", "certain", "counted", "open", "own", "unanswered", "unsure")


class Compared(StrEnum):
    """How much of a model's difference can be certain."""

    ALL = "all"
    REQUESTS = "requests"  # Triton counts its inferences by other rules
    NOTHING = "nothing"  # another model may have asked it, or it was not live


@dataclass(frozen=True, slots=True)
class ModelDifference:
    """One model in the time that a report is about."""

    counted: Count = NOTHING  # by Triton
    own: Count = NOTHING  # canaries and warm-ups
    answered: Count = NOTHING  # in the ledger
    unanswered: Count = NOTHING  # in the ledger; Triton may have counted them or not
    open: Count = NOTHING  # under way at the last sample
    certain: Count = NOTHING  # counted by Triton, and certainly not in the ledger
    unsure: Count = NOTHING  # beyond what was answered, and not certain
    compared: Compared = Compared.ALL

    @property
    def idle(self) -> bool:
        """Whether nothing happened at all."""
        counts = (self.counted, self.own, self.answered, self.unanswered, self.open, self.certain)
        return not any(count.any for count in counts)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What a report says; `since` and `until` are Unix seconds, None where Triton was never asked."""

    since: int | None
    until: int | None
    runs: int  # of Triton that began in this time
    models: Mapping[str, ModelDifference]
    others: ModelDifference  # the models without a row in the report
    other_models: int

    def differences(self) -> Iterator[tuple[str, ModelDifference]]:
        """Each with its name; "" is the sum of the others."""
        yield from self.models.items()
        yield "", self.others


def sums_of(state: State) -> dict[str, Any]:
    """What the next report must know of this one; kept with it, and never in its body."""
    return {
        "models": {
            name: {
                "answered": _value(account.passed.answered),
                "certain": _value(account.unaccounted),
                "counted": _value(account.counted),
                "own": account.own,
                "unanswered": _value(account.passed.unanswered),
            }
            for name, account in state.accounts.items()
        },
        "runs": state.runs,
        "until": state.until,
    }


def difference_since(state: State, sums: Mapping[str, Any] | None, names: Collection[str]) -> Reconciliation:
    """What was compared since the report with these sums; `names` are the models in the report's rows."""
    before: Mapping[str, Any] = (sums or {}).get("models", {})
    reached = int((sums or {}).get("until", 0))
    models: dict[str, ModelDifference] = {}
    others = ModelDifference()
    other_models = 0
    for name, account in sorted(state.accounts.items()):
        found = _difference(account, before.get(name), reached)
        if name in names:
            models[name] = found
        elif not found.idle:
            others, other_models = _both(others, found), other_models + 1
    return Reconciliation(
        (reached or state.since) if state.until else None,
        state.until or None,
        max(0, state.runs - int((sums or {}).get("runs", 0))),
        models,
        others,
        other_models,
    )


def _difference(account: Account, before: Mapping[str, Any] | None, reached: int) -> ModelDifference:
    def since(now: Count, name: str) -> Count:
        earlier = Count(*before[name]) if before is not None else NOTHING
        return (now - earlier).at_least(NOTHING)

    earlier_own = int(before["own"]) if before is not None else 0
    own = max(0, account.own - earlier_own)
    counted = since(account.counted, "counted")
    answered = since(account.passed.answered, "answered")
    certain = since(account.unaccounted, "certain")
    ours = Count(own, own)
    if account.clouded_at > reached or account.at <= reached:
        compared = Compared.NOTHING
    elif account.by_request_at > reached:
        compared = Compared.REQUESTS
    else:
        compared = Compared.ALL
    return ModelDifference(
        counted, ours, answered, since(account.passed.unanswered, "unanswered"), account.passed.open, certain,
        _unsure(counted, ours, answered, certain), compared,
    )  # fmt: skip


def _unsure(counted: Count, own: Count, answered: Count, certain: Count) -> Count:
    return (counted - own - answered - certain).at_least(NOTHING)


def _both(one: ModelDifference, other: ModelDifference) -> ModelDifference:
    order = list(Compared)
    return ModelDifference(
        **{name: getattr(one, name) + getattr(other, name) for name in _COUNTS},
        compared=max(one.compared, other.compared, key=order.index),
    )


def value_of(found: Reconciliation) -> dict[str, Any]:
    """The object in the report."""
    return {
        "models": {name: _model(one) for name, one in found.models.items()},
        "others": {**_model(found.others), "models": found.other_models},
        "runs": found.runs,
        "since": _moment(found.since),
        "until": _moment(found.until),
    }


def _model(one: ModelDifference) -> dict[str, Any]:
    return {"compared": one.compared.value, **{name: _counts(getattr(one, name)) for name in _COUNTS}}


def _counts(count: Count) -> dict[str, int]:
    return {"inferences": count.inferences, "requests": count.requests}


def _value(count: Count) -> list[int]:
    return [count.requests, count.inferences]


def _moment(second: int | None) -> str | None:
    return None if second is None else instant(second)


def read_reconciliation(value: Any) -> Reconciliation:
    """The facts of a report's object. Raises ValueError naming the first field that is not as it must be."""
    name = "data_condition.reconciliation"
    found = expect_object(value, name, "models", "others", "runs", "since", "until")
    if not isinstance(found["models"], dict):
        raise ValueError(f"{name}.models is no object")
    others = expect_object(found["others"], f"{name}.others", *_COUNTS, "compared", "models")
    moments = [
        None if found[end] is None else expect_second(found[end], f"{name}.{end}")
        for end in ("since", "until")
    ]
    if moments.count(None) == 1:
        raise ValueError(f"{name} has one end")
    return Reconciliation(
        moments[0],
        moments[1],
        expect_count(found["runs"], f"{name}.runs"),
        {model: _read_model(one, f"{name}.models") for model, one in found["models"].items()},
        _read_model({k: v for k, v in others.items() if k != "models"}, f"{name}.others"),
        expect_count(others["models"], f"{name}.others.models"),
    )


def _read_model(value: Any, name: str) -> ModelDifference:
    found = expect_object(value, name, *_COUNTS, "compared")
    if found["compared"] not in list(Compared):
        raise ValueError(f"{name}.compared is none of {', '.join(Compared)}")
    counts = {which: _read_counts(found[which], f"{name}.{which}") for which in _COUNTS}
    return ModelDifference(**counts, compared=Compared(found["compared"]))


def _read_counts(value: Any, name: str) -> Count:
    found = expect_object(value, name, "inferences", "requests")
    return Count(expect_count(found["requests"], name), expect_count(found["inferences"], name))


def adds_up(found: Reconciliation) -> bool:
    """Whether what is unsure follows from the rest, as far as one model is concerned."""
    return all(
        one.unsure == _unsure(one.counted, one.own, one.answered, one.certain)
        for one in found.models.values()
    )
