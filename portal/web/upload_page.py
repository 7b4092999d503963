"""Sending a batch from a browser: the page and its way back after a reload. What it sends goes to `portal.api`.

The page's script uses the session's cookie and form token; no key ever stands in a page.
"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from portal.batches import own_batch
from portal.web.portal import Portal, SignedIn, ThePortal
from schemas.batch import BatchState
from schemas.errors import NotAllowed
from schemas.industries import Industry
from schemas.naming import PHOTO_SUFFIXES
from store.records.batches import BatchRecord
from store.records.sessions import Session

router = APIRouter()


@router.get("/batches/new")
def choose(portal: ThePortal, session: SignedIn) -> HTMLResponse:
    """Choose photos and what should come out of them."""
    return _page(portal, session, None)


@router.get("/batches/{batch_id}/upload")
def go_on(portal: ThePortal, session: SignedIn, batch_id: str) -> Response:
    """Go on with a batch that is still open; one that is sealed has its own page."""
    record = own_batch(portal.records, session.person.account_id, batch_id)
    if record.state is not BatchState.OPEN:
        return RedirectResponse(f"/batches/{record.stamp.batch_id}", status_code=303)
    return _page(portal, session, record)


def _page(portal: Portal, session: Session, batch: BatchRecord | None) -> HTMLResponse:
    if not session.person.role.submits:
        raise NotAllowed("An auditor may look at batches, but not send any.")
    return portal.page(
        "upload.html",
        session=session,
        batch=batch,
        industries=Industry,
        suffixes=sorted(PHOTO_SUFFIXES),
        most_megabytes=portal.settings.max_megabytes,
    )
