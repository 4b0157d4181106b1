"""Which image is known to be good and which one was refused: one small file that only the helper writes.

It is the helper's and not the daemon's: what root starts must not be named by anybody else.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lotabotsd.foundation.canonical import strict_json
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.files import read_bounded, write_atomically

log = logging.getLogger(__name__)
_FORMAT = 1
_MAX_BYTES = 16 * 1024
_MAX_WHY_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class Known:
    """Images as the configuration names them; empty where there is none."""

    good: str = ""
    refused: str = ""
    why: str = ""


class ImageMemory:
    """Survives restarts and reboots; without a file that can be read or written it lasts as long as we do."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "known.json"
        self.known = self._read()

    def promote(self, image: str) -> None:
        """It has proven itself."""
        self._write(Known(good=image))

    def refuse(self, image: str, why: str) -> None:
        """It has not; the good one stays."""
        log.error("the image %s is refused: %s", image, why)
        self._write(replace(self.known, refused=image, why=why[:_MAX_WHY_CHARACTERS]))

    def forgive(self) -> None:
        """Somebody looked: what was refused may try again."""
        if self.known.refused:
            self._write(Known(good=self.known.good))

    def _read(self) -> Known:
        if not self._path.exists():
            return Known()
        try:
            value = strict_json(read_bounded(self._path, _MAX_BYTES))
            if value["format"] != _FORMAT:
                raise ValueError("another format")
            return Known(*(str(value[name]) for name in ("good", "refused", "why")))
        except (LotaBotsError, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
            log.warning("%s cannot be read, no image is known to be good: %s", self._path, error)
            return Known()

    def _write(self, known: Known) -> None:
        if known == self.known:
            return
        self.known = known
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(
                self._path, json.dumps({"format": _FORMAT, **asdict(known)}).encode(), mode=0o600
            )
        except (LotaBotsError, OSError) as error:
            log.error("which image is good is forgotten at the next restart: %s", error)
