"""A request with an Idempotency-Key happens once: asked again within a day, it gets the first answer.

The key is kept as a hash, and so is the request; answers hold ids and numbers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from schemas.errors import KeyReused, StillAnswering
from schemas.ids import AccountId
from store.tables import idempotency_keys

KEPT = timedelta(hours=24)
_STUCK = timedelta(minutes=5)
"""A request that was begun so long ago and has no answer died with its process; it may be made again."""


@dataclass(frozen=True)
class Answered:
    """What the first request was answered."""

    status: int
    answer: dict[str, object]


def begin(connection: Connection, account_id: AccountId, key: str, request: bytes, now: datetime) -> Answered | None:
    """None when this is the first request of its key, else its answer. Raises `KeyReused`, `StillAnswering`."""
    connection.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at <= now - KEPT))
    place = _place(account_id, key)
    row = {**place, "request_sha256": hashlib.sha256(request).hexdigest(), "created_at": now}
    try:
        with connection.begin_nested():
            connection.execute(insert(idempotency_keys).values(row))
    except IntegrityError:
        return _known(connection, place, row["request_sha256"], now)
    return None


def finish(connection: Connection, account_id: AccountId, key: str, answered: Answered) -> None:
    """Keep the answer."""
    place = _place(account_id, key)
    connection.execute(
        update(idempotency_keys).filter_by(**place).values(status=answered.status, answer=answered.answer)
    )


def forget(connection: Connection, account_id: AccountId, key: str) -> None:
    """The request failed and changed nothing: it may be made again with the same key."""
    connection.execute(delete(idempotency_keys).filter_by(**_place(account_id, key)))


def _known(connection: Connection, place: dict[str, object], request_sha256: object, now: datetime) -> Answered | None:
    known = connection.execute(select(idempotency_keys).filter_by(**place)).mappings().one()
    if known["request_sha256"] != request_sha256:
        raise KeyReused("This Idempotency-Key came with another request before. Use a new key for a new request.")
    if known["status"] is None:
        if known["created_at"] > now - _STUCK:
            raise StillAnswering("The first request with this Idempotency-Key is still being answered. Ask again soon.")
        connection.execute(update(idempotency_keys).filter_by(**place).values(created_at=now))
        return None
    return Answered(known["status"], known["answer"])


def _place(account_id: AccountId, key: str) -> dict[str, object]:
    return {"account_id": account_id, "key_sha256": hashlib.sha256(key.encode()).hexdigest()}
