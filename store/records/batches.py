"""The record of a batch: stamped once, at receipt.

Numbers and states only; names and pixels are in the transient store.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, RowMapping, insert, or_, select, update

from schemas.batch import PROMISED_LIFE, BatchState, Counts, Stamp
from schemas.errors import NotFound, PastDeadline
from schemas.ids import AccountId, BatchId, GrantId, received_at
from schemas.industries import Industry
from schemas.left_out import LeftOut
from schemas.options import CutoutOptions
from schemas.record import Moment, Record
from store.records.tables import batches

A_PHOTO_OF_THE_BATCH = "(a photo of the batch)"
"""Stands in the records for its name, which `store.transient.backdrop` keeps."""


class BatchRecord(Record):
    """What the records know of a batch. `refusals`: reason of the gate -> outputs that it kept out of the lake.

    `left_out`: how many files of its source are not in it, and why.
    """

    stamp: Stamp
    account_id: AccountId
    state: BatchState
    counts: Counts
    refusals: dict[str, int]
    left_out: dict[LeftOut, int]
    purged_at: Moment | None

    def lives(self, now: datetime) -> bool:
        """Whether it is not purged, nor about to be: what lies there can be worked on and handed out."""
        return self.purged_at is None and now < self.stamp.purge_at


def open_batch(connection: Connection, stamp: Stamp, account_id: AccountId) -> None:
    """Record the stamp, before the batch's first byte."""
    connection.execute(
        insert(batches).values(
            batch_id=stamp.batch_id,
            account_id=account_id,
            industry=stamp.industry,
            grant_id=stamp.grant_id,
            options=_without_name(stamp.options).model_dump(mode="json"),
            received_at=stamp.received_at,
            purge_at=stamp.purge_at,
            state=BatchState.OPEN,
            refusals={},
        )
    )


def seal(connection: Connection, batch_id: BatchId, items: int, left_out: Mapping[LeftOut, int] | None = None) -> bool:
    """Record that the upload is complete. False when that was said before, or the batch was called off."""
    is_open = (batches.c.batch_id == batch_id) & (batches.c.state == BatchState.OPEN)
    values = {"state": BatchState.SEALED, "items": items, "left_out": dict(left_out or {})}
    sealed = connection.execute(update(batches).where(is_open).values(values))
    if sealed.rowcount == 0:
        get_batch(connection, batch_id)
    return sealed.rowcount == 1


def set_progress(connection: Connection, batch_id: BatchId, counts: Counts, state: BatchState) -> None:
    """Record how far the batch is. Raises `PastDeadline` when it is purged meanwhile, `NotFound`."""
    lives = (batches.c.batch_id == batch_id) & batches.c.purged_at.is_(None)
    values = {"done": counts.done, "failed": counts.failed, "state": state}
    if connection.execute(update(batches).where(lives).values(values)).rowcount == 0:
        get_batch(connection, batch_id)
        raise PastDeadline("The batch is purged, so it is not processed any more. Submit it again.")


def set_refusals(connection: Connection, batch_id: BatchId, refusals: Mapping[str, int]) -> None:
    """Record why outputs of the batch did not enter the lake. Raises `NotFound`."""
    known = update(batches).where(batches.c.batch_id == batch_id).values(refusals=dict(refusals))
    if connection.execute(known).rowcount == 0:
        get_batch(connection, batch_id)


def mark_purged(connection: Connection, gone: Collection[BatchId], now: datetime) -> None:
    """Record that nothing of these is left. A batch that the database has forgotten is purged all the same."""
    connection.execute(
        update(batches)
        .where(batches.c.batch_id.in_(gone), batches.c.purged_at.is_(None))
        .values(state=BatchState.PURGED, purged_at=now)
    )


def overdue(connection: Connection, now: datetime) -> list[BatchId]:
    """Batches whose purge time has come and that are not known to be purged."""
    query = select(batches.c.batch_id).where(batches.c.purge_at <= now, batches.c.purged_at.is_(None))
    return [BatchId(each) for each in connection.execute(query).scalars()]


def due_early(connection: Connection, now: datetime, watched: timedelta) -> list[BatchId]:
    """Batches that are to go before their hour is due: their own purge time has come, and their day has not passed.

    One that is gone is among them until `watched` after its purge, because a late writer may still write for it.
    """
    query = select(batches.c.batch_id).where(
        batches.c.purge_at <= now,
        batches.c.received_at > now - PROMISED_LIFE,
        or_(batches.c.purged_at.is_(None), batches.c.purged_at > now - watched),
    )
    return [BatchId(each) for each in connection.execute(query).scalars()]


def hasten(connection: Connection, batch_id: BatchId, now: datetime) -> None:
    """Make the next cleanup purge this batch. Its purge time never moves to later, nor before its receipt."""
    soon = max(now, received_at(batch_id) + timedelta(milliseconds=1))
    connection.execute(
        update(batches).where(batches.c.batch_id == batch_id, batches.c.purge_at > soon).values(purge_at=soon)
    )


def unpurged(connection: Connection, asked: Collection[BatchId]) -> list[BatchId]:
    """Those that the records know, and know of no purge of."""
    query = select(batches.c.batch_id).where(batches.c.batch_id.in_(asked), batches.c.purged_at.is_(None))
    return [BatchId(each) for each in connection.execute(query).scalars()]


def get_batch(connection: Connection, batch_id: str) -> BatchRecord:
    """One batch. Raises `NotFound`."""
    row = connection.execute(select(batches).where(batches.c.batch_id == batch_id)).mappings().first()
    if row is None:
        raise NotFound(f"There is no batch {batch_id}. `bgbatch status` lists those that there are.")
    return _record(row)


def list_batches(connection: Connection, account_id: AccountId | None = None, limit: int = 20) -> list[BatchRecord]:
    """The newest batches, of one account or of all."""
    return page_of(connection, account_id, None, limit)


def page_of(connection: Connection, account_id: AccountId | None, before: str | None, limit: int) -> list[BatchRecord]:
    """Batches that came before the one named, or the newest: of one account, or of all."""
    query = select(batches).order_by(batches.c.batch_id.desc()).limit(limit)
    if account_id is not None:
        query = query.where(batches.c.account_id == account_id)
    if before is not None:
        query = query.where(batches.c.batch_id < before)
    return [_record(row) for row in connection.execute(query).mappings()]


def _record(row: RowMapping) -> BatchRecord:
    return BatchRecord(
        stamp=Stamp(
            batch_id=BatchId(row["batch_id"]),
            received_at=row["received_at"],
            purge_at=row["purge_at"],
            industry=Industry(row["industry"]) if row["industry"] else None,
            grant_id=GrantId(row["grant_id"]) if row["grant_id"] else None,
            options=CutoutOptions.model_validate(row["options"]),
        ),
        account_id=AccountId(row["account_id"]),
        state=BatchState(row["state"]),
        counts=Counts(items=row["items"], done=row["done"], failed=row["failed"]),
        refusals=row["refusals"],
        left_out={LeftOut(reason): count for reason, count in row["left_out"].items()},
        purged_at=row["purged_at"],
    )


def _without_name(options: CutoutOptions) -> CutoutOptions:
    return options if options.bg_image is None else options.model_copy(update={"bg_image": A_PHOTO_OF_THE_BATCH})
