"""Batches over REST: open, send, seal, watch, fetch, retry, cancel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy import Connection
from starlette.convertors import PathConvertor, register_url_convertor

from flows.receive import require_complete, seal, seal_uploads, stamp_batch
from portal.api.room import body_of
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
from portal.delivery import Results, read_results, results_in_portions, zip_stream
from portal.fetched import noting_the_end
from portal.intake.addresses import items_of_addresses
from portal.intake.place import items_in_place
from schemas.batch import BatchState, Item, Stamp
from schemas.errors import BgbatchError, FileTooLarge, LineTooLong, NotFound, StillAnswering, UserError, WrongState
from schemas.ids import BatchId
from schemas.receipt import Receipt
from schemas.results import Done, Failed, results_by_number
from store import idempotency, line
from store.batches import BatchRecord, page_of
from store.idempotency import Asked, begin
from store.people import Role
from store.receipts import list_receipts
from store.transient import cutout_key
from store.uploads import Announced, Uploads, require_open, token_of


class _AnyPath(PathConvertor):
    """With line breaks, too: who sends such a path is told of it, and nobody without a key is told anything."""

    regex = "(?s:.*)"


register_url_convertor("path", _AnyPath())  # also of the mount that all this lies under
router = APIRouter(tags=["batches"])
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]
Note = Callable[[Connection, Stamp], None]
_PRESENT_FOR = timedelta(minutes=15)
_POLL_SECONDS = 0.7
_LONGEST_POLL = 5.0
"""Seconds between two looks at a batch: the pause grows from the first to the second while nothing changes."""
_WATCHED_FOR = 300.0
"""Seconds after which a stream of events ends: whoever goes on watching shows key or session again."""
_WAIT = 30


@router.post(
    "/batches",
    status_code=201,
    response_model=BatchAnswer,
    responses=with_headers(201, "It is open, or with items or a source sealed.", Location="The batch."),
)
async def open_batch(sender: TheSender, wanted: NewBatch, request: Request, key: Key = None) -> Response:
    """Open a batch. With an Idempotency-Key the same request, sent again within a day, opens no second one."""
    body = await request.body()
    status, answer = await run_in_threadpool(_once, sender, key, body, wanted)
    return JSONResponse(answer, status, headers={"Location": f"/v1/batches/{answer['batch_id']}"})


@router.get("/batches")
def list_batches(
    sender: TheSender,
    before: Annotated[str | None, Query(max_length=36)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Page:
    """The account's batches, the newest first."""
    with sender.portal.records.reading() as connection:
        found = page_of(connection, sender.account_id, before, limit + 1)
    shown = found[:limit]
    return Page(
        batches=tuple(map(batch_answer, shown)),
        next=shown[-1].stamp.batch_id if len(found) > limit else None,
    )


@router.get("/batches/{batch_id}")
def show_batch(sender: TheSender, batch_id: str) -> BatchAnswer:
    """How far a batch is, and when it will be gone."""
    return batch_answer(sender.batch(batch_id))


@router.put(
    "/batches/{batch_id}/items/{path:path}", status_code=201, openapi_extra=body_of_bytes("application/octet-stream")
)
async def put_item(sender: TheSender, batch_id: str, path: str, request: Request) -> Uploaded:
    """Send one photo: its bytes are the body. The same path again replaces it."""
    record = await run_in_threadpool(sender.batch, batch_id)
    async with request.app.state.room.for_one(request, sender.account_id):
        data, size = await read_body(request, most_bytes(sender))
        await run_in_threadpool(_put, sender, record, path, data, size)
    return Uploaded(path=path, size=size, bytes_received=size)


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
    return batch_answer(sender.batch(batch_id))


@router.get("/batches/{batch_id}/items")
def list_items(
    sender: TheSender,
    batch_id: str,
    after: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 200,
    outcome: Annotated[str | None, Query(pattern="^(done|failed|waiting)$")] = None,
) -> Items:
    """The photos of a sealed batch and what became of each, by number."""
    stamp = sender.batch_with_results(batch_id).stamp
    portions = results_in_portions(sender.portal.transient, stamp.batch_id, after, limit + 1)
    found = (item_answer(results, number) for numbers, results in portions for number in numbers)
    page: list[ItemAnswer] = []
    for each in found:
        if outcome in (None, each.outcome):
            page.append(each)
        if len(page) > limit:
            break
    return Items(items=tuple(page[:limit]), next=page[limit - 1].number if len(page) > limit else None)


@router.get(
    "/batches/{batch_id}/items/{number}/cutout",
    response_class=Response,
    responses={200: {"content": {"image/*": {}}}, 307: {"description": "To a link that is good for 15 minutes."}},
)
def fetch_cutout(sender: TheSender, batch_id: str, number: int, link: Annotated[bool, Query()] = False) -> Response:
    """The cutout of one photo; with `link=true`, on S3, a redirect to a presigned address."""
    transient, stamp = sender.portal.transient, sender.batch_with_results(batch_id).stamp
    results = results_by_number(transient.each_report(stamp.batch_id, of=range(number, number + 1)))
    if not isinstance(results.get(number), Done):
        raise NotFound("There is no cutout of that number.")
    options = transient.manifest(stamp.batch_id).items[number - 1].options or stamp.options
    key = cutout_key(stamp.batch_id, number, options.format.suffix)
    address = transient.link(stamp, key, _PRESENT_FOR) if link else None
    if address is not None:
        return Response(status_code=307, headers={"Location": address})
    return Response(transient.read(key), media_type=options.format.media_type)


@router.get(
    "/batches/{batch_id}/results.zip",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}},
)
def fetch_all(sender: TheSender, batch_id: str) -> Response:
    """All cutouts in one zip file, in the folders of their photos; streamed."""
    portal = sender.portal
    results = read_results(portal.transient, sender.batch_with_results(batch_id).stamp.batch_id)
    headers = {"Content-Disposition": f'attachment; filename="{results.stamp.batch_id}.zip"'}
    stream = zip_stream(portal.transient, results)
    if sender.role is not Role.AUDITOR:  # who looks changes nothing
        stream = noting_the_end(stream, portal.records, results, portal.clock)
    return StreamingResponse(stream, media_type="application/zip", headers=headers)


@router.post("/batches/{batch_id}/retry")
def retry(sender: TheSender, batch_id: str, wanted: Retry = Retry()) -> BatchAnswer:  # noqa: B008
    """Try again what failed, all of it or by code. What is done stays done."""
    portal = sender.portal
    ask_again(portal.records, portal.transient, portal.clock, sender.batch(batch_id), wanted.codes)
    return batch_answer(sender.batch(batch_id))


@router.post("/batches/{batch_id}/cancel")
def cancel(sender: TheSender, batch_id: str) -> BatchAnswer:
    """Call a batch off: no more work is begun for it, what is done can be fetched, and it is purged on time."""
    call_off(sender.portal.records, sender.portal.clock, sender.batch(batch_id))
    return batch_answer(sender.batch(batch_id))


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


def upload_key(sender: Sender, record: BatchRecord) -> str:
    """The key of an open batch's uploads. Raises `WrongState`, `StillAnswering` while the batch is being sealed."""
    with sender.portal.records.reading() as connection:
        known = line.find_submission(connection, record.stamp.batch_id)
    key = require_open(record.stamp.batch_id, known.upload_key if known else None)
    if known and known.lease_until and known.lease_until > sender.portal.clock():
        raise StillAnswering("The batch is being sealed just now. Ask again soon.")
    return key


def uploads_of(sender: Sender, record: BatchRecord) -> Uploads:
    """The uploads of a batch."""
    return Uploads(sender.portal.transient, record.stamp, most_bytes(sender))


@contextmanager
def counted(sender: Sender, record: BatchRecord, token: str) -> Iterator[None]:
    """Announce a photo within this: one that was not there before counts. Raises `LineTooLong` when it is too many."""
    try:
        uploads_of(sender, record).announced(token)
    except NotFound:
        is_new = True
    else:
        is_new = False
    if is_new:
        own, _, most = _load(sender)
        if own.items >= most:
            raise LineTooLong(
                f"The account has {own.items} photos under way, and may have {most}. Seal what is open or call it off, "
                "or wait until some are done.",
                _WAIT,
            )
    yield
    if is_new:
        with sender.portal.records.transaction() as connection:
            line.count_uploads(connection, record.stamp.batch_id, 1)


def take_out(sender: Sender, record: BatchRecord, token: str) -> None:
    """Take a photo out of an open batch, whatever has come of it. Raises `NotFound`."""
    uploads_of(sender, record).remove(token)
    with sender.portal.records.transaction() as connection:
        line.count_uploads(connection, record.stamp.batch_id, -1)


def most_bytes(sender: Sender) -> int:
    """The largest photo that is taken, in bytes."""
    return int(sender.portal.settings.max_megabytes * 1e6)


async def read_body(request: Request, most: int) -> tuple[bytes, int]:
    """The body and its size. One over the limit is read to its end, and not kept. Raises `FileTooLarge` far over it."""
    pieces, size = [], 0
    async for piece in body_of(request):
        size += len(piece)
        if size <= most:
            pieces.append(piece)
        elif size > 20 * most:
            raise FileTooLarge("That is far over the limit for one photo. Send it smaller.")
    return (b"".join(pieces) if size <= most else b""), size


def item_answer(results: Results, number: int) -> ItemAnswer:
    """What the API says of one photo."""
    item = results.manifest.items[number - 1]
    answer = ItemAnswer(number=number, path=item.path, size=item.size, outcome="waiting")
    result = results.by_number.get(number)
    if isinstance(result, Done):
        place = f"/v1/batches/{results.stamp.batch_id}/items/{number}/cutout"
        facts = {"outcome": "done", "width": result.width, "height": result.height, "flags": result.flags}
        return answer.model_copy(update=facts | {"cutout": place, "cutout_path": results.names[number]})
    if isinstance(result, Failed):
        return answer.model_copy(update={"outcome": "failed", "code": result.code, "sentence": result.sentence})
    return answer


def _put(sender: Sender, record: BatchRecord, path: str, data: bytes, size: int) -> None:
    token = token_of(upload_key(sender, record), path)
    with counted(sender, record, token):
        uploads_of(sender, record).put(token, Announced(path=path, size=size), data)
    upload_key(sender, record)  # sealed meanwhile, the batch may not hold this photo: no 201 then


def _once(sender: Sender, key: str | None, body: bytes, wanted: NewBatch) -> tuple[int, dict[str, object]]:
    if key is None:
        return 201, _answer(sender, _open(sender, wanted))
    account_id, records, now = sender.account_id, sender.portal.records, sender.portal.clock()
    with records.transaction() as connection:
        asked = idempotency.find(connection, account_id, key, body, now)
    if asked is not None and asked.status is not None:
        return asked.status, asked.answer
    try:
        if asked is None:
            batch_id = _open(sender, wanted, lambda c, stamp: begin(c, account_id, key, body, stamp.batch_id, now))
        else:
            batch_id = _go_on(sender, wanted, asked, now)
    except StillAnswering:
        raise
    except BgbatchError as error:
        with records.transaction() as connection:
            if error.fault == "user":
                idempotency.forget(connection, account_id, key)
            else:
                idempotency.let_go(connection, account_id, key, now)
        raise
    answer = _answer(sender, batch_id)
    with records.transaction() as connection:
        idempotency.finish(connection, account_id, key, 201, answer)
    return 201, answer


def _open(sender: Sender, wanted: NewBatch, note: Note = lambda connection, stamp: None) -> BatchId:
    if wanted.items is not None and wanted.source is not None:
        raise UserError("Give items or a source, not both.")
    check_line(sender)
    items = _items(sender, wanted)
    if items is not None:
        require_complete(wanted.options, [(item.path, item.options) for item in items])
    stamp = stamp_batch(
        sender.parts,
        sender.account_id,
        wanted.industry,
        wanted.options,
        sender.portal.randomness,
        due_at=wanted.due_at,
        takes_uploads=items is None,
        note=note,
    )
    if items is not None:
        seal(sender.parts, stamp, items)
    return stamp.batch_id


def _go_on(sender: Sender, wanted: NewBatch, asked: Asked, now: datetime) -> BatchId:
    """With a request whose process died, or is still at it. Raises `StillAnswering`."""
    record = sender.batch(asked.batch_id)
    if record.state is BatchState.OPEN and (wanted.items is not None or wanted.source is not None):
        if asked.may_be_under_way(now):
            raise StillAnswering("The first request with this Idempotency-Key may be under way. Ask again soon.")
        seal(sender.parts, record.stamp, _items(sender, wanted) or ())
    return record.stamp.batch_id


def _items(sender: Sender, wanted: NewBatch) -> list[Item] | None:
    """Photos that the request itself names; None when they are to be uploaded."""
    if wanted.items is not None:
        return items_of_addresses(sender.parts, sender.account_id, wanted.items)
    if wanted.source is not None:
        return items_in_place(sender.parts, sender.account_id, wanted.source)
    return None


def _answer(sender: Sender, batch_id: BatchId) -> dict[str, object]:
    return batch_answer(sender.batch(batch_id)).model_dump(mode="json")


def check_line(sender: Sender) -> None:
    """Back-pressure: whoever has too much waiting sends no more for now. Raises `LineTooLong`."""
    own, most_batches, most_items = _load(sender)
    with sender.portal.records.reading() as connection:
        everybody = line.load_of(connection, sender.portal.clock())
    if own.batches >= most_batches or own.items >= most_items:
        raise LineTooLong(
            f"The account has {own.batches} batches with {own.items} photos under way, and may have {most_batches} "
            f"with {most_items}. Wait until some are done, or call some off.",
            _WAIT,
        )
    if everybody.items >= sender.portal.settings.line_items:
        raise LineTooLong("So much is waiting that nothing more is taken in for now. Nothing was lost.", 2 * _WAIT)


def _load(sender: Sender) -> tuple[line.Load, int, int]:
    """What the account has under way, and how many batches and photos it may have."""
    settings = sender.portal.settings
    with sender.portal.records.reading() as connection:
        own = line.load_of(connection, sender.portal.clock(), sender.account_id)
        share = line.read_shares(connection).get(sender.account_id)
    most_batches = (share.most_batches if share else None) or settings.account_batches
    return own, most_batches, (share.most_items if share else None) or settings.account_items


async def _events(sender: Sender, batch_id: str, request: Request) -> AsyncIterator[str]:
    shown, pause, watched = "", _POLL_SECONDS, 0.0
    while watched < _WATCHED_FOR and not await request.is_disconnected():
        answer = batch_answer(await run_in_threadpool(sender.batch, batch_id))
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
