"""The journal: numbers without gaps, zero-filled segments, and a disk that fails in every place it can."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.journal import MIN_SEGMENT_BYTES, Journal, segment_name
from lotabotsd.usage.records import Outcome, decode_segment_header, encode_close, record_number
from lotabotsd.usage.segments import End, Found, open_segment, reader, scan

RECORD = encode_close(
    open_number=1, wall_ns=1, outcome=Outcome.SERVED, status=200, inferences=1, input_bytes=1, output_bytes=1,
    gate_us=1,
)  # fmt: skip
PER_SEGMENT = (MIN_SEGMENT_BYTES - 64) // len(RECORD)


@pytest.fixture
def files(failing_files: ModuleType) -> Any:
    return failing_files.FailingFiles()


@pytest.fixture
def later() -> list[Callable[[], None]]:
    """What the journal asked to be done in the background."""
    return []


@pytest.fixture
def journal(tmp_path: Path, files: Any, later: list[Callable[[], None]]):
    made = Journal(
        tmp_path, 2, bytes(range(16)), 0xABC, MIN_SEGMENT_BYTES, files=files, in_background=later.append
    )
    yield made
    files.fail.clear()
    try:
        made.close()
    except LotaBotsError:
        return  # poisoned or closed by the test


def numbers(path: Path) -> list[int]:
    descriptor, _released = open_segment(path)
    try:
        found = list(scan(reader(descriptor), 64, final=True))
    finally:
        os.close(descriptor)
    assert found[-1] == End(64 + len(RECORD) * (len(found) - 1), torn=False)
    return [record_number(item.record) for item in found if isinstance(item, Found)]


def segment(tmp_path: Path, number: int) -> Path:
    return tmp_path / "2" / segment_name(0xABC, number)


def test_the_first_segment_is_there_with_its_header_and_zeros(journal: Journal, tmp_path: Path) -> None:
    assert [path.name for path in (tmp_path / "2").iterdir()] == ["0000000000000abc-00000000.seg"]
    data = segment(tmp_path, 0).read_bytes()
    header = decode_segment_header(data)
    assert (header.worker, header.epoch, header.segment, header.first_number) == (2, 0xABC, 0, 1)
    assert data[64:] == bytes(MIN_SEGMENT_BYTES - 64)


def test_the_zeros_are_written_so_that_no_extent_is_converted_later(journal: Journal, tmp_path: Path) -> None:
    assert segment(tmp_path, 0).stat().st_blocks * 512 >= MIN_SEGMENT_BYTES


def test_the_daemon_may_read_and_free_what_the_worker_writes(journal: Journal, tmp_path: Path) -> None:
    assert (tmp_path / "2").stat().st_mode & 0o770 == 0o770
    assert segment(tmp_path, 0).stat().st_mode & 0o777 == 0o640


def test_numbers_begin_at_one_and_have_no_gap(journal: Journal, tmp_path: Path) -> None:
    assert journal.next_number == 1
    assert [journal.append(RECORD) for _ in range(3)] == [1, 2, 3]
    assert numbers(segment(tmp_path, 0)) == [1, 2, 3]


def test_only_a_sync_makes_records_durable(journal: Journal) -> None:
    journal.append(RECORD)
    journal.append(RECORD)
    assert (journal.written, journal.durable) == (2, 0)
    journal.sync()
    assert (journal.written, journal.durable) == (2, 2)


def test_a_sync_covers_what_was_written_at_its_start(journal: Journal, files: Any) -> None:
    journal.append(RECORD)
    files.during = lambda: journal.append(RECORD) and None
    journal.sync()
    assert (journal.written, journal.durable) == (2, 1)


def test_a_sync_with_nothing_to_do_does_not_touch_the_disk(journal: Journal, files: Any) -> None:
    journal.append(RECORD)
    journal.sync()
    files.calls.clear()
    journal.sync()
    assert files.calls == []


def test_a_full_segment_is_followed_by_the_next(journal: Journal, tmp_path: Path) -> None:
    for _ in range(PER_SEGMENT + 1):
        journal.append(RECORD)
    assert numbers(segment(tmp_path, 0)) == list(range(1, PER_SEGMENT + 1))
    assert numbers(segment(tmp_path, 1)) == [PER_SEGMENT + 1]
    assert decode_segment_header(segment(tmp_path, 1).read_bytes()).first_number == PER_SEGMENT + 1


def test_a_sync_after_a_rotation_covers_the_old_segment_and_the_new_name(
    journal: Journal, files: Any
) -> None:
    journal.sync()
    for _ in range(PER_SEGMENT + 1):
        journal.append(RECORD)
    files.calls.clear()
    journal.sync()
    assert files.calls == ["fsync", "fsync", "fdatasync"]
    assert journal.durable == PER_SEGMENT + 1


def test_the_next_segment_is_made_in_the_background(
    journal: Journal, later: list[Callable[[], None]], files: Any
) -> None:
    later.pop()()
    for _ in range(PER_SEGMENT):
        journal.append(RECORD)
    files.calls.clear()
    journal.append(RECORD)
    assert files.calls == ["pwrite", "rename", "pwrite"]  # header, name, record: no zeros, no sync
    assert len(later) == 1


def test_the_background_makes_a_rotated_segment_durable(
    journal: Journal, later: list[Callable[[], None]], tmp_path: Path
) -> None:
    for _ in range(PER_SEGMENT + 1):
        journal.append(RECORD)
    assert not released(segment(tmp_path, 0))
    later[-1]()
    assert journal.durable == PER_SEGMENT + 1
    assert released(segment(tmp_path, 0))


def released(path: Path) -> bool:
    descriptor, free = open_segment(path)
    os.close(descriptor)
    return free


def test_a_living_worker_holds_its_segment(journal: Journal, tmp_path: Path) -> None:
    assert not released(segment(tmp_path, 0))
    journal.close()
    assert released(segment(tmp_path, 0))


def test_the_next_segment_is_held_before_the_old_one_is_let_go(journal: Journal, tmp_path: Path) -> None:
    for _ in range(PER_SEGMENT + 1):
        journal.append(RECORD)
    journal.sync()
    assert released(segment(tmp_path, 0))
    assert not released(segment(tmp_path, 1))


def test_closing_makes_everything_durable_and_leaves_no_unfinished_segment(
    journal: Journal, later: list[Callable[[], None]], tmp_path: Path
) -> None:
    later.pop()()
    journal.append(RECORD)
    journal.close()
    assert journal.durable == 1
    assert [path.suffix for path in (tmp_path / "2").iterdir()] == [".seg"]


def test_a_closed_journal_takes_nothing(journal: Journal) -> None:
    journal.close()
    with pytest.raises(LotaBotsError, match="closed") as caught:
        journal.append(RECORD)
    assert caught.value.code is Code.JOURNAL_UNAVAILABLE


def test_work_left_for_the_background_does_nothing_after_closing(
    journal: Journal, later: list[Callable[[], None]], tmp_path: Path
) -> None:
    journal.close()
    later.pop()()
    assert len(list((tmp_path / "2").iterdir())) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_append_that_fails_gives_the_same_number_again(
    journal: Journal, files: Any, tmp_path: Path, number: int
) -> None:
    journal.append(RECORD)
    files.fail["pwrite"] = [number]
    with pytest.raises(LotaBotsError) as caught:
        journal.append(RECORD)
    assert caught.value.code is Code.JOURNAL_UNAVAILABLE
    assert caught.value.http_status == 503
    assert journal.append(RECORD) == 2
    assert numbers(segment(tmp_path, 0)) == [1, 2]


def test_an_append_that_fails_half_way_is_written_over(journal: Journal, files: Any, tmp_path: Path) -> None:
    files.short = True
    files.fail["pwrite"] = [None, None, errno.ENOSPC]
    with pytest.raises(LotaBotsError):
        journal.append(RECORD)
    files.short = False
    assert journal.append(RECORD) == 1
    assert numbers(segment(tmp_path, 0)) == [1]


def test_short_writes_are_finished(journal: Journal, files: Any, tmp_path: Path) -> None:
    files.short = True
    journal.append(RECORD)
    journal.append(RECORD)
    assert numbers(segment(tmp_path, 0)) == [1, 2]


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_a_failed_sync_poisons_the_journal(journal: Journal, files: Any, call: str) -> None:
    journal.append(RECORD)
    files.fail[call] = [errno.EIO]
    with pytest.raises(LotaBotsError, match="durable") as caught:
        journal.sync()
    assert caught.value.code is Code.JOURNAL_UNAVAILABLE
    assert journal.durable == 0
    files.calls.clear()
    for again in (journal.sync, lambda: journal.append(RECORD)):
        with pytest.raises(LotaBotsError, match="durable"):
            again()
    assert files.calls == []  # never tried again


@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "rename"])
def test_a_rotation_that_fails_leaves_no_debris_and_is_tried_again(
    journal: Journal, files: Any, tmp_path: Path, call: str
) -> None:
    for _ in range(PER_SEGMENT):
        journal.append(RECORD)
    files.fail[call] = [errno.ENOSPC]
    with pytest.raises(LotaBotsError) as caught:
        journal.append(RECORD)
    assert caught.value.code is Code.JOURNAL_UNAVAILABLE
    assert len(list((tmp_path / "2").iterdir())) == 1
    assert journal.append(RECORD) == PER_SEGMENT + 1
    journal.sync()
    assert journal.durable == PER_SEGMENT + 1


def test_a_rotation_of_unknown_outcome_poisons_the_journal(
    journal: Journal, files: Any, tmp_path: Path
) -> None:
    """With the next segment in sight, the reader frees the one that would be written on."""
    for _ in range(PER_SEGMENT):
        journal.append(RECORD)
    files.fails_too_late = True
    with pytest.raises(LotaBotsError, match="begin a segment"):
        journal.append(RECORD)
    assert journal.poisoned
    assert numbers(segment(tmp_path, 0)) == list(range(1, PER_SEGMENT + 1))


def test_what_cannot_be_removed_is_left_for_the_next_start(
    journal: Journal, files: Any, tmp_path: Path
) -> None:
    for _ in range(PER_SEGMENT):
        journal.append(RECORD)
    files.fail.update(rename=[errno.ENOSPC], unlink=[errno.EROFS])
    with pytest.raises(LotaBotsError) as caught:
        journal.append(RECORD)
    assert caught.value.code is Code.JOURNAL_UNAVAILABLE
    assert sorted(path.suffix for path in (tmp_path / "2").iterdir()) == [".new", ".seg"]
    assert journal.append(RECORD) == PER_SEGMENT + 1


def test_a_failed_preparation_in_the_background_harms_nothing(
    journal: Journal, files: Any, later: list[Callable[[], None]]
) -> None:
    files.fail["open"] = [errno.ENOSPC]
    later.pop()()
    assert journal.append(RECORD) == 1


def test_the_directory_of_a_new_worker_is_made_durable_first(tmp_path: Path, files: Any) -> None:
    Journal(tmp_path, 0, bytes(16), 1, MIN_SEGMENT_BYTES, files=files, in_background=lambda work: None)
    assert files.calls == ["fsync", "open", "pwrite", "fsync", "pwrite", "rename"]


@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "rename"])
def test_a_journal_that_cannot_begin_says_so(tmp_path: Path, files: Any, call: str) -> None:
    files.fail[call] = [errno.ENOSPC]
    with pytest.raises(LotaBotsError) as caught:
        Journal(tmp_path, 0, bytes(16), 1, MIN_SEGMENT_BYTES, files=files)
    assert caught.value.code is Code.JOURNAL_UNAVAILABLE
    assert list((tmp_path / "0").iterdir()) == []


def test_a_journal_without_its_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(LotaBotsError) as caught:
        Journal(tmp_path / "missing", 0, bytes(16), 1, MIN_SEGMENT_BYTES)
    assert caught.value.code is Code.JOURNAL_UNAVAILABLE


def test_unfinished_segments_of_an_earlier_life_are_removed(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "0000000000000001-7f-1.new").write_bytes(b"half")
    Journal(tmp_path, 0, bytes(16), 2, MIN_SEGMENT_BYTES, in_background=lambda work: None).close()
    assert [path.name for path in (tmp_path / "0").iterdir()] == [segment_name(2, 0)]


def test_a_segment_of_an_earlier_life_is_never_written_over(tmp_path: Path) -> None:
    first = Journal(tmp_path, 0, bytes(16), 1, MIN_SEGMENT_BYTES, in_background=lambda work: None)
    first.append(RECORD)
    first.close()
    Journal(tmp_path, 0, bytes(16), 2, MIN_SEGMENT_BYTES, in_background=lambda work: None).close()
    assert numbers(tmp_path / "0" / segment_name(1, 0)) == [1]


@pytest.mark.parametrize(("epoch", "size"), [(-1, 65_536), (1 << 63, 65_536), (1, MIN_SEGMENT_BYTES - 1)])
def test_an_epoch_or_size_that_cannot_be_is_a_bug_of_the_caller(
    tmp_path: Path, epoch: int, size: int
) -> None:
    with pytest.raises(ValueError, match="epoch"):
        Journal(tmp_path, 0, bytes(16), epoch, size)


def test_appending_goes_on_while_threads_sync(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 2, bytes(16), 0xABC, MIN_SEGMENT_BYTES)
    stop = threading.Event()

    def keep_syncing() -> None:
        while not stop.is_set():
            journal.sync()

    threads = [threading.Thread(target=keep_syncing) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        total = PER_SEGMENT * 8
        assert [journal.append(RECORD) for _ in range(total)] == list(range(1, total + 1))
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    journal.close()
    assert journal.durable == total
    found = [n for path in sorted((tmp_path / "2").glob("*.seg")) for n in numbers(path)]
    assert found == list(range(1, total + 1))


def test_the_lock_does_not_pass_to_programs_that_are_started(journal: Journal, tmp_path: Path) -> None:
    held = [int(fd.name) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink() and is_segment(fd)]
    assert held
    assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in held)


def is_segment(link: Path) -> bool:
    try:
        return os.readlink(link).endswith(".seg")  # noqa: PTH115 - text is enough
    except OSError:
        return False
