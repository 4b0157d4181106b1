"""The models that the configuration enables: checked and put into the live repository at each start."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lotabotsd.foundation.config import Config
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded
from lotabotsd.models.configuration import read_configuration
from lotabotsd.models.facts import ModelFacts, TensorFact
from lotabotsd.models.package import CONFIGURATION, MAX_CONFIGURATION_BYTES, Package
from lotabotsd.models.prepare import live_names, prepare, remove_live
from lotabotsd.models.warmup import asks_others, warmup_requests
from lotabotsd.runtime.canary import CanaryTensor, make_canary
from lotabotsd.runtime.plan import DesiredModel

log = logging.getLogger("lotabots.daemon")

_MAX_CODE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class EnabledModel:
    """One name of `models.enabled`: what to serve when it is in the live repository, else why it is not."""

    name: str
    facts: ModelFacts | None = None
    wanted: DesiredModel | None = None
    problem: LotaBotsError | None = None
    warmups: int = 0  # requests that Triton makes of its own when it loads the model, at most
    asks_others: bool = False  # its own code may ask other models, past the gate


def bring_live(config: Config, *, allowed: int, gpus: int) -> tuple[EnabledModel, ...]:
    """Prepare every enabled model, in order; 0 `allowed` means that the licence sets no bound.

    A package with a fault, and one too many for the licence, is told and left out: the others serve.
    Models that are no longer enabled leave the live repository.
    """
    paths = config.paths
    names = tuple(dict.fromkeys(config.models.enabled))
    beyond = set(names[allowed:]) if allowed else set()
    found = tuple(_bring_one(config, name, gpus, allowed if name in beyond else None) for name in names)
    serving = {model.name for model in found if model.facts is not None}
    for name in live_names(paths.live_models):
        if name not in serving:
            log.info("a model leaves the live repository", extra={"model": name})
            remove_live(name, paths.staged_models, paths.live_models)
    return found


def wanted_of(models: Sequence[EnabledModel]) -> tuple[DesiredModel, ...]:
    """What Triton shall have loaded."""
    return tuple(model.wanted for model in models if model.wanted is not None)


def _bring_one(config: Config, name: str, gpus: int, exceeded: int | None) -> EnabledModel:
    paths = config.paths
    try:
        if exceeded is not None:
            raise LotaBotsError(Code.LICENCE_LIMIT, f"it allows {exceeded} live models")
        package = Package.load(
            Path(config.models.repository) / name, gpus=gpus, allow_code=config.models.allow_code
        )
        prepared = prepare(package, config.runtime.variant, paths.staged_models, paths.live_models)
        warmups = _warmups(paths.live_models / name, len(package.versions), gpus)
        calls = package.configuration.backend == "python" and _code_asks_others(package.directory)
    except LotaBotsError as error:
        log.error("model %s does not go live: %s", name, error, extra={"model": name})
        return EnabledModel(name, problem=error)
    facts = prepared.facts
    canary = make_canary(
        tuple(_tensor(each) for each in facts.inputs),
        tuple(_tensor(each) for each in facts.outputs),
        batched=facts.max_batch_size > 0,
        sizes=package.manifest.canary,
        expected=package.manifest.expected,
        sequence=facts.sequences,
        decoupled=facts.decoupled,
    )
    wanted = DesiredModel(name, facts.digest, canary)
    return EnabledModel(name, facts, wanted, warmups=warmups, asks_others=calls)


def _warmups(live: Path, versions: int, gpus: int) -> int:
    """By the configuration that Triton reads, which is not always the package's own."""
    text = read_bounded(live / CONFIGURATION, MAX_CONFIGURATION_BYTES).decode("utf-8")
    configuration, _ = read_configuration(text)
    return warmup_requests(configuration.message, versions=versions, gpus=gpus) if configuration else 0


def _code_asks_others(package: Path) -> bool:
    return any(asks_others(read_bounded(path, _MAX_CODE_BYTES)) for path in package.rglob("*.py"))


def _tensor(fact: TensorFact) -> CanaryTensor:
    return CanaryTensor(fact.name, fact.datatype, fact.dims)


class LiveModels:
    """The models that are live, prepared again when the licence allows another number of them."""

    def __init__(self, config: Config, gpus: int) -> None:
        self._config = config
        self._gpus = gpus
        self._lock = threading.Lock()
        self._allowed: int | None = None
        self._models: tuple[EnabledModel, ...] = ()

    def __call__(self) -> tuple[EnabledModel, ...]:
        """The enabled models, in the configuration's order."""
        return self._models

    def allow(self, allowed: int) -> bool:
        """Bring live as many as the licence allows (0: all); True when anything may have changed."""
        with self._lock:
            if allowed == self._allowed:
                return False
            self._models = bring_live(self._config, allowed=allowed, gpus=self._gpus)
            self._allowed = allowed
            return True
