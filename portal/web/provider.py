"""Signing in through an identity provider (OpenID Connect).

Who comes back for the first time is known by their verified e-mail address, from then on by the provider's own id for
them. The provider vouches for who somebody is; which account they belong to, and as what, is said here.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from sqlalchemy import Connection

from portal.oidc import Identity, Provider
from portal.web.limits import SIGN_INS, limit, network_address
from portal.web.portal import Portal, ThePortal
from portal.web.sign_in import drop_cookie, enter, set_cookie
from schemas.errors import NotAllowed, NotFound
from store import provider_sign_ins
from store.people import Person, people_with_address, person_of_identity, set_identity
from store.sessions import open_session

router = APIRouter(include_in_schema=False)


@router.get("/sign-in/provider/go")
def go(portal: ThePortal, request: Request) -> RedirectResponse:
    """To the provider, with a cookie by which this browser is known when it comes back."""
    limit(portal, SIGN_INS, network_address(request))
    address, asked = _provider(portal).begin(portal.randomness)
    browser = portal.randomness(32).hex()
    with portal.records.transaction() as connection:
        provider_sign_ins.keep(connection, browser, asked, portal.clock())
    answer = RedirectResponse(address, status_code=303)
    set_cookie(portal, answer, _cookie(portal), browser, provider_sign_ins.LIFE)
    return answer


@router.get("/sign-in/provider/back")
def back(portal: ThePortal, request: Request) -> RedirectResponse:
    """Back from the provider: check its answer, find the person, sign them in."""
    limit(portal, SIGN_INS, network_address(request))
    provider = _provider(portal)
    with portal.records.transaction() as connection:
        asked = provider_sign_ins.take(connection, request.cookies.get(_cookie(portal), ""), portal.clock())
    if asked is None:
        raise NotAllowed("This sign-in was not begun in this browser, or too long ago. Start again.")
    identity = provider.finish(asked, request.query_params)
    with portal.records.transaction() as connection:
        person = _person(connection, identity)
        session = open_session(connection, person.person_id, portal.clock(), portal.randomness)
    answer = enter(portal, request, session)
    drop_cookie(portal, answer, _cookie(portal))
    return answer


def _person(connection: Connection, identity: Identity) -> Person:
    known = person_of_identity(connection, identity.issuer, identity.subject)
    if known is not None:
        return known
    found = people_with_address(connection, identity.email) if identity.email else []
    if not found:
        raise NotAllowed("Nobody here has the address that the provider vouches for. Ask your account's owner.")
    if len(found) > 1:
        raise NotAllowed("Your address is in several accounts here. Sign in with a link by e-mail instead.")
    set_identity(connection, found[0].person_id, identity.issuer, identity.subject)
    return found[0]


def _provider(portal: Portal) -> Provider:
    if portal.provider is None:
        raise NotFound("This portal has no identity provider.")
    return portal.provider


def _cookie(portal: Portal) -> str:
    return f"{portal.cookie_name}-provider"
