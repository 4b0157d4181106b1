"""Fingerprints: what leaves the box says nothing of it, and a swapped part does not stop a server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lotabotsd.licence.claims import COMPONENT_DIGITS, Fingerprint, Match
from lotabotsd.licence.fingerprint import component, matches, read_components

MACHINE_ID = "0123456789abcdef0123456789abcdef"
DMI = "4C4C4544-0042-3510-8054-B7C04F4D3532"
MAC = "52:54:00:12:34:56"


def machine(root: Path, *, machine_id: str = MACHINE_ID, dmi: str = DMI, mac: str = MAC) -> Path:
    for path, text in {
        "etc/machine-id": machine_id,
        "sys/class/dmi/id/product_uuid": dmi,
        "sys/class/net/eth0/address": mac,
        "sys/class/net/lo/address": "00:00:00:00:00:00",
        "sys/class/net/docker0/address": "02:42:00:00:00:01",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    (root / "sys/class/net/eth0/device").mkdir(exist_ok=True)
    return root


def test_the_golden_values() -> None:
    assert component("machine-id", MACHINE_ID) == (
        "f8ca7cecdf1bede5205dd569b9d5152abd59afe086365108e9991d5d0d194ac3"
    )
    assert component("first-mac", MAC) == "64be"
    assert component("dmi-uuid", DMI.lower() + " ") == component("dmi-uuid", DMI)


def test_a_machine_is_read_without_its_bridges(tmp_path: Path) -> None:
    found = read_components(root=machine(tmp_path))
    assert found == {
        "machine-id": component("machine-id", MACHINE_ID),
        "dmi-uuid": component("dmi-uuid", DMI),
        "first-mac": component("first-mac", MAC),
    }


def test_no_identifier_is_part_of_what_leaves_the_box(tmp_path: Path) -> None:
    values = " ".join(read_components(root=machine(tmp_path), operator="rack 7").values())
    for secret in (MACHINE_ID, DMI.lower(), MAC, MAC.replace(":", ""), "rack"):
        assert secret not in values
    for name, value in read_components(root=tmp_path, operator="rack 7").items():
        assert re.fullmatch(rf"[0-9a-f]{{{COMPONENT_DIGITS[name]}}}", value)


def test_the_same_identifier_gives_different_components(tmp_path: Path) -> None:
    assert component("machine-id", "x") != component("operator", "x")


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    assert read_components(root=tmp_path) == {}
    assert set(read_components(root=tmp_path, operator=" x ")) == {"operator"}
    root = machine(tmp_path, machine_id="")
    (root / "sys/class/dmi/id/product_uuid").write_bytes(b"\xff\xfe")
    (root / "sys/class/net/eth0/device").rmdir()
    assert read_components(root=root) == {}


def test_the_lowest_address_is_the_first_card_in_any_order(tmp_path: Path) -> None:
    root = machine(tmp_path)
    for name, address in [("eth1", "00:11:22:33:44:55"), ("eth2", "00:00:00:00:00:00")]:
        (root / f"sys/class/net/{name}/device").mkdir(parents=True)
        (root / f"sys/class/net/{name}/address").write_text(address)
    assert read_components(root=root)["first-mac"] == component("first-mac", "00:11:22:33:44:55")


THREE = (("dmi-uuid", "d"), ("first-mac", "f"), ("machine-id", "m"))


@pytest.mark.parametrize(
    ("here", "most", "every"),
    [
        ({"dmi-uuid": "d", "first-mac": "f", "machine-id": "m"}, True, True),
        ({"dmi-uuid": "d", "first-mac": "other", "machine-id": "m"}, True, False),
        ({"dmi-uuid": "d", "machine-id": "m"}, True, False),
        ({"dmi-uuid": "d", "first-mac": "other", "machine-id": "other"}, False, False),
        ({}, False, False),
        ({"machine-id": "d", "dmi-uuid": "m"}, False, False),
    ],
)
def test_most_is_more_than_half(here: dict[str, str], most: bool, every: bool) -> None:
    assert matches(Fingerprint(THREE, Match.MOST), here) is most
    assert matches(Fingerprint(THREE, Match.ALL), here) is every


def test_half_is_not_most() -> None:
    assert not matches(Fingerprint(THREE[:2], Match.MOST), {"dmi-uuid": "d"})


def test_an_operator_set_value_is_compared_alone() -> None:
    bound = Fingerprint((("operator", component("operator", "site A")),), Match.OPERATOR)
    assert matches(bound, {"operator": component("operator", "SITE A"), "machine-id": "whatever"})
    assert not matches(bound, {"operator": component("operator", "site B")})
    assert not matches(bound, {})
