"""Which models are ready, also across a restart of the daemon: Triton outlives it and goes on answering."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.policy.reader import PolicyReader
from lotabotsd.runtime.seen import Seen

from .models import EnabledModel

_NOT_LOOKED_YET = "stopped"
_LOADING = "loading"
_REFUSED = ("failed", "broken", "quarantined")


class ReadyModels:
    """The supervisor's word; until its first one, what was published before, if Triton still runs."""

    def __init__(
        self,
        seen: Callable[[], Seen],
        ready: Callable[[], frozenset[str]],
        models: Callable[[], Sequence[EnabledModel]],
    ) -> None:
        self._seen = seen
        self._ready = ready
        self._models = models
        self._carried: Mapping[str, str] = {}

    def carry(self, published: Mapping[str, str]) -> None:
        """Believe that these models (name → digest) are ready until the supervisor has looked at each."""
        self._carried = dict(published)

    def __call__(self) -> frozenset[str]:
        """The names of the models that answer now."""
        ready = self._ready()
        if not self._carried:
            return ready
        seen = self._seen()
        if seen.state not in (_NOT_LOOKED_YET, _LOADING):
            self._carried = {}
            return ready
        refused = {model.name for model in seen.models if model.status in _REFUSED}
        live = {model.name: model.facts.digest for model in self._models() if model.facts is not None}
        kept = {name for name, digest in self._carried.items() if live.get(name) == digest}
        return ready | (kept - refused)


def published_ready(path: Path) -> dict[str, str]:
    """The models that the policy in force calls ready, with their digests; none where there is no policy."""
    reader = PolicyReader(path)
    try:
        reader.open()
        return {model.name: model.digest for model in reader.models() if model.ready}
    except LotaBotsError:
        return {}
    finally:
        reader.close()
