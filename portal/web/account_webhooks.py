"""Webhooks of the account: an owner adds an address, sees its secret once, tries it, sends again, and takes it away."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse, RedirectResponse

from portal import webhooks as telling
from portal.web.portal import Owner, Portal, SignedIn, ThePortal
from schemas.errors import FetchFailed, UnsafeAddress, UserError
from store.records import webhooks
from store.records.sessions import Session

PAGE = "/account/webhooks"
_EVENTS = 10

router = APIRouter()


@router.get(PAGE)
def show(portal: ThePortal, session: SignedIn) -> HTMLResponse:
    """The account's webhooks and what each was told last."""
    return _page(portal, session)


@router.post(PAGE)
def add(portal: ThePortal, session: Owner, url: Annotated[str, Form(max_length=500)] = "") -> HTMLResponse:
    """Add a public address and show its secret. It is in this answer alone."""
    account_id, now = session.person.account_id, portal.clock()
    try:
        made = telling.add(portal.records, account_id, url, now, portal.randomness, telling.default_fetcher())
    except (FetchFailed, UnsafeAddress, UserError) as fault:
        return _page(portal, session, 400, asked=url, problem=str(fault))
    return _page(portal, session, secret=made.secret)


@router.post(f"{PAGE}/{{webhook_id}}/remove")
def remove(portal: ThePortal, session: Owner, webhook_id: str) -> RedirectResponse:
    """Tell this address nothing more, and forget it."""
    with portal.records.transaction() as connection:
        own = webhooks.find(connection, session.person.account_id, webhook_id)
        webhooks.end(connection, own.webhook_id, portal.clock())
    return RedirectResponse(PAGE, status_code=303)


@router.post(f"{PAGE}/{{webhook_id}}/ping")
def ping(portal: ThePortal, session: Owner, webhook_id: str) -> RedirectResponse:
    """Send a message that says nothing, to try the address."""
    with portal.records.transaction() as connection:
        own = webhooks.find(connection, session.person.account_id, webhook_id)
        webhooks.ping(connection, own, portal.clock(), portal.randomness)
    return RedirectResponse(PAGE, status_code=303)


@router.post(f"{PAGE}/{{webhook_id}}/events/{{event_id}}/replay")
def replay(portal: ThePortal, session: Owner, webhook_id: str, event_id: str) -> RedirectResponse:
    """Send a message again, delivered or not."""
    with portal.records.transaction() as connection:
        own = webhooks.find(connection, session.person.account_id, webhook_id)
        webhooks.replay(connection, own.webhook_id, event_id, portal.clock())
    return RedirectResponse(PAGE, status_code=303)


def _page(
    portal: Portal, session: Session, status: int = 200, secret: str = "", asked: str = "", problem: str = ""
) -> HTMLResponse:
    """`secret`: of a new webhook; `asked` and `problem`: the address that was typed, and why it is none."""
    with portal.records.reading() as connection:
        own = webhooks.list_all(connection, session.person.account_id)
        told = [(each, webhooks.events_of(connection, each.webhook_id, _EVENTS)) for each in own]
    return portal.page(
        "webhooks.html",
        status,
        session=session,
        told=told,
        secret=secret,
        asked=asked,
        problem=problem,
    )
