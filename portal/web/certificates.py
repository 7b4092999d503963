"""The certificate of a batch: a page to print, and the same as JSON. Its own account alone sees it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, JSONResponse

from portal.batches import own_batch
from portal.web.portal import Portal, SignedIn, ThePortal
from schemas.certificate import Certificate
from schemas.errors import UserError
from store.purging.certificates import certify, more_links
from store.records.sessions import Session

router = APIRouter()


@router.get("/batches/{batch_id}/certificate")
def show(portal: ThePortal, session: SignedIn, batch_id: str) -> HTMLResponse:
    """The certificate, to read and print."""
    return portal.page("certificate.html", session=session, certificate=_certificate(portal, session, batch_id))


@router.get("/batches/{batch_id}/certificate.json")
def download(
    portal: ThePortal, session: SignedIn, batch_id: str, after: Annotated[int | None, Query(ge=1, le=10**12)] = None
) -> JSONResponse:
    """The certificate, to check: `bgbatch certificate --check FILE`. `after` a head: how the chain goes on from it."""
    certificate = _certificate(portal, session, batch_id)
    if after is None:
        return JSONResponse(certificate.model_dump(mode="json"))
    if after < certificate.head_sequence:
        raise UserError(
            f"The certificate itself leads to number {certificate.head_sequence}. Ask for what comes after."
        )
    with portal.records.reading() as connection:
        return JSONResponse(more_links(connection, after).model_dump(mode="json"))


def _certificate(portal: Portal, session: Session, batch_id: str) -> Certificate:
    batch = own_batch(portal.records, session.person.account_id, batch_id)
    with portal.records.reading() as connection:
        return certify(connection, batch.stamp.batch_id, portal.clock())
