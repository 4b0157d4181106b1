"""The helper's socket: who may ask, what may be asked, and what is refused and logged."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.config import Config, RuntimeConfig
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.sockets import bind_unix
from lotabotsd.runtime.helper import MAX_CALLERS, Reloads, serve_helper, serve_host
from lotabotsd.runtime.helper_client import HelperClient
from lotabotsd.runtime.messages import MAX_LINE_BYTES, RunFacts

ME = frozenset({os.geteuid()})
RUNNING = RunFacts("r1", running=True, pid=7, secret="s")


class Host:
    """Notes what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.blocked: asyncio.Event | None = None
        self.waiting = 0

    async def ensure(self) -> dict[str, Any]:
        raise LotaBotsError(Code.RUNTIME_MISSING, "no wheel", hint="install the wheel")

    async def start(self) -> dict[str, Any]:
        self.asked.append("start")
        return RUNNING.to_dict()

    async def stop(self) -> dict[str, Any]:
        self.asked.append("stop")
        return RunFacts("r1", running=False, pid=0, secret="").to_dict()

    async def promote(self) -> dict[str, Any]:
        self.asked.append("promote")
        return RUNNING.to_dict()

    async def reload(self, config: Config) -> None:
        self.asked.append(f"reload {config.runtime.image}")

    async def close(self) -> None:
        self.asked.append("close")

    async def inspect(self) -> dict[str, Any]:
        if self.blocked is not None:
            self.waiting += 1
            await self.blocked.wait()
        return RUNNING.to_dict()

    async def logs(self) -> dict[str, Any]:
        return {"lines": ["one", "two"]}


def serve(
    directory: Path,
    ask: Callable[[Path, Host], Awaitable[Any]],
    allowed: frozenset[int] = ME,
) -> tuple[Any, Host]:
    """Run a helper around `ask`; its result, and what the host was asked in the end."""

    async def both() -> tuple[Any, Host]:
        path, host, stop = directory / "helper.sock", Host(), asyncio.Event()
        served = asyncio.create_task(serve_host(host, bind_unix(path), allowed, stop))
        try:
            return await asyncio.wait_for(ask(path, host), 5), host
        finally:
            stop.set()
            await asyncio.wait_for(served, 5)

    return asyncio.run(both())


async def exchange(path: Path, data: bytes, *, close: bool = False) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(data)
    if close:
        writer.write_eof()
    answer = json.loads(await reader.readline())
    assert await reader.read() == b""  # one request per connection
    writer.close()
    return dict(answer)


def test_each_verb_is_answered(short: Path) -> None:
    async def ask(path: Path, host: Host) -> None:
        client = HelperClient(path, stop_timeout_seconds=1)
        assert await client.start() == RUNNING
        assert await client.inspect() == RUNNING
        assert await client.logs() == ["one", "two"]
        assert await client.promote() == RUNNING
        assert not (await client.stop()).running

    _, host = serve(short, ask)
    assert host.asked == ["start", "promote", "stop", "close"]


def test_a_failure_crosses_the_socket_whole(short: Path) -> None:
    async def ask(path: Path, host: Host) -> None:
        with pytest.raises(LotaBotsError) as refused:
            await HelperClient(path, stop_timeout_seconds=1).ensure()
        assert (refused.value.code, refused.value.hint) == (Code.RUNTIME_MISSING, "install the wheel")

    serve(short, ask)


def test_another_user_is_refused_and_logged(short: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def ask(path: Path, host: Host) -> None:
        with pytest.raises(LotaBotsError) as refused:
            await HelperClient(path, stop_timeout_seconds=1).start()
        assert refused.value.code is Code.PEER_REFUSED

    with caplog.at_level(logging.WARNING):
        _, host = serve(short, ask, allowed=frozenset({4_000_000}))
    assert host.asked == ["close"]
    (record,) = [record for record in caplog.records if "refused" in record.message]
    assert (vars(record)["peer_uid"], vars(record)["pid"]) == (os.geteuid(), os.getpid())


@pytest.mark.parametrize(
    "data",
    [
        b'{"verb":"exec","command":"sh"}\n',
        b'{"verb":"start","image":"mine"}\n',
        b"GET / HTTP/1.1\r\n\r\n",
        b"\n",
        b"x" * (2 * MAX_LINE_BYTES) + b"\n",
    ],
)
def test_everything_else_is_refused_and_logged(
    short: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask(path: Path, host: Host) -> dict[str, Any]:
        return await exchange(path, data)

    with caplog.at_level(logging.WARNING):
        answer, host = serve(short, ask)
    assert answer["error"]["code"] == "helper_refused"
    assert host.asked == ["close"]
    assert any("refused" in record.message for record in caplog.records)


def test_half_a_request_is_refused(short: Path) -> None:
    async def ask(path: Path, host: Host) -> dict[str, Any]:
        return await exchange(path, b'{"verb":"sta', close=True)

    assert serve(short, ask)[0]["error"]["code"] == "helper_refused"


def test_two_requests_at_once_are_one_request(short: Path) -> None:
    async def ask(path: Path, host: Host) -> dict[str, Any]:
        return await exchange(path, b'{"verb":"start"}\n{"verb":"stop"}\n')

    answer, host = serve(short, ask)
    assert answer == {"ok": RUNNING.to_dict()}
    assert host.asked == ["start", "close"]


def test_too_many_callers_are_turned_away_at_once(short: Path) -> None:
    async def ask(path: Path, host: Host) -> None:
        host.blocked = asyncio.Event()
        client = HelperClient(path, stop_timeout_seconds=1)
        waiting = [asyncio.create_task(client.inspect()) for _ in range(MAX_CALLERS)]
        while host.waiting < MAX_CALLERS:
            await asyncio.sleep(0)
        with pytest.raises(LotaBotsError) as refused:
            await client.start()
        assert refused.value.code is Code.OVERLOADED
        host.blocked.set()
        assert await asyncio.gather(*waiting) == [RUNNING] * MAX_CALLERS

    serve(short, ask)


def test_a_caller_who_hangs_up_harms_nobody(short: Path) -> None:
    async def ask(path: Path, host: Host) -> None:
        for _ in range(3):
            _, writer = await asyncio.open_unix_connection(path)
            writer.transport.abort()
        assert await HelperClient(path, stop_timeout_seconds=1).inspect() == RUNNING

    serve(short, ask)


def test_no_helper_is_unavailable(short: Path) -> None:
    with pytest.raises(LotaBotsError) as refused:
        asyncio.run(HelperClient(short / "helper.sock", stop_timeout_seconds=1).inspect())
    assert refused.value.code is Code.HELPER_UNAVAILABLE


def test_a_kind_of_runtime_that_is_not_here_is_refused(short: Path) -> None:
    config = Config(runtime=RuntimeConfig(kind="container"))
    with socket.socket(socket.AF_UNIX) as listener, pytest.raises(LotaBotsError) as refused:
        asyncio.run(serve_helper(config, listener, ME, asyncio.Event()))
    assert refused.value.code is Code.CONFIG_INVALID


def test_a_configuration_that_is_read_again_reaches_the_runtime_and_a_bad_one_does_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found: list[Config | LotaBotsError] = [
        Config(runtime=RuntimeConfig(image="sha256:1")),
        LotaBotsError(Code.CONFIG_INVALID, "runtime.image is no digest"),
    ]

    def read() -> Config:
        value = found.pop(0)
        if isinstance(value, LotaBotsError):
            raise value
        return value

    async def story() -> Host:
        host, reloads = Host(), Reloads(read)
        reloads.wish()  # before there is a runtime it changes nothing
        assert len(found) == 2
        reloads.host = host
        for left in (1, 0):
            reloads.wish()
            reloads.wish()  # one at a time
            async with asyncio.timeout(5):
                while len(found) > left:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
        return host

    host = asyncio.run(story())
    assert host.asked == ["reload sha256:1"]
    assert "stays as it was" in caplog.text
