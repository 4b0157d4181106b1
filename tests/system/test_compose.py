"""LotaBots in containers, as compose.yaml starts it: it serves, has its walls, counts, restarts, stops."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from composed_appliance import STARTED, ComposedAppliance, load_images, require_compose
from container_engine import ContainerEngine
from gate_clients import PREDICT, Key
from image_build import Saved
from whole_appliance import MODEL, ROOT, load_pages, wait_for

pytestmark = pytest.mark.required
READY_SECONDS = 120.0
HEALTH_SECONDS = 60.0
LEDGER_SECONDS = 20.0
TMPFILES = ROOT / "systemd" / "tmpfiles.d" / "lotabots.conf"
NETWORKS = {"init": "none", "runtime": "none", "daemon": "none", "gate": "lotabots-test_apps"}
USERS = {"init": "root", "runtime": "lotabots-triton", "daemon": "lotabots", "gate": "lotabots-gate"}
# What each may write; whatever else it sees is read-only.
WRITABLE = {
    "runtime": {"stub", "helper", "triton"},
    "daemon": {"state", "policy", "journal", "models", "control", "attest", "limits"},
    "gate": {"journal", "limits"},
}
SEEN = {
    "runtime": WRITABLE["runtime"] | {"config", "models"},
    "daemon": WRITABLE["daemon"] | {"config", "helper", "triton"},
    "gate": WRITABLE["gate"] | {"config", "policy", "attest", "triton"},
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    written: dict[int, Path] = load_pages().write_pages(tmp_path_factory.mktemp("pages"))
    return written


@pytest.fixture(scope="module")
def composed(engine: ContainerEngine, image: Saved) -> Iterator[ComposedAppliance]:
    """Everything up and ready; what the services said is shown when that takes too long."""
    if not (ROOT / "model_repository" / MODEL / "1" / "model.onnx").is_file():
        pytest.skip("the model's weights are missing; enable it: scripts/fetch-models")
    require_compose()
    load_images(engine, image)
    composed = ComposedAppliance(engine)
    try:
        composed.compose("up", "--detach")
        ready(composed)
        yield composed
    finally:
        composed.remove()


@pytest.fixture(scope="module")
def key(composed: ComposedAppliance) -> Key:
    return composed.key()


def ready(composed: ComposedAppliance) -> None:
    try:
        wait_for(composed.is_ready, READY_SECONDS, "the gate is ready")
    except AssertionError:
        print(composed.logs())
        raise


def charged(composed: ComposedAppliance) -> int:
    """Inferences that the ledger charges."""
    rows = composed.ctl_json("usage", "show")["rows"]
    return sum(row["inferences"] for row in rows if row["charged"])


def counts(composed: ComposedAppliance, inferences: int) -> None:
    """Every answer gets into the ledger, once."""
    wait_for(lambda: charged(composed) == inferences, LEDGER_SECONDS, f"{inferences} in the ledger")


def predict(composed: ComposedAppliance, key: Key, page: Path) -> Any:
    """The best label of a page."""
    answer = composed.ask("POST", PREDICT, key, page.read_bytes(), Content_Type="image/png")
    assert answer.status == 200, answer.body
    return answer.json["predictions"][0]["label"]


def test_it_serves_a_key_made_in_the_daemons_container(
    composed: ComposedAppliance, key: Key, pages: dict[int, Path]
) -> None:
    assert composed.ask("POST", PREDICT, None, pages[90].read_bytes()).status == 401
    assert predict(composed, key, pages[90]) == "90"
    counts(composed, 1)
    for service in STARTED:
        wait_for(
            lambda service=service: composed.is_healthy(service), HEALTH_SECONDS, f"{service} is healthy"
        )


@pytest.mark.parametrize("service", ["init", *STARTED])
def test_each_service_stands_in_its_walls(composed: ComposedAppliance, service: str) -> None:
    inspected = composed.inspect(service)
    host, config = inspected["HostConfig"], inspected["Config"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    given = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"] if service == "init" else []
    assert (host["CapAdd"] or []) == given
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["Privileged"], host["PidMode"], host["IpcMode"], host["Devices"] or []) == (
        False,
        "",
        "private",
        [],
    )
    assert config["User"] == USERS[service]
    assert host["NetworkMode"] == NETWORKS[service]
    assert host["PortBindings"] == (
        {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(composed.port)}]} if service == "gate" else {}
    )
    assert host["Memory"] > 0
    assert 0 < host["PidsLimit"] <= 2048
    assert host["Init"]
    mounts = {mount["Name"].partition("_")[2]: mount["RW"] for mount in named(inspected)}
    if service != "init":
        assert {name for name, writable in mounts.items() if writable} == WRITABLE[service]
        assert set(mounts) == SEEN[service]
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
    bound = [mount for mount in inspected["Mounts"] if mount["Type"] == "bind"]
    assert [(mount["Source"], mount["RW"]) for mount in bound] == {
        "init": [(str(ROOT / "installer" / "compose" / "lotabots.toml"), False)],
        "daemon": [(str(ROOT / "model_repository"), False)],
    }.get(service, [])  # nobody has the engine's socket


def named(inspected: dict[str, Any]) -> list[dict[str, Any]]:
    return [mount for mount in inspected["Mounts"] if mount["Type"] == "volume"]


def test_the_processes_have_no_capability_and_only_the_gate_a_network(composed: ComposedAppliance) -> None:
    for service in STARTED:
        status = composed.within(service, "cat", "/proc/1/status", "/proc/net/dev").decode()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert (int(fields["CapBnd"], 16), int(fields["CapEff"], 16)) == (0, 0), service
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2"), service
        cards = {
            line.split(":")[0].strip() for line in status.splitlines() if "eth" in line or " lo:" in line
        }
        assert cards == ({"lo", "eth0"} if service == "gate" else {"lo"}), service


def test_directories_are_those_of_a_server(composed: ComposedAppliance) -> None:
    wanted = {}
    for line in TMPFILES.read_text().splitlines():
        if line.startswith("d "):
            _, path, mode, user, group = line.split()
            wanted[path] = (mode.lstrip("0"), user, group)
    # No service manager makes the helper's socket, and no container of the helper's has a secret to keep.
    wanted["/run/lotabots/helper"] = ("2750", "lotabots-triton", "lotabots")
    del wanted["/run/lotabots/runtime"]
    found = {}
    for service, paths in {
        "runtime": ["/var/lib/lotabots/runtime"],
        "daemon": [path for path in wanted if path != "/var/lib/lotabots/runtime"],
    }.items():
        said = composed.within(service, "stat", "--format=%n %a %U %G", *paths).decode()
        found |= {line.split()[0]: tuple(line.split()[1:]) for line in said.splitlines()}
    assert found == wanted


def test_neither_keys_nor_control_are_within_the_gates_reach(composed: ComposedAppliance) -> None:
    look = "import os, sys; print(*(int(os.path.exists(path)) for path in sys.argv[1:]))"
    state, run = "/var/lib/lotabots", "/run/lotabots"
    hidden = [
        f"{state}/keys",
        f"{state}/state.db",
        f"{run}/control/control.sock",
        f"{run}/helper/helper.sock",
    ]
    there = [f"{state}/policy/policy.db", f"{run}/attest/attest.sock"]
    said = composed.within("gate", "python", "-c", look, *hidden, *there)
    assert said.split() == [b"0", b"0", b"0", b"0", b"1", b"1"]


def test_a_report_verifies_at_the_vendor(
    composed: ComposedAppliance, key: Key, pages: dict[int, Path], tmp_path: Path
) -> None:
    before = charged(composed)
    assert predict(composed, key, pages[180]) == "180"
    counts(composed, before + 1)
    (made,) = composed.ctl_json("usage", "export", "--cut")
    report = tmp_path / Path(made["path"]).name
    report.write_bytes(composed.within("daemon", "cat", made["path"]))
    program = "import sys; from lotabots_vendor.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "--json", "report", "verify", "--development", str(report)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert (facts["verdict"], facts["totals"]["charged"]["inferences"]) == ("valid", before + 1)


@pytest.mark.parametrize("service", ["gate", "daemon"])
def test_a_restarted_service_goes_on_counting(
    composed: ComposedAppliance, key: Key, pages: dict[int, Path], service: str
) -> None:
    before = charged(composed)
    composed.compose("restart", service)
    if service == "gate":
        ready(composed)
    assert predict(composed, key, pages[270]) == "270", "a restarted daemon disturbs nobody"
    wait_for(lambda: composed.is_well(service), READY_SECONDS, f"{service} is well")
    counts(composed, before + 1)


def test_all_stop_in_order_and_end_well(composed: ComposedAppliance) -> None:
    composed.compose("stop")
    ended = {service: composed.inspect(service)["State"] for service in ("init", *STARTED)}
    assert {service: state["ExitCode"] for service, state in ended.items()} == dict.fromkeys(ended, 0)
    assert ended["gate"]["FinishedAt"] < ended["daemon"]["FinishedAt"] < ended["runtime"]["FinishedAt"]
