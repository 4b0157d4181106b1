"""The attest socket, over real sockets: bounds, deadlines, refusals, and callers that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lotabotsd.attestation.evidence import Evidence
from lotabotsd.attestation.issuer import Issuer
from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.request import (
    MAX_REQUEST_BYTES,
    AttestRequest,
    FoundReceipt,
    Issued,
    ReceiptRequest,
)
from lotabotsd.attestation.service import AttestService, request_receipt, request_token
from lotabotsd.attestation.verify import verify_token
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.sockets import Peer, bind_unix

NONCE = "AAAAAAAAAAAAAAAAAAAAAA"
Issue = Callable[[AttestRequest], Awaitable[Issued]]
Find = Callable[[ReceiptRequest], Awaitable[FoundReceipt]]


def anybody(peer: Peer) -> bool:
    return peer.pid == os.getpid()


async def find_known(request: ReceiptRequest) -> FoundReceipt:
    if request.organisation_id != "org_a":
        raise LotaBotsError(Code.NOT_FOUND, "no such receipt is kept")
    return FoundReceipt(f"receipt {request.receipt_id}")


async def echo(request: AttestRequest) -> Issued:
    return Issued(f"{request.nonce}|{request.audience}|{request.key_id}")


@asynccontextmanager
async def served(
    path: Path,
    issue: Issue = echo,
    admit: Callable[[Peer], bool] = anybody,
    find: Find = find_known,
    *,
    max_concurrent: int = 8,
    max_connections: int = 64,
    deadline_seconds: float = 5.0,
) -> AsyncIterator[Path]:
    service = AttestService(
        issue,
        find,
        admit,
        max_concurrent=max_concurrent,
        max_connections=max_connections,
        deadline_seconds=deadline_seconds,
    )
    server = await service.start(bind_unix(path))
    try:
        yield path
    finally:
        server.close()


async def exchange(path: Path, data: bytes, *, end: bool = False) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    if end:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def failure_of(path: Path, **options: object) -> LotaBotsError:
    with pytest.raises(LotaBotsError) as failure:
        await request_token(path, nonce=NONCE, **options)  # type: ignore[arg-type] # any option
    return failure.value


def test_a_token_comes_through_and_verifies(
    tmp_path: Path, issuer: Issuer, keyset: Keyset, evidence: Evidence, now: int
) -> None:
    async def issue(request: AttestRequest) -> Issued:
        return await asyncio.to_thread(issuer.issue, evidence, request.nonce, request.audience)

    async def scene() -> Issued:
        async with served(tmp_path / "a.sock", issue) as path:
            return await request_token(path, nonce=NONCE, audience="an-app", key_id="abcdef123456")

    token = asyncio.run(scene()).token
    assert verify_token(token, keyset.jwks(), audience="an-app", nonce=NONCE, now=now).exit_code == 0


def test_what_was_asked_arrives(tmp_path: Path) -> None:
    async def scene() -> list[str]:
        async with served(tmp_path / "a.sock") as path:
            return [
                (await request_token(path, nonce=NONCE, audience="an-app", key_id="k1")).token,
                (await request_token(path, nonce=None)).token,
            ]

    assert asyncio.run(scene()) == [f"{NONCE}|an-app|k1", "None|lotabots:any|"]


def test_a_large_answer_arrives_whole(tmp_path: Path) -> None:
    answer = Issued("t" * 16_384, {"models": "m" * 900_000})

    async def issue(request: AttestRequest) -> Issued:
        return answer

    async def scene() -> Issued:
        async with served(tmp_path / "a.sock", issue) as path:
            return await request_token(path, nonce=NONCE)

    assert asyncio.run(scene()) == answer


def test_a_failure_keeps_its_code_and_next_step(tmp_path: Path) -> None:
    async def issue(request: AttestRequest) -> Issued:
        raise LotaBotsError(Code.DISK_FULL, "previous_token", hint="free some space")

    async def scene() -> LotaBotsError:
        async with served(tmp_path / "a.sock", issue) as path:
            return await failure_of(path)

    failure = asyncio.run(scene())
    assert (failure.code, failure.detail, failure.hint) == (
        Code.DISK_FULL,
        "previous_token",
        "free some space",
    )


def test_a_bad_nonce_is_refused_by_the_daemon(tmp_path: Path) -> None:
    async def scene() -> LotaBotsError:
        async with served(tmp_path / "a.sock") as path:
            with pytest.raises(LotaBotsError) as failure:
                await request_token(path, nonce="short")
            return failure.value

    assert asyncio.run(scene()).code is Code.NONCE_INVALID


def test_a_stranger_is_refused_and_gets_to_know_it(tmp_path: Path) -> None:
    async def scene() -> LotaBotsError:
        async with served(tmp_path / "a.sock", admit=lambda peer: False) as path:
            return await failure_of(path)

    assert asyncio.run(scene()).code is Code.PEER_REFUSED


def test_the_kernel_says_who_asks(tmp_path: Path) -> None:
    seen: list[Peer] = []

    def admit(peer: Peer) -> bool:
        seen.append(peer)
        return True

    async def scene() -> None:
        async with served(tmp_path / "a.sock", admit=admit) as path:
            await request_token(path, nonce=NONCE)

    asyncio.run(scene())
    assert [(peer.pid, peer.uid) for peer in seen] == [(os.getpid(), os.getuid())]


def test_more_wishes_than_allowed_at_once_are_refused_and_later_ones_served(tmp_path: Path) -> None:
    async def scene() -> tuple[LotaBotsError, list[Issued], Issued]:
        started, go_on = asyncio.Semaphore(0), asyncio.Event()

        async def issue(request: AttestRequest) -> Issued:
            started.release()
            await go_on.wait()
            return Issued("t")

        async with served(tmp_path / "a.sock", issue, max_concurrent=2) as path:
            running = [asyncio.create_task(request_token(path, nonce=NONCE)) for _ in range(2)]
            await started.acquire()
            await started.acquire()
            refused = await failure_of(path)
            go_on.set()
            return refused, await asyncio.gather(*running), await request_token(path, nonce=NONCE)

    refused, served_first, served_later = asyncio.run(scene())
    assert refused.code is Code.OVERLOADED
    assert [*served_first, served_later] == [Issued("t")] * 3


def test_more_connections_than_allowed_are_closed(tmp_path: Path) -> None:
    async def scene() -> LotaBotsError:
        async with served(tmp_path / "a.sock", max_connections=1) as path:
            _, idle = await asyncio.open_unix_connection(str(path))
            refused = await failure_of(path)
            idle.close()
            return refused

    assert asyncio.run(scene()).code is Code.DAEMON_UNAVAILABLE


def test_a_line_may_have_4_kib_and_not_a_byte_more(tmp_path: Path) -> None:
    longest = b'{"nonce":null' + b" " * (MAX_REQUEST_BYTES - 15) + b"}\n"
    assert len(longest) == MAX_REQUEST_BYTES

    async def scene() -> list[bytes]:
        async with served(tmp_path / "a.sock") as path:
            return [await exchange(path, longest), await exchange(path, b" " + longest)]

    taken, refused = (json.loads(line) for line in asyncio.run(scene()))
    assert "token" in taken
    assert refused["error"]["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "json_invalid"),
        (b'{"nonce":null}', "json_invalid"),
        (b"GET / HTTP/1.1\r\n\r\n", "json_invalid"),
        (b"\n", "json_invalid"),
        (b"\0" * 10_000, "body_too_large"),
    ],
)
def test_anything_else_than_one_line_is_refused(tmp_path: Path, data: bytes, code: str) -> None:
    async def scene() -> bytes:
        async with served(tmp_path / "a.sock") as path:
            return await exchange(path, data, end=True)

    assert json.loads(asyncio.run(scene()))["error"]["code"] == code


def test_only_the_first_line_of_a_connection_is_answered(tmp_path: Path) -> None:
    async def scene() -> bytes:
        async with served(tmp_path / "a.sock") as path:
            return await exchange(path, b"{}\n{}\n")

    assert asyncio.run(scene()).count(b"\n") == 1


def test_a_caller_that_says_nothing_is_sent_away(tmp_path: Path) -> None:
    async def scene() -> bytes:
        async with served(tmp_path / "a.sock", deadline_seconds=0.02) as path:
            return await exchange(path, b'{"nonce"')

    assert json.loads(asyncio.run(scene()))["error"]["code"] == "request_timeout"


def test_a_caller_that_hangs_up_early_disturbs_nobody(tmp_path: Path) -> None:
    async def scene() -> Issued:
        async with served(tmp_path / "a.sock", max_connections=1) as path:
            for data in (b"", b"{", b"{}\n"):
                with socket.socket(socket.AF_UNIX) as caller:
                    caller.connect(str(path))
                    caller.sendall(data)
            while True:  # until the server has seen all of them go
                try:
                    return await request_token(path, nonce=NONCE)
                except LotaBotsError as failure:
                    assert failure.code is Code.DAEMON_UNAVAILABLE  # noqa: PT017 - the loop goes on

    assert asyncio.run(asyncio.wait_for(scene(), 10)).token.startswith(NONCE)


def test_a_daemon_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    bind_unix(tmp_path / "stale.sock").close()
    for name in ("absent.sock", "stale.sock"):
        failure = asyncio.run(failure_of(tmp_path / name))
        assert failure.code is Code.DAEMON_UNAVAILABLE
        assert name in failure.detail
        assert "start" in failure.hint


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", Code.DAEMON_UNAVAILABLE),
        (b'{"token"', Code.DAEMON_UNAVAILABLE),
        (b"x" * 1_100_000, Code.DAEMON_UNAVAILABLE),
        (b"nonsense\n", Code.INTERNAL),
        (b"{}\n", Code.INTERNAL),
    ],
)
def test_a_daemon_that_answers_nonsense_is_a_failure_from_the_catalogue(
    tmp_path: Path, answer: bytes, code: Code
) -> None:
    async def daemon(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    async def scene() -> LotaBotsError:
        server = await asyncio.start_unix_server(daemon, sock=bind_unix(tmp_path / "a.sock"))
        async with server:
            return await failure_of(tmp_path / "a.sock")

    assert asyncio.run(scene()).code is code


def test_a_daemon_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with bind_unix(tmp_path / "a.sock"):
        failure = asyncio.run(failure_of(tmp_path / "a.sock", deadline_seconds=0.02))
    assert failure.code is Code.DAEMON_UNAVAILABLE
    assert "0.02 s" in failure.detail


def test_a_request_that_cannot_fit_is_not_sent(tmp_path: Path) -> None:
    assert asyncio.run(failure_of(tmp_path / "absent.sock", audience="a" * 5_000)).code is Code.BODY_TOO_LARGE


def test_a_receipt_is_found_for_its_organisation_alone(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path / "s") as path:
            found = await request_receipt(path, "0192-r", "org_a")
            assert found.receipt == "receipt 0192-r"
            with pytest.raises(LotaBotsError) as failure:
                await request_receipt(path, "0192-r", "org_b")
            assert failure.value.code is Code.NOT_FOUND
            assert failure.value.detail == "no such receipt is kept"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"receipt": "a"}', "json_invalid"),
        (b'{"receipt": "a", "organisation": "o", "nonce": null}', "json_invalid"),
        (b'{"receipt": "", "organisation": "o"}', "value_invalid"),
        (b'{"receipt": 7, "organisation": "o"}', "value_invalid"),
        (b'{"receipt": "a", "organisation": "%s"}' % (b"o" * 65), "value_invalid"),
    ],
)
def test_a_question_for_a_receipt_is_judged(tmp_path: Path, line: bytes, code: str) -> None:
    async def story() -> None:
        async with served(tmp_path / "s") as path:
            answer = json.loads(await exchange(path, line + b"\n"))
            assert answer["error"]["code"] == code

    asyncio.run(story())
