"""An account's batches, and one batch: how far it is, what needs a look, before and after, and when it will be gone.

Server-rendered: all of it but sending works without script. The script keeps the numbers fresh and moves the sliders.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Form, Query
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse

from flows.receive import sealed_manifest
from portal.batches import ask_again, call_off, has_results, own_batch, with_results
from portal.outcomes import Outcome
from portal.permission import live_grant_ids
from portal.web.batch_view import Asked, Listing, list_items
from portal.web.plainly import FLAGS, asked_for
from portal.web.portal import Changer, Portal, SignedIn, ThePortal
from portal.web.zip_answer import zip_answer
from schemas.ids import parse_batch_id
from schemas.left_out import told
from store.purging.receipts import list_receipts
from store.records.batches import BatchRecord, page_of

router = APIRouter()

_BATCHES = 30


@router.get("/batches")
def show_all(
    portal: ThePortal, session: SignedIn, before: Annotated[str | None, Query(max_length=36)] = None
) -> HTMLResponse:
    """The account's batches, the newest first."""
    known = parse_batch_id(before or "")
    with portal.records.reading() as connection:
        found = page_of(connection, session.person.account_id, known, _BATCHES + 1)
    shown = found[:_BATCHES]
    return portal.page(
        "batches.html",
        session=session,
        going=[each for each in shown if not each.state.has_ended],
        ended=[each for each in shown if each.state.has_ended],
        older=shown[-1].stamp.batch_id if len(found) > _BATCHES else None,
        is_first=known is None,
        now=portal.clock(),
    )


@router.get("/batches/{batch_id}")
def show_one(
    portal: ThePortal,
    session: SignedIn,
    batch_id: str,
    show: Annotated[str, Query(max_length=10)] = "",
    code: Annotated[str, Query(max_length=50)] = "",
    find: Annotated[str, Query(max_length=200)] = "",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> HTMLResponse:
    """One batch; what failed or is flagged stands first."""
    record, now = own_batch(portal.records, session.person.account_id, batch_id), portal.clock()
    asked = Asked(Outcome(show) if show in set(Outcome) else None, code, find, page)
    with portal.records.reading() as connection:
        receipts = list_receipts(connection, record.stamp.batch_id) if record.purged_at is not None else []
    listing, names = _listing(portal, record, asked) if has_results(record, now) else (None, {})
    return portal.page(
        "batch.html",
        session=session,
        batch=record,
        asked=asked,
        listing=listing,
        names=names,
        receipts=receipts,
        is_permitted=record.stamp.grant_id in live_grant_ids(portal.records, record.account_id),
        asked_for=asked_for(record.stamp.options),
        flags=FLAGS,
        left_out=told(record.left_out),
        now=now,
    )


@router.get("/batches/{batch_id}/cutouts.zip")
def download(portal: ThePortal, session: SignedIn, batch_id: str) -> StreamingResponse:
    """All cutouts in the folders of their photos, streamed."""
    record = with_results(own_batch(portal.records, session.person.account_id, batch_id), portal.clock())
    return zip_answer(portal, record.stamp.batch_id, session.person.role)


@router.post("/batches/{batch_id}/retry")
def retry(
    portal: ThePortal, session: Changer, batch_id: str, code: Annotated[str | None, Form(max_length=50)] = None
) -> RedirectResponse:
    """Try again what failed, all of it or with one code; what is done stays done."""
    record = own_batch(portal.records, session.person.account_id, batch_id)
    ask_again(portal.records, portal.transient, portal.clock, record, None if code is None else (code,))
    return RedirectResponse(f"/batches/{record.stamp.batch_id}", status_code=303)


@router.post("/batches/{batch_id}/cancel")
def cancel(portal: ThePortal, session: Changer, batch_id: str) -> RedirectResponse:
    """Begin no more work for it; what is done can be fetched, and it is purged on time."""
    record = own_batch(portal.records, session.person.account_id, batch_id)
    call_off(portal.records, portal.clock, record)
    return RedirectResponse(f"/batches/{record.stamp.batch_id}", status_code=303)


def _listing(portal: Portal, record: BatchRecord, asked: Asked) -> tuple[Listing, Mapping[int, str]]:
    """What is shown, and what each cutout on the page is called when it is saved."""
    manifest = sealed_manifest(portal.records, portal.transient, record.stamp.batch_id)
    became = portal.outcomes.of(record)
    listing = list_items(manifest.paths, became, asked, lambda some: portal.outcomes.results(record, became, some))
    return listing, portal.outcomes.names(manifest, [each.number for each in listing.items])
