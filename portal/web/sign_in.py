"""Signing in with a one-time link, and out again.

Opening the link only shows a button: mail scanners and previews open links too, and would use it up. Pressing signs in.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse, RedirectResponse

from portal.web.portal import CheckedForm, SessionToken, ThePortal
from store.people import SESSION_LIFE, close_session, link_is_good, redeem_sign_in_link

router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
def explain(portal: ThePortal) -> HTMLResponse:
    """How to come in."""
    return portal.page("sign_in.html", token=None)


@router.get("/sign-in/{token}")
def offer(portal: ThePortal, token: str) -> HTMLResponse:
    """The button that uses the link up; or the news that it cannot be used."""
    with portal.records.transaction() as connection:
        is_good = link_is_good(connection, token, portal.clock())
    return portal.page("sign_in.html", 200 if is_good else 410, token=token if is_good else "")


@router.post("/sign-in/{token}")
def sign_in(portal: ThePortal, token: str) -> RedirectResponse:
    """Use the link up and go to the account page."""
    with portal.records.transaction() as connection:
        session = redeem_sign_in_link(connection, token, portal.clock(), portal.randomness)
    answer = RedirectResponse("/account", status_code=303)
    answer.set_cookie(
        portal.cookie_name,
        session,
        max_age=int(SESSION_LIFE.total_seconds()),
        path="/",
        secure=portal.is_https,
        httponly=True,
        samesite="lax",
    )
    return answer


@router.post("/sign-out")
def sign_out(
    portal: ThePortal, session: CheckedForm, token: SessionToken, form_token: Annotated[str, Form()]
) -> RedirectResponse:
    """End the session."""
    with portal.records.transaction() as connection:
        close_session(connection, token)
    answer = RedirectResponse("/sign-in", status_code=303)
    answer.delete_cookie(portal.cookie_name, path="/", secure=portal.is_https, httponly=True, samesite="lax")
    return answer
