"""Carry out the trial of another image: judge it beside Triton, and remember why it was given up."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lotabotsd.foundation.canonical import strict_json
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically

from .messages import RunFacts, TrialKind
from .plan import Desired, DesiredModel, ModelStatus, Observed, State
from .trial import Tried, judge
from .trial_plan import Trial

log = logging.getLogger(__name__)
_MAX_BYTES = 1024 * 1024
_MAX_WHY_CHARACTERS = 1_000


class Judging:
    """One judge at a time, beside the supervisor's rounds."""

    def __init__(
        self,
        tried: Callable[[str, Callable[[], str]], Tried],
        serving: Tried,
        *,
        start_timeout_seconds: float,
        answered: frozenset[str] | None,
    ) -> None:
        """`tried` makes the client of a run beside Triton from its id and where to read its secret.

        `answered` are the models that answered in the good one when we looked last.
        """
        self._tried = tried
        self._serving = serving
        self._start_timeout_seconds = start_timeout_seconds
        self._task: asyncio.Task[str] | None = None
        self._secret = ""
        self.trial = Trial(answered=answered)

    def look(self, observed: Observed) -> None:
        """Take up what the helper says, and what the judge found."""
        run = observed.run
        if run is not None and run.running and run.proven and observed.state is State.READY:
            answered = frozenset(
                name for name, seen in observed.models.items() if seen.status is ModelStatus.READY
            )
            self.trial = replace(self.trial, answered=answered)
        facts = run.trial if run is not None else None
        beside = facts is not None and facts.kind is TrialKind.BESIDE
        self._secret = facts.secret if facts is not None and beside else ""
        if self._task is not None and (not beside or facts is None or facts.run_id != self.trial.judged):
            self._task.cancel()  # it is gone
            self._task = None
            self.trial = replace(self.trial, judged="", verdict=None)
        if self._task is not None and self._task.done() and self.trial.verdict is None:
            self._take_verdict(self._task)
        if facts is None or facts.kind is not TrialKind.REPLACE:
            self.trial = replace(self.trial, emptying_since_ns=0)

    def _take_verdict(self, task: asyncio.Task[str]) -> None:
        try:
            self.trial = replace(self.trial, verdict=task.result())
        except LotaBotsError as error:  # of the Triton that serves: the supervisor sees to it first
            log.warning("the image on trial cannot be judged now: %s", error)
            self._task = None
            self.trial = replace(self.trial, judged="")

    def begin(self, run_id: str, models: Sequence[DesiredModel]) -> None:
        """Judge the run with the models that answer now."""
        log.info("an image on trial is judged", extra={"run_id": run_id})
        self.trial = replace(self.trial, judged=run_id, verdict=None)
        tried = self._tried(run_id, lambda: self._secret)
        self._task = asyncio.create_task(
            judge(tried, self._serving, models, start_timeout_seconds=self._start_timeout_seconds)
        )

    def empty(self, now_ns: int) -> None:
        """From now on no request may be sent on."""
        self.trial = replace(self.trial, emptying_since_ns=now_ns)

    @property
    def emptying(self) -> bool:
        """Whether the gate must send nothing on."""
        return self.trial.emptying_since_ns != 0


def answering_models(observed: Observed, desired: Desired) -> list[DesiredModel]:
    """The wanted models that are ready."""
    return [
        model
        for model in desired.models
        if model.name in observed.models and observed.models[model.name].status is ModelStatus.READY
    ]


class Notes:
    """What must outlive us: why an image was given up, and which models answered in the good one.

    That an image was refused the helper remembers by itself.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._image = self._why = ""
        self.answered: frozenset[str] | None = None  # not known
        self._read()

    def give_up(self, run: RunFacts | None, why: str) -> None:
        """Why the image on trial is given up; nothing when none is."""
        if run is None or run.trial is None or run.trial.kind is TrialKind.REFUSED:
            return
        self._image, self._why = run.trial.image, why[:_MAX_WHY_CHARACTERS]
        log.error("the image %s is given up: %s", self._image, self._why)
        self._write()

    def answer(self, names: frozenset[str] | None) -> None:
        """The models that answer in the good one."""
        if names is not None and names != self.answered:
            self.answered = names
            self._write()

    def why(self, image: str) -> str:
        """Empty when it is not known here."""
        return self._why if image == self._image else ""

    def _read(self) -> None:
        if self._path is None or not self._path.exists():
            return
        try:
            value = strict_json(read_bounded(self._path, _MAX_BYTES))
            self._image, self._why = str(value["image"]), str(value["why"])
            self.answered = frozenset(str(name) for name in value["answered"])
        except (LotaBotsError, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
            log.warning("%s cannot be read: %s", self._path, error)

    def _write(self) -> None:
        if self._path is None:
            return
        value = {"image": self._image, "why": self._why, "answered": sorted(self.answered or ())}
        try:
            write_atomically(self._path, json.dumps(value).encode())
        except LotaBotsError as error:
            log.error("the notes on images are forgotten at the next restart: %s", error)
