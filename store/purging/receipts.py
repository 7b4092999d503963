"""Receipts: append-only and hash-chained, so that a missing or changed one shows.

An erasure is two steps, so that a crash between them loses no count: `begin_erasures` before the first deletion notes
what was found, `finish_erasures` after the last one turns the notes into receipts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, delete, insert, select, update

from schemas.chain import GENESIS
from schemas.errors import LedgerBroken
from schemas.receipt import Erased, Receipt, receipt_hash
from store.records.database import hold_lock
from store.records.tables import erasures, receipts

_CHAIN = "receipts"
_Subject = TypeVar("_Subject", bound=str)


def begin_erasures(
    connection: Connection,
    kind: Erased,
    found: Mapping[_Subject, tuple[int, int]],
    now: datetime,
    listed_at: datetime | None = None,
) -> None:
    """Note what is about to be deleted: subject -> objects and bytes.

    Begun again after a crash, the largest note stands: it saw most of it. `listed_at`: when the look began that found
    these objects. Another run's receipt since then is about them: no note.
    """
    if not found:
        return
    hold_lock(connection, _CHAIN)
    begun = _begun(connection, found)
    fresh = found.keys() - begun.keys()
    if listed_at is not None and fresh:
        since = select(receipts.c.subject).where(receipts.c.subject.in_(fresh), receipts.c.last_deletion >= listed_at)
        fresh -= set(connection.execute(since).scalars())
    notes = [
        {"subject": subject, "kind": kind, "objects": found[subject][0], "bytes": found[subject][1]}
        for subject in sorted(fresh)
    ]
    if notes:
        connection.execute(insert(erasures).values(first_deletion=now), notes)
    for subject, (objects, size) in found.items():
        note = begun.get(subject)
        if note is not None and objects > note.objects:
            larger = {"objects": objects, "bytes": max(size, note.bytes)}
            connection.execute(update(erasures).where(erasures.c.subject == subject).values(larger))


def unfinished_erasures(connection: Connection, kind: Erased) -> list[str]:
    """Subjects whose erasure began and has no receipt yet."""
    query = select(erasures.c.subject).where(erasures.c.kind == kind).order_by(erasures.c.subject)
    return list(connection.execute(query).scalars())


def finish_erasures(
    connection: Connection,
    deadlines: Mapping[_Subject, datetime],
    now: datetime,
    places: Sequence[str] = (),
) -> list[Receipt]:
    """Append the receipts of erasures that began, and forget their notes. Call it after seeing that nothing is left.

    `deadlines`: subject -> when it had to be gone. `places`: where it was looked, in words for the customer ("lake
    files of the grant", "unfinished uploads"). A subject without a note gets none: another run left its receipt.
    """
    if not deadlines:
        return []
    hold_lock(connection, _CHAIN)
    begun = _begun(connection, deadlines)
    newest = select(receipts.c.sequence, receipts.c.hash).order_by(receipts.c.sequence.desc()).limit(1)
    last = connection.execute(newest).first()
    sequence, previous_hash = (last.sequence, last.hash) if last else (0, GENESIS)
    left = []
    for subject in sorted(deadlines):
        note = begun.get(subject)
        if note is None:
            continue
        sequence += 1
        unchained = Receipt(
            sequence=sequence,
            kind=Erased(note.kind),
            subject=subject,
            objects=note.objects,
            bytes=note.bytes,
            first_deletion=note.first_deletion,
            last_deletion=now,
            deadline=deadlines[subject],
            remaining=0,
            places=tuple(places),
            previous_hash=previous_hash,
            hash="",
        )
        left.append(unchained.model_copy(update={"hash": receipt_hash(unchained)}))
        previous_hash = left[-1].hash
    if left:
        connection.execute(insert(receipts), [each.model_dump() for each in left])
        connection.execute(delete(erasures).where(erasures.c.subject.in_(begun)))
    return left


def forget_erasures(connection: Connection, told: Collection[str]) -> None:
    """Forget that erasures of these batches began: receipts that the records do not know say when each was gone."""
    begun = select(erasures.c.subject).where(erasures.c.kind == Erased.BATCH)
    known = set(connection.execute(begun).scalars()).intersection(told)
    connection.execute(delete(erasures).where(erasures.c.subject.in_(known)))


def list_receipts(connection: Connection, subject: str | None = None) -> list[Receipt]:
    """All receipts in order, or those about one batch or grant."""
    query = select(receipts).order_by(receipts.c.sequence)
    if subject is not None:
        query = query.where(receipts.c.subject == subject)
    return [Receipt.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def newest_receipts(connection: Connection, limit: int) -> list[Receipt]:
    """The last so many of all receipts, in order."""
    query = select(receipts).order_by(receipts.c.sequence.desc()).limit(limit)
    return [Receipt.model_validate(dict(row)) for row in connection.execute(query).mappings()][::-1]


def each_receipt(connection: Connection) -> Iterator[Receipt]:
    """All receipts in order, with few of them in memory at once."""
    query = select(receipts).order_by(receipts.c.sequence).execution_options(yield_per=1000)
    return (Receipt.model_validate(dict(row)) for row in connection.execute(query).mappings())


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


def _begun(connection: Connection, subjects: Collection[str]) -> dict[str, Row[Any]]:
    rows = connection.execute(select(erasures).where(erasures.c.subject.in_(subjects)))
    return {row.subject: row for row in rows}
