"""Before and after, small: made when somebody looks, kept in the batch's own place, gone with it, cached nowhere."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from portal.batches import own_batch, with_results
from portal.web.portal import Portal, SignedIn, ThePortal
from schemas.errors import ItemError, NotFound
from store.batches import BatchRecord
from store.transient import cutout_key, preview_key
from workers.decode import Limits
from workers.preview import of_cutout, of_photo

router = APIRouter(include_in_schema=False)

AT_ONCE = 2
"""A picture of 50 megapixels takes some 300 MB while it is made small."""


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
    record = await run_in_threadpool(own_batch, portal, session.person.account_id, batch_id)
    async with request.app.state.drawing:
        data = await run_in_threadpool(_picture, portal, record, number, of)
    return Response(data, media_type="image/webp")


def _picture(portal: Portal, record: BatchRecord, number: int, of: Of) -> bytes:
    stamp = with_results(record).stamp
    if portal.clock() >= stamp.purge_at:
        raise NotFound("The batch's purge time has come. Nothing of it is shown any more.")
    key = preview_key(stamp.batch_id, number, of)
    if portal.transient.objects.exists(key):
        return portal.transient.read(key)
    data = _draw(portal, record, number, of)
    portal.transient.write(stamp, key, data)
    return data


def _draw(portal: Portal, record: BatchRecord, number: int, of: Of) -> bytes:
    manifest, settings = portal.transient.manifest(record.stamp.batch_id), portal.settings
    if number > len(manifest.items):
        raise NotFound("The batch has no photo of that number.")
    # A cutout may be larger than the file that it was made from.
    limits = Limits(pixels=int(settings.max_megapixels * 1e6), bytes=int(settings.max_megabytes * 1e7))
    item = manifest.items[number - 1]
    try:
        if of is Of.PHOTO:
            return of_photo(portal.transient.source(manifest.stamp, item), limits)
        format = (item.options or manifest.stamp.options).format
        file = portal.transient.read(cutout_key(manifest.stamp.batch_id, number, format.suffix))
        return of_cutout(file, format, limits)
    except ItemError:
        raise NotFound("There is no picture of that.") from None
