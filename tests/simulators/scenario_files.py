"""Scenario files, tests/scenarios/*.toml: what happens step by step, and what must be done and seen.

One file is one failure. `want` are the models wanted (left out: "a"), `real`: the real Triton plays it
too. Each `[[step]]`:

    happens   what befalls the appliance, before anything is looked at (the words are in HAPPENINGS)
    at        "start": the happenings befall the next start instead
    seconds   that pass before each round (left out: 1)
    rounds    how many rounds are made (left out: until `state` and `models` are reached, 40 at most)
    state     of Triton afterwards; `models` NAME = status; `ready` those that the gate may send on to
    does      every action in its order, as the helper and Triton are asked (only where Triton is scripted)
    says      stands in a problem or a reason that status shows; `next` in a next step; `trouble` is a code
    refused   the models of which status names a refused version
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lotabotsd.runtime.seen import Seen

FOLDER = Path(__file__).resolve().parents[1] / "scenarios"
HAPPENINGS = (
    *("triton ends ", "triton crashes", "triton is killed", "triton hangs", "triton answers"),
    *("canary ", "load ", "the process of a dies", "the helper says: ", "the helper answers"),
    *("a start fails: ", "a start succeeds", "somebody resumes", "somebody releases a", "it is drained"),
    *("it is no longer wanted", "the daemon restarts", "a new version of a does not load: "),
    *("the old version of a is wanted again", "stale sockets lie about", "an idle connection is open"),
    "shared memory of it is left behind",
)


@dataclass(frozen=True)
class Step:
    """One step of a scenario; what is None is not looked at."""

    happens: tuple[str, ...] = ()
    at: str = ""
    seconds: float = 1
    rounds: int | None = None
    state: str | None = None
    models: dict[str, str] = field(default_factory=dict)
    ready: list[str] | None = None
    does: list[str] | None = None
    says: str = ""
    next: str = ""
    trouble: str | None = None
    refused: list[str] | None = None

    def reached(self, seen: Seen) -> bool:
        """Whether state and models are those of this step."""
        states = {model.name: model.status for model in seen.models}
        return self.state in (None, seen.state) and all(
            states[name] == wanted for name, wanted in self.models.items()
        )

    def compare(self, seen: Seen, ready: frozenset[str], done: list[str] | None) -> None:
        """Fails with what differs; `done` is None where the actions are not known."""
        assert self.reached(seen), f"{self} is not {seen}"
        shown = " ".join([seen.problem, *(model.reason for model in seen.models)])
        hints = " ".join([seen.next_step, *(model.next_step for model in seen.models)])
        assert self.says in shown, shown
        assert self.next in hints, hints
        if self.ready is not None:
            assert ready == set(self.ready)
        if self.trouble is not None:
            assert seen.trouble == self.trouble
        if self.refused is not None:
            assert [model.name for model in seen.models if model.refused] == self.refused
        if self.does is not None and done is not None:
            assert done == self.does


@dataclass(frozen=True)
class Scenario:
    """One file."""

    name: str
    title: str
    why: str
    steps: tuple[Step, ...]
    real: bool = False
    want: tuple[str, ...] = ("a",)


def scenarios(*, real: bool = False) -> list[Scenario]:
    """All of them in the order of their names, or those that the real Triton plays."""
    found = [_read(path) for path in sorted(FOLDER.glob("*.toml"))]
    return [scenario for scenario in found if scenario.real or not real]


def _read(path: Path) -> Scenario:
    value: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    steps = tuple(Step(**{**step, "happens": tuple(step.get("happens", ()))}) for step in value.pop("step"))
    for step in steps:
        for happening in step.happens:
            assert happening.startswith(HAPPENINGS), f"{path.name}: nobody can play {happening!r}"
    value["want"] = tuple(value.get("want", ("a",)))
    return Scenario(path.stem, steps=steps, **value)
