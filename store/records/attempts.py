"""How often may somebody try? Counted in the records, so that several portals on one database count together.

Fixed windows: the first try opens one; when it ends, the count starts anew. Who tries is kept as a hash, and only until
the next try of anybody after the window has ended, or the next upkeep.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, case, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from store.records.tables import attempts


@dataclass(frozen=True)
class Limit:
    """`most` tries in one `window`. `name` keeps one limit's counts apart from another's."""

    name: str
    most: int
    window: timedelta


def wait_before_trying(connection: Connection, limit: Limit, who: str, now: datetime) -> timedelta | None:
    """Count one try; None if it may go on, else how long to wait. Use a transaction that commits either way."""
    delete_over(connection, now)
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    first = insert(attempts).values(bucket=_bucket(limit, who), window_ends=now + limit.window, count=1)
    # Another's try may stand here, made while we deleted; or one of a clock that was ahead, for as long as it was.
    is_over = (attempts.c.window_ends <= now) | (attempts.c.window_ends > now + limit.window)
    counted = first.on_conflict_do_update(
        index_elements=["bucket"],
        set_={
            "count": case((is_over, 1), else_=attempts.c.count + 1),
            "window_ends": case((is_over, first.excluded.window_ends), else_=attempts.c.window_ends),
        },
    ).returning(attempts.c.count.label("tries"), attempts.c.window_ends)
    row = connection.execute(counted).one()
    return None if row.tries <= limit.most else row.window_ends - now


def delete_over(connection: Connection, now: datetime) -> int:
    """Forget windows that have ended. Returns how many."""
    # Skipping what others hold: two who delete at once must not wait for each other in a circle.
    over = select(attempts.c.bucket).where(attempts.c.window_ends <= now).with_for_update(skip_locked=True)
    return connection.execute(delete(attempts).where(attempts.c.bucket.in_(over))).rowcount


def _bucket(limit: Limit, who: str) -> str:
    return hashlib.sha256(f"{limit.name}\n{who}".encode()).hexdigest()
