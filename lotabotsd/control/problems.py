"""Every failure of the control API as one JSON problem (RFC 9457): the web error handlers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lotabotsd.foundation.errors import Code, LotaBotsError, problem

PROBLEM = "application/problem+json"
_BY_STATUS = {404: Code.ROUTE_UNKNOWN, 405: Code.METHOD_NOT_ALLOWED, 413: Code.BODY_TOO_LARGE}


def problem_response(body: dict[str, Any], headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A problem as a response."""
    return JSONResponse(body, status_code=body["status"], media_type=PROBLEM, headers=headers)


def add_handlers(app: FastAPI) -> None:
    """Make every failure in the app a problem. A bug is answered too, then logged by the server."""
    app.add_exception_handler(LotaBotsError, _from_catalogue)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _from_framework)
    app.add_exception_handler(Exception, _bug)


def validation_detail(errors: Sequence[Mapping[str, Any]]) -> str:
    """What pydantic found, in one line: `limits.quota_per_month: Input should be …; name: …`.

    The offending input is never repeated: it may be a secret.
    """
    told = []
    for error in errors:
        where = ".".join(str(part) for part in error["loc"][1:]) or str(error["loc"][0])
        told.append(f"{where}: {error['msg']}")
    return "; ".join(told)


async def _from_catalogue(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LotaBotsError)
    return problem_response(error.problem())


async def _not_valid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    code = Code.JSON_INVALID if any(each["type"] == "json_invalid" for each in errors) else Code.VALUE_INVALID
    return problem_response(problem(code, validation_detail(errors)))


async def _from_framework(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _BY_STATUS.get(error.status_code, Code.REQUEST_MALFORMED)
    return problem_response(problem(code), error.headers)


async def _bug(_: Request, error: Exception) -> JSONResponse:
    return problem_response(problem(Code.INTERNAL, type(error).__name__))
