"""What a program is told when something goes wrong: RFC 9457, with the codes of `schemas.errors`."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from schemas import errors
from schemas.record import Record

MEDIA_TYPE = "application/problem+json"

_log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[errors.BgbatchError], int], ...] = (
    (errors.KeyNeeded, 401),
    (errors.SignInNeeded, 401),
    (errors.NotAllowed, 403),
    (errors.IntakeStopped, 503),
    (errors.StoreFault, 503),
    (errors.NotFound, 404),
    (errors.WrongState, 409),
    (errors.BatchNotSealed, 409),
    (errors.KeyReused, 409),
    (errors.StillAnswering, 409),
    (errors.AlreadyExists, 409),
    (errors.WrongOffset, 409),
    (errors.StaleNotice, 409),
    (errors.PastDeadline, 410),
    (errors.FileTooLarge, 413),
    (errors.WrongMediaType, 415),
    (errors.BadManifest, 422),
    (errors.BadOptions, 422),
    (errors.UnknownIndustry, 422),
    (errors.LineTooLong, 429),
    (errors.TooManyTries, 429),
    (errors.ProviderFault, 502),
)


class Problem(Record):
    """What went wrong. `code` is stable: depend on it; `detail` is for people and may be put better one day."""

    type: str
    title: str
    status: int
    code: str
    detail: str


_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_HEADERS = {409: _RETRY_AFTER, 429: _RETRY_AFTER}

RESPONSES: dict[int | str, dict[str, object]] = {
    status: {
        "description": words,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        "headers": _HEADERS.get(status, {}),
    }
    for status, words in {
        400: "The request cannot be understood.",
        401: "No key, or one that is not in use.",
        403: "The key may not do this.",
        404: "There is no such thing in the account.",
        409: "Not in this state, or not twice. With still_answering, Retry-After says when to ask again.",
        410: "The batch's purge time has come.",
        412: "Another version of the tus protocol than that of the uploads here.",
        413: "Too large.",
        415: "A photo in a form or packed, or a part of an upload of another Content-Type than the protocol's.",
        422: "A value cannot be.",
        429: "Too much at once; Retry-After says when to ask again.",
        500: "Our fault. Ask again after a while.",
        503: "Nothing is taken in for now, or the store cannot be read or written. Ask again after a while.",
    }.items()
}
"""What every operation may answer besides its success."""


def status_of(error: errors.BgbatchError) -> int:
    """The HTTP status that goes with an error, for programs and on pages."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return 400 if error.fault == "user" else 500


def install(api: FastAPI) -> None:
    """Answer every error of the API in this form."""
    api.add_exception_handler(errors.BgbatchError, _ours)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(ClientDisconnect, _gone)
    api.add_exception_handler(Exception, _unforeseen)


def problem(status: int, code: str, detail: str) -> Response:
    """One answer."""
    body = Problem(type="about:blank", title=code.replace("_", " "), status=status, code=code, detail=detail)
    return JSONResponse(body.model_dump(), status, media_type=MEDIA_TYPE)


def _ours(_request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.BgbatchError)
    status = status_of(error)
    if status >= 500:
        _log.warning("%s: %s", error.code, error)
    answer = problem(status, error.code, str(error))
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem(422, errors.UserError.code, "; ".join(map(_told, error.errors()[:10])))


_WORDS = {"extra_forbidden": "There is no such field.", "model_attributes_type": "A JSON object is wanted here."}


def _told(fault: Mapping[str, Any]) -> str:
    """Where it is, and what is wrong with it; in our words where the library's would tell a programmer nothing."""
    if fault["type"] == "json_invalid":
        return f"body: It is no JSON ({fault['ctx']['error']}, at byte {fault['loc'][-1]})."
    if fault["type"] == "model_attributes_type" and fault["loc"] == ("body",):
        return "body: Send a JSON object with the header Content-Type: application/json."
    if fault["type"] == "too_long":
        return f"{'.'.join(map(str, fault['loc']))}: At most {fault['ctx']['max_length']:,} may stand here."
    said = fault["msg"].removeprefix("Value error, ")
    words = _WORDS.get(fault["type"], said)
    return f"{'.'.join(map(str, fault['loc']))}: {words}"


def _gone(_request: Request, _error: Exception) -> Response:
    """Nobody hears this: the connection broke off in mid-photo. It is no fault of ours, and fills no log."""
    return problem(400, "broken_off", "The connection broke off. Send it again.")


def _unforeseen(_request: Request, _error: Exception) -> Response:
    """Such as a database that is away. The log has it; nothing of it is told."""
    return problem(500, errors.BgbatchError.code, "Something went wrong on our side. Send it again after a while.")


def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = re.sub(r"\W+", "_", HTTPStatus(error.status_code).phrase.lower())
    answer = problem(error.status_code, code, f"{error.detail}. The API is described at /v1/openapi.json.")
    answer.headers.update(error.headers or {})
    return answer
