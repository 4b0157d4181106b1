"""The fallback: Triton in a container on loopback TCP, and the relay that makes its Unix sockets."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from container_bench import GATE_GROUP, ContainerBench
from container_engine import ContainerEngine
from embedded_bench import request_of, scores, turned, until
from image_build import Saved
from whole_appliance import MODEL

from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.runtime.supervisor import Supervisor

pytestmark = pytest.mark.required
LOOPBACK = "0100007F"  # 127.0.0.1


def test_over_loopback_tcp_and_the_relay_it_serves_as_over_its_own_sockets(
    folder: Path, engine: ContainerEngine, image: Saved
) -> None:
    port = free_ports(3)
    bench = ContainerBench(folder, engine, image, transport="tcp", tcp_port=port)

    async def answers() -> None:
        assert scores(await asyncio.to_thread(bench.ask, *request_of([turned(90, bench.facts)])))

    async def story(supervisor: Supervisor) -> None:
        first = await until(supervisor, "ready", "ready")
        await answers()
        assert listening_on(range(port, port + 3)) == {(LOOPBACK, each) for each in range(port, port + 3)}
        assert engine.inspect(bench.name)["HostConfig"]["NetworkMode"] == "host"
        assert (bench.paths.triton_http.stat().st_mode & 0o777, bench.paths.triton_http.stat().st_gid) == (
            0o770,
            GATE_GROUP,
        )

        # a client that hangs up in the middle of its request disturbs nobody
        body, head_bytes = request_of([turned(0, bench.facts)])
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(bench.paths.triton_http))
            head = (
                f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: triton\r\nContent-Length: {len(body)}\r\n"
            )
            client.sendall(head.encode() + f"Inference-Header-Content-Length: {head_bytes}\r\n\r\n".encode())
            client.sendall(body[: len(body) // 2])
        await answers()

        engine.client.kill(bench.name, "SIGKILL")
        await until(supervisor, "backing_off")
        bench.clock.ahead_ns += NANOSECONDS
        second = await until(supervisor, "ready", "ready")
        assert (second.run_id != first.run_id, second.failures) == (True, 1)
        await answers()

        bench.end_relay(signal.SIGKILL)
        bench.start_relay()
        assert (await until(supervisor, "ready", "ready")).run_id == second.run_id
        await answers()

    try:
        bench.start_relay()
        bench.start_helper()
        bench.tell(story)
        assert bench.end_helper() == 0
        assert bench.end_relay() == 0
    finally:
        bench.clear()


def listening_on(ports: range) -> set[tuple[str, int]]:
    """Who listens on these ports: addresses as the kernel writes them, without what maps them into IPv6."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, _, port = line.split()[1].partition(":")
            if line.split()[3] == "0A" and int(port, 16) in ports:
                found.add((address.removeprefix("0000000000000000FFFF0000"), int(port, 16)))
    return found


def free_ports(count: int) -> int:
    """The first of some ports in a row that nobody listens on now."""
    for first in range(18_000, 30_000, count):
        with ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError("no free ports")
