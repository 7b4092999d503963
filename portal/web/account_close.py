"""Closing the account: a page that says what happens, a name to type, a button. Closing is for good.

GET  /account/close   what happens
POST /account/close   fields: form_token, name (must be the account's)   shows what was done; nobody is signed in then
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse

from consent.ledger import Refusal
from portal.closing import close_account
from portal.web.portal import Owner, Portal, SignedIn, ThePortal
from portal.web.sign_in import drop_cookie
from schemas.consent import Method
from store.records.people import find_account
from store.records.sessions import Session

PAGE = "/account/close"

router = APIRouter()


@router.get(PAGE)
def explain(portal: ThePortal, session: SignedIn) -> HTMLResponse:
    """What closing does."""
    return _page(portal, session)


@router.post(PAGE)
def close(portal: ThePortal, session: Owner, name: Annotated[str, Form()] = "") -> HTMLResponse:
    """Close the account, if its name was typed."""
    person = session.person
    with portal.records.reading() as connection:
        account = find_account(connection, person.account_id)
    if name.strip() != account.name:
        return _page(portal, session, 400, "That is not the account's name, so nothing was changed.")
    by = Refusal(person.account_id, Method.BUTTON, portal.clock(), actor=person.person_id, page=PAGE)
    closed = close_account(portal.settings, portal.records, portal.transient.objects, portal.clock, by)
    page = portal.page("closed.html", account_id=person.account_id, closed=closed)
    drop_cookie(portal, page, portal.cookie_name)
    return page


def _page(portal: Portal, session: Session, status: int = 200, problem: str = "") -> HTMLResponse:
    with portal.records.reading() as connection:
        account = find_account(connection, session.person.account_id)
    return portal.page("close.html", status, session=session, account=account, problem=problem)
