"""Where accounts want to be told, and what is to be told: an outbox, filled in the transaction that made it true.

Bodies hold ids, numbers, codes and times. An event is kept for 30 days so that it can be sent again; a webhook that was
taken away loses its secret and what was still to be sent.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NewType

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from schemas.errors import AlreadyExists, LineTooLong, NotFound, UserError
from schemas.ids import AccountId, Randomness
from schemas.record import Moment, Record
from store.records.batches import BatchRecord
from store.records.line import find_submission
from store.records.people import require_open
from store.records.tables import webhook_events, webhooks

WebhookId = NewType("WebhookId", str)
EventId = NewType("EventId", str)

KEPT = timedelta(days=30)
MOST_WEBHOOKS = 20
PAUSES = tuple(timedelta(seconds=each) for each in (5, 30, 300, 1_800, 7_200, 18_000, 36_000, 36_000))
"""How long to wait after each try that failed; after the last, nobody tries again by itself. A day and some in all."""
MOST_PINGS = 10
"""Pings of one webhook that may wait."""
_IN_FLIGHT = timedelta(minutes=5)
"""A sender that died has its event taken over after this. The slowest round takes two minutes (`portal.webhooks`)."""
_MOST_OF_ONE = 8
"""Events of one account in a round: whoever has many, or answers slowly, holds nobody else up."""


class Webhook(Record):
    """An address of an account. `secret` signs; it is shown once, when the webhook is made."""

    webhook_id: WebhookId
    account_id: AccountId
    url: str
    secret: str
    created_at: Moment
    ended_at: Moment | None = None


class Event(Record):
    """Something to be told to one webhook. Without `next_try_at` there are no more tries."""

    event_id: EventId
    webhook_id: WebhookId
    kind: str
    body: dict[str, object]
    created_at: Moment
    attempts: int
    next_try_at: Moment | None
    delivered_at: Moment | None
    last_status: int | None


def add(connection: Connection, account_id: AccountId, url: str, now: datetime, randomness: Randomness) -> Webhook:
    """Note an address. Whoever calls this has checked it.

    Raises `AlreadyExists` for one that the account has: it would be told all things twice. `UserError` beyond 20 of an
    account, `NotFound` for a closed one.
    """
    require_open(connection, account_id, alone=True)
    own = list_all(connection, account_id)
    if url in {each.url for each in own}:
        raise AlreadyExists("That address is a webhook already. For a new secret, take it away and add it again.")
    if len(own) >= MOST_WEBHOOKS:
        raise UserError(f"An account may have {MOST_WEBHOOKS} webhooks. Take one away first.")
    webhook = Webhook(
        webhook_id=WebhookId("w" + randomness(16).hex()),
        account_id=account_id,
        url=url,
        secret="whsec_" + base64.b64encode(randomness(32)).decode(),
        created_at=now,
    )
    connection.execute(insert(webhooks).values(**webhook.model_dump()))
    return webhook


def list_all(connection: Connection, account_id: AccountId) -> list[Webhook]:
    """Those in use, the oldest first."""
    is_own = (webhooks.c.account_id == account_id) & webhooks.c.ended_at.is_(None)
    query = select(webhooks).where(is_own).order_by(webhooks.c.created_at, webhooks.c.webhook_id)
    return [_webhook(row) for row in connection.execute(query).mappings()]


def find(connection: Connection, account_id: AccountId, webhook_id: str) -> Webhook:
    """One of the account's own. Raises `NotFound`."""
    for webhook in list_all(connection, account_id):
        if webhook.webhook_id == webhook_id:
            return webhook
    raise NotFound("There is no webhook of that id in the account.")


def end(connection: Connection, webhook_id: WebhookId, now: datetime) -> None:
    """Tell this address nothing more, and forget the address and its secret."""
    own = webhooks.c.webhook_id == webhook_id
    forget_events(connection, own)  # first, as a closing
    connection.execute(update(webhooks).where(own).values(ended_at=now, secret="", url=""))


def forget_events(connection: Connection, which: ColumnElement[bool]) -> None:
    """Forget all that was, or is to be, told to these webhooks."""
    theirs = webhook_events.c.webhook_id.in_(select(webhooks.c.webhook_id).where(which))
    held = select(webhook_events.c.event_id).where(theirs).with_for_update()
    # In the order in which they are claimed: two who hold some each would wait for each other in a circle.
    connection.execute(held.order_by(webhook_events.c.next_try_at, webhook_events.c.event_id)).all()
    connection.execute(delete(webhook_events).where(theirs))


def enqueue(
    connection: Connection, account_id: AccountId, kind: str, subject: str, body: Mapping[str, object], now: datetime
) -> int:
    """Tell all of the account's webhooks. The same `subject` is told once. Returns how many were not told before."""
    return sum(_put(connection, each, kind, subject, body, now) for each in list_all(connection, account_id))


def enqueue_end(connection: Connection, batch: BatchRecord, now: datetime) -> None:
    """Tell how a batch ended: of each end once. Call it before the batch leaves the line, which forgets the wish.

    Whoever asked for it once more waits to be told, also when it came out as before.
    """
    counts, stands = batch.counts, find_submission(connection, batch.stamp.batch_id)
    body = {"batch_id": batch.stamp.batch_id, "state": batch.state, **counts.model_dump()}
    subject = f"{batch.stamp.batch_id} {batch.state} {counts.done} {counts.failed}"
    if stands is not None and stands.again_before is not None:
        subject += f" {stands.again_before.isoformat()}"
    enqueue(connection, batch.account_id, "batch.ended", subject, body, now)


def ping(connection: Connection, webhook: Webhook, now: datetime, randomness: Randomness) -> EventId:
    """Tell one webhook nothing, to try its address. Raises `LineTooLong` beyond 10 that wait."""
    own = (webhook_events.c.webhook_id == webhook.webhook_id) & (webhook_events.c.kind == "ping")
    waiting = select(func.count()).where(own, webhook_events.c.next_try_at.is_not(None))
    if connection.execute(waiting).scalar_one() >= MOST_PINGS:
        raise LineTooLong(f"{MOST_PINGS} pings wait for this address already. See what became of them first.", 60)
    subject = randomness(8).hex()
    _put(connection, webhook, "ping", subject, {}, now)
    return _event_id(webhook.webhook_id, "ping", subject)


def events_of(connection: Connection, webhook_id: WebhookId, limit: int = 100) -> list[Event]:
    """What was, or is to be, told to a webhook, the newest first."""
    own = webhook_events.c.webhook_id == webhook_id
    query = select(webhook_events).where(own).order_by(webhook_events.c.created_at.desc()).limit(limit)
    return [_event(row) for row in connection.execute(query).mappings()]


def replay(connection: Connection, webhook_id: WebhookId, event_id: str, now: datetime) -> Event:
    """Send an event again now, delivered or not. Raises `NotFound`."""
    own = (webhook_events.c.webhook_id == webhook_id) & (webhook_events.c.event_id == event_id)
    again = update(webhook_events).where(own).values(next_try_at=now, attempts=0, delivered_at=None)
    if connection.execute(again).rowcount == 0:
        raise NotFound("There is no event of that id for this webhook, or it is older than 30 days.")
    return _event(connection.execute(select(webhook_events).where(own)).mappings().one())


def claim_due(connection: Connection, now: datetime, limit: int) -> list[tuple[Event, Webhook]]:
    """Events whose time has come, in turn by account; nobody else gets them for five minutes. Too old ones go."""
    connection.execute(delete(webhook_events).where(webhook_events.c.created_at <= now - KEPT))
    longest = (webhook_events.c.next_try_at, webhook_events.c.event_id)
    turn = func.row_number().over(partition_by=webhooks.c.account_id, order_by=longest).label("turn")
    due = (
        select(webhook_events, turn)
        .join_from(webhook_events, webhooks, webhook_events.c.webhook_id == webhooks.c.webhook_id)
        .where(webhook_events.c.next_try_at <= now, webhooks.c.ended_at.is_(None))
        .subquery()
    )
    query = select(due).where(due.c.turn <= _MOST_OF_ONE).order_by(due.c.turn, due.c.next_try_at).limit(limit)
    claimed = []
    for row in connection.execute(query).mappings().all():
        event = _event(row)
        is_same = (webhook_events.c.event_id == event.event_id) & (webhook_events.c.next_try_at == event.next_try_at)
        taken = connection.execute(update(webhook_events).where(is_same).values(next_try_at=now + _IN_FLIGHT))
        own = select(webhooks).where(webhooks.c.webhook_id == event.webhook_id, webhooks.c.ended_at.is_(None))
        hook = connection.execute(own).mappings().first()
        if taken.rowcount == 1 and hook is not None:
            claimed.append((event, _webhook(hook)))
    return claimed


def note_try(connection: Connection, event: Event, status: int | None, is_delivered: bool, now: datetime) -> None:
    """Record what came of a try: delivered, or when to try again, or never."""
    is_last = event.attempts >= len(PAUSES)
    again = None if is_delivered or is_last else now + PAUSES[event.attempts]
    values = {
        "attempts": event.attempts + 1,
        "last_status": status,
        "delivered_at": now if is_delivered else None,
        "next_try_at": again,
    }
    connection.execute(update(webhook_events).where(webhook_events.c.event_id == event.event_id).values(**values))


def _put(
    connection: Connection, webhook: Webhook, kind: str, subject: str, body: Mapping[str, object], now: datetime
) -> bool:
    row = {
        "event_id": _event_id(webhook.webhook_id, kind, subject),
        "webhook_id": webhook.webhook_id,
        "kind": kind,
        "body": dict(body),
        "created_at": now,
        "next_try_at": now,
    }
    try:
        with connection.begin_nested():
            connection.execute(insert(webhook_events).values(**row))
    except IntegrityError:
        return False
    return True


def _event_id(webhook_id: str, kind: str, subject: str) -> EventId:
    digest = hashlib.sha256(f"{webhook_id}\0{kind}\0{subject}".encode()).hexdigest()
    return EventId("e" + digest[:32])


def _webhook(row: RowMapping) -> Webhook:
    return Webhook.model_validate(dict(row))


def _event(row: RowMapping) -> Event:
    return Event.model_validate({name: row[name] for name in Event.model_fields})
