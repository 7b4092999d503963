"""API keys of the account: an owner makes them, sees each once, and revokes them. A key can never grant."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse, RedirectResponse

from portal.web.portal import Owner, Portal, SignedIn, ThePortal
from schemas.errors import UserError
from store.records.api_keys import create_key, list_keys, revoke_key
from store.records.sessions import Session

PAGE = "/account/keys"

router = APIRouter()


@router.get(PAGE)
def show(portal: ThePortal, session: SignedIn) -> HTMLResponse:
    """The account's keys, without their text."""
    return _page(portal, session)


@router.post(PAGE)
def create(portal: ThePortal, session: Owner, name: Annotated[str, Form()] = "") -> HTMLResponse:
    """Make a key and show it. It is in this answer alone: not in an address, and no cache keeps the page."""
    person, now = session.person, portal.clock()
    try:
        with portal.records.transaction() as connection:
            key, text = create_key(connection, person.account_id, person.person_id, name, now, portal.randomness)
    except UserError as fault:
        return _page(portal, session, 400, asked=name, problem=str(fault))
    return _page(portal, session, made=key.name, text=text)


@router.post(f"{PAGE}/{{key_id}}/revoke")
def revoke(portal: ThePortal, session: Owner, key_id: str) -> RedirectResponse:
    """Make a key worthless at once."""
    with portal.records.transaction() as connection:
        revoke_key(connection, session.person.account_id, key_id, portal.clock())
    return RedirectResponse(PAGE, status_code=303)


def _page(
    portal: Portal,
    session: Session,
    status: int = 200,
    made: str = "",
    text: str = "",
    asked: str = "",
    problem: str = "",
) -> HTMLResponse:
    """`made` and `text`: a new key; `asked` and `problem`: the name that was typed, and why there is no key of it."""
    with portal.records.reading() as connection:
        keys = list_keys(connection, session.person.account_id)
    return portal.page(
        "keys.html",
        status,
        session=session,
        in_use=[key for key in keys if key.revoked_at is None],
        revoked=[key for key in keys if key.revoked_at is not None],
        made=made,
        text=text,
        asked=asked,
        problem=problem,
    )
