"""Keep Triton running with the wanted models: look, judge, act at most once, per round."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from lotabotsd.foundation.clock import NANOSECONDS, Clock
from lotabotsd.foundation.errors import Code, LotaBotsError

from .canary import Canary, CanaryAnswer
from .client import ModelState
from .messages import RunFacts, TrialKind
from .notice import (
    looked,
    model_answered,
    model_busy,
    model_loaded,
    model_refused,
    model_released,
    model_unanswered,
    model_unloaded,
    moved,
    notice,
)
from .plan import (
    Check,
    Desired,
    DesiredModel,
    Event,
    Load,
    ModelStatus,
    Observed,
    Start,
    State,
    Step,
    Stop,
    Unload,
    answering,
    plan,
)
from .seen import Seen, seen_from
from .trial import Tried
from .trial_plan import Empty, GiveUp, Judge, MakeRoom, Promote, TrialStep, trial_step
from .upgrade import Judging, Notes, answering_models

log = logging.getLogger(__name__)
_CANNOT_START = (
    Code.RUNTIME_MISSING,
    Code.CONFIG_INVALID,
    Code.IMAGE_MISSING,
    Code.IMAGE_DIGEST_MISMATCH,
    Code.FILE_UNREADABLE,
)
# Says nothing about Triton: it is asked for again, and no failure is counted.
_NOT_NOW = (Code.HELPER_UNAVAILABLE, Code.ENGINE_UNAVAILABLE, Code.IMAGE_LOADING)


class Helper(Protocol):
    """Who owns Triton's process (helper_client.py)."""

    async def start(self) -> RunFacts: ...

    async def stop(self) -> RunFacts: ...

    async def promote(self) -> RunFacts: ...

    async def inspect(self) -> RunFacts: ...


class Triton(Protocol):
    """Triton's own endpoint (client.py)."""

    async def live(self) -> bool: ...

    async def version(self) -> str: ...

    async def index(self) -> dict[str, ModelState]: ...

    async def load(self, name: str) -> None: ...

    async def unload(self, name: str) -> None: ...

    async def canary(self, name: str, canary: Canary) -> str: ...

    async def canary_answer(self, name: str, canary: Canary) -> CanaryAnswer: ...


class Supervisor:
    """One Triton. `one_round` is called again and again; everything else only says what is wanted."""

    def __init__(
        self,
        helper: Helper,
        triton: Callable[[Callable[[], str]], Triton],
        clock: Clock,
        *,
        start_timeout_seconds: float,
        beside: Callable[[str, Callable[[], str]], Tried] | None = None,
        notes: Path | None = None,
    ) -> None:
        """`triton` makes the client from where to read the secret of the run in force.

        `beside` makes that of a run on trial from its id; without it none is judged. `notes` is the
        file that keeps what must be known of images after a restart.
        """
        self._helper = helper
        self._triton = triton(self._secret)
        self._notes = Notes(notes)
        self._judging = Judging(
            beside or (lambda run_id, secret: triton(secret)),
            self._triton,
            start_timeout_seconds=start_timeout_seconds,
            answered=self._notes.answered,
        )

        self._clock = clock
        self._desired = Desired(running=True, start_timeout_ns=int(start_timeout_seconds * NANOSECONDS))
        self._observed = Observed()
        self._version = ""
        self._trouble: LotaBotsError | None = None  # why the helper could not say or do what was asked
        self._turn = asyncio.Lock()
        self.acted = False  # whether the last round did something, so that the next need not wait

    def want(self, models: Iterable[DesiredModel]) -> None:
        """These models should be live, and no others; a new digest means loading again (no gap)."""
        self._desired = replace(self._desired, models=tuple(models))

    def resume(self, model: str = "") -> None:
        """Somebody looked: try again at once, Triton itself, or the model named."""
        now_ns = self._clock.monotonic_ns()
        if model:
            self._observed = model_released(self._observed, model)
        else:
            self._observed = moved(self._observed, Event.RESUMED, now_ns)

    @property
    def seen(self) -> Seen:
        """What was seen last, for status."""
        now_ns = self._clock.monotonic_ns()
        return seen_from(self._observed, self._desired, self._version, self._trouble, now_ns, self._notes.why)

    @property
    def run_id(self) -> str:
        """The run that is asked now, as far as the helper said; empty when it is not known."""
        return self._observed.run.run_id if self._observed.run else ""

    def ready_models(self) -> frozenset[str]:
        """The names of the models that answer now."""
        return frozenset() if self._judging.emptying else answering(self._observed)

    async def one_round(self) -> Seen:
        """Look once and act at most once. Returns what was seen after it."""
        async with self._turn:
            await self._look()
            steps = plan(self._observed, self._desired, self._clock.monotonic_ns())
            self.acted = bool(steps)
            for step in steps:
                await self._carry_out(step)
            if not steps:
                await self._see_to_trial()
        return self.seen

    async def drain(self, close_gate: Callable[[], Awaitable[None]]) -> Seen:
        """End Triton in the order that loses nothing: gate red and empty, then Triton.

        `close_gate` returns when no request is in flight and the gate's connections to Triton are closed
        (one idle connection would use up Triton's whole exit timeout). It does not come back by itself:
        see `want_running`. Raises what `close_gate` raises, HELPER_UNAVAILABLE.
        """
        self._desired = replace(self._desired, running=False)
        await close_gate()
        await self._helper.stop()  # before the turn is taken: a load under way ends at once when Triton goes
        async with self._turn:
            run = await self._helper.stop()  # the round under way may have been about to start it
            now_ns = self._clock.monotonic_ns()
            seen = looked(self._observed, run, live=False, index={}, now_ns=now_ns)
            self._observed = notice(seen, self._desired, now_ns)
        return self.seen

    def want_running(self) -> None:
        """Start Triton again after `drain`."""
        self._desired = replace(self._desired, running=True)

    def _secret(self) -> str:
        return self._observed.run.secret if self._observed.run else ""

    async def _look(self) -> None:
        try:
            run: RunFacts | None = await self._helper.inspect()
            if self._trouble is not None and self._trouble.code is not Code.IMAGE_LOADING:
                self._trouble = None
        except LotaBotsError as error:
            self._troubled(error)
            run = None
        if run is not None and run.run_id != self._observed.run_id:
            self._version = ""
        # The client reads the secret of this run from here.
        self._observed = replace(self._observed, run=run)
        live, index = False, dict(self._observed.index)
        if run is not None and run.running:
            live, index = await self._ask_triton()
        elif run is None:
            live = self._observed.live
        now_ns = self._clock.monotonic_ns()
        before = self._observed.state
        self._observed = notice(looked(self._observed, run, live, index, now_ns), self._desired, now_ns)
        if self._observed.state is not before:
            self._tell(before)

    async def _ask_triton(self) -> tuple[bool, dict[str, str]]:
        if not await self._triton.live():
            return False, {}
        try:
            if not self._version:
                self._version = await self._triton.version()
            index = await self._triton.index()
        except LotaBotsError:
            return False, {}
        return True, {name: model.state for name, model in index.items()}

    async def _carry_out(self, step: Step) -> None:
        match step:
            case Start():
                await self._start()
            case Stop():
                await self._stop()
            case Load():
                await self._load(step)
            case Unload():
                await self._unload(step.name)
            case Check():
                await self._check(step.model)

    async def _start(self) -> None:
        try:
            run = await self._helper.start()
        except LotaBotsError as error:
            if error.code in _NOT_NOW:
                self._troubled(error)
                return
            self._trouble = None
            event = Event.MISCONFIGURED if error.code in _CANNOT_START else Event.DIED
            problem = f"{error} ({error.hint})"
            self._observed = moved(self._observed, event, self._clock.monotonic_ns(), problem)
            self._tell(State.STARTING)
            return
        self._version, self._trouble = "", None
        self._observed = replace(
            self._observed, run=run, run_id=run.run_id, since_ns=self._clock.monotonic_ns()
        )
        log.info("Triton was started", extra={"pid": run.pid})

    async def _stop(self) -> None:
        run = self._observed.run
        try:
            if run is not None and run.trial is not None and run.trial.kind is TrialKind.IN_PLACE:
                self._notes.give_up(run, self._observed.problem)
            self._observed = replace(self._observed, run=await self._helper.stop())
        except LotaBotsError as error:
            self._troubled(error)

    async def _see_to_trial(self) -> None:
        """One step of the trial of another image, if one is due."""
        now_ns = self._clock.monotonic_ns()
        self._judging.look(self._observed)
        self._notes.answer(self._judging.trial.answered)
        step = trial_step(self._observed, self._desired, self._judging.trial, now_ns)
        if step is None:
            return
        self.acted = not isinstance(step, Judge | Empty)  # those take their time
        try:
            await self._try(step, now_ns)
        except LotaBotsError as error:
            self._troubled(error)

    async def _try(self, step: TrialStep, now_ns: int) -> None:
        run = self._observed.run
        match step:
            case Judge():
                self._judging.begin(step.run_id, answering_models(self._observed, self._desired))
            case Empty():
                log.info("Triton is emptied: another image takes its place")
                self._judging.empty(now_ns)
            case Promote():
                await self._promote()
            case MakeRoom():
                self._renewed(await self._helper.stop())
            case GiveUp():
                self._notes.give_up(run, step.why)
                after = await self._helper.stop()
                if not after.running:
                    self._renewed(after)

    async def _promote(self) -> None:
        """Only where it fails is there more to do: it is given up then."""
        try:
            await self._helper.promote()
        except LotaBotsError as error:
            if error.code in _NOT_NOW:
                raise
            self._notes.give_up(self._observed.run, str(error))
            await self._helper.stop()

    def _renewed(self, run: RunFacts) -> None:
        """Triton was ended to be started with another image: that is no failure."""
        now_ns = self._clock.monotonic_ns()
        self._observed = moved(replace(self._observed, run=run), Event.RENEWED, now_ns)

    def _troubled(self, error: LotaBotsError) -> None:
        if self._trouble is None or self._trouble.code is not error.code:
            log.error("%s", error, extra={"code": error.code.value})
        self._trouble = error

    async def _load(self, step: Load) -> None:
        model = step.model
        self._observed = replace(self._observed, busy_with=model)
        log.info("loading", extra={"model": model.name})
        try:
            if step.anew:
                await self._triton.unload(model.name)
            await self._triton.load(model.name)
        except LotaBotsError as error:
            if error.code is Code.RUNTIME_UNAVAILABLE:
                return  # Triton may have died of this model: the next look tells, and busy_with says which
            now_ns = self._clock.monotonic_ns()
            self._observed = model_refused(self._observed, model, error.detail, now_ns)
            log.error("the model did not load: %s", error.detail, extra={"model": model.name})
            return
        self._observed = model_loaded(self._observed, model, self._clock.monotonic_ns())

    async def _unload(self, name: str) -> None:
        log.info("unloading", extra={"model": name})
        try:
            await self._triton.unload(name)
        except LotaBotsError as error:
            log.error("the model did not unload: %s", error.detail, extra={"model": name})
            return
        self._observed = model_unloaded(self._observed, name)

    async def _check(self, model: DesiredModel) -> None:
        self._observed = replace(self._observed, busy_with=model)
        try:
            wrong = await self._triton.canary(model.name, model.canary)
        except LotaBotsError as error:
            now_ns = self._clock.monotonic_ns()
            if error.code is Code.RUNTIME_TIMEOUT:
                self._observed = model_unanswered(self._observed, model, error.detail, now_ns)
            elif error.code is Code.OVERLOADED:
                self._observed = model_busy(self._observed, model, now_ns)
            return
        before = self._observed.models[model.name].status
        self._observed = model_answered(self._observed, model, wrong, self._clock.monotonic_ns())
        if wrong:
            log.error("the canary failed: %s", wrong, extra={"model": model.name})
        elif before is not ModelStatus.READY:
            log.info("ready", extra={"model": model.name})

    def _tell(self, before: State) -> None:
        state = self._observed.state
        level = logging.WARNING if state in (State.BACKING_OFF, State.HELD) else logging.INFO
        problem = f": {self._observed.problem}" if level == logging.WARNING else ""
        log.log(level, "Triton is %s (was %s)%s", state, before, problem, extra={"state": state.value})
