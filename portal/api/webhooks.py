"""Webhooks over REST: where the account is told, what it was told, and telling it again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from portal import webhooks as telling
from portal.api.sender import Sender, TheOwner, TheSender
from schemas.record import Moment, Record
from store.records import webhooks
from store.records.webhooks import Event, Webhook

router = APIRouter(tags=["webhooks"])


class NewWebhook(Record):
    """A public address that takes POST."""

    url: Annotated[str, Field(max_length=500)]


class WebhookAnswer(Record):
    """A webhook. `secret` is shown in the answer that made it, and never again."""

    webhook_id: str
    url: str
    created_at: Moment
    secret: str | None = None


@router.post("/webhooks", status_code=201)
def add_webhook(sender: TheOwner, wanted: NewWebhook) -> WebhookAnswer:
    """Add an address. It must be public. Keep the secret: it verifies what comes."""
    portal = sender.portal
    made = telling.add(
        portal.records, sender.account_id, wanted.url, portal.clock(), portal.randomness, telling.default_fetcher()
    )
    return _answer(made).model_copy(update={"secret": made.secret})


@router.get("/webhooks")
def list_webhooks(sender: TheSender) -> list[WebhookAnswer]:
    """The account's webhooks."""
    with sender.portal.records.reading() as connection:
        return [_answer(each) for each in webhooks.list_all(connection, sender.account_id)]


@router.delete("/webhooks/{webhook_id}", status_code=204)
def remove_webhook(sender: TheOwner, webhook_id: str) -> None:
    """Tell this address nothing more, and forget it."""
    own = _own(sender, webhook_id)
    with sender.portal.records.transaction() as connection:
        webhooks.end(connection, own.webhook_id, sender.portal.clock())


@router.post("/webhooks/{webhook_id}/ping", status_code=202)
def ping(sender: TheOwner, webhook_id: str) -> Event:
    """Send a message that says nothing, to try the address. Ten of them may wait."""
    own, now = _own(sender, webhook_id), sender.portal.clock()
    with sender.portal.records.transaction() as connection:
        made = webhooks.ping(connection, own, now, sender.portal.randomness)
        return next(each for each in webhooks.events_of(connection, own.webhook_id) if each.event_id == made)


@router.get("/webhooks/{webhook_id}/events")
def list_events(sender: TheSender, webhook_id: str) -> list[Event]:
    """The last 100 messages and how they fared; they are kept for 30 days."""
    own = _own(sender, webhook_id)
    with sender.portal.records.reading() as connection:
        return webhooks.events_of(connection, own.webhook_id)


@router.post("/webhooks/{webhook_id}/events/{event_id}/replay", status_code=202)
def replay(sender: TheOwner, webhook_id: str, event_id: str) -> Event:
    """Send a message again, delivered or not."""
    own = _own(sender, webhook_id)
    with sender.portal.records.transaction() as connection:
        return webhooks.replay(connection, own.webhook_id, event_id, sender.portal.clock())


def _own(sender: Sender, webhook_id: str) -> Webhook:
    with sender.portal.records.reading() as connection:
        return webhooks.find(connection, sender.account_id, webhook_id)


def _answer(webhook: Webhook) -> WebhookAnswer:
    return WebhookAnswer(webhook_id=webhook.webhook_id, url=webhook.url, created_at=webhook.created_at)
