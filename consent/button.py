"""The button: the only function that can create a grant.

It believes nobody: the session, the person, their role and the text shown are looked up here, inside the transaction
that grants. An import contract lets only `portal.web.account` call it. No key, command, flow or setting leads here.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from consent.append import Draft, append
from consent.ledger import newest_event, read_grants
from consent.locks import lock_grant, lock_ledger
from consent.notice import CURRENT, RECONSENT_FROM
from schemas.consent import Act, Grant, Method
from schemas.errors import NotAllowed, StaleNotice, UserError
from schemas.ids import AccountId, Randomness, new_grant_id
from schemas.industries import Industry
from store.records.people import Person, Role, require_open
from store.records.sessions import find_session


@dataclass(frozen=True)
class Press:
    """The record of one deliberate act by a signed-in person.

    `session_token` and `form_token`: who pressed, in which session, on a form that we made for it. `industries`: what
    they ticked. `notice_version`, `notice_sha256`: the exact text that the form showed. `page`: where it was shown.
    `received_at`: when the server received it. `newest_event`: the account's when the form was shown, by its hash.
    """

    session_token: str
    form_token: str
    industries: tuple[Industry, ...]
    notice_version: str
    notice_sha256: str
    page: str
    received_at: datetime
    newest_event: str


def press(
    connection: Connection,
    act: Press,
    recorded_at: datetime,
    randomness: Randomness,
    reconsent_from: datetime | None = RECONSENT_FROM,
) -> list[Grant]:
    """Grant each industry in `act` that has no live grant; returns the new grants, maybe none.

    Raises `StaleNotice` when the text shown is not the one in force, or something was decided since: a yes that comes
    once more from an old page takes no later no back. `NotAllowed` for anybody but a signed-in owner, `NotFound` for a
    closed account, `UserError` when no industry was chosen. Then nothing is recorded.
    """
    lock_ledger(connection)  # before anything is read: a closing that was first has ended the session by then
    person = _who(connection, act, recorded_at)
    require_open(connection, person.account_id)  # a sign-in at the moment of the closing may have outlived it
    if (act.notice_version, act.notice_sha256) != (CURRENT.version, CURRENT.sha256):
        raise StaleNotice(
            "The text has changed since this page was opened. Nothing was turned on; please read it again."
        )
    if not act.industries:
        raise UserError("No industry was chosen, so nothing was turned on. Tick at least one, or say no.")
    is_of_now = act.newest_event == newest_event(connection, person.account_id)
    given = []
    for industry in dict.fromkeys(act.industries):
        held = read_grants(connection, person.account_id).live(person.account_id, industry)
        if held is not None and (reconsent_from is None or held.granted_at >= reconsent_from):
            continue
        if not is_of_now:
            raise StaleNotice(
                "Something was decided for the account since this page was opened. Nothing was turned on; please look "
                "at it again."
            )
        if held is not None:  # given on a text that no longer counts: the new yes replaces it, it does not mend it
            lock_grant(connection, held.grant_id, shared=False)
            append(connection, _draft(act, person, Act.WITHDRAWN, held), recorded_at)
        grant = _new_grant(act, person.account_id, industry, randomness)
        event = append(connection, _draft(act, person, Act.GRANTED, grant), recorded_at)
        given.append(grant.model_copy(update={"granted_at": event.received_at}))
    return given


def _who(connection: Connection, act: Press, now: datetime) -> Person:
    session = find_session(connection, act.session_token, now)
    if session is None or not hmac.compare_digest(session.form_token.encode(), act.form_token.encode()):
        raise NotAllowed("You are no longer signed in on this page, so nothing was turned on. Sign in again.")
    if session.person.role is not Role.OWNER:
        raise NotAllowed("Only an owner of the account can turn this on.")
    return session.person


def _new_grant(act: Press, account_id: AccountId, industry: Industry, randomness: Randomness) -> Grant:
    return Grant(
        grant_id=new_grant_id(randomness),
        account_id=account_id,
        industry=industry,
        granted_at=act.received_at,
        withdrawn_at=None,
        notice_version=act.notice_version,
    )


def _draft(act: Press, person: Person, verb: Act, grant: Grant) -> Draft:
    return Draft(
        account_id=person.account_id,
        actor=person.person_id,
        act=verb,
        industry=grant.industry,
        grant_id=grant.grant_id,
        method=Method.BUTTON,
        page=act.page,
        reason="" if verb is Act.GRANTED else "confirmed again after the text changed",
        received_at=act.received_at,
        notice_version=act.notice_version,
        notice_sha256=act.notice_sha256,
    )
