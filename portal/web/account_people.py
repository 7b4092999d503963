"""People of the account: an owner adds them, gives them another role, takes them out.

GET  /account/people                       who can sign in
POST /account/people                       fields: form_token, email, role             adds, and says how they come in
POST /account/people/{person_id}/role      fields: form_token, role                    -> 303 /account/people
POST /account/people/{person_id}/remove    fields: form_token                          -> 303 /account/people

Whoever was added gets a link by letter, comes in through the identity provider, or asks an operator. No page ever shows
an owner somebody else's link: with it, one person could turn *AI Training Data* on and the ledger name another.
"""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from portal.mail import invitation
from portal.web.limits import ADDED, LINKS_TO, limit
from portal.web.portal import Owner, Portal, SignedIn, ThePortal
from portal.web.sign_in import drop_cookie
from schemas.errors import MailFault, NotAllowed, TooManyTries, UserError
from schemas.ids import PersonId
from store.records import people
from store.records.api_keys import list_keys
from store.records.people import Person, Role
from store.records.sessions import Session, create_sign_in_link

PAGE = "/account/people"
_MAY = {
    Role.MEMBER: "sends batches and fetches cutouts",
    Role.AUDITOR: "sees all of it and changes nothing",
    Role.OWNER: "turns AI Training Data on and off, and manages all of the account: its people, too, you among them",
}
_log = logging.getLogger(__name__)

router = APIRouter()


@router.get(PAGE)
def show(portal: ThePortal, session: SignedIn) -> HTMLResponse:
    """Who is in the account."""
    return _page(portal, session)


@router.post(PAGE)
def add(
    portal: ThePortal, session: Owner, email: Annotated[str, Form()] = "", role: Annotated[str, Form()] = ""
) -> HTMLResponse:
    """Let somebody in, and write to them."""
    by, now = session.person, portal.clock()
    limit(portal, ADDED, by.account_id)
    try:
        wanted = _role(role)
        with portal.records.transaction() as connection:
            people.require_owner(connection, by)
            person_id = people.add_person(
                connection, by.account_id, email, wanted, now, portal.randomness, by.person_id
            )
            person = people.find_person(connection, by.account_id, person_id)
            account = people.find_account(connection, by.account_id)
            token = create_sign_in_link(connection, person_id, now, portal.randomness) if portal.post else ""
    except NotAllowed:
        raise
    except UserError as fault:
        return _page(portal, session, 400, asked=email, asked_role=role, problem=str(fault))
    return _page(portal, session, added=person.email, told=_tell(portal, person, account.name, token))


@router.post(f"{PAGE}/{{person_id}}/role")
def change(portal: ThePortal, session: Owner, person_id: str, role: Annotated[str, Form()] = "") -> Response:
    """Give somebody another role; they sign in anew. The one that they have changes nothing."""
    account_id = session.person.account_id
    try:
        with portal.records.transaction() as connection:
            people.require_owner(connection, session.person)
            person = people.find_person(connection, account_id, person_id)
            wanted = _role(role)
            if person.role is wanted:
                return RedirectResponse(PAGE, status_code=303)
            people.set_role(connection, account_id, person.email, wanted)
    except NotAllowed as fault:
        return _page(portal, session, 403, problem=str(fault))
    return _answer(portal, session, person)


@router.post(f"{PAGE}/{{person_id}}/remove")
def remove(portal: ThePortal, session: Owner, person_id: str) -> Response:
    """Take somebody out: signed out everywhere, their address erased."""
    account_id = session.person.account_id
    try:
        with portal.records.transaction() as connection:
            people.require_owner(connection, session.person)
            person = people.find_person(connection, account_id, person_id)
            people.remove_person(connection, account_id, person.email)
    except NotAllowed as fault:
        return _page(portal, session, 403, problem=str(fault))
    return _answer(portal, session, person)


def _answer(portal: Portal, session: Session, person: Person) -> RedirectResponse:
    """Back to the page; to the ways in for who changed themself, and is signed out by that."""
    if person.person_id != session.person.person_id:
        return RedirectResponse(PAGE, status_code=303)
    answer = RedirectResponse("/sign-in", status_code=303)
    drop_cookie(portal, answer, portal.cookie_name)
    return answer


def _tell(portal: Portal, person: Person, account: str, token: str) -> str:
    """Write to who was added. Returns what became of the letter: `sent`, `printed`, `lost`, or `none`."""
    if portal.post is None:
        return "none"
    try:
        limit(portal, LINKS_TO, person.email.casefold())
        portal.post(invitation(person.email, account, person.role, portal.settings.portal_url, token))
    except TooManyTries:
        return "lost"
    except MailFault as fault:
        _log.warning("%s: %s", fault.code, fault)
        return "lost"
    return "sent" if portal.settings.smtp_url.get_secret_value() else "printed"


def _role(name: str) -> Role:
    if name not in set(Role):
        raise UserError("Choose what the person may do.")
    return Role(name)


def _page(
    portal: Portal,
    session: Session,
    status: int = 200,
    added: str = "",
    told: str = "",
    asked: str = "",
    asked_role: str = Role.MEMBER,
    problem: str = "",
) -> HTMLResponse:
    """`added`, `told`: who was added, and their letter; `asked…`, `problem`: what was typed, and why not."""
    account_id = session.person.account_id
    with portal.records.reading() as connection:
        own = people.people_of(connection, account_id)
        keys = [key for key in list_keys(connection, account_id) if key.revoked_at is None]
    owners = [person for person in own if person.role is Role.OWNER]
    made: dict[PersonId, int] = {each.person_id: sum(key.created_by == each.person_id for key in keys) for each in own}
    return portal.page(
        "people.html",
        status,
        session=session,
        people=own,
        addresses={person.person_id: person.email for person in own},
        only_owner=owners[0].person_id if len(owners) == 1 else None,
        keys=made,
        may=_MAY,
        provider=portal.provider.name if portal.provider else "",
        sends_letters=portal.post is not None,
        added=added,
        told=told,
        asked=asked,
        asked_role=asked_role,
        problem=problem,
    )
