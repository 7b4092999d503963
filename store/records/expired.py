"""What the records remember for a while only goes when its time is over, also where nobody comes by any more.

Whoever asks for such a thing deletes what has expired, too; upkeep does so for all of it, every 10 minutes.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, exists, update

from store.records import idempotency
from store.records.attempts import delete_over
from store.records.sessions import delete_expired
from store.records.tables import batches, idempotency_keys, provider_sign_ins, submissions


def forget_expired(connection: Connection, now: datetime) -> int:
    """Forget sign-in links, sessions, tries and answers of old, and keys of uploads that are purged. Returns how many.

    A cleanup's login may do none of this.
    """
    gone = delete_expired(connection, now) + delete_over(connection, now)
    for column, until in (
        (provider_sign_ins.c.expires_at, now),
        (idempotency_keys.c.created_at, now - idempotency.KEPT),
    ):
        gone += connection.execute(delete(column.table).where(column <= until)).rowcount
    # By the index of those that have a key: they are few, and the batches that are purged are all that ever were.
    is_purged = exists().where(batches.c.batch_id == submissions.c.batch_id, batches.c.purged_at.is_not(None))
    never_sealed = submissions.c.upload_key.is_not(None) & is_purged
    return gone + connection.execute(update(submissions).where(never_sealed).values(upload_key=None)).rowcount
