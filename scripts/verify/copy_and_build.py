"""Copy the verifier here as lotabots_verify.py, then build as setuptools does (PEP 517)."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools.build_meta import *  # noqa: F403 - the hooks that a front end calls

_HERE = Path(__file__).parent
_SOURCE = _HERE.parent.parent / "lotabotsd" / "attestation" / "verify.py"

if _SOURCE.exists():  # in a source distribution the copy is there already
    shutil.copyfile(_SOURCE, _HERE / "lotabots_verify.py")
