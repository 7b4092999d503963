"""Signing in through an identity provider (OpenID Connect).

Who comes back for the first time is known by their verified e-mail address, from then on by the provider's own id for
them. The provider vouches for who somebody is; which account they belong to, and as what, is said here. The first time
they are asked before they are signed in and remembered: any account's owner may have added their address.
"""

from __future__ import annotations

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import Connection

from portal.oidc import Identity, Provider
from portal.web.limits import SIGN_INS, limit, network_address
from portal.web.portal import Portal, ThePortal
from portal.web.sign_in import drop_cookie, enter, set_cookie, sign_in_page
from schemas.errors import NotAllowed, NotFound
from store.records import provider_sign_ins
from store.records.people import find_account, people_with_address, person_of_identity
from store.records.sessions import create_sign_in_link, open_session

_WAITING = CapacityLimiter(10)
"""Threads that wait for the provider: none of those that all other pages share, which go on while it hangs."""

router = APIRouter()


@router.get("/sign-in/provider/go")
async def go(portal: ThePortal, request: Request) -> Response:
    """To the provider, with a cookie by which this browser is known when it comes back."""
    return await run_sync(_go, portal, request, limiter=_WAITING)


@router.get("/sign-in/provider/back")
async def back(portal: ThePortal, request: Request) -> Response:
    """Back from the provider: check its answer, find the person, sign them in, or ask them first."""
    return await run_sync(_back, portal, request, limiter=_WAITING)


def _go(portal: Portal, request: Request) -> Response:
    limit(portal, SIGN_INS, network_address(request))
    address, asked = _provider(portal).begin(portal.randomness)
    browser = portal.randomness(32).hex()
    with portal.records.transaction() as connection:
        provider_sign_ins.keep(connection, browser, asked, portal.clock())
    answer = RedirectResponse(address, status_code=303)
    set_cookie(portal, answer, _cookie(portal), browser, provider_sign_ins.LIFE)
    return answer


def _back(portal: Portal, request: Request) -> Response:
    limit(portal, SIGN_INS, network_address(request))
    provider = _provider(portal)
    with portal.records.transaction() as connection:
        asked = provider_sign_ins.take(connection, request.cookies.get(_cookie(portal), ""), portal.clock())
    if asked is None:
        raise NotAllowed("This sign-in was not begun in this browser, or too long ago. Start again.")
    identity = provider.finish(asked, request.query_params)
    with portal.records.reading() as connection:
        known = person_of_identity(connection, identity.issuer, identity.subject)
    email = provider.address_of(identity) if known is None else None
    with portal.records.transaction() as connection:
        if known is None:
            answer = _ask(portal, _links(portal, connection, identity, email))
        else:
            session = open_session(connection, known.person_id, portal.clock(), portal.randomness)
            answer = enter(portal, request, session)
    drop_cookie(portal, answer, _cookie(portal))
    return answer


def _ask(portal: Portal, links: list[tuple[str, str]]) -> Response:
    """Whether they mean this account; of several, which."""
    if len(links) == 1:
        return RedirectResponse(links[0][1], status_code=303)
    return sign_in_page(portal, "several", links=links)


def _links(portal: Portal, connection: Connection, identity: Identity, email: str | None) -> list[tuple[str, str]]:
    """The accounts that the address is in, as (name, path of a link that signs in and remembers who this is)."""
    found = people_with_address(connection, email) if email else []
    if not found:
        raise NotAllowed("Nobody here has the address that the provider vouches for. Ask your account's owner.")
    who, links = (identity.issuer, identity.subject), []
    for person in found:
        token = create_sign_in_link(connection, person.person_id, portal.clock(), portal.randomness, who)
        links.append((find_account(connection, person.account_id).name, f"/sign-in/{token}"))
    return links


def _provider(portal: Portal) -> Provider:
    if portal.provider is None:
        raise NotFound("This portal has no identity provider.")
    return portal.provider


def _cookie(portal: Portal) -> str:
    return f"{portal.cookie_name}-provider"
