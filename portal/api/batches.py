"""Batches over REST: open, send, seal, watch, fetch, retry, cancel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import nullcontext
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.convertors import PathConvertor, register_url_convertor

from flows.receive import seal_uploads, sealed_manifest
from portal.api.opening import open_once
from portal.api.receiving import read_body, take_in, take_out, upload_key, uploads_of
from portal.api.sender import Sender, TheSender
from portal.api.shapes import (
    BatchAnswer,
    ItemAnswer,
    Items,
    NewBatch,
    Page,
    Retry,
    Uploaded,
    batch_answer,
    body_of_bytes,
    with_headers,
)
from portal.batches import ask_again, call_off
from portal.outcomes import Kind
from portal.permission import live_grant_ids
from portal.web.zip_answer import zip_answer
from schemas.batch import BatchState, Item, Stamp
from schemas.errors import NotFound, WrongMediaType, WrongState
from schemas.options import Format
from schemas.receipt import Receipt
from schemas.results import Done, Failed
from store.purging.receipts import list_receipts
from store.records.batches import page_of
from store.transient.transient_store import cutout_key
from store.transient.uploads import Announced, token_of


class _AnyPath(PathConvertor):
    """With line breaks, too: who sends such a path is told of it, and nobody without a key is told anything."""

    regex = "(?s:.*)"


register_url_convertor("path", _AnyPath())  # also of the mount that all this lies under
router = APIRouter(tags=["batches"])
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]
_LONG = 1_000
"""Addresses of a batch; more take their time to be looked through."""
_PRESENT_FOR = timedelta(minutes=15)
_POLL_SECONDS = 0.7
_LONGEST_POLL = 5.0
"""Seconds between two looks at a batch: the pause grows from the first to the second while nothing changes."""
_WATCHED_FOR = 300.0
"""Seconds after which a stream of events ends: whoever goes on watching shows key or session again."""


@router.post(
    "/batches",
    status_code=201,
    response_model=BatchAnswer,
    responses=with_headers(201, "It is open, or with items or a source sealed.", Location="The batch."),
)
async def open_batch(sender: TheSender, wanted: NewBatch, request: Request, key: Key = None) -> Response:
    """Open a batch. With an Idempotency-Key the same request, sent again within a day, opens no second one."""
    body, is_long = await request.body(), len(wanted.items or ()) > _LONG
    with request.app.state.lists.for_one(sender.account_id) if is_long else nullcontext():
        answer = await run_in_threadpool(open_once, sender, key, body, wanted)
    return JSONResponse(answer, 201, headers={"Location": f"/v1/batches/{answer['batch_id']}"})


@router.get("/batches")
def list_batches(
    sender: TheSender,
    before: Annotated[str | None, Query(max_length=36, pattern="^[0-9a-f-]*$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Page:
    """The account's batches, the newest first."""
    with sender.portal.records.reading() as connection:
        found = page_of(connection, sender.account_id, before, limit + 1)
    shown, live = found[:limit], live_grant_ids(sender.portal.records, sender.account_id)
    return Page(
        batches=tuple(batch_answer(each, live) for each in shown),
        next=shown[-1].stamp.batch_id if len(found) > limit else None,
    )


@router.get("/batches/{batch_id}")
def show_batch(sender: TheSender, batch_id: str) -> BatchAnswer:
    """How far a batch is, and when it will be gone."""
    return sender.answer(batch_id)


@router.put(
    "/batches/{batch_id}/items/{path:path}", status_code=201, openapi_extra=body_of_bytes("application/octet-stream")
)
async def put_item(sender: TheSender, batch_id: str, path: str, request: Request) -> Uploaded:
    """Send one photo: its bytes are the body. The same path again replaces it."""
    _require_plain(request)
    record = await run_in_threadpool(sender.batch, batch_id)
    async with request.app.state.room.for_one(request, sender.account_id):
        data, size = await read_body(request, sender.portal.settings.max_bytes)
        await run_in_threadpool(take_in, sender, record, Announced(path=path, size=size), data)
    return Uploaded(path=path, size=size, bytes_received=size)


def _require_plain(request: Request) -> None:
    """A form around a photo, or a packed one, would pass for a photo that is none, and fail when all is over."""
    is_form = request.headers.get("Content-Type", "").lower().startswith("multipart/")
    if is_form or request.headers.get("Content-Encoding", "").lower() not in ("", "identity"):
        raise WrongMediaType("The body is the photo's own bytes: no form around them, and no Content-Encoding.")


@router.delete("/batches/{batch_id}/items/{path:path}", status_code=204)
def remove_item(sender: TheSender, batch_id: str, path: str) -> None:
    """Take a photo out of a batch that is still open."""
    record = sender.batch(batch_id)
    take_out(sender, record, token_of(upload_key(sender, record), path))


@router.post("/batches/{batch_id}/seal")
def seal_batch(sender: TheSender, batch_id: str) -> BatchAnswer:
    """Say that all photos have come. Sealing twice changes nothing. No photo is taken while it is being done."""
    record = sender.batch(batch_id)
    if record.state is BatchState.OPEN:
        seal_uploads(sender.parts, record.stamp, uploads_of(sender, record).items, sender.portal.randomness)
    elif record.state is BatchState.CANCELLED:
        raise WrongState(f"Batch {record.stamp.batch_id} was called off. Open another one.")
    return sender.answer(batch_id)


@router.get("/batches/{batch_id}/items")
def list_items(
    sender: TheSender,
    batch_id: str,
    after: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 200,
    outcome: Annotated[str | None, Query(pattern="^(done|failed|waiting)$")] = None,
) -> Items:
    """The photos of a sealed batch and what became of each, by number."""
    portal, record = sender.portal, sender.batch_with_results(batch_id)
    manifest = sealed_manifest(portal.records, portal.transient, record.stamp.batch_id)
    left, portion = range(after + 1, len(manifest.items) + 1), limit + 1
    became, found = portal.outcomes.of(record, left[:0]), list[int]()
    while left and len(found) <= limit:
        some, left, portion = left[:portion], left[portion:], 4 * portion
        became = portal.outcomes.of(record, some)
        found += [number for number in some if _is_asked_for(became.kind(number), outcome)]
    shown = found[:limit]
    names = portal.outcomes.names(manifest, shown)
    results = portal.outcomes.results(record, became, shown)
    stamp = manifest.stamp
    items = tuple(
        _item_answer(stamp, manifest.items[number - 1], results.get(number), names.get(number)) for number in shown
    )
    return Items(items=items, next=shown[-1] if len(found) > limit else None)


@router.get(
    "/batches/{batch_id}/items/{number}/cutout",
    response_class=Response,
    responses={
        200: {"content": {each.media_type: {} for each in Format}},
        307: {"description": "To a link that is good for 15 minutes."},
    },
)
def fetch_cutout(sender: TheSender, batch_id: str, number: int, link: Annotated[bool, Query()] = False) -> Response:
    """The cutout of one photo; with `link=true`, on S3, a redirect to a presigned address."""
    portal, record = sender.portal, sender.batch_with_results(batch_id)
    stamp, is_there = record.stamp, 0 < number <= record.counts.items
    if not is_there or not portal.outcomes.of(record, range(number, number + 1)).kind(number).is_done:
        raise NotFound("There is no cutout of that number.")
    format = stamp.options.format
    key = cutout_key(stamp.batch_id, number, format.suffix)
    if not portal.transient.objects.exists(key):  # asked first: the manifest of a large batch has megabytes
        manifest = portal.transient.manifest(stamp.batch_id)
        format = manifest.options_of(manifest.items[number - 1]).format
        key = cutout_key(stamp.batch_id, number, format.suffix)
    address = portal.transient.link(stamp, key, _PRESENT_FOR) if link else None
    if address is not None:
        return Response(status_code=307, headers={"Location": address})
    return Response(portal.transient.read(key), media_type=format.media_type)


@router.get(
    "/batches/{batch_id}/results.zip",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}},
)
def fetch_all(sender: TheSender, batch_id: str) -> Response:
    """All cutouts in one zip file, in the folders of their photos; streamed."""
    return zip_answer(sender.portal, sender.batch_with_results(batch_id).stamp.batch_id, sender.role)


@router.post("/batches/{batch_id}/retry")
def retry(sender: TheSender, batch_id: str, wanted: Retry = Retry()) -> BatchAnswer:  # noqa: B008
    """Try again what failed, all of it or by code. What is done stays done."""
    portal = sender.portal
    ask_again(portal.records, portal.transient, portal.clock, sender.batch(batch_id), wanted.codes)
    return sender.answer(batch_id)


@router.post("/batches/{batch_id}/cancel")
def cancel(sender: TheSender, batch_id: str) -> BatchAnswer:
    """Call a batch off: no more work is begun for it, what is done can be fetched, and it is purged on time."""
    call_off(sender.portal.records, sender.portal.clock, sender.batch(batch_id))
    return sender.answer(batch_id)


@router.get("/batches/{batch_id}/receipts")
def receipts(sender: TheSender, batch_id: str) -> list[Receipt]:
    """The receipts of the batch's deletion."""
    record = sender.batch(batch_id)
    with sender.portal.records.reading() as connection:
        return list_receipts(connection, record.stamp.batch_id)


@router.get(
    "/batches/{batch_id}/events",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def watch(sender: TheSender, batch_id: str, request: Request) -> Response:
    """Server-sent events: `progress` with the batch whenever it changes, `end` once it has ended.

    A stream without an end closes after five minutes: ask again, as every EventSource does by itself.
    """
    await run_in_threadpool(sender.batch, batch_id)
    return StreamingResponse(_events(sender, batch_id, request), media_type="text/event-stream")


def _item_answer(stamp: Stamp, item: Item, result: Done | Failed | None, name: str | None) -> ItemAnswer:
    """What the API says of one photo. `name`: that of its cutout."""
    answer = ItemAnswer(number=item.number, path=item.path, size=item.size, outcome="waiting")
    if isinstance(result, Done):
        place = f"/v1/batches/{stamp.batch_id}/items/{item.number}/cutout"
        facts = {"outcome": "done", "width": result.width, "height": result.height, "flags": result.flags}
        return answer.model_copy(update=facts | {"cutout": place, "cutout_path": name})
    if isinstance(result, Failed):
        return answer.model_copy(update={"outcome": "failed", "code": result.code, "sentence": result.sentence})
    return answer


def _is_asked_for(kind: Kind, outcome: str | None) -> bool:
    return outcome in (None, "done" if kind.is_done else kind.outcome)


async def _events(sender: Sender, batch_id: str, request: Request) -> AsyncIterator[str]:
    shown, pause, watched = "", _POLL_SECONDS, 0.0
    while watched < _WATCHED_FOR and not await request.is_disconnected():
        answer = await run_in_threadpool(sender.answer, batch_id)
        body = json.dumps(answer.model_dump(mode="json"))
        if body != shown:
            shown, pause = body, _POLL_SECONDS
            yield f"event: progress\ndata: {body}\n\n"
        else:
            pause = min(1.5 * pause, _LONGEST_POLL)
            yield ": still here\n\n"
        if answer.state.has_ended:
            yield f"event: end\ndata: {body}\n\n"
            return
        await asyncio.sleep(pause)
        watched += pause
