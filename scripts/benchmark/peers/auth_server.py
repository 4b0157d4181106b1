"""What nginx asks with auth_request: is this key known? Raw ASGI, the least there is. Run with uvicorn."""

import hashlib
import os

KEYS = {hashlib.sha256(b"Bearer " + os.environ["BENCH_KEY"].encode()).digest()}
YES = {"type": "http.response.start", "status": 204, "headers": []}
NO = {"type": "http.response.start", "status": 401, "headers": []}


async def app(scope, receive, send):  # type: ignore[no-untyped-def]  # ASGI's own shapes
    given = dict(scope["headers"]).get(b"authorization", b"")
    await send(YES if hashlib.sha256(given).digest() in KEYS else NO)
    await send({"type": "http.response.body", "body": b""})
