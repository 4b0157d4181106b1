"""Files appear whole or not at all, also when the disk does not help."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.files import read_bounded, refuse_foreign, sync_directory, write_atomically


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tiny file system needs root: run the tests as root")
    point = tmp_path / "tiny"
    point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(point)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mount is not permitted here: run the tests as root outside an unprivileged container")
    yield point
    subprocess.run(["umount", str(point)], check=True)


def test_a_file_is_written_with_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "a", b"content", mode=0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"content"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_writing_again_replaces_the_file_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old" * 1_000, mode=0o600)
    reader = path.open("rb")
    write_atomically(path, b"", mode=0o600)
    assert path.read_bytes() == b""
    assert reader.read() == b"old" * 1_000, "who has the old file open keeps the whole old file"
    reader.close()
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_what_a_crashed_writer_left_behind_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / f".a.{os.getpid()}.new").write_bytes(b"half a file, longer than the new one")
    write_atomically(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_symbolic_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "a").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("where", ["absent/a", "file/a"])
def test_a_directory_that_is_none_is_unwritable(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LotaBotsError) as failure:
        write_atomically(tmp_path / where, b"content")
    assert failure.value.code is Code.FILE_UNWRITABLE
    assert where in failure.value.detail


def test_a_name_that_is_a_directory_is_unwritable_and_nothing_stays_beside(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(LotaBotsError) as failure:
        write_atomically(tmp_path / "a", b"content")
    assert failure.value.code is Code.FILE_UNWRITABLE
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere: run the tests as another user")
def test_a_directory_without_write_permission_is_unwritable(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(LotaBotsError) as failure:
            write_atomically(tmp_path / "a", b"content")
    finally:
        tmp_path.chmod(0o755)
    assert failure.value.code is Code.FILE_UNWRITABLE


def test_a_full_disk_leaves_the_old_file_and_says_so(tiny_disk: Path) -> None:
    write_atomically(tiny_disk / "a", b"old")
    with pytest.raises(LotaBotsError) as failure:
        write_atomically(tiny_disk / "a", bytes(200_000))
    assert failure.value.code is Code.DISK_FULL
    assert (tiny_disk / "a").read_bytes() == b"old"
    assert [file.name for file in tiny_disk.iterdir()] == ["a"]


def test_a_read_only_disk_is_unwritable(tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(LotaBotsError) as failure:
        write_atomically(tiny_disk / "a", b"new")
    assert failure.value.code is Code.FILE_UNWRITABLE


def test_a_file_is_read_up_to_its_limit_and_not_beyond(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(LotaBotsError, match="larger than 4 bytes"):
        read_bounded(tmp_path / "a", 4)
    (tmp_path / "empty").write_bytes(b"")
    assert read_bounded(tmp_path / "empty", 0) == b""


@pytest.mark.parametrize("where", ["absent", ".", "file/a"])
def test_what_cannot_be_read_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LotaBotsError) as failure:
        read_bounded(tmp_path / where, 10)
    assert failure.value.code is Code.FILE_UNREADABLE


def test_only_directories_can_be_synced(tmp_path: Path) -> None:
    sync_directory(tmp_path)
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        sync_directory(tmp_path / "a")


def test_what_decides_what_is_started_belongs_to_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("")
    path.chmod(0o644)
    refuse_foreign(path.stat(), path)
    refuse_foreign(tmp_path.stat(), tmp_path)
    refuse_foreign(Path("/tmp").stat(), Path("/tmp"))  # the sticky bit: nobody replaces another's file
    path.chmod(0o646)
    with pytest.raises(LotaBotsError) as failure:
        refuse_foreign(path.stat(), path)
    assert failure.value.code is Code.FILE_UNREADABLE
    assert str(path) in failure.value.hint
    with pytest.raises(LotaBotsError):
        refuse_foreign(Path("/dev/null").stat(), Path("/dev/null"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away: run the tests as root")
def test_root_trusts_root_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("")
    for uid, mode in ((65_534, 0o600), (0, 0o620)):
        os.chown(path, uid, 0)
        path.chmod(mode)
        with pytest.raises(LotaBotsError):
            refuse_foreign(path.stat(), path)
