"""Closing an account, in the records: nobody can come in any more, names and addresses are gone, all batches are due.

What remains is a random account id and random ids of people, keys, batches and grants, with numbers and times.
Closing is for good, and closing twice changes nothing. The grants are ended by who calls this: see `portal.closing`.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from schemas.errors import NotFound
from schemas.ids import AccountId, BatchId
from store.records.batches import hasten
from store.records.line import ask_to_stop
from store.records.nights import NightState
from store.records.tables import (
    account_places,
    accounts,
    api_keys,
    batches,
    consent_events,
    fingerprints,
    idempotency_keys,
    nights,
    people,
    schedules,
    sessions,
    shares,
    sign_in_links,
    submissions,
    webhooks,
)
from store.records.webhooks import forget_events

ERASED = (account_places, idempotency_keys, schedules, webhooks)
"""Tables whose rows of a closed account are deleted."""

KEPT = (accounts, api_keys, batches, consent_events, nights, people, shares, submissions)
"""Tables whose rows stay under the random id, with numbers, times and ids only."""


def erase_account(connection: Connection, account_id: AccountId, now: datetime) -> list[BatchId]:
    """Do all of it in this transaction. Returns the batches that are due now. Raises `NotFound`."""
    own = accounts.c.account_id == account_id
    if connection.execute(select(accounts.c.account_id).where(own).with_for_update()).first() is None:
        raise NotFound("There is no account of that id.")
    connection.execute(
        update(accounts).where(own, accounts.c.closed_at.is_(None)).values(name=account_id, closed_at=now)
    )
    persons = select(people.c.person_id).where(people.c.account_id == account_id)
    for table in (sign_in_links, sessions):  # in this order: a link that is being used is waited for
        connection.execute(delete(table).where(table.c.person_id.in_(persons)))
    connection.execute(
        update(people)
        .where(people.c.account_id == account_id)
        .values(email=people.c.person_id, oidc_issuer=None, oidc_subject=None, signed_in_at=None)
    )
    keys = update(api_keys).where(api_keys.c.account_id == account_id)
    connection.execute(keys.where(api_keys.c.revoked_at.is_(None)).values(revoked_at=now))
    connection.execute(keys.values(name=api_keys.c.key_id))
    turns = select(schedules.c.schedule_id).where(schedules.c.account_id == account_id).with_for_update()
    connection.execute(turns.order_by(schedules.c.schedule_id)).all()  # a night that is being begun is waited for
    going = (nights.c.account_id == account_id) & (nights.c.state == NightState.RUNNING)
    over = {"state": NightState.CANCELLED, "ended_at": now, "estimate_at": None}
    connection.execute(update(nights).where(going).values(over))  # before the batches, as whoever removes a schedule
    query = select(batches.c.batch_id).where(batches.c.account_id == account_id, batches.c.purged_at.is_(None))
    unpurged = [BatchId(each) for each in connection.execute(query).scalars()]
    for batch_id in unpurged:
        ask_to_stop(connection, batch_id, now)
        hasten(connection, batch_id, now)
    _erase_what_was_set_up(connection, account_id)  # last: who tells how a batch ended holds that, then the events
    return unpurged


def _erase_what_was_set_up(connection: Connection, account_id: AccountId) -> None:
    """Schedules, webhooks and the like: they hold addresses, and would go on by themselves."""
    own_schedules = select(schedules.c.schedule_id).where(schedules.c.account_id == account_id)
    connection.execute(delete(fingerprints).where(fingerprints.c.schedule_id.in_(own_schedules)))
    forget_events(connection, webhooks.c.account_id == account_id)
    for table in ERASED:
        connection.execute(delete(table).where(table.c.account_id == account_id))
