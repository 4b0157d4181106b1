"""What a request and a worker cost with 100 keys, and with a million: printed, not judged.

scripts/test --slow, or: pytest tests/system/test_many_keys.py --slow -s
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Client, Fleet, Heard, clients
from gate_clients import Key, wait_for
from quick_triton import MODEL
from whole_appliance import running_appliance

from lotabotsd.foundation.clock import SystemClock
from lotabotsd.identity.api_key import format_api_key, hash_secret
from lotabotsd.identity.pepper import load_or_create_pepper
from lotabotsd.identity.records import KeyRecord
from lotabotsd.licence.standing import judge
from lotabotsd.limits.table import Table, create_table, current_boot_id
from lotabotsd.models.facts import ModelFacts, TensorFact
from lotabotsd.policy.compile import PolicySource
from lotabotsd.policy.grant import InstanceFacts
from lotabotsd.policy.publish import Publisher

REQUESTS = 4_000
CLIENTS = 16
DAY_NS = 86_400 * 10**9


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A gate of one worker, without a daemon: the test publishes."""
    for fleet in running_appliance(Fleet(1)):
        assert isinstance(fleet, Fleet)
        yield fleet


def publish(fleet: Fleet, count: int) -> tuple[list[Key], float]:
    """A policy of so many keys, and how long its publication took."""
    pepper = load_or_create_pepper(fleet.paths.pepper)
    now = SystemClock().wall_ns()
    keys, records = [], []
    for number in range(count):
        key_id, secret = f"{number:012d}", f"{number:032d}"
        keys.append(Key(key_id, format_api_key("live", key_id, secret)))
        records.append(
            KeyRecord(
                key_id=key_id, organisation_id=f"org_{number % 100}", organisation_name="o",
                member_id="mem_a", role="developer", name="k", models=("*",), environment="live",
                created_at_ns=now, expires_at_ns=now + DAY_NS,
                secrets=((hash_secret(pepper, key_id, secret), None),),
            )
        )  # fmt: skip
    tensors = tuple((TensorFact(name, "FP32", (1,)),) for name in ("x", "y"))
    facts = ModelFacts(MODEL, ("1",), "ab" * 32, 8, *tensors, (), None, True)
    standing = {**judge(None, now, 0, development=True).to_dict(), "requests_per_minute": 0}
    standing["inferences_per_month"] = 0
    slots = count + 1_000
    publisher = Publisher(fleet.paths.policy_db, slots=slots, lease_seconds=3_600)
    began = time.perf_counter()
    source = PolicySource(records, standing, [facts], {"keys": []}, InstanceFacts("apl_test", "0"))
    generation = publisher.publish(source, now).generation
    seconds = time.perf_counter() - began
    publisher.close()
    create_table(fleet.paths.limits_table, slots=slots, workers=1, boot_id=current_boot_id(), fill=[])
    table = Table.open(fleet.paths.limits_table, None)
    table.set_generation(generation)
    table.close()
    return keys, seconds


def processor_seconds(pid: int) -> float:
    """What a process used (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> tuple[float, float]:
    """A process's own memory, and what it touched of shared files such as the limits table."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    own, shared = (int(status[name].split()[0]) / 1_024 for name in ("RssAnon", "RssShmem"))
    return own, shared + int(status["RssFile"].split()[0]) / 1_024


def cost(fleet: Fleet, pid: int, keys: list[Key]) -> float:
    """Microseconds of the worker's processor per request, each with one of these keys."""
    dice = random.Random(5)  # noqa: S311 - no secret
    left = iter(range(REQUESTS))
    heard: list[Heard] = []

    async def ask(client: Client) -> None:
        for _ in left:
            heard.append(await client.ask(dice.choice(keys)))  # noqa: PERF401 - the clients share what is left

    before = processor_seconds(pid)
    asyncio.run(clients(fleet.port, CLIENTS, ask))
    assert {one.status for one in heard} == {200}
    return (processor_seconds(pid) - before) / REQUESTS * 1e6


@pytest.mark.slow
@pytest.mark.parametrize("count", [100, 10_000, 100_000, 1_000_000])
def test_what_keys_cost(fleet: Fleet, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    keys, published = publish(fleet, count)
    script = Path(__file__).with_name("quick_triton.py")
    fleet._started.append(subprocess.Popen([sys.executable, str(script), str(fleet.triton_http)]))
    fleet.start_gate()
    pid = wait_for(lambda: fleet.workers().get(0), 10, "the worker")
    cost(fleet, pid, keys[:100])
    own, mapped = memory_mib(pid)
    few, all_of_them = cost(fleet, pid, keys[:100]), cost(fleet, pid, keys)
    after, mapped_after = memory_mib(pid)
    with capsys.disabled():
        print(
            f"\n{count:>9,} keys: {few:4.0f} us of processor per request with 100 of them in use, "
            f"{all_of_them:4.0f} us with all; worker {own:.0f} MiB, then {after:.0f} MiB "
            f"(and {mapped:.0f}, then {mapped_after:.0f} MiB of mapped files); "
            f"publishing them all took {published:.2f} s"
        )
