"""Certificates out of the receipts: one batch's erasures, and the chain from them to the newest end."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from schemas.batch import PROMISED_LIFE
from schemas.certificate import Certificate, MoreLinks
from schemas.errors import NotFound
from schemas.ids import BatchId, received_at
from schemas.receipt import Erased, Receipt, content_hash
from store.purging.receipts import list_receipts
from store.records.tables import batches, receipts

LONGEST = 10_000
"""Links in one file. A longer chain goes on in `more_links`."""


def certify(connection: Connection, batch_id: BatchId, now: datetime) -> Certificate:
    """The certificate of a batch that is gone. Raises `NotFound` while it is not, or if it never was."""
    own = [each for each in list_receipts(connection, batch_id) if each.kind is Erased.BATCH]
    if not own:
        if connection.execute(select(batches.c.purged_at).where(batches.c.batch_id == batch_id)).scalar() is not None:
            raise NotFound(
                "The batch is gone. The records were restored from a backup of before its purge, so its receipt is not "
                "in them: it was noted beside the lake. Ask whoever runs bgbatch for it."
            )
        raise NotFound("There is no certificate yet: the batch is not purged. It will be by its purge time.")
    after = _after(connection, own[0].sequence)
    head = after[-1] if after else own[0]
    return Certificate(
        batch_id=batch_id,
        received_at=received_at(batch_id),
        deadline=received_at(batch_id) + PROMISED_LIFE,
        receipts=tuple(each for each in own if each.sequence <= head.sequence),
        links=tuple(content_hash(each) for each in after),
        head_sequence=head.sequence,
        head=head.hash,
        issued_at=now,
    )


def more_links(connection: Connection, after: int) -> MoreLinks:
    """The chain from receipt number `after` on, up to the longest that one file holds. Raises `NotFound`."""
    start = connection.execute(select(receipts.c.hash).where(receipts.c.sequence == after)).scalar()
    if start is None:
        raise NotFound("There is no receipt of that number. Ask for what comes after a head that you have.")
    found = _after(connection, after)
    return MoreLinks(
        after_sequence=after,
        after=start,
        links=tuple(content_hash(each) for each in found),
        head_sequence=found[-1].sequence if found else after,
        head=found[-1].hash if found else start,
    )


def _after(connection: Connection, sequence: int) -> list[Receipt]:
    query = select(receipts).where(receipts.c.sequence > sequence).order_by(receipts.c.sequence).limit(LONGEST)
    return [Receipt.model_validate(dict(row)) for row in connection.execute(query).mappings()]
