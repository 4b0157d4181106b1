"""The digest of a model: the documented command prints the same, and every change shows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.models import digest
from lotabotsd.models.digest import combine, file_digests, tree_digest


def test_the_digest_is_the_one_that_the_documented_command_prints(tiny: Path) -> None:
    (tiny / "1" / "__pycache__").mkdir()
    (tiny / "1" / "__pycache__" / "model.pyc").write_bytes(b"derived")
    (tiny / "Zebra").write_bytes(b"")
    documented = re.search(r"find -type f.*sha256sum \| sha256sum", digest.__doc__ or "", re.DOTALL)
    assert documented
    command = documented.group().replace("\\\n", "\n").replace("\n      |", " |")
    done = subprocess.run(["bash", "-c", command], cwd=tiny, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == tree_digest(tiny)


def test_golden_digest_of_a_listing() -> None:
    files = {"config.pbtxt": "1" * 64, "1/model.onnx": "2" * 64}
    assert combine(files) == "8e480bb072c2680af35e521ac556c8902be60534f9a8490c16949c72b15cd286"
    assert combine(dict(reversed(files.items()))) == combine(files)


def test_every_change_changes_the_digest(tiny: Path) -> None:
    seen = {tree_digest(tiny)}
    (tiny / "labels.txt").write_text("cat\nbird\n", encoding="utf-8")
    seen.add(tree_digest(tiny))
    (tiny / "labels.txt").rename(tiny / "label.txt")
    seen.add(tree_digest(tiny))
    (tiny / "more").write_bytes(b"")
    seen.add(tree_digest(tiny))
    assert len(seen) == 4


def test_bytecode_is_not_part_of_it(tiny: Path) -> None:
    before = tree_digest(tiny)
    (tiny / "1" / "__pycache__").mkdir()
    (tiny / "1" / "__pycache__" / "model.pyc").write_bytes(b"derived")
    assert tree_digest(tiny) == before


def test_a_link_is_refused_since_its_target_lies_outside(tiny: Path) -> None:
    (tiny / "extra").symlink_to("/etc/hostname")
    with pytest.raises(LotaBotsError) as refused:
        file_digests(tiny)
    assert refused.value.code is Code.FILE_UNREADABLE
