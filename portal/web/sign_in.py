"""Signing in with a one-time link, and out again.

Asking for a link always gets the same answer, as fast: nobody learns here who has an account. Opening the link only
shows a button: mail scanners and previews open links too, and would use it up. Pressing signs in. Beside the button
stands whom it signs in to what: nobody shall send photos to a stranger's account that a stranger's link led to. Who
was on the way to a batch or a night comes there afterwards, in the same browser.
"""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.background import BackgroundTask

from portal.mail import sign_in_letter
from portal.web.limits import LINKS_FROM, LINKS_TO, SIGN_INS, limit, network_address
from portal.web.portal import CheckedForm, Portal, SessionToken, ThePortal
from schemas.errors import MailFault, TooManyTries, UserError
from store.records.people import find_account, people_with_address
from store.records.sessions import (
    LINK_LIFE,
    SESSION_LIFE,
    close_session,
    create_sign_in_link,
    person_of_link,
    redeem_sign_in_link,
)

_log = logging.getLogger(__name__)

_WAY = re.compile(r"/(batches|nights)(/[0-9a-z-]+){0,2}")
"""Pages of this portal that somebody may be sent on to: nothing else, whatever stands in the cookie."""

router = APIRouter()


@router.get("/sign-in")
def explain(portal: ThePortal) -> HTMLResponse:
    """The ways in."""
    return sign_in_page(portal, "ways")


@router.post("/sign-in")
def ask_for_link(portal: ThePortal, request: Request, email: Annotated[str, Form()] = "") -> HTMLResponse:
    """Send a link to this address, if anybody has it; answer the same in any case."""
    limit(portal, LINKS_FROM, network_address(request))
    if portal.post is None:
        raise UserError("This portal sends no letters. Ask whoever runs it for a link.")
    page = sign_in_page(portal, "sent")
    page.background = BackgroundTask(_send_links, portal, email.strip())
    return page


@router.get("/sign-in/{token}")
def offer(portal: ThePortal, token: str) -> HTMLResponse:
    """The button that uses the link up, and for whom; or the news that it cannot be used."""
    with portal.records.reading() as connection:
        person = person_of_link(connection, token, portal.clock())
        if person is None:
            return sign_in_page(portal, "dead", status=410)
        account = find_account(connection, person.account_id).name
    name, _, domain = person.email.rpartition("@")
    return sign_in_page(portal, "link", token, account=account, address=f"{name[0]}…@{domain}")


@router.post("/sign-in/{token}")
def sign_in(portal: ThePortal, request: Request, token: str) -> RedirectResponse:
    """Use the link up and sign in."""
    limit(portal, SIGN_INS, network_address(request))
    with portal.records.transaction() as connection:
        session = redeem_sign_in_link(connection, token, portal.clock(), portal.randomness)
    return enter(portal, request, session)


@router.post("/sign-out")
def sign_out(portal: ThePortal, session: CheckedForm, token: SessionToken) -> RedirectResponse:
    """End the session."""
    with portal.records.transaction() as connection:
        close_session(connection, token)
    answer = RedirectResponse("/sign-in", status_code=303)
    drop_cookie(portal, answer, portal.cookie_name)
    return answer


def set_cookie(portal: Portal, answer: Response, name: str, value: str, life: timedelta) -> None:
    """A cookie that no script reads. It comes along when somebody is led here from elsewhere: `lax`."""
    seconds = int(life.total_seconds())
    answer.set_cookie(name, value, max_age=seconds, path="/", secure=portal.is_https, httponly=True, samesite="lax")


def drop_cookie(portal: Portal, answer: Response, name: str) -> None:
    """Have the browser forget it."""
    answer.delete_cookie(name, path="/", secure=portal.is_https, httponly=True, samesite="lax")


def ask_to_sign_in(portal: Portal, path: str) -> RedirectResponse:
    """To the ways in, with a cookie that says where this browser was going."""
    answer = RedirectResponse("/sign-in", status_code=303)
    if _WAY.fullmatch(path):
        set_cookie(portal, answer, _way_cookie(portal), path, LINK_LIFE)
    return answer


def enter(portal: Portal, request: Request, session: str) -> RedirectResponse:
    """To where this browser was going, or else to the account page, with the session's cookie."""
    way = request.cookies.get(_way_cookie(portal), "")
    answer = RedirectResponse(way if _WAY.fullmatch(way) else "/account", status_code=303)
    set_cookie(portal, answer, portal.cookie_name, session, SESSION_LIFE)
    if way:
        drop_cookie(portal, answer, _way_cookie(portal))
    return answer


def _way_cookie(portal: Portal) -> str:
    return f"{portal.cookie_name}-way"


def _send_links(portal: Portal, email: str) -> None:
    """After the answer is out. Who asks too often, or for an address that nobody has, gets no letter and no news."""
    try:
        limit(portal, LINKS_TO, email.casefold())
        links = []
        with portal.records.transaction() as connection:
            for person in people_with_address(connection, email):
                token = create_sign_in_link(connection, person.person_id, portal.clock(), portal.randomness)
                name = find_account(connection, person.account_id).name
                links.append((name, f"{portal.settings.portal_url}/sign-in/{token}"))
        if links and portal.post is not None:
            portal.post(sign_in_letter(person.email, links))
    except TooManyTries:
        return
    except MailFault as fault:
        _log.warning("%s: %s", fault.code, fault)


def sign_in_page(portal: Portal, state: str, token: str = "", status: int = 200, **whom: object) -> HTMLResponse:
    """The page in one of its states: `ways`, `sent`, `link`, `several` or `dead`."""
    return portal.page(
        "sign_in.html",
        status,
        state=state,
        token=token,
        **whom,
        provider=portal.provider.name if portal.provider else None,
        sends_letters=portal.post is not None,
        prints_letters=not portal.settings.smtp_url.get_secret_value(),
    )
