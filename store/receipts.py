"""Receipts: append-only and hash-chained, so that a missing or changed one shows.

An erasure is two steps, so that a crash between them loses no count: `begin_erasure` before the first deletion notes
what was found, `finish_erasure` after the last one turns the note into a receipt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from schemas.chain import GENESIS
from schemas.errors import LedgerBroken
from schemas.receipt import Erased, Receipt, receipt_hash
from store.records import serialise_appends
from store.tables import erasures, receipts

_CHAIN = "receipts"


def begin_erasure(
    connection: Connection,
    kind: Erased,
    subject: str,
    objects: int,
    bytes: int,
    now: datetime,
    listed_at: datetime | None = None,
) -> None:
    """Note what is about to be deleted. Begun again after a crash, the largest note stands: it saw most of it.

    `listed_at`: when the look began that found these objects. Another run's receipt since then is about them: no note.
    """
    serialise_appends(connection, _CHAIN)
    begun = connection.execute(select(erasures).where(erasures.c.subject == subject)).first()
    if begun is None:
        if listed_at is not None and _has_receipt_since(connection, subject, listed_at):
            return
        connection.execute(
            insert(erasures).values(subject=subject, kind=kind, objects=objects, bytes=bytes, first_deletion=now)
        )
    elif objects > begun.objects:
        connection.execute(
            update(erasures).where(erasures.c.subject == subject).values(objects=objects, bytes=max(bytes, begun.bytes))
        )


def unfinished_erasures(connection: Connection, kind: Erased) -> list[str]:
    """Subjects whose erasure began and has no receipt yet."""
    query = select(erasures.c.subject).where(erasures.c.kind == kind).order_by(erasures.c.subject)
    return list(connection.execute(query).scalars())


def finish_erasure(
    connection: Connection,
    subject: str,
    deadline: datetime,
    remaining: int,
    now: datetime,
    places: Sequence[str] = (),
) -> Receipt | None:
    """Append the receipt of an erasure that began, and forget the note. Call it after seeing that nothing is left.

    `places`: where it was looked, in words for the customer ("lake files of the grant", "unfinished uploads").
    None when there is no note: another run left the receipt in the meantime.
    """
    serialise_appends(connection, _CHAIN)
    begun = connection.execute(select(erasures).where(erasures.c.subject == subject)).first()
    if begun is None:
        return None
    last = connection.execute(
        select(receipts.c.sequence, receipts.c.hash).order_by(receipts.c.sequence.desc()).limit(1)
    ).first()
    unchained = Receipt(
        sequence=last.sequence + 1 if last else 1,
        kind=Erased(begun.kind),
        subject=subject,
        objects=begun.objects,
        bytes=begun.bytes,
        first_deletion=begun.first_deletion,
        last_deletion=now,
        deadline=deadline,
        remaining=remaining,
        places=tuple(places),
        previous_hash=last.hash if last else GENESIS,
        hash="",
    )
    receipt = unchained.model_copy(update={"hash": receipt_hash(unchained)})
    connection.execute(insert(receipts).values(receipt.model_dump()))
    connection.execute(delete(erasures).where(erasures.c.subject == subject))
    return receipt


def list_receipts(connection: Connection, subject: str | None = None) -> list[Receipt]:
    """All receipts in order, or those about one batch or grant."""
    query = select(receipts).order_by(receipts.c.sequence)
    if subject is not None:
        query = query.where(receipts.c.subject == subject)
    return [Receipt.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def verify_receipts(chain: Iterable[Receipt]) -> int:
    """How many receipts there are, all in order and unchanged. Raises `LedgerBroken` naming the first that is not."""
    before, count = GENESIS, 0
    for count, receipt in enumerate(chain, start=1):
        if receipt.sequence != count:
            raise LedgerBroken(f"Receipt {count} is missing or out of order. Restore the records from a backup.")
        if receipt.previous_hash != before or receipt.hash != receipt_hash(receipt):
            raise LedgerBroken(f"Receipt {count} was changed after it was written. Restore the records from a backup.")
        before = receipt.hash
    return count


def _has_receipt_since(connection: Connection, subject: str, moment: datetime) -> bool:
    query = select(receipts.c.sequence).where(receipts.c.subject == subject, receipts.c.last_deletion >= moment)
    return connection.execute(query).first() is not None
