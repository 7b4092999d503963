"""The ledger of consent: read it, verify it, withdraw and decline. Granting is not here: see `consent.button`.

Withdrawing is open to every method and never fails for want of a grant: asked twice, it changes nothing then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Row, RowMapping, and_, exists, func, null, select

from consent.append import Draft, append, event_hash, read_event, select_events
from consent.grants import Grants, grants_of
from consent.locks import lock_grant, lock_ledger
from schemas.chain import GENESIS
from schemas.consent import Act, ConsentEvent, ConsentState, Grant, Method
from schemas.errors import LedgerBroken, UserError
from schemas.ids import AccountId, GrantId, PersonId
from schemas.industries import Industry
from store.records.tables import consent_events

LONGEST_REASON = 500
"""Characters: what the column holds."""


@dataclass(frozen=True)
class Refusal:
    """Somebody says no, or takes a yes back.

    `actor`: the person; None for an operator or a program, which must give a `reason` (never a person's name: the
    ledger keeps it for ever). `page`: where on the portal, or empty. `received_at`: when the server received it.
    """

    account_id: AccountId
    method: Method
    received_at: datetime
    actor: PersonId | None = None
    reason: str = ""
    page: str = ""


def read_events(connection: Connection, account_id: AccountId | None = None) -> list[ConsentEvent]:
    """The events of one account or of all, oldest first. Raises `LedgerBroken` when one is no event any more."""
    query = select_events()
    if account_id is not None:
        query = query.where(consent_events.c.account_id == account_id)
    try:
        return [read_event(row) for row in connection.execute(query).mappings()]
    except ValidationError:
        raise LedgerBroken("The consent ledger holds what is no event. Run `bgbatch consent verify`.") from None


def newest_event(connection: Connection, account_id: AccountId) -> str:
    """The hash of an account's newest event; `GENESIS` when there is none. A page with it tells its age."""
    of_account = select(consent_events.c.hash).where(consent_events.c.account_id == account_id)
    return connection.execute(of_account.order_by(consent_events.c.sequence.desc()).limit(1)).scalar() or GENESIS


def read_grants(connection: Connection, account_id: AccountId) -> Grants:
    """All grants that an account ever gave, its own chain verified. Raises `LedgerBroken`."""
    return grants_of(_verified_account(connection, account_id))


def live_grant(connection: Connection, account_id: AccountId, industry: Industry) -> Grant | None:
    """The grant behind a batch that is stamped now, or none. Raises `LedgerBroken`."""
    return read_grants(connection, account_id).live(account_id, industry)


def live_grants(connection: Connection, account_id: AccountId | None = None) -> list[Grant]:
    """Every grant that is not withdrawn, over all accounts or of one: what the lake may hold and hand out.

    Not replayed: a damaged event must not stop an erasure. A grant is live while nothing follows it, neither under its
    id nor for its account and industry: so a damaged withdrawal does not make it live again.
    """
    granted, other = consent_events.alias("granted"), consent_events.alias("other")
    of_its_id = and_(other.c.grant_id == granted.c.grant_id, other.c.sequence != granted.c.sequence)
    of_its_pair = and_(
        other.c.account_id == granted.c.account_id,
        other.c.industry == granted.c.industry,
        other.c.sequence > granted.c.sequence,
    )
    query = (
        select(granted, null().label("withdrawn_at"))
        .where(granted.c.act == Act.GRANTED, granted.c.grant_id.is_not(None))
        .where(~exists().where(of_its_id), ~exists().where(of_its_pair))
        .order_by(granted.c.sequence)
    )
    if account_id is not None:
        query = query.where(granted.c.account_id == account_id)
    return list(_readable(connection.execute(query).mappings()))


def live_grant_ids(connection: Connection, account_id: AccountId | None = None) -> frozenset[GrantId]:
    """Their ids alone."""
    return frozenset(grant.grant_id for grant in live_grants(connection, account_id))


def ended_grants(connection: Connection) -> list[Grant]:
    """Every grant that was withdrawn, over all accounts: what must be gone from the lake, and by when.

    Not replayed: a damaged event must not stop an erasure.
    """
    granted, withdrawn = consent_events.alias("granted"), consent_events.alias("withdrawn")
    query = (
        select(granted, withdrawn.c.received_at.label("withdrawn_at"))
        .join_from(granted, withdrawn, granted.c.grant_id == withdrawn.c.grant_id)
        .where(granted.c.act == Act.GRANTED, withdrawn.c.act == Act.WITHDRAWN)
        .order_by(granted.c.sequence)
    )
    return list(_readable(connection.execute(query).mappings()))


def newest_withdrawal(connection: Connection) -> int:
    """Its number in the ledger; 0 where nothing was ever withdrawn."""
    query = select(consent_events.c.sequence).where(consent_events.c.act == Act.WITHDRAWN)
    return connection.execute(query.order_by(consent_events.c.sequence.desc()).limit(1)).scalar() or 0


def find_grant(connection: Connection, grant_id: GrantId) -> Grant | None:
    """One grant, live or not; None when the ledger knows none of that id. Raises `LedgerBroken`."""
    owner = select(consent_events.c.account_id).where(consent_events.c.grant_id == grant_id).limit(1)
    account_id = connection.execute(owner).scalar()
    return None if account_id is None else read_grants(connection, AccountId(account_id)).get(grant_id)


def withdraw(connection: Connection, by: Refusal, industry: Industry, recorded_at: datetime) -> Grant | None:
    """End the live grant for `industry`; returns it as it ended, or None when there was none (nothing is written).

    From the commit of this transaction on no admission under the grant can commit: see `consent.gate.confirm`.
    Raises `UserError` when nobody answers for it.
    """
    _must_answer_for_it(by)
    lock_ledger(connection)
    granted = _newest_open_grant(connection, by.account_id, industry)
    if granted is None:
        return None
    grant_id = GrantId(granted.grant_id)
    lock_grant(connection, grant_id, shared=False)
    event = append(connection, _draft(by, Act.WITHDRAWN, industry, grant_id), recorded_at)
    return Grant(
        grant_id=grant_id,
        account_id=by.account_id,
        industry=industry,
        granted_at=granted.received_at,
        withdrawn_at=event.received_at,
        notice_version=granted.notice_version,
    )


def withdraw_all(connection: Connection, by: Refusal, recorded_at: datetime) -> list[Grant]:
    """End every live grant of the account. Returns those that ended now."""
    ended = [withdraw(connection, by, industry, recorded_at) for industry in Industry]
    return [grant for grant in ended if grant is not None]


def decline(connection: Connection, by: Refusal, recorded_at: datetime) -> list[Industry]:
    """Record "no" for every industry that was never asked about. Grants stay as they are. Returns those industries."""
    lock_ledger(connection)
    grants = read_grants(connection, by.account_id)
    asked = [each for each in Industry if grants.state(by.account_id, each) is ConsentState.NEVER_ASKED]
    for industry in asked:
        append(connection, _draft(by, Act.DECLINED, industry, None), recorded_at)
    return asked


def verify(connection: Connection) -> int:
    """How many events the ledger holds, all in order and unchanged, over all and per account.

    Raises `LedgerBroken` naming the first event that was changed, is missing or is out of its place.
    """
    before, count = GENESIS, 0
    last_of: dict[AccountId, str] = {}
    for count, event in enumerate(_stream(connection), start=1):
        if event.sequence != count:
            raise _broken(count, "is missing")
        if event.hash != event_hash(event):
            raise _broken(count, _what_happened(event, connection))
        if event.previous_hash != before:
            raise _broken(count, "does not follow the event before it, which was replaced, or it was re-ordered")
        if event.account_previous_hash != last_of.get(event.account_id, GENESIS):
            raise _broken(count, "does not follow the same account's event before it")
        before = last_of[event.account_id] = event.hash
    return count


def _stream(connection: Connection) -> Iterator[ConsentEvent]:
    events = connection.execute(select_events().execution_options(yield_per=1000)).mappings()
    for place, row in enumerate(events, start=1):
        try:
            yield read_event(row)
        except ValidationError:
            raise _broken(place, "was changed: it is no event any more") from None


def _what_happened(event: ConsentEvent, connection: Connection) -> str:
    """Tell an event that was moved here from one that was changed: its hash still fits the place that it came from."""
    places = connection.execute(select(func.max(consent_events.c.sequence))).scalar_one()
    for place in range(1, places + 1):
        if event_hash(event.model_copy(update={"sequence": place})) == event.hash:
            return f"is out of order: event {place} stands in its place"
    return "was changed after it was written"


def _verified_account(connection: Connection, account_id: AccountId) -> list[ConsentEvent]:
    before = GENESIS
    events = read_events(connection, account_id)
    for event in events:
        if event.account_previous_hash != before or event.hash != event_hash(event):
            raise _broken(event.sequence, "was changed, or an event of the same account before it is missing")
        before = event.hash
    return events


def _newest_open_grant(connection: Connection, account_id: AccountId, industry: Industry) -> Row[Any] | None:
    """Neither read as events nor verified: a damaged ledger must not stop a withdrawal."""
    own = select(consent_events).where(consent_events.c.account_id == account_id)
    ended = own.with_only_columns(consent_events.c.grant_id).where(
        consent_events.c.act == Act.WITHDRAWN, consent_events.c.grant_id.is_not(None)
    )
    open_ones = own.where(
        consent_events.c.act == Act.GRANTED,
        consent_events.c.industry == industry,
        consent_events.c.grant_id.not_in(ended),
    )
    return connection.execute(open_ones.order_by(consent_events.c.sequence.desc()).limit(1)).first()


def _readable(rows: Iterable[RowMapping]) -> Iterator[Grant]:
    """Grants, without those that are damaged so far that they are none any more: nobody has a permission under them."""
    for row in rows:
        with suppress(ValidationError):
            yield Grant(
                grant_id=row["grant_id"],
                account_id=row["account_id"],
                industry=row["industry"],
                granted_at=row["received_at"],
                withdrawn_at=row["withdrawn_at"],
                notice_version=row["notice_version"],
            )


def _draft(by: Refusal, act: Act, industry: Industry, grant_id: GrantId | None) -> Draft:
    return Draft(
        account_id=by.account_id,
        actor=by.actor,
        act=act,
        industry=industry,
        grant_id=grant_id,
        method=by.method,
        page=by.page,
        reason=by.reason,
        received_at=by.received_at,
    )


def _must_answer_for_it(by: Refusal) -> None:
    if by.actor is None and not by.reason.strip():
        raise UserError("Who withdraws for somebody else must give a reason; it is kept with the withdrawal.")
    if len(by.reason) > LONGEST_REASON:
        raise UserError(f"A reason has at most {LONGEST_REASON} characters. Shorten it.")


def _broken(sequence: int, what: str) -> LedgerBroken:
    return LedgerBroken(f"Event {sequence} of the consent ledger {what}. Restore the records from a backup.")
