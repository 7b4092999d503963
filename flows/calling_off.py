"""Calling a batch off. Apart from the steps of one, which need the network's and the lake's libraries."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from schemas.batch import BatchState
from schemas.ids import BatchId
from store.records import batches, line, webhooks


def call_off(connection: Connection, batch_id: BatchId, now: datetime) -> None:
    """Begin no more work for a batch; whoever works on it stops soon and tells. If nobody does, it ends here."""
    line.ask_to_stop(connection, batch_id, now)
    stands = batches.get_batch(connection, batch_id)
    if stands.state is BatchState.CANCELLED:
        webhooks.enqueue_end(connection, stands, now)
