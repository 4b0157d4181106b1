"""The outbox: a report is in one folder and only moves on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.outbox import Folder, Outbox

NAME = "lotabots-usage-apl_test-000001.zip"


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox")


def test_the_folders_are_made_for_the_owner_alone(outbox: Outbox, tmp_path: Path) -> None:
    for folder in Folder:
        assert (tmp_path / "outbox" / folder).stat().st_mode & 0o077 == 0


def test_a_report_begins_in_new(outbox: Outbox) -> None:
    path = outbox.put(NAME, b"zip")
    assert path.parent.name == "new"
    assert outbox.read(NAME) == b"zip"
    assert [(e.name, e.folder, e.size_bytes) for e in outbox.entries()] == [(NAME, Folder.NEW, 3)]


def test_putting_the_same_bytes_again_changes_nothing(outbox: Outbox) -> None:
    outbox.put(NAME, b"zip")
    outbox.move(NAME, Folder.SENT)
    assert outbox.put(NAME, b"zip").parent.name == "sent"
    assert len(outbox.entries()) == 1


def test_other_bytes_under_the_same_name_are_refused(outbox: Outbox) -> None:
    outbox.put(NAME, b"zip")
    with pytest.raises(LotaBotsError) as caught:
        outbox.put(NAME, b"another")
    assert caught.value.code is Code.ALREADY_EXISTS
    assert outbox.read(NAME) == b"zip"


def test_a_report_moves_on_and_never_back(outbox: Outbox) -> None:
    outbox.put(NAME, b"zip")
    assert outbox.move(NAME, Folder.ACKNOWLEDGED).parent.name == "acknowledged"
    assert outbox.move(NAME, Folder.SENT).parent.name == "acknowledged"
    assert outbox.move(NAME, Folder.ACKNOWLEDGED).parent.name == "acknowledged"
    assert outbox.holds(NAME)


def test_a_report_that_is_not_there_is_said_so(outbox: Outbox) -> None:
    assert not outbox.holds(NAME)
    for act in (outbox.read, outbox.path, lambda name: outbox.move(name, Folder.SENT)):
        with pytest.raises(LotaBotsError) as caught:
            act(NAME)
        assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "", "new", "lotabots-usage-x-1.zip", NAME + "\n", "/" + NAME]
)
def test_a_name_that_is_no_reports_is_refused(outbox: Outbox, name: str) -> None:
    for act in (
        outbox.read,
        outbox.path,
        outbox.holds,
        lambda n: outbox.put(n, b""),
        lambda n: outbox.move(n, Folder.SENT),
    ):
        with pytest.raises(LotaBotsError) as caught:
            act(name)
        assert caught.value.code is Code.VALUE_INVALID


def test_other_files_are_not_shown(outbox: Outbox, tmp_path: Path) -> None:
    (tmp_path / "outbox" / "new" / "notes.txt").write_text("x")
    assert outbox.entries() == []


def test_an_outbox_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LotaBotsError) as caught:
        Outbox(tmp_path / "file")
    assert caught.value.code is Code.FILE_UNWRITABLE
