"""Logging: the datagram's bytes, the allow-list, the readable line."""

from __future__ import annotations

import io
import logging
import os
import socket
import struct
import sys
from pathlib import Path

import pytest

from lotabotsd.foundation.journald import (
    FIELDS,
    JournalHandler,
    LineHandler,
    connected_to_journald,
    journal_datagram,
)


def record(message: str, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("lotabotsd.room", level, "/a/path.py", 7, message, None, None, "a_function")
    made.__dict__.update(extra)
    return made


def test_the_datagram_has_exactly_these_bytes() -> None:
    assert journal_datagram("gate", record("ready", worker=3), "ready") == (
        b"MESSAGE=ready\nPRIORITY=6\nSYSLOG_IDENTIFIER=gate\nCODE_FUNC=a_function\n"
        b"LOGGER=lotabotsd.room\nLOTABOTS_WORKER=3\n"
    )


def test_a_value_with_a_line_break_cannot_make_a_field_of_its_own() -> None:
    text = "one\nPRIORITY=0"
    assert journal_datagram("gate", record(text), text).startswith(
        b"MESSAGE\n" + struct.pack("<Q", len(text)) + text.encode() + b"\nPRIORITY=6\n"
    )


@pytest.mark.parametrize(
    ("level", "priority"),
    [("DEBUG", 7), ("INFO", 6), ("WARNING", 4), ("ERROR", 3), ("CRITICAL", 2)],
)
def test_levels_become_priorities_of_syslog(level: str, priority: int) -> None:
    assert f"\nPRIORITY={priority}\n".encode() in journal_datagram(
        "gate", record("x", logging.getLevelNamesMapping()[level]), "x"
    )


def test_only_names_on_the_list_pass() -> None:
    made = record("x", key_id="abc", secret="lb_live_never", body=b"pixels", token="eyJ")
    datagram = journal_datagram("gate", made, "x")
    assert b"LOTABOTS_KEY_ID=abc\n" in datagram
    for leaked in (b"lb_live_never", b"pixels", b"eyJ", b"SECRET", b"BODY", b"TOKEN"):
        assert leaked not in datagram


def test_no_name_on_the_list_sounds_like_a_secret() -> None:
    assert not {name for name in FIELDS for word in ("secret", "token", "body", "pass") if word in name}


def test_text_that_is_not_unicode_is_replaced() -> None:
    assert b"LOTABOTS_PATH=/a/?\n" in journal_datagram("gate", record("x", path="/a/\udcff"), "x")


def test_a_record_arrives_at_the_journals_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        JournalHandler("daemon", str(tmp_path / "journal")).handle(
            record("licence installed", licence_id="l")
        )
        datagram = journal.recv(4_096)
    assert datagram.startswith(b"MESSAGE=licence installed\n")
    assert datagram.endswith(b"LOTABOTS_LICENCE_ID=l\n")


def test_a_failure_is_told_with_its_traceback(tmp_path: Path) -> None:
    made = record("it broke", logging.ERROR)
    try:
        raise RuntimeError("the reason")
    except RuntimeError:
        made.exc_info = sys.exc_info()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        JournalHandler("daemon", str(tmp_path / "journal")).handle(made)
        assert b"RuntimeError: the reason" in journal.recv(65_536)


def test_a_missing_journal_does_not_stop_the_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    JournalHandler("daemon", str(tmp_path / "absent")).handle(record("x"))
    assert "Logging error" in capsys.readouterr().err


def test_a_line_has_the_component_the_level_the_message_and_the_fields() -> None:
    stream = io.StringIO()
    LineHandler("gate", stream).handle(record("ready", logging.WARNING, worker=3, secret="no"))
    assert stream.getvalue()[8:] == " gate      warning  ready  worker=3\n"


def test_the_journal_is_used_only_when_it_is_at_the_other_end_of_standard_error() -> None:
    assert not connected_to_journald({})
    assert not connected_to_journald({"JOURNAL_STREAM": "nonsense"})
    assert not connected_to_journald({"JOURNAL_STREAM": "0:0"})


def test_standard_error_is_recognised_by_device_and_inode() -> None:
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        pytest.skip("standard error is no file here: run pytest with -s")
    assert connected_to_journald({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
