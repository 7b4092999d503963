"""A request with an Idempotency-Key opens one batch: asked again within a day, it gets the first answer.

Key and batch are recorded in one transaction, so a process that dies leaves both or none. The key is kept as a hash,
and so is the request; answers hold ids and numbers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from schemas.errors import KeyReused, StillAnswering
from schemas.ids import AccountId, BatchId
from store.records.tables import idempotency_keys

KEPT = timedelta(hours=24)
_STUCK = timedelta(minutes=5)
"""A request that was begun so long ago and has no answer died with its process; whoever asks again goes on with it."""


@dataclass(frozen=True)
class Asked:
    """A request that was made before. `status` is None while it has no answer."""

    batch_id: BatchId
    status: int | None
    answer: dict[str, object]
    began_at: datetime

    def may_be_under_way(self, now: datetime) -> bool:
        """Whether another process may still be at it."""
        return self.began_at > now - _STUCK


def find(connection: Connection, account_id: AccountId, key: str, request: bytes, now: datetime) -> Asked | None:
    """The earlier request of this key, if there is one. Raises `KeyReused` when it was another request."""
    connection.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at <= now - KEPT))
    query = select(idempotency_keys).filter_by(**_place(account_id, key))
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    if row["request_sha256"] != _digest(request):
        raise KeyReused("This Idempotency-Key came with another request before. Use a new key for a new request.")
    return Asked(BatchId(row["answer"]["batch_id"]), row["status"], row["answer"], row["created_at"])


def begin(
    connection: Connection, account_id: AccountId, key: str, request: bytes, batch_id: BatchId, now: datetime
) -> None:
    """Note the key, in the transaction that opens the batch. Raises `StillAnswering` when its twin was quicker."""
    row = {"request_sha256": _digest(request), "answer": {"batch_id": batch_id}, "created_at": now}
    try:
        connection.execute(insert(idempotency_keys).values(**_place(account_id, key), **row))
    except IntegrityError:
        raise StillAnswering(
            "The first request with this Idempotency-Key is still being answered. Ask again soon."
        ) from None


def finish(connection: Connection, account_id: AccountId, key: str, status: int, answer: dict[str, object]) -> None:
    """Keep the answer."""
    known = update(idempotency_keys).filter_by(**_place(account_id, key))
    connection.execute(known.values(status=status, answer=answer))


def let_go(connection: Connection, account_id: AccountId, key: str, now: datetime) -> None:
    """The request ended in a fault of ours: whoever asks again goes on with its batch, and need not wait for it."""
    known = update(idempotency_keys).filter_by(**_place(account_id, key))
    connection.execute(known.values(created_at=now - _STUCK))


def forget(connection: Connection, account_id: AccountId, key: str) -> None:
    """The request was refused: it may be made again with the same key."""
    connection.execute(delete(idempotency_keys).filter_by(**_place(account_id, key)))


def _digest(request: bytes) -> str:
    return hashlib.sha256(request).hexdigest()


def _place(account_id: AccountId, key: str) -> dict[str, object]:
    return {"account_id": account_id, "key_sha256": hashlib.sha256(key.encode()).hexdigest()}
