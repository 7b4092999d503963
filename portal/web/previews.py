"""Before and after, small: made when somebody looks, kept in the batch's own place, gone with it, cached nowhere."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from flows.receive import sealed_manifest
from portal.batches import own_batch, with_results
from portal.web.drawing import Drawer
from portal.web.portal import Portal, SignedIn, ThePortal
from schemas.batch import Item, Stamp
from schemas.errors import ItemError, NotFound
from schemas.ids import AccountId
from store.outside.opened import FETCHED
from store.records.batches import BatchRecord
from store.transient.transient_store import cutout_key, preview_key, source_key
from workers.decode import Limits

router = APIRouter()


class Of(StrEnum):
    """What is shown."""

    PHOTO = "photo"
    CUTOUT = "cutout"


@router.get("/batches/{batch_id}/items/{number}/{of}.webp")
async def show(
    portal: ThePortal,
    session: SignedIn,
    request: Request,
    batch_id: str,
    number: Annotated[int, Path(ge=1, le=10_000_000)],
    of: Of,
) -> Response:
    """A small picture of one of the account's own photos or cutouts, until the batch's purge time."""
    record = await run_in_threadpool(_living, portal, session.person.account_id, batch_id)
    key = preview_key(record.stamp.batch_id, number, of)
    data = await run_in_threadpool(_kept, portal, key)
    if data is None:
        async with request.app.state.drawing:  # here, and not in a thread, waits who must wait
            data = await run_in_threadpool(_drawn, portal, request.app.state.drawer, record, number, of)
        await run_in_threadpool(portal.transient.write, record.stamp, key, data)
    return Response(data, media_type="image/webp")


def _living(portal: Portal, account_id: AccountId, batch_id: str) -> BatchRecord:
    return with_results(own_batch(portal.records, account_id, batch_id), portal.clock())


def _kept(portal: Portal, key: str) -> bytes | None:
    try:
        return portal.transient.read(key)
    except NotFound:
        return None


def _drawn(portal: Portal, drawer: Drawer, record: BatchRecord, number: int, of: Of) -> bytes:
    manifest = sealed_manifest(portal.records, portal.transient, record.stamp.batch_id)
    settings = portal.settings
    if number > len(manifest.items):
        raise NotFound("The batch has no photo of that number.")
    item = manifest.items[number - 1]
    format = manifest.options_of(item).format
    try:
        if of is Of.PHOTO:
            file = _photo(portal, manifest.stamp, item)
        else:
            file = portal.transient.read(cutout_key(manifest.stamp.batch_id, number, format.suffix))
    except ItemError:
        raise NotFound("There is no picture of that.") from None
    # A cutout may be larger than the file that it was made from.
    limits = Limits(pixels=settings.max_pixels, bytes=10 * settings.max_bytes)
    made = drawer.draw(of, format, file, limits)
    if made is None:
        raise NotFound("There is no picture of that.")
    return made


def _photo(portal: Portal, stamp: Stamp, item: Item) -> bytes:
    """What a worker has fetched is shown; nobody's address is called from here, where everybody waits for it."""
    if item.source.startswith(FETCHED):
        return portal.transient.read(source_key(stamp.batch_id, item.number))
    return portal.transient.source(stamp, item)
