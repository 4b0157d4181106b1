"""The configuration: every kind of mistake is named with its line, all of them together."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from lotabotsd.foundation.config import MAX_CONFIG_BYTES, Config, load, parse
from lotabotsd.foundation.errors import Code, LotaBotsError

SHIPPED = Path(__file__).parents[2] / "etc" / "lotabots.toml"


def problems(text: str) -> list[str]:
    with pytest.raises(LotaBotsError) as failure:
        parse(text.encode(), "c.toml")
    assert failure.value.code is Code.CONFIG_INVALID
    return list(failure.value.extra["problems"])


def test_an_empty_configuration_is_the_default_one() -> None:
    assert parse(b"", "c.toml") == Config()


def test_values_arrive_in_their_types() -> None:
    config = parse(
        b'[gate]\nworkers = "auto"\nheader_timeout_seconds = 5\n[models]\nenabled = []\n'
        b'[appliance]\nstate_directory = "/a"\nrun_directory = "/b"\n',
        "c.toml",
    )
    assert config.gate.workers == "auto"
    assert isinstance(config.gate.header_timeout_seconds, float)
    assert config.models.enabled == ()
    assert (config.paths.state, config.paths.run) == (Path("/a"), Path("/b"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\n[gaet]\n", "c.toml:2: [gaet] is not a section (did you mean gate?)"),
        ("[completely_else]\n", "c.toml:1: [completely_else] is not a section"),
        ("\nlevel = 1\n", "c.toml:2: [level] is not a section"),
        ("\ngate = 1\n", "c.toml:2: gate must be a section, [gate]"),
        ("\n\n[[gate]]\nworkers = 1\n", "c.toml:3: gate must be a section, [gate]"),
        ("[gate]\n\nlissten = 'x'\n", "c.toml:3: gate.lissten is not a key (did you mean listen?)"),
        ("\n[gate.deep]\nx = 1\n", "c.toml:2: gate.deep is not a key"),
        ("\ngate = {workerz = 1}\n", "c.toml:2: gate.workerz is not a key (did you mean workers?)"),
        ("[limits]\nslots = 2.5\n", "c.toml:2: limits.slots must be a whole number, not 2.5"),
        ("[limits]\nslots = true\n", "c.toml:2: limits.slots must be a whole number, not True"),
        ("[limits]\nslots = '64'\n", "c.toml:2: limits.slots must be a whole number, not '64'"),
        ("[limits]\nslots = 63\n", "c.toml:2: limits.slots must be between 64 and 4194304, not 63"),
        ("[log]\nlevel = 1\n", "c.toml:2: log.level must be text, not 1"),
        ("[runtime]\nkind = 'x'\n", "c.toml:2: runtime.kind must be one of embedded, container, not 'x'"),
        (
            "[appliance]\nstate_directory = '/var/lib/lota bots'\n",
            "c.toml:2: appliance.state_directory must be an absolute path without white space or shell "
            "characters, not '/var/lib/lota bots'",
        ),
        ("[report]\npseudonyms = 1\n", "c.toml:2: report.pseudonyms must be true or false, not 1"),
        ("[models]\nenabled = ['a', 1]\n", "c.toml:2: models.enabled must be a list of texts, not ['a', 1]"),
        ("[models]\nenabled = 'a'\n", "c.toml:2: models.enabled must be a list of texts, not 'a'"),
        ("[gate]\ndrain_seconds = 'x'\n", "c.toml:2: gate.drain_seconds must be a number, not 'x'"),
        ("[gate]\ndrain_seconds = nan\n", "c.toml:2: gate.drain_seconds must be between 0 and 3600, not nan"),
        ("[gate]\ndrain_seconds = inf\n", "c.toml:2: gate.drain_seconds must be between 0 and 3600, not inf"),
        ("[runtime]\nkind = 'container'\n",
         "c.toml:2: runtime.image must be given for the container runtime"),
        ("[runtime]\nimage = 'triton:latest'\n",
         "c.toml:2: runtime.image must be NAME@sha256:..., or the image's id, sha256:..., with 64 digits, "
         "not 'triton:latest'"),
        ("[runtime]\n\nimage_archive = '/a.tar'\n",
         "c.toml:3: runtime.image_archive and its sha256 must be given together"),
        (f"[runtime]\nimage_archive_sha256 = '{'0' * 64}'\n",
         "c.toml:2: runtime.image_archive and its sha256 must be given together"),
        (f"[runtime]\nimage = 'sha256:{'0' * 64}'\nallow_pull = true\n",
         "c.toml:3: runtime.image must be NAME@sha256:... to be pulled"),
        ("[runtime]\n\ntransport = 'tcp'\n",
         "c.toml:3: runtime.transport tcp is for the container runtime alone"),
        ("[runtime]\ngpus = ['0']\n",
         "c.toml:2: runtime.gpus must be UUIDs, as nvidia-smi -L shows them: GPU-... or MIG-..., not ['0']"),
        ("[runtime]\nuser = 'root'\n",
         "c.toml:2: runtime.user must be the name of a user other than root, not 'root'"),
        ("[gate]\nworkers = true\n", "c.toml:2: gate.workers has the wrong type, not True"),
        ("[gate]\nworkers = 0\n", 'c.toml:2: gate.workers must be "auto" or a number from 1 to 32, not 0'),
    ],
)  # fmt: skip
def test_each_kind_of_mistake_is_named_with_its_line(text: str, problem: str) -> None:
    assert problems(text) == [problem]


@pytest.mark.parametrize("listen", ["8080", ":8080", "host:", "host:http", "host:65536", "host:-1", ""])
def test_a_listening_address_needs_host_and_port(listen: str) -> None:
    assert problems(f'[gate]\nlisten = "{listen}"\n') == [
        f"c.toml:2: gate.listen must be HOST:PORT, as in 127.0.0.1:8443, not {listen!r}"
    ]


def test_all_mistakes_come_at_once_in_the_order_of_their_lines() -> None:
    found = problems("[log]\nlevel = 'loud'\n[nowhere]\n[gate]\nworkers = 99\nno_key = 1\n")
    assert [line.split(": ")[0] for line in found] == ["c.toml:2", "c.toml:3", "c.toml:5", "c.toml:6"]


def test_the_message_shows_every_mistake() -> None:
    with pytest.raises(LotaBotsError) as failure:
        parse(b"[log]\nlevel = 1\n[limits]\nslots = 1\n", "c.toml")
    assert "c.toml:2" in str(failure.value)
    assert "c.toml:4" in str(failure.value)


@pytest.mark.parametrize("data", [b"[gate\n", b"[gate]\nworkers = 1\nworkers = 2\n", b"\xff", b"a = \x00"])
def test_what_is_no_toml_is_named_with_its_file(data: bytes) -> None:
    with pytest.raises(LotaBotsError, match=r"c\.toml") as failure:
        parse(data, "c.toml")
    assert failure.value.code is Code.CONFIG_INVALID


def test_a_file_that_is_missing_or_too_large_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "large.toml").write_bytes(b"#" * (MAX_CONFIG_BYTES + 1))
    for name in ("absent.toml", "large.toml"):
        with pytest.raises(LotaBotsError) as failure:
            load(tmp_path / name)
        assert failure.value.code is Code.FILE_UNREADABLE


def test_every_default_passes_its_own_check() -> None:
    for section in fields(Config):
        kind = getattr(Config(), section.name)
        for key in fields(kind):
            check = key.metadata.get("check")
            assert check is None or check(getattr(kind, key.name)) is None, f"{section.name}.{key.name}"


def test_the_shipped_file_is_the_default_and_names_every_key() -> None:
    assert load(SHIPPED) == Config()
    text = SHIPPED.read_text()
    # Keys may stand there commented out with their default: uncommented, the file must still be the default.
    whole = re.sub(r"(?m)^#\s?(?=(?:\[|[a-z_]+ ?= ?))", "", text)
    named = tomllib.loads(whole)
    for section in fields(Config):
        kind = getattr(Config(), section.name)
        missing = {key.name for key in fields(kind)} - set(named.get(section.name, {}))
        assert not missing, f"[{section.name}] does not name {missing}"
    assert parse(whole.encode(), "uncommented") == Config()
