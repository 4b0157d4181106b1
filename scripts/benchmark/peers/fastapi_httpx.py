"""The obvious shape: FastAPI checks a key, counts, and sends the body on with httpx. Run with uvicorn."""

import hashlib
import os
import time

import httpx
from fastapi import FastAPI, Header, HTTPException, Request, Response

KEYS = {hashlib.sha256(os.environ["BENCH_KEY"].encode()).hexdigest(): "bench"}
PER_MINUTE = 6_000_000
counted: dict[tuple[str, int], int] = {}
client = httpx.AsyncClient(base_url=os.environ["BENCH_UPSTREAM"], timeout=60)
app = FastAPI()


@app.post("/v2/models/{model}/infer")
async def infer(model: str, request: Request, authorization: str = Header()) -> Response:
    owner = KEYS.get(hashlib.sha256(authorization.removeprefix("Bearer ").encode()).hexdigest())
    if owner is None:
        raise HTTPException(401)
    window = owner, int(time.time() // 60)
    counted[window] = counted.get(window, 0) + 1
    if counted[window] > PER_MINUTE:
        raise HTTPException(429)
    answer = await client.post(
        f"/v2/models/{model}/infer",
        content=await request.body(),
        headers={"content-type": request.headers.get("content-type", "application/json")},
    )
    return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))
