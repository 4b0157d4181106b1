"""What Triton says, line by line: what goes into our log, and the one line that we wait for."""

from __future__ import annotations

import logging
import re

log = logging.getLogger(__name__)
# Told to stop, Triton says this when no request is in flight any more. After it a model that once failed to
# load, or whose process died, counts as living for ever and would use up the whole exit timeout (2.51).
EMPTIED = "All models are stopped, unloading models"
# Without meaning: a line per connection to a Unix socket, one per start without a GPU, and tables.
_NOISE = re.compile(r"NODELAY NOT SUPPORTED|CudaDriverHelper has not been initialized|^[+|]")


def pass_on(line: str) -> None:
    """Triton's warnings and errors go to our log; the rest of its lines only with log.level "debug"."""
    if not _NOISE.search(line):
        level = logging.WARNING if line[:1] in "WE" and line[1:5].isdigit() else logging.DEBUG
        log.log(level, "triton: %s", line)
