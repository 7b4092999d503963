"""Whose batches are asked for: the account of a key, or of a person who is signed in on our own pages.

A page's script sends the session's cookie and, for whatever changes something, the form token in `x-form-token`; the
browser must say that our own page sent it. An auditor may only look, and some changes are the owners' alone.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request, Security

from flows.parts import Parts
from portal.api.keys import caller, key_header
from portal.api.shapes import BatchAnswer, batch_answer
from portal.batches import own_batch, with_results
from portal.permission import live_grant_ids
from portal.web.portal import Portal, ThePortal, may_change, same_site
from schemas.errors import KeyNeeded, NotAllowed
from schemas.ids import AccountId
from store.logs import note
from store.records.batches import BatchRecord
from store.records.people import Role
from store.records.sessions import find_session


@dataclass(frozen=True)
class Sender:
    """Who asks, for what their account has. `role`: of the person who is signed in; None for a key."""

    portal: Portal
    parts: Parts
    account_id: AccountId
    role: Role | None = None

    def batch(self, batch_id: str) -> BatchRecord:
        """One of the account's own batches. Raises `NotFound` for others' as for none."""
        return own_batch(self.portal.records, self.account_id, batch_id)

    def answer(self, batch_id: str) -> BatchAnswer:
        """What is told of one of them. Raises `NotFound`."""
        return batch_answer(self.batch(batch_id), live_grant_ids(self.portal.records, self.account_id))

    def batch_with_results(self, batch_id: str) -> BatchRecord:
        """The same, if it has results to hand out. Raises `NotFound`, and as `with_results` does."""
        return with_results(self.batch(batch_id), self.portal.clock())


def sender(
    request: Request,
    portal: ThePortal,
    key: Annotated[str | None, Security(key_header)] = None,
    form_token: Annotated[str, Header(alias="x-form-token", include_in_schema=False)] = "",
) -> Sender:
    """Who asks. Raises `KeyNeeded`, `NotAllowed`."""
    parts: Parts = request.app.state.parts
    cookie = request.cookies.get(portal.cookie_name)
    if key is not None or cookie is None:
        account_id = caller(portal, key).account_id
        note(account_id=account_id)
        return Sender(portal, parts, account_id)
    with portal.records.reading() as connection:
        session = find_session(connection, cookie, portal.clock())
    if session is None:
        raise KeyNeeded("You are not signed in any more. Sign in, or send a key in the x-api-key header.")
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        same_site(request, portal)
        if not hmac.compare_digest(session.form_token.encode(), form_token.encode()):
            raise NotAllowed("This page is out of date. Load it again.")
        may_change(session)
    note(account_id=session.person.account_id)
    return Sender(portal, parts, session.person.account_id, session.person.role)


TheSender = Annotated[Sender, Depends(sender)]


def owning(sender: TheSender) -> Sender:
    """The same for what only an owner, or a key that one made, may change. Raises `NotAllowed`."""
    if sender.role is not None and not sender.role.manages:
        raise NotAllowed("Only an owner of the account can change this.")
    return sender


TheOwner = Annotated[Sender, Depends(owning)]
