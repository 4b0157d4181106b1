"""What dead runs leave is cleared, and nothing of anybody else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lotabotsd.runtime.remains import (
    clear_bytecode,
    clear_shared_memory,
    clear_sockets,
    end_orphans,
    shared_memory_prefix,
)


def test_regions_of_this_appliance_are_removed_and_no_others(tmp_path: Path) -> None:
    mine, other = shared_memory_prefix(Path("/mine")), shared_memory_prefix(Path("/other"))
    assert mine != other
    for name in (f"{mine}run1-x", f"{mine}run2-y", f"{other}run1-x", "triton_python_backend_shm_region_z"):
        (tmp_path / name).write_bytes(b"")
    assert clear_shared_memory(shared_memory_prefix(Path("/mine"), "run1"), tmp_path) == 1
    assert clear_shared_memory(mine, tmp_path) == 1
    assert clear_shared_memory(mine, tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"{other}run1-x", "triton_python_backend_shm_region_z"]
    )


def test_a_region_that_cannot_be_removed_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "lotabots-x-dir").mkdir()
    assert clear_shared_memory("lotabots-x-", tmp_path) == 0


def test_orphans_of_our_own_stub_are_ended_even_when_it_was_replaced(tmp_path: Path) -> None:
    sleep = shutil.which("sleep")
    assert sleep
    mine, other = tmp_path / "mine", tmp_path / "other"
    shutil.copy(sleep, mine)
    shutil.copy(sleep, other)
    orphans = [subprocess.Popen([mine, "60"]), subprocess.Popen([mine, "60"])]
    stranger = subprocess.Popen([other, "60"])
    mine.unlink()
    try:
        assert end_orphans(mine) == 2
        assert [orphan.wait(10) for orphan in orphans] == [-9, -9]
        assert stranger.poll() is None
        assert end_orphans(mine) == 0
    finally:
        stranger.kill()
        stranger.wait(10)


def test_sockets_and_bytecode_are_removed_and_it_is_no_error_when_there_are_none(tmp_path: Path) -> None:
    cache = tmp_path / "live" / "m" / "1" / "__pycache__"
    cache.mkdir(parents=True)
    (cache / "model.cpython-311.pyc").write_bytes(b"")
    (tmp_path / "live" / "m" / "1" / "model.py").write_bytes(b"")
    (tmp_path / "http.sock").write_bytes(b"")
    for _ in range(2):
        clear_sockets([tmp_path / "http.sock", tmp_path / "grpc.sock:8001"])
        clear_bytecode(tmp_path / "live")
    assert not (tmp_path / "http.sock").exists()
    assert list(cache.iterdir()) == []
    assert (tmp_path / "live" / "m" / "1" / "model.py").exists()
