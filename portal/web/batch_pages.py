"""An account's batches, and one batch: how far it is, what needs a look, what failed and why, and when it will be gone.

Server-rendered; the small script only keeps the numbers fresh. Uploading goes by command line or REST.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse

from portal.delivery import Results, read_results, zip_stream
from portal.web.portal import CheckedForm, Portal, SignedIn, ThePortal
from schemas.batch import BatchState
from schemas.errors import NotAllowed, NotFound, WrongState
from schemas.results import Done, Failed
from store import line
from store.batches import BatchRecord, get_batch, list_batches
from store.people import Role, Session

router = APIRouter(include_in_schema=False)

_SHOWN = 200
_BATCHES = 50


@dataclass(frozen=True)
class ItemView:
    """A photo as the page shows it. `path` is the customer's own name for it; it is shown and not kept."""

    number: int
    path: str
    outcome: str
    flags: tuple[str, ...] = ()
    code: str = ""
    sentence: str = ""


def may_change(session: CheckedForm) -> Session:
    """Who may retry and cancel. Raises `NotAllowed` for an auditor."""
    if session.person.role is Role.AUDITOR:
        raise NotAllowed("An auditor may look at batches, but not change them.")
    return session


Changer = Annotated[Session, Depends(may_change)]


@router.get("/batches")
def show_all(portal: ThePortal, session: SignedIn) -> HTMLResponse:
    """The account's newest batches."""
    with portal.records.transaction() as connection:
        found = list_batches(connection, session.person.account_id, _BATCHES)
    return portal.page("batches.html", session=session, batches=found, now=portal.clock())


@router.get("/batches/{batch_id}")
def show_one(portal: ThePortal, session: SignedIn, batch_id: str) -> HTMLResponse:
    """One batch; what failed or is flagged stands first."""
    record = _own(portal, session, batch_id)
    items = _items(_results(portal, record)) if _has_results(record) else []
    return portal.page(
        "batch.html",
        session=session,
        batch=record,
        items=items[:_SHOWN],
        more=max(0, len(items) - _SHOWN),
        now=portal.clock(),
        may_change=session.person.role is not Role.AUDITOR,
    )


@router.get("/batches/{batch_id}/cutouts.zip")
def download(portal: ThePortal, session: SignedIn, batch_id: str) -> StreamingResponse:
    """All cutouts in the folders of their photos, streamed."""
    record = _own(portal, session, batch_id)
    if not _has_results(record):
        raise NotFound("This batch has no cutouts: it was purged, or it was never sealed.")
    results = _results(portal, record)
    headers = {"Content-Disposition": f'attachment; filename="{record.stamp.batch_id}.zip"'}
    return StreamingResponse(zip_stream(portal.transient, results), media_type="application/zip", headers=headers)


@router.post("/batches/{batch_id}/retry")
def retry(portal: ThePortal, session: Changer, batch_id: str) -> RedirectResponse:
    """Try again what failed; what is done stays done."""
    record = _own(portal, session, batch_id)
    if not record.state.has_ended or not _has_results(record):
        raise WrongState("The batch has not ended yet, or is gone. There is nothing to try again.")
    codes = {each.code for each in _results(portal, record).by_number.values() if isinstance(each, Failed)}
    with portal.records.transaction() as connection:
        line.ask_again(connection, record.stamp.batch_id, codes, portal.clock())
    return RedirectResponse(f"/batches/{record.stamp.batch_id}", status_code=303)


@router.post("/batches/{batch_id}/cancel")
def cancel(portal: ThePortal, session: Changer, batch_id: str) -> RedirectResponse:
    """Begin no more work for it; what is done can be fetched, and it is purged on time."""
    record = _own(portal, session, batch_id)
    if not record.state.has_ended:
        with portal.records.transaction() as connection:
            line.ask_to_stop(connection, record.stamp.batch_id, portal.clock())
    return RedirectResponse(f"/batches/{record.stamp.batch_id}", status_code=303)


def _own(portal: Portal, session: Session, batch_id: str) -> BatchRecord:
    """One of the account's own batches. Raises `NotFound` for others' as for none."""
    with portal.records.transaction() as connection:
        try:
            record = get_batch(connection, batch_id)
        except NotFound:
            record = None
    if record is None or record.account_id != session.person.account_id:
        raise NotFound("There is no batch of that id in your account.")
    return record


def _has_results(record: BatchRecord) -> bool:
    return record.purged_at is None and record.counts.items > 0 and record.state is not BatchState.OPEN


def _results(portal: Portal, record: BatchRecord) -> Results:
    return read_results(portal.transient, record.stamp.batch_id)


def _items(results: Results) -> list[ItemView]:
    order = {"failed": 0, "flagged": 1, "waiting": 2, "done": 3}
    return sorted(_views(results), key=lambda item: (order[item.outcome], item.number))


def _views(results: Results) -> Iterator[ItemView]:
    for item in results.manifest.items:
        match results.by_number.get(item.number):
            case Failed() as failed:
                yield ItemView(item.number, item.path, "failed", code=failed.code, sentence=failed.sentence)
            case Done() as done:
                outcome = "flagged" if done.flags else "done"
                yield ItemView(item.number, item.path, outcome, tuple(map(str, done.flags)))
            case None:
                yield ItemView(item.number, item.path, "waiting")
