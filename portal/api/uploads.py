"""Resumable uploads by the tus protocol 1.0.0 (https://tus.io/protocols/resumable-upload).

Extensions: creation, creation-with-upload (a small photo takes one request), termination.

    POST   /v1/batches/{id}/uploads           Upload-Length, Upload-Metadata: filename <base64 of the path>  -> Location
    GET    /v1/batches/{id}/uploads           what has come so far, for a page or program that was started anew
    HEAD   /v1/batches/{id}/uploads/{token}   -> Upload-Offset
    PATCH  /v1/batches/{id}/uploads/{token}   Upload-Offset, application/offset+octet-stream
    DELETE /v1/batches/{id}/uploads/{token}

When a connection drops in mid-part, or is silent for a minute, what had come of it is kept, and the client goes on from
there.
"""

from __future__ import annotations

import base64
import re
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from portal.api.problems import problem
from portal.api.receiving import take_in, take_out, upload_key, uploads_of
from portal.api.room import pieces_of
from portal.api.sender import TheSender
from portal.api.shapes import Uploaded, UploadsPage, body_of_bytes, with_headers
from schemas.errors import UserError, WrongMediaType
from store.transient.uploads import Announced

router = APIRouter(tags=["resumable uploads"])
_VERSION = "1.0.0"
_UPLOADS = re.compile(r"/v1/batches/[^/]+/uploads(/.*)?", re.DOTALL)
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_NO_METHOD = "UNKNOWN"  # the log of requests names the method, and is to hold nothing of anybody's headers
_PART_TYPE = "application/offset+octet-stream"
_PART = body_of_bytes(_PART_TYPE)
_STANDS = {"Upload_Offset": "How many bytes have come.", "Tus_Resumable": _VERSION}
_OFFERED = {"Tus-Version": _VERSION, "Tus-Extension": "creation,creation-with-upload,termination"}


class Tus:
    """Wraps all that answers: what is said of uploads, errors too, names the protocol's version. No other is served.

    A client behind a proxy that lets no PATCH or DELETE pass names it in `X-HTTP-Method-Override`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not _UPLOADS.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = _VERSION
            await send(message)

        headers = Headers(scope=scope)
        instead = headers.get("X-HTTP-Method-Override", scope["method"]).upper()
        scope["method"] = instead if instead in _METHODS else _NO_METHOD
        asked = headers.get("Tus-Resumable", _VERSION)
        if asked == _VERSION or scope["method"] == "OPTIONS":
            await self._app(scope, receive, sending)
            return
        answer = problem(412, "other_tus_version", f"Uploads follow tus {_VERSION}. Send that as Tus-Resumable.")
        answer.headers["Tus-Version"] = _VERSION
        await answer(scope, receive, sending)


@router.options("/batches/{batch_id}/uploads", status_code=204)
def offer(batch_id: str) -> Response:
    """What of the protocol there is. No Tus-Max-Size: a photo over the limit is taken too, and gets its own result."""
    return Response(status_code=204, headers=_OFFERED)


@router.post(
    "/batches/{batch_id}/uploads",
    status_code=201,
    response_class=Response,
    responses=with_headers(201, "It is announced.", Location="The upload.", **_STANDS),
    openapi_extra=_PART,
)
async def create(
    sender: TheSender,
    batch_id: str,
    request: Request,
    length: Annotated[int, Header(alias="Upload-Length", ge=0, le=10**12)],
    metadata: Annotated[str, Header(alias="Upload-Metadata", max_length=4_000)],
) -> Response:
    """Announce a photo; its first part may come along. The same path and length again go on with the same upload."""
    photo = Announced(path=_path_in(metadata), size=length, metadata=metadata)
    async with request.app.state.room.for_one(request, sender.account_id):
        data = await _part(request, sender.portal.settings.max_bytes)
        if data:
            _require_part(request)
        record = await run_in_threadpool(sender.batch, batch_id)
        token, offset = await run_in_threadpool(take_in, sender, record, photo, data)
    place = f"/v1/batches/{batch_id}/uploads/{token}"
    return Response(status_code=201, headers={"Location": place, "Upload-Offset": str(offset)})


@router.get("/batches/{batch_id}/uploads")
def list_uploads(
    sender: TheSender,
    batch_id: str,
    after: Annotated[str, Query(max_length=32)] = "",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 1_000,
) -> UploadsPage:
    """What has come of an open batch's photos so far, in no order that means anything."""
    record = sender.batch(batch_id)
    upload_key(sender, record)
    found = uploads_of(sender, record).standing(after, limit)
    shown = tuple(Uploaded(path=photo.path, size=photo.size, bytes_received=stands) for _, photo, stands in found)
    return UploadsPage(uploads=shown, next=found[-1][0] if len(found) == limit else None)


@router.head(
    "/batches/{batch_id}/uploads/{token}",
    response_class=Response,
    responses=with_headers(
        200,
        "Where it stands.",
        Upload_Length="How large the photo is.",
        Upload_Metadata="As it was announced.",
        **_STANDS,
    ),
)
def stand(sender: TheSender, batch_id: str, token: str) -> Response:
    """Where the upload stands."""
    record = sender.batch(batch_id)
    upload_key(sender, record)
    uploads = uploads_of(sender, record)
    photo = uploads.announced(token)
    told = {"Upload-Metadata": photo.metadata} if photo.metadata else {}
    return Response(headers=told | {"Upload-Offset": str(uploads.offset(token)), "Upload-Length": str(photo.size)})


@router.patch(
    "/batches/{batch_id}/uploads/{token}",
    status_code=204,
    response_class=Response,
    responses=with_headers(204, "It was added.", **_STANDS),
    openapi_extra=_PART,
)
async def append(
    sender: TheSender,
    batch_id: str,
    token: str,
    request: Request,
    offset: Annotated[int, Header(alias="Upload-Offset", ge=0)],
) -> Response:
    """Send the next part."""
    _require_part(request)
    record = await run_in_threadpool(sender.batch, batch_id)
    await run_in_threadpool(upload_key, sender, record)
    uploads = uploads_of(sender, record)
    async with request.app.state.room.for_one(request, sender.account_id):
        data = await _part(request, sender.portal.settings.max_bytes)
        stands = await run_in_threadpool(uploads.append, token, offset, data)
        await run_in_threadpool(upload_key, sender, record)  # as for a whole photo
    return Response(status_code=204, headers={"Upload-Offset": str(stands)})


@router.delete("/batches/{batch_id}/uploads/{token}", status_code=204, response_class=Response)
def remove(sender: TheSender, batch_id: str, token: str) -> Response:
    """Take the photo back."""
    record = sender.batch(batch_id)
    upload_key(sender, record)
    take_out(sender, record, token)
    return Response(status_code=204)


def _require_part(request: Request) -> None:
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != _PART_TYPE:
        raise WrongMediaType(f"Parts of an upload come as {_PART_TYPE}. Send that as Content-Type.")


async def _part(request: Request, most: int) -> bytes:
    """What came, also when the connection broke off before the end. Over the limit for a photo it is not kept.

    Raises `FileTooLarge` far over it.
    """
    data = bytearray()
    try:
        async for piece in pieces_of(request, most):
            data += piece[: most + 1 - len(data)]  # the one more tells that it was too much
    except ClientDisconnect:
        pass
    return bytes(data)


def _path_in(metadata: str) -> str:
    fields = dict(pair.strip().partition(" ")[::2] for pair in metadata.split(","))
    try:
        return base64.b64decode(fields["filename"], validate=True).decode()
    except (KeyError, ValueError):  # in no base64, or no UTF-8 in it
        raise UserError("Upload-Metadata must hold `filename` and its value in base64.") from None
