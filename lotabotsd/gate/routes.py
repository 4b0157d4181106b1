"""Which routes the gate lets through; everything else is 404. Pure.

The allow-list is the first answer to Triton's published advisories: model control, shared memory, trace
and logging have no route here at all (docs/triton-advisories.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from lotabotsd.foundation.codes import Code

_MODEL_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[0-9]{1,9}")
_RECEIPT = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PATH = re.compile(rb"/[A-Za-z0-9._/-]*")
MAX_PATH_BYTES = 512
MATCHES_KEPT = 512  # a client asks for the same few paths again and again


class Verb(StrEnum):
    """What a request wants."""

    HEALTH = "health"
    READINESS = "readiness"
    SERVER_METADATA = "server_metadata"
    SERVER_LIVE = "server_live"
    SERVER_READY = "server_ready"
    INDEX = "index"
    MODEL_METADATA = "model_metadata"
    MODEL_READY = "model_ready"
    MODEL_CONFIG = "model_config"
    MODEL_STATISTICS = "model_statistics"
    INFER = "infer"
    GENERATE = "generate"
    GENERATE_STREAM = "generate_stream"
    PREDICT = "predict"
    ATTEST = "attest"
    JWKS = "jwks"
    RECEIPT = "receipt"


INFERENCES = frozenset({Verb.INFER, Verb.GENERATE, Verb.GENERATE_STREAM, Verb.PREDICT})
NEEDS_NO_KEY = frozenset({Verb.HEALTH, Verb.READINESS, Verb.SERVER_LIVE, Verb.SERVER_READY, Verb.JWKS})


@dataclass(frozen=True, slots=True)
class Route:
    """One allowed request; `model`, `version` and `receipt` are empty where the route has none."""

    verb: Verb
    model: str = ""
    version: str = ""
    receipt: str = ""


@dataclass(frozen=True, slots=True)
class NoRoute:
    """Why a request has no route; `allow` holds the methods that the path does take."""

    code: Code
    allow: str = ""


_FIXED: dict[str, tuple[str, Verb]] = {
    "/healthz": ("GET", Verb.HEALTH),
    "/readyz": ("GET", Verb.READINESS),
    "/v2": ("GET", Verb.SERVER_METADATA),
    "/v2/health/live": ("GET", Verb.SERVER_LIVE),
    "/v2/health/ready": ("GET", Verb.SERVER_READY),
    "/v2/repository/index": ("POST", Verb.INDEX),
    "/v2/models/stats": ("GET", Verb.MODEL_STATISTICS),
    "/v1/attest": ("POST", Verb.ATTEST),
    "/.well-known/jwks.json": ("GET", Verb.JWKS),
}
# The part after /v2/models/NAME or /v2/models/NAME/versions/N.
_MODEL: dict[str, tuple[str, Verb]] = {
    "": ("GET", Verb.MODEL_METADATA),
    "ready": ("GET", Verb.MODEL_READY),
    "config": ("GET", Verb.MODEL_CONFIG),
    "stats": ("GET", Verb.MODEL_STATISTICS),
    "infer": ("POST", Verb.INFER),
    "generate": ("POST", Verb.GENERATE),
    "generate_stream": ("POST", Verb.GENERATE_STREAM),
}


def match(method: str, raw_path: bytes) -> Route | NoRoute:
    """Find the route of an undecoded path. Never raises.

    Percent escapes, `..`, `//`, `;` and anything but plain ASCII are refused before anything is compared, so
    there is nothing to decode twice. The query is no part of a route and is never sent on.
    """
    if len(raw_path) > MAX_PATH_BYTES:
        return NoRoute(Code.ROUTE_UNKNOWN)
    return _match(method, raw_path)


@lru_cache(maxsize=MATCHES_KEPT)
def _match(method: str, raw_path: bytes) -> Route | NoRoute:
    if not _PATH.fullmatch(raw_path):
        return NoRoute(Code.ROUTE_UNKNOWN)
    path = raw_path.decode("ascii")
    if "//" in path or ".." in path:
        return NoRoute(Code.ROUTE_UNKNOWN)
    fixed = _FIXED.get(path)
    if fixed is not None:
        return _with_method(method, fixed, Route(fixed[1]))
    parts = path.split("/")
    if path.startswith("/v2/models/"):
        return _model_route(method, parts[3:])
    if path.startswith("/v1/receipts/") and len(parts) == 4 and _RECEIPT.fullmatch(parts[3]):
        return _with_method(method, ("GET", Verb.RECEIPT), Route(Verb.RECEIPT, receipt=parts[3]))
    if path.startswith("/v1/models/") and len(parts) == 5 and parts[4] == "predict":
        if not _MODEL_NAME.fullmatch(parts[3]):
            return NoRoute(Code.ROUTE_UNKNOWN)
        return _with_method(method, ("POST", Verb.PREDICT), Route(Verb.PREDICT, parts[3]))
    return NoRoute(Code.ROUTE_UNKNOWN)


def _model_route(method: str, parts: list[str]) -> Route | NoRoute:
    model, rest, version = parts[0], parts[1:], ""
    if len(rest) >= 2 and rest[0] == "versions":
        version, rest = rest[1], rest[2:]
        if not _VERSION.fullmatch(version):
            return NoRoute(Code.ROUTE_UNKNOWN)
    found = _MODEL.get(rest[0] if rest else "") if len(rest) <= 1 and rest != [""] else None
    if found is None or not _MODEL_NAME.fullmatch(model):
        return NoRoute(Code.ROUTE_UNKNOWN)
    return _with_method(method, found, Route(found[1], model, version))


def _with_method(method: str, allowed: tuple[str, Verb], route: Route) -> Route | NoRoute:
    if method == allowed[0]:
        return route
    return NoRoute(Code.METHOD_NOT_ALLOWED, allowed[0])


_SUFFIX = {verb: name for name, (_, verb) in _MODEL.items()}


@lru_cache(maxsize=MATCHES_KEPT)
def upstream_path(route: Route) -> str:
    """The path that this route has at Triton."""
    version = f"/versions/{route.version}" if route.version else ""
    suffix = _SUFFIX[route.verb]
    return f"/v2/models/{route.model}{version}" + (f"/{suffix}" if suffix else "")
