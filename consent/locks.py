"""Who waits for whom: appends to the ledger for each other, a withdrawal and the admissions under its grant too.

The locks end with the transaction. The ledger's is taken before any grant's, so nobody waits in a circle. SQLite's
transactions wait for each other anyway; on PostgreSQL these are advisory locks.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from schemas.ids import GrantId
from store.records.database import hold_lock


def lock_ledger(connection: Connection) -> None:
    """Until this transaction ends, nobody else appends an event."""
    hold_lock(connection, "consent")


def lock_grant(connection: Connection, grant_id: GrantId, *, shared: bool) -> None:
    """Order admissions (shared: they do not wait for each other) and the withdrawal (alone) of one grant."""
    if connection.dialect.name == "postgresql":
        mode = "_shared" if shared else ""
        connection.execute(
            text(f"SELECT pg_advisory_xact_lock{mode}(hashtextextended(:name, 0))"), {"name": f"bgbatch:{grant_id}"}
        )
