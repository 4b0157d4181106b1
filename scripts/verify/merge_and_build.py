"""Merge the verifier into lotabots_verify.py here, then build as setuptools does (PEP 517)."""

from __future__ import annotations

from pathlib import Path

from merge_verifier import PACKAGE, merge
from setuptools.build_meta import *  # noqa: F403 - the hooks that a front end calls

if PACKAGE.exists():  # in a source distribution the one file is there already
    (Path(__file__).parent / "lotabots_verify.py").write_text(merge(PACKAGE), encoding="utf-8")
