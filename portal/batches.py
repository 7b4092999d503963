"""What an account may do with its batches, on a page, by program or command: find one, call it off, retry failures."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime

from flows import calling_off
from schemas.batch import BatchState
from schemas.clock import Clock
from schemas.errors import NotFound, PastDeadline, UserError, WrongState
from schemas.ids import AccountId, parse_batch_id
from schemas.results import standing
from store.logs import note
from store.records import line
from store.records.batches import BatchRecord, get_batch
from store.records.database import Records
from store.transient.transient_store import TransientStore


def own_batch(records: Records, account_id: AccountId, batch_id: str) -> BatchRecord:
    """One of the account's own batches. Raises `NotFound` for others' as for none."""
    if parse_batch_id(batch_id) is not None:
        with records.reading() as connection, suppress(NotFound):
            record = get_batch(connection, batch_id)
            if record.account_id == account_id:
                note(batch_id=record.stamp.batch_id)
                return record
    raise NotFound("There is no batch of that id in your account.")


def has_results(record: BatchRecord, now: datetime) -> bool:
    """Whether the batch was sealed and its purge time has not come, so that there is something to list."""
    return record.lives(now) and record.state is not BatchState.OPEN and record.counts.items > 0


def why_gone(record: BatchRecord, now: datetime) -> str | None:
    """Why nothing of it is handed out any more: its purge time has come, whether or not a cleanup was there yet."""
    if record.purged_at is not None:
        return f"Batch {record.stamp.batch_id} was purged at {record.purged_at:%Y-%m-%d %H:%M} UTC. Send it again."
    if now >= record.stamp.purge_at:
        return f"The purge time of batch {record.stamp.batch_id} has come: nothing of it is handed out. Send it again."
    return None


def require_there(record: BatchRecord, now: datetime) -> None:
    """Raises `PastDeadline` when nothing of the batch is left to work on or to fetch."""
    if (gone := why_gone(record, now)) is not None:
        raise PastDeadline(gone)


def with_results(record: BatchRecord, now: datetime) -> BatchRecord:
    """The batch, if it has results to hand out. Raises as `require_there`, `WrongState` before it is sealed."""
    require_there(record, now)
    if not has_results(record, now):
        raise WrongState("The batch was not sealed, so it has no results.")
    return record


def ask_again(
    records: Records, transient: TransientStore, clock: Clock, record: BatchRecord, codes: Collection[str] | None
) -> None:
    """Put an ended batch in line for its failures: all, or those of some codes; and for what was never begun.

    Raises `PastDeadline`, `WrongState`, `UserError` when there is nothing to try again.
    """
    if not with_results(record, clock()).state.has_ended:
        raise WrongState("The batch has not ended yet. Retry what failed when it has.")
    failed = standing(transient.reports(record.stamp.batch_id)).failed.values()
    meant = [each for each in failed if codes is None or each.code in codes]
    chosen, failed_until = {each.code for each in meant}, max((each.finished_at for each in meant), default=None)
    if not chosen and record.counts.done + record.counts.failed == record.counts.items:
        which = "" if codes is None else " with such a code"
        raise UserError(f"No photo failed{which}, so there is nothing to try again.")
    with records.transaction() as connection:
        line.ask_again(connection, record.stamp.batch_id, chosen, clock(), failed_until)


def call_off(records: Records, clock: Clock, record: BatchRecord) -> None:
    """Begin no more work for a batch. What is done can be fetched, and it is purged on time. Twice changes nothing."""
    if not record.state.has_ended:
        with records.transaction() as connection:
            calling_off.call_off(connection, record.stamp.batch_id, clock())
