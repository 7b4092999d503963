"""What every page works with, who is asking, and whether they may: the parts, the session, the checks on a form.

A form is believed when its session's cookie came with it, its `form_token` is that session's, and the browser says that
our own page sent it. Each of the three alone stops a forged post.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Form, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.convertors import StringConvertor, register_url_convertor

from portal.mail import Post
from portal.oidc import Provider
from portal.outcomes import Outcomes
from schemas.clock import Clock
from schemas.counting import so_many
from schemas.errors import NotAllowed, SignInNeeded
from schemas.ids import Randomness
from store.logs import note
from store.records.database import Records
from store.records.sessions import Session, find_session
from store.settings import Settings
from store.transient.transient_store import TransientStore

HERE = Path(__file__).parent


class _Name(StringConvertor):
    """An id in an address. PostgreSQL refuses to look for one with NUL in it; there is no page at such an address."""

    regex = "[^/\0]+"


register_url_convertor("str", _Name())  # before the first route is made: all that make some import this


@dataclass(frozen=True)
class Portal:
    """The open parts that pages work with. `post`: how letters are sent, `provider`: who vouches for people, if any.

    `outcomes`: what became of the photos of the batches that are looked at.
    """

    settings: Settings
    records: Records
    transient: TransientStore
    clock: Clock
    randomness: Randomness
    templates: Environment
    post: Post | None
    provider: Provider | None
    outcomes: Outcomes

    @property
    def is_https(self) -> bool:
        """Whether people reach the portal over TLS, so that cookies can insist on it."""
        return self.settings.portal_url.startswith("https://")

    @property
    def cookie_name(self) -> str:
        """The session's cookie; browsers hold the `__Host-` name to this host, TLS and the whole path."""
        return "__Host-bgbatch" if self.is_https else "bgbatch"

    def page(self, name: str, status: int = 200, **facts: object) -> HTMLResponse:
        """Render a template. A name that it uses and nobody gave is an error, no blank."""
        return HTMLResponse(self.templates.get_template(name).render(**facts), status_code=status)


def open_templates() -> Environment:
    """The portal's templates; all that is put into them is escaped."""
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals["time_left"] = _time_left
    templates.globals["so_many"] = so_many
    return templates


def the_portal(request: Request) -> Portal:
    """The parts behind this request."""
    portal: Portal = request.app.state.portal
    return portal


ThePortal = Annotated[Portal, Depends(the_portal)]


def session_token(request: Request, portal: ThePortal) -> str:
    """The token in the session's cookie, or nothing."""
    return request.cookies.get(portal.cookie_name, "")


SessionToken = Annotated[str, Depends(session_token)]


def signed_in(request: Request, portal: ThePortal, token: SessionToken) -> Session:
    """Who asks; the request keeps it, for a page that says what went wrong. Raises `SignInNeeded`."""
    with portal.records.reading() as connection:
        session = find_session(connection, token, portal.clock())
    if session is None:
        raise SignInNeeded("You are not signed in. Nothing was changed: sign in and try again.")
    note(account_id=session.person.account_id)
    request.state.session = session
    return session


SignedIn = Annotated[Session, Depends(signed_in)]


def same_site(request: Request, portal: ThePortal) -> None:
    """Refuse a post that the browser says another site sent. Raises `NotAllowed`."""
    sent_from = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    ours = {portal.settings.portal_url, f"{request.url.scheme}://{request.headers.get('host', '')}"}
    if sent_from not in ("same-origin", "none") or (origin is not None and origin not in ours):
        raise NotAllowed("This form was sent from another site. Nothing was changed.")


def checked_form(session: SignedIn, form_token: Annotated[str, Form()] = "") -> Session:
    """Who sent this form of ours. Raises `NotAllowed` for a form that was not made for this session."""
    if not hmac.compare_digest(session.form_token.encode(), form_token.encode()):
        raise NotAllowed("This page is out of date. Nothing was changed; go back to your account page and try again.")
    return session


def owner(session: Annotated[Session, Depends(checked_form)]) -> Session:
    """The owner who sent this form. Raises `NotAllowed` for anybody else."""
    if not session.person.role.manages:
        raise NotAllowed("Only an owner of the account can change this.")
    return session


Owner = Annotated[Session, Depends(owner)]
"""A form of ours, sent by a signed-in owner from our own page (the app adds `same_site` to every route)."""
CheckedForm = Annotated[Session, Depends(checked_form)]


def may_change(session: CheckedForm) -> Session:
    """Who may change what the account has under way. Raises `NotAllowed` for an auditor."""
    if not session.person.role.submits:
        raise NotAllowed("An auditor may look at batches, but not change them.")
    return session


Changer = Annotated[Session, Depends(may_change)]


def _time_left(until: datetime, now: datetime) -> str:
    """`23 h 05 min`; `0 min` once it has passed."""
    minutes = max(until - now, timedelta()) // timedelta(minutes=1)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
