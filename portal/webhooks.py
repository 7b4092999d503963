"""Telling webhooks: signed, timestamped, tried again with growing pauses, never to an address that is not public.

The headers are those of Standard Webhooks (standardwebhooks.com), so its libraries verify them: `webhook-id`,
`webhook-timestamp` and `webhook-signature`, which is `v1,` and the base64 of HMAC-SHA256 over `<id>.<timestamp>.<body>`
under the secret's bytes. The id stays the same over all tries, so that a receiver can tell a repetition.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from schemas.clock import Clock
from schemas.errors import BgbatchError, LineTooLong
from schemas.ids import AccountId, Randomness
from store.outside.fetch import Fetcher, FetchLimits
from store.records import webhooks
from store.records.database import Records
from store.records.webhooks import Event, Webhook

GONE = 410
"""An address that answers this wants no more: its webhook ends."""
_AT_ONCE = 8
_BATCH = 64
"""Events of a round: 8 after 8 at 15 s each, it takes two minutes at its slowest."""
_LOOKED_UP = threading.BoundedSemaphore(4)
"""Addresses that are checked at once. A name whose server never answers holds a thread of the portal for 15 s."""
_log = logging.getLogger(__name__)


def default_fetcher() -> Fetcher:
    """Calls to public addresses only, 15 s each, without following redirects."""
    return Fetcher(FetchLimits(bytes=65_536, seconds=15.0, redirects=0))


def add(
    records: Records, account_id: AccountId, url: str, now: datetime, randomness: Randomness, fetcher: Fetcher
) -> Webhook:
    """Check an address and note it. Raises `UnsafeAddress`, `UserError`, `AlreadyExists`, `LineTooLong`."""
    url = url.strip()
    if not _LOOKED_UP.acquire(blocking=False):
        raise LineTooLong("Other addresses are being checked at this moment. Add this one again.", 5)
    try:
        fetcher.check(url)
    finally:
        _LOOKED_UP.release()
    with records.transaction() as connection:
        return webhooks.add(connection, account_id, url, now, randomness)


def sign(secret: str, event_id: str, moment: datetime, body: bytes) -> str:
    """The value of `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    message = f"{event_id}.{int(moment.timestamp())}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()


def send_due(records: Records, clock: Clock, fetcher: Fetcher) -> int:
    """Send what is due; returns how much of it arrived. Any number of processes may call it, every few seconds."""
    with records.transaction() as connection:
        due = webhooks.claim_due(connection, clock(), _BATCH)
    if not due:
        return 0
    with ThreadPoolExecutor(_AT_ONCE) as senders:
        return sum(senders.map(lambda pair: _send(records, clock, fetcher, *pair), due))


def _send(records: Records, clock: Clock, fetcher: Fetcher, event: Event, webhook: Webhook) -> bool:
    now = clock()
    message = {"type": event.kind, "timestamp": event.created_at.isoformat(), "data": event.body}
    body = json.dumps(message, sort_keys=True, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/json",
        "webhook-id": event.event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": sign(webhook.secret, event.event_id, now, body),
    }
    status = None
    try:
        status = fetcher.post(webhook.url, body, headers)
    except BgbatchError as fault:
        _log.info("webhook %s: %s", webhook.webhook_id, fault.code)
    is_delivered = status is not None and 200 <= status < 300
    with records.transaction() as connection:
        if status == GONE:
            webhooks.end(connection, webhook.webhook_id, clock())
        else:
            webhooks.note_try(connection, event, status, is_delivered, clock())
    return is_delivered
