"""The account page, with the *AI Training Data* button at its very top.

A yes takes four steps, all plain HTML, no script needed:

1. press   GET  /account                           the button "AI Training Data"
2. see     GET  /account/ai-training-data          the whole notice, and a box for each industry, none ticked
3. choose  POST /account/ai-training-data/review   changes nothing
           fields: form_token, notice_version, notice_sha256, newest_event, industry (once for each box ticked)
           -> 303 GET /account/ai-training-data/review?industry=…&choice=…   shows what was chosen
4. confirm POST /account/ai-training-data/grant    grants; the same fields, each chosen `industry` hidden
           -> 303 /account

The page of step 3 is one that a browser may load again or go back to without sending a form again. `choice` seals it:
only boxes that were ticked in this session, on the text in force, since the account's last event, are shown to be
confirmed. So no link from elsewhere leads past the notice, and after the press the page is out of date by itself.

A no, or taking a yes back, takes one:

   POST /account/ai-training-data/decline    fields: form_token                        -> 303 /account
   POST /account/ai-training-data/withdraw   fields: form_token, industry (repeated)   -> 303 /account

`form_token`, `notice_version`, `notice_sha256` and `newest_event` stand in hidden fields of the pages before. Closing a
page at any step changes nothing, and a page from before somebody's last word grants nothing. This module is the only
caller of `consent.button`.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.background import BackgroundTask

from consent.button import Press, press
from consent.consent_receipt import consent_receipt
from consent.ledger import Refusal, decline, newest_event, read_events, withdraw
from consent.notice import CURRENT
from consent.suppression import note_soon, open_suppressions
from portal.web.account_view import view_account
from portal.web.portal import Owner, SessionToken, SignedIn, ThePortal
from schemas.consent import Method
from schemas.errors import UserError
from schemas.industries import Industry, parse_industry
from store.records.sessions import Session

PAGE = "/account/ai-training-data"

router = APIRouter()

Tags = Annotated[list[str], Form(alias="industry", default_factory=list)]
Text = Annotated[str, Form()]
Event = Annotated[str, Form(max_length=64)]


@router.get("/")
def start() -> RedirectResponse:
    """The account page is the start page."""
    return RedirectResponse("/account", status_code=303)


@router.get("/account")
def show(portal: ThePortal, session: SignedIn) -> HTMLResponse:
    """The account page."""
    with portal.records.reading() as connection:
        view = view_account(connection, session.person, portal.clock())
    return portal.page("account.html", view=view, session=session, for_all=portal.settings.purge_after_hours)


@router.get(PAGE)
def explain(portal: ThePortal, session: SignedIn) -> HTMLResponse:
    """What it means, and the choice."""
    return _choice(portal, session)


@router.post(f"{PAGE}/review")
def choose(
    portal: ThePortal, session: Owner, industry: Tags, notice_version: Text, notice_sha256: Text, newest_event: Event
) -> Response:
    """To the page that shows what was chosen, to be confirmed. Changes nothing."""
    if (notice_version, notice_sha256) != (CURRENT.version, CURRENT.sha256):
        return _choice(portal, session, 409, "The text has changed since you opened the page. Please read it again.")
    if newest_event != _newest_event(portal, session):
        return _choice(
            portal, session, 409, "Something was decided since you opened the page. Please look at it again."
        )
    chosen = _industries(industry)
    if not chosen:
        return _choice(portal, session, 400, "You have ticked no industry yet. Tick at least one, or say no.")
    fields = [("industry", each.value) for each in chosen] + [("choice", _seal(session, chosen, newest_event))]
    return RedirectResponse(f"{PAGE}/review?{urlencode(fields)}", status_code=303)


@router.get(f"{PAGE}/review")
def review(
    portal: ThePortal,
    session: SignedIn,
    industry: Annotated[list[str], Query(default_factory=list)],
    choice: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Show what was chosen a moment ago, to be confirmed. Whatever else is asked for leads back to the notice."""
    chosen, newest = _industries(industry), _newest_event(portal, session)
    if not hmac.compare_digest(choice.encode(), _seal(session, chosen, newest).encode()):
        return RedirectResponse(PAGE, status_code=303)
    return portal.page("review.html", notice=CURRENT, newest_event=newest, chosen=chosen, session=session)


@router.post(f"{PAGE}/grant")
def grant(
    portal: ThePortal,
    session: Owner,
    token: SessionToken,
    form_token: Text,
    notice_version: Text,
    notice_sha256: Text,
    newest_event: Event,
    industry: Tags,
) -> RedirectResponse:
    """The deliberate act itself."""
    act = Press(
        session_token=token,
        form_token=form_token,
        industries=_industries(industry),
        notice_version=notice_version,
        notice_sha256=notice_sha256,
        page=PAGE,
        received_at=portal.clock(),
        newest_event=newest_event,
    )
    with portal.records.transaction() as connection:
        press(connection, act, portal.clock(), portal.randomness)
    return _to_account()


@router.post(f"{PAGE}/decline")
def say_no(portal: ThePortal, session: Owner) -> RedirectResponse:
    """Record a no. Grants stay as they are."""
    refusal = _refusal(portal, session)
    with portal.records.transaction() as connection:
        decline(connection, refusal, portal.clock())
    return _to_account()


@router.post(f"{PAGE}/withdraw")
def take_back(portal: ThePortal, session: Owner, industry: Tags) -> RedirectResponse:
    """End the grants for the industries named, at once."""
    chosen, refusal = _industries(industry), _refusal(portal, session)
    if not chosen:
        raise UserError("No industry was named, so nothing was turned off.")
    with portal.records.transaction() as connection:
        for each in chosen:
            withdraw(connection, refusal, each, portal.clock())
    answer = _to_account()
    answer.background = BackgroundTask(note_soon, portal.records, open_suppressions(portal.settings))
    return answer


@router.get("/account/consent-receipts/{grant_id}")
def download_receipt(portal: ThePortal, session: SignedIn, grant_id: str) -> JSONResponse:
    """The consent receipt of one of the account's own grants, to keep."""
    with portal.records.reading() as connection:
        events = read_events(connection, session.person.account_id)
    own = [event for event in events if event.grant_id == grant_id]
    document = consent_receipt(own, portal.settings.portal_url, portal.clock())
    headers = {"Content-Disposition": f'attachment; filename="consent-{own[0].grant_id}.jsonld"'}
    return JSONResponse(document, headers=headers, media_type="application/ld+json")


def _choice(portal: ThePortal, session: Session, status: int = 200, problem: str = "") -> HTMLResponse:
    with portal.records.reading() as connection:
        view = view_account(connection, session.person, portal.clock())
    return portal.page("choose.html", status, notice=CURRENT, view=view, session=session, problem=problem)


def _newest_event(portal: ThePortal, session: Session) -> str:
    with portal.records.reading() as connection:
        return newest_event(connection, session.person.account_id)


def _seal(session: Session, chosen: tuple[Industry, ...], newest: str) -> str:
    """What only this session's own form can have led to, as long as text and decisions are the same."""
    said = "\n".join((CURRENT.version, CURRENT.sha256, newest, *chosen))
    return hmac.new(session.form_token.encode(), said.encode(), hashlib.sha256).hexdigest()


def _industries(tags: list[str]) -> tuple[Industry, ...]:
    return tuple(dict.fromkeys(parse_industry(tag) for tag in tags))


def _refusal(portal: ThePortal, session: Session) -> Refusal:
    return Refusal(
        account_id=session.person.account_id,
        method=Method.BUTTON,
        received_at=portal.clock(),
        actor=session.person.person_id,
        page=PAGE,
    )


def _to_account() -> RedirectResponse:
    return RedirectResponse("/account", status_code=303)
