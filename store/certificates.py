"""Certificates out of the receipts: one batch's erasures, and the chain from them to the newest end."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from schemas.batch import PROMISED_LIFE
from schemas.certificate import Certificate
from schemas.errors import NotFound
from schemas.ids import BatchId, received_at
from schemas.receipt import Erased, Receipt, content_hash
from store.receipts import list_receipts
from store.tables import receipts

LONGEST = 10_000
"""Links in one certificate; a longer chain is shown up to there."""


def certify(connection: Connection, batch_id: BatchId, now: datetime) -> Certificate:
    """The certificate of a batch that is gone. Raises `NotFound` while it is not, or if it never was."""
    own = [each for each in list_receipts(connection, batch_id) if each.kind is Erased.BATCH]
    if not own:
        raise NotFound("There is no certificate yet: the batch is not purged. It will be by its purge time.")
    query = select(receipts).where(receipts.c.sequence > own[0].sequence).order_by(receipts.c.sequence).limit(LONGEST)
    after = [Receipt.model_validate(dict(row)) for row in connection.execute(query).mappings()]
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
