"""Judge an image on trial in a container beside Triton: started, every model loaded, answers as before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from lotabotsd.foundation.errors import Code, LotaBotsError

from .canary import Canary, CanaryAnswer
from .comparison import difference
from .plan import DesiredModel

_LOOK_SECONDS = 0.2
_BUSY_TRIES = 5


class Tried(Protocol):
    """A Triton that can be asked (client.py)."""

    async def live(self) -> bool: ...

    async def load(self, name: str) -> None: ...

    async def canary_answer(self, name: str, canary: Canary) -> CanaryAnswer: ...


async def judge(
    tried: Tried, serving: Tried, models: Sequence[DesiredModel], *, start_timeout_seconds: float
) -> str:
    """What speaks against the Triton on trial, or nothing.

    `models` are those that answer in the Triton that `serving` asks. Raises what asking that one raises.
    """
    try:
        async with asyncio.timeout(start_timeout_seconds):
            while not await tried.live():  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        return "it did not answer in time after its start"
    for model in models:
        try:
            await tried.load(model.name)
            answer = await _answer(tried, model)
            wrong = answer.wrong
        except LotaBotsError as error:
            wrong = error.detail or str(error)
        if wrong := wrong or await _unlike(serving, model, answer):
            return f"model {model.name}: {wrong}"
    return ""


async def _unlike(serving: Tried, model: DesiredModel, new: CanaryAnswer) -> str:
    """How an answer differs from those of the Triton that serves, as far as that one can tell."""
    try:
        old = await _answer(serving, model)
        if old.wrong or not (unlike := difference(model.canary, old, new)):
            return ""
        # A model may answer differently each time; then there is nothing to compare with.
        again = await _answer(serving, model)
    except LotaBotsError as error:
        if error.code in (Code.OVERLOADED, Code.RUNTIME_TIMEOUT):
            return ""  # its clients come first
        raise
    return "" if again.wrong or difference(model.canary, old, again) else unlike


async def _answer(triton: Tried, model: DesiredModel) -> CanaryAnswer:
    """One answer; a full queue says nothing against a model, and is asked again."""
    for _ in range(_BUSY_TRIES - 1):
        try:
            return await triton.canary_answer(model.name, model.canary)
        except LotaBotsError as error:
            if error.code is not Code.OVERLOADED:
                raise
            await asyncio.sleep(_LOOK_SECONDS)
    return await triton.canary_answer(model.name, model.canary)
