"""scripts/walk: the demo empties only its own folder, and a wrong result stops the walk."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WALK = Path(__file__).resolve().parents[2] / "scripts" / "walk"
NAMES = ("appliance", "telling", "pages", "client", "steps", "walk")


@pytest.fixture(scope="module")
def walk() -> Iterator[dict[str, Any]]:
    """The demo's modules, loaded as scripts/demo does, from their own folder."""
    sys.path.insert(0, str(WALK))
    try:
        yield {name: __import__(name) for name in NAMES}
    finally:
        sys.path.remove(str(WALK))
        for name in NAMES:
            sys.modules.pop(name, None)


def test_a_folder_with_somebody_elses_files_is_left_alone(walk: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(walk["appliance"].FolderInUseError, match="something else"):
        walk["appliance"].claim_folder(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_folder_of_an_earlier_demo_is_emptied(walk: dict[str, Any], tmp_path: Path) -> None:
    os.close(walk["appliance"].claim_folder(tmp_path))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.db").write_text("old")
    os.close(walk["appliance"].claim_folder(tmp_path))
    assert [item.name for item in tmp_path.iterdir()] == [walk["appliance"].MARK]


def test_a_folder_in_which_a_demo_runs_is_refused(walk: dict[str, Any], tmp_path: Path) -> None:
    lock = walk["appliance"].claim_folder(tmp_path)
    with pytest.raises(walk["appliance"].FolderInUseError, match="a demo runs"):
        walk["appliance"].claim_folder(tmp_path)
    os.close(lock)


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/passwd/x", "/proc/x"])
def test_what_is_no_folder_is_refused_without_a_traceback(walk: dict[str, Any], path: str) -> None:
    with pytest.raises(walk["appliance"].FolderUnusableError, match=r"cannot be used \(.+\): give --dir"):
        walk["appliance"].claim_folder(Path(path))


@pytest.mark.parametrize("name", ["two words", "a$b", "a'b", "a;b", "naïve", "a\nb"])
def test_a_path_that_triton_cannot_start_from_is_refused(
    walk: dict[str, Any], tmp_path: Path, name: str
) -> None:
    with pytest.raises(walk["appliance"].FolderUnusableError, match="white space and shell characters"):
        walk["appliance"].claim_folder(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_port_says_why_it_cannot_be_had(walk: dict[str, Any]) -> None:
    problem = walk["appliance"].port_problem
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert problem(port) == "Address already in use"
    assert problem(port) == problem(0) == ""


def _appliance(walk: dict[str, Any], folder: Path, port: int, up: str) -> Any:
    """An appliance of which `lotabotsd` is a shell script that says what is given."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "lotabotsd").write_text(f"#!/bin/sh\n{up}\n")
    (programs / "lotabotsd").chmod(0o755)
    return walk["appliance"].Appliance(folder, port, walk["telling"].Telling(1), programs)


def test_an_appliance_is_started_when_up_itself_says_so(walk: dict[str, Any], tmp_path: Path) -> None:
    up = 'echo "up      | waiting: all"; echo "up      | ready: http://127.0.0.1:1"; exec sleep 60'
    appliance = _appliance(walk, tmp_path, 1, up)
    appliance.start()
    assert appliance.stop() == -15
    assert "ready: " in appliance.log.read_text()


@pytest.mark.parametrize(
    ("up", "told"),
    [
        (
            "echo 'error: address taken' >&2; echo ' hint: take another' >&2; exit 8",
            "exit 8: error: address taken",
        ),
        ("echo 'gate    | error: one of the children'; exit 3", "exit 3$"),
        ("echo 'gate    | up      | ready: not said by up'; exit 0", "exit 0$"),
        ("echo 'up      | still not ready after 120 s: all'; exec sleep 60", "up says: still not ready"),
    ],
)
def test_a_start_ends_as_soon_as_up_has_failed(
    walk: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, up: str, told: str
) -> None:
    monkeypatch.setattr(walk["appliance"], "LAST_WORDS_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as stranger:  # never asked: it could say that it is ready
        appliance = _appliance(walk, tmp_path, stranger.getsockname()[1], up)
        try:
            with pytest.raises(walk["telling"].WrongResultError, match=told):
                appliance.start()
            stranger.setblocking(False)
            with pytest.raises(BlockingIOError):
                stranger.accept()
        finally:
            appliance.stop()


def test_models_are_not_waited_for_when_up_has_ended(walk: dict[str, Any], tmp_path: Path) -> None:
    up = f'echo "up      | ready: all"; until [ -e {tmp_path}/end ]; do sleep 0.02; done; exit 5'
    appliance = _appliance(walk, tmp_path, 1, up)
    appliance.start()
    (tmp_path / "end").touch()
    assert appliance.wait() == 5
    with pytest.raises(walk["telling"].WrongResultError, match="exit 5"):
        appliance.wait_for_models()


def test_a_failed_step_names_the_log_and_what_to_do_next(
    walk: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_walk: Any) -> None:
        raise KeyError("tier")

    monkeypatch.setattr(walk["walk"], "STEPS", (("A step", failing),))
    monkeypatch.setattr(sys, "argv", ["demo", "--once", "--port", "0", "--dir", str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert walk["walk"].main() == 3
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    said = capsys.readouterr().out
    assert "WRONG in \"A step\": KeyError: 'tier'" in said
    assert f"next: read {tmp_path}/up.log" in said
    assert f"lotabotsd up --config {tmp_path}/lotabots.toml" in said


def test_a_wrong_result_stops_the_walk(walk: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    telling = walk["telling"].Telling(1)
    telling.proved("water is wet", True)
    with pytest.raises(walk["telling"].WrongResultError):
        telling.proved("water is dry", False)
    assert capsys.readouterr().out.split() == ["✓", "water", "is", "wet", "✗", "water", "is", "dry"]


def test_the_four_pages_are_one_page_turned_clockwise(walk: dict[str, Any], tmp_path: Path) -> None:
    pages = walk["pages"]
    upright = pages.page()
    quarter = pages.turned(upright, 90)
    assert quarter.size == (upright.height, upright.width)
    # The top left corner of a page turned clockwise is at the top right.
    assert quarter.getpixel((quarter.width - 1 - 90, 90)) == upright.getpixel((90, 90))
    assert [path.read_bytes()[:4] for path in pages.write_pages(tmp_path).values()] == [b"\x89PNG"] * 4
