"""Writing to the ledger: one event at a time, at the end, chained to the last one.

An import contract lets only `consent.button` (grants), `consent.ledger` (withdraws, declines) and
`consent.suppression` (withdraws again what a restored database had forgotten) in here.
Times of events are whole milliseconds, as those inside batch ids are, so that "granted before received" can be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, Select, insert, select

from consent.locks import lock_ledger
from schemas.chain import GENESIS, chained_hash
from schemas.consent import Act, ConsentEvent, Method
from schemas.ids import AccountId, GrantId, PersonId
from schemas.industries import Industry
from store.records.tables import consent_events


@dataclass(frozen=True)
class Draft:
    """An event before it has a place in the ledger. `received_at`: when the server received the act."""

    account_id: AccountId
    actor: PersonId | None
    act: Act
    industry: Industry
    grant_id: GrantId | None
    method: Method
    page: str
    reason: str
    received_at: datetime
    notice_version: str = ""
    notice_sha256: str = ""


def append(connection: Connection, draft: Draft, recorded_at: datetime) -> ConsentEvent:
    """Put `draft` at the end of the ledger. Its order among all events is the order of these calls' transactions."""
    lock_ledger(connection)
    newest = select(consent_events.c.sequence, consent_events.c.hash).order_by(consent_events.c.sequence.desc())
    last = connection.execute(newest.limit(1)).first()
    last_of_account = connection.execute(newest.where(consent_events.c.account_id == draft.account_id).limit(1)).first()
    unchained = ConsentEvent(
        sequence=last.sequence + 1 if last else 1,
        account_id=draft.account_id,
        actor=draft.actor,
        act=draft.act,
        industry=draft.industry,
        grant_id=draft.grant_id,
        notice_version=draft.notice_version,
        notice_sha256=draft.notice_sha256,
        page=draft.page,
        method=draft.method,
        reason=draft.reason,
        received_at=_whole_milliseconds(draft.received_at),
        recorded_at=recorded_at,
        account_previous_hash=last_of_account.hash if last_of_account else GENESIS,
        previous_hash=last.hash if last else GENESIS,
        hash="",
    )
    event = unchained.model_copy(update={"hash": event_hash(unchained)})
    connection.execute(insert(consent_events).values(event.model_dump()))
    return event


def event_hash(event: ConsentEvent) -> str:
    """What `event.hash` must be."""
    return chained_hash(event.previous_hash, event.model_dump(exclude={"previous_hash", "hash"}))


def select_events() -> Select[tuple[object, ...]]:
    """All events, oldest first."""
    return select(consent_events).order_by(consent_events.c.sequence)


def read_event(row: RowMapping) -> ConsentEvent:
    """A row of the ledger as a record."""
    return ConsentEvent.model_validate(dict(row))


def _whole_milliseconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
