"""A file is damaged while all is off: it is told with a hint, and nothing is lost or served wrongly."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from gate_clients import INFER, Key, outcomes_sum, tensor_body, wait_for
from whole_appliance import Appliance, running_appliance

pytestmark = pytest.mark.required

QUOTA = 3
SEGMENT_HEADER_BYTES = 64
Harm = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Day:
    """What an appliance left behind when it was stopped in the evening."""

    appliance: Appliance
    spent: Key  # its quota of three inferences is spent
    revoked: Key


@pytest.fixture(scope="module")
def day() -> Iterator[Day]:
    """A day with a licence, a key that spent its quota, and a revoked key; all is off now."""
    body, headers = tensor_body()
    for appliance in running_appliance(Appliance()):
        appliance.start()
        appliance.ready()
        appliance.people()
        appliance.ctl("licence", "install", str(appliance.licence("pro")))
        spent = appliance.key("spent", "--quota-per-month", str(QUOTA))
        revoked = appliance.key("revoked")
        for _ in range(QUOTA):
            assert appliance.ask("POST", INFER, spent, body, **headers).status == 200
        appliance.ctl("key", "revoke", revoked.key_id)
        appliance.drained()
        appliance.ctl("usage", "export", "--cut")
        appliance.stop()
        yield Day(appliance, spent, revoked)


@pytest.fixture
def copied(day: Day) -> Iterator[Appliance]:
    """A copy of that day, off."""
    for appliance in running_appliance(Appliance()):
        appliance.copy_of(day.appliance)
        yield appliance


def overwritten(path: Path) -> None:
    """Every second half page from the second page on is other bytes."""
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 2048] = b"\xa5" * 2048
    path.write_bytes(data)


def cut(path: Path) -> None:
    """The second half is missing."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def not_ours(path: Path) -> None:
    """Another program's database."""
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE notes (text)")
    connection.close()


def letters(path: Path) -> None:
    """No database at all."""
    path.write_bytes(b"Dear Sir or Madam, " * 1000)


def serving(appliance: Appliance) -> subprocess.Popen[bytes]:
    """Start the daemon alone, and wait for its answer."""
    process = appliance.start("serve")
    wait_for(lambda: _answers(appliance), 20, "the daemon answers")
    return process


def _answers(appliance: Appliance) -> bool:
    return appliance.command("lotabotsctl", "licence", "show").returncode == 0


def ends_with_a_hint(appliance: Appliance, *, exit_code: int = 3) -> str:
    """Start the daemon alone: it ends with the catalogue's words. What it said."""
    process = appliance.start("serve")
    assert process.wait(20) == exit_code
    appliance.end(process)
    said = appliance.log.read_text()
    assert "Traceback" not in said
    assert "error: " in said
    assert "\n hint: " in said
    return said


def contents(directory: Path) -> dict[str, bytes]:
    """Every file with its bytes."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


# -- configuration
def test_every_fault_of_a_configuration_is_named_at_once_with_its_line(copied: Appliance) -> None:
    text = copied.config.read_text().replace("[usage]", "[usage]\ndrain_secnods = 1\nsegment_bytes = 7")
    copied.config.write_text(text.replace('enabled = ["page_orientation"]', "enabled = 5"))
    before = contents(copied.state)
    said = ends_with_a_hint(copied, exit_code=5)
    for words in ("drain_secnods", "drain_seconds", "segment_bytes", "models.enabled"):
        assert words in said
    checked = copied.command("lotabotsd", "check-config", str(copied.config))
    assert checked.returncode == 5
    lines = text.splitlines()
    for name in ("drain_secnods = 1", "segment_bytes = 7"):
        assert f"{copied.config}:{lines.index(name) + 1}: " in checked.stderr
    assert contents(copied.state) == before


@pytest.mark.parametrize("bad", [b"[gate\n", b"\xff\xfe\0"], ids=["no TOML", "no text"])
def test_what_is_no_configuration_is_told(copied: Appliance, bad: bytes) -> None:
    copied.config.write_bytes(bad)
    ends_with_a_hint(copied, exit_code=5)


# -- the licence
@pytest.mark.parametrize("harm", [cut, letters])
def test_a_damaged_licence_file_means_free_limits_until_it_is_installed_again(
    copied: Appliance, day: Day, harm: Harm
) -> None:
    file = copied.state / "licence" / "current.dsse.json"
    harm(file)
    damaged = file.read_bytes()
    serving(copied)
    standing = copied.ctl_json("licence", "show")["standing"]
    assert (standing["state"], standing["code"], standing["tier"]) == (
        "restricted",
        "licence_unusable",
        "free",
    )
    assert standing["effect"]
    assert "licence" in copied.ctl("doctor", exit_code=3)
    assert file.read_bytes() == damaged
    (licence,) = day.appliance.folder.glob("pro-*.licence")
    copied.ctl("licence", "install", str(licence))
    assert copied.ctl_json("licence", "show")["standing"]["tier"] == "pro"


# -- databases
@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("state.db", overwritten),
        ("state.db", letters),
        ("ledger.db", overwritten),
        ("ledger.db", cut),
        ("ledger.db", not_ours),
    ],
)
def test_a_damaged_database_stops_the_daemon_and_is_left_as_it_is(
    copied: Appliance, name: str, harm: Harm
) -> None:
    file = copied.state / name
    harm(file)
    damaged = file.read_bytes()
    said = ends_with_a_hint(copied)
    assert name in said
    assert file.read_bytes() == damaged


def test_a_row_of_the_ledger_changed_by_hand_is_named(copied: Appliance) -> None:
    with sqlite3.connect(copied.state / "ledger.db") as connection:
        for (trigger,) in connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f'DROP TRIGGER "{trigger}"')
        connection.execute("UPDATE windows SET inferences = inferences - 1 WHERE inferences = ?", (QUOTA,))
    connection.close()
    serving(copied)
    verdict = copied.command("lotabotsctl", "ledger", "verify")
    assert verdict.returncode == 3
    assert "ROW_HASH_MISMATCH at row" in verdict.stdout


def test_a_ledger_that_was_taken_away_is_missed(copied: Appliance) -> None:
    for path in copied.state.glob("ledger.db*"):
        path.unlink()
    serving(copied)
    verdict = copied.command("lotabotsctl", "ledger", "verify")
    assert verdict.returncode == 3
    assert "TAIL_TRUNCATED" in verdict.stdout


@pytest.mark.parametrize("harm", [overwritten, cut, not_ours])
def test_a_damaged_policy_is_put_aside_and_made_anew_from_the_identities(
    copied: Appliance, day: Day, harm: Harm
) -> None:
    file = copied.state / "policy" / "policy.db"
    harm(file)
    damaged = file.read_bytes()
    copied.start("gate")
    serving(copied)
    body, headers = tensor_body()
    answer = wait_for(lambda: _judged(copied, day.spent), 20, "the gate judges")
    assert (answer.status, answer.json["code"]) == (503, "model_not_ready")  # known; and there is no Triton
    refused = copied.ask("POST", INFER, day.revoked, body, **headers)
    assert (refused.status, refused.json["code"]) == (401, "key_invalid")
    assert (copied.state / "policy" / "policy.db.damaged").read_bytes() == damaged


def _judged(appliance: Appliance, key: Key) -> object:
    """What the gate says of a key once it has what it judges by."""
    body, headers = tensor_body()
    try:
        answer = appliance.ask("POST", INFER, key, body, **headers)
    except OSError:
        return None
    return None if answer.json["code"] == "starting" else answer


# -- what is shared while running
def test_a_damaged_limits_table_is_made_anew_and_no_quota_is_given_twice(copied: Appliance, day: Day) -> None:
    letters(copied.run / "gate" / "limits.table")
    copied.start()
    copied.ready()
    body, headers = tensor_body()
    answer = copied.ask("POST", INFER, day.spent, body, **headers)
    assert (answer.status, answer.json["code"]) == (429, "quota_spent")


def test_a_damaged_journal_is_counted_as_far_as_it_can_be_read(copied: Appliance, day: Day) -> None:
    gate = copied.start("gate")
    daemon = serving(copied)
    wait_for(lambda: _judged(copied, day.spent), 20, "the gate judges")
    copied.drained()
    before = copied.outcomes(day.spent)
    assert copied.end(daemon) == 0
    body, headers = tensor_body()
    for _ in range(10):  # refused, for there is no Triton: ten times OPEN and CLOSE
        assert copied.ask("POST", INFER, day.spent, body, **headers).status == 503
    assert copied.end(gate) == 0
    (segment,) = (copied.state / "journal" / "0").glob("*.seg")
    damage_record(segment, -13)  # a CLOSE in their middle
    serving(copied)
    copied.drained()
    after = copied.outcomes(day.spent)
    assert outcomes_sum(after) == outcomes_sum(before) + 10
    assert after["refused_unready"] == before["refused_unready"] + 9
    assert after["aborted"] == before.get("aborted", 0) + 1
    assert after["served"] == before["served"] == QUOTA
    assert [path.name for path in segment.parent.iterdir()] == [f"{segment.name}.damaged"]
    assert "ledger" in copied.ctl("doctor", exit_code=3)
    copied.ctl("ledger", "verify", exit_code=3)


def damage_record(segment: Path, index: int) -> None:
    """Turn one bit in the middle of one record, counted as in a list."""
    data = bytearray(segment.read_bytes())
    starts, at = [], SEGMENT_HEADER_BYTES
    while length := int.from_bytes(data[at + 4 : at + 6], "little"):
        starts.append(at)
        at += length
    data[starts[index] + 24] ^= 1
    segment.write_bytes(data)


def test_a_copy_without_damage_goes_on_where_the_day_ended(copied: Appliance, day: Day) -> None:
    serving(copied)
    assert copied.ctl_json("licence", "show")["standing"]["tier"] == "pro"
    copied.drained()
    assert copied.outcomes(day.spent) == {"served": QUOTA}
    copied.ctl("ledger", "verify")
    copied.ctl("audit", "verify")
