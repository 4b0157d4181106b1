"""The command as `python -m lotabotsd.attestation.verify`, or as the one file run by its path."""

from __future__ import annotations

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
