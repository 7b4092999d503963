"""The line that sealed batches stand in, and the lease that keeps two processes off the same batch.

All of it is in the records: a process that dies loses its lease when the lease's time is over, and whoever comes next
goes on with what is left. A wish of the customer (once more, call it off) is a note here that the worker finds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, case, func, insert, or_, select, true, update

from schemas.batch import BatchState
from schemas.errors import PastDeadline
from schemas.ids import AccountId, BatchId
from schemas.record import Moment, Record
from store.records.tables import batches, submissions

LEASE_LIFE = timedelta(seconds=60)
"""A worker says that it is alive well within this; after it, its batch is anybody's."""

DISPATCHER = "dispatcher "
"""How the names of those holders begin that take whatever waits in line, one batch after the other."""

_GOING = (BatchState.SEALED, BatchState.RUNNING)


class Submission(Record):
    """How a batch stands in line: see the table."""

    batch_id: BatchId
    account_id: AccountId
    upload_key: str | None
    ready_at: Moment | None
    due_at: Moment | None
    again: tuple[str, ...] | None
    again_before: Moment | None
    cancel_at: Moment | None
    lease_holder: str | None
    lease_until: Moment | None
    lease_items: int
    started_at: Moment | None
    ended_at: Moment | None
    sealed_with: str | None


@dataclass(frozen=True)
class InLine:
    """A batch that waits for a turn. `left`: photos without a result."""

    batch_id: BatchId
    account_id: AccountId
    left: int
    ready_at: datetime
    due_at: datetime | None


def enter(
    connection: Connection,
    batch_id: BatchId,
    account_id: AccountId,
    upload_key: str | None = None,
    due_at: datetime | None = None,
) -> None:
    """Note a batch as it is opened. It waits for nothing yet."""
    row = {"batch_id": batch_id, "account_id": account_id, "upload_key": upload_key, "due_at": due_at}
    connection.execute(insert(submissions).values(row))


def find_submission(connection: Connection, batch_id: str) -> Submission | None:
    """How a batch stands in line; None for one that never came to it."""
    row = connection.execute(select(submissions).where(submissions.c.batch_id == batch_id)).mappings().first()
    return None if row is None else Submission.model_validate(dict(row))


def stand_still(connection: Connection, batch_id: BatchId) -> None:
    """Until this transaction ends nobody else changes how the batch stands in line.

    Before its row in `batches` is changed: whoever calls it off takes the two in this order.
    """
    connection.execute(select(submissions.c.batch_id).where(submissions.c.batch_id == batch_id).with_for_update())


def make_ready(connection: Connection, batch_id: BatchId, now: datetime, sealed_with: str | None = None) -> None:
    """The batch is sealed, with the list of that name: it waits for workers. The key of its uploads is forgotten."""
    values = {"ready_at": now, "upload_key": None, "sealed_with": sealed_with}
    connection.execute(update(submissions).where(submissions.c.batch_id == batch_id).values(values))


def shut(connection: Connection, batch_id: BatchId, holder: str, now: datetime) -> bool:
    """Let an open batch take no photos while `holder` seals it. False while another does, or once it is sealed."""
    taken = connection.execute(
        update(submissions)
        .where(submissions.c.batch_id == batch_id, submissions.c.ready_at.is_(None), _is_free(now))
        .values(lease_holder=holder, lease_until=now + LEASE_LIFE)
    )
    return taken.rowcount == 1


def unshut(connection: Connection, batch_id: BatchId, holder: str) -> None:
    """The sealing is over, sealed or not."""
    is_ours = (submissions.c.batch_id == batch_id) & (submissions.c.lease_holder == holder)
    connection.execute(update(submissions).where(is_ours).values(lease_holder=None, lease_until=None))


def count_uploads(connection: Connection, batch_id: BatchId, more: int) -> None:
    """So many more photos have come for an open batch, or fewer. Its seal counts them all anew."""
    is_open = (batches.c.batch_id == batch_id) & (batches.c.state == BatchState.OPEN)
    left = batches.c["items"] + more
    connection.execute(update(batches).where(is_open, left >= 0).values(items=left))


def in_line(connection: Connection, now: datetime) -> list[InLine]:
    """Batches that anybody may claim now, the longest waiting first."""
    columns = [*submissions.columns, batches.c["items"], batches.c.done, batches.c.failed]
    query = (
        select(*columns)
        .join_from(submissions, batches, submissions.c.batch_id == batches.c.batch_id)
        .where(
            submissions.c.ready_at.is_not(None),
            submissions.c.ended_at.is_(None),
            _is_free(now),
            batches.c.state.in_(_GOING),
            batches.c.purge_at > now,
            batches.c.purged_at.is_(None),  # says nothing new, and leads by the index of those past the whole history
        )
        .order_by(submissions.c.ready_at, submissions.c.batch_id)
    )
    return [
        InLine(
            batch_id=BatchId(row["batch_id"]),
            account_id=AccountId(row["account_id"]),
            left=max(1, row["items"] - row["done"] - (row["failed"] if row["again"] is None else 0)),
            ready_at=row["ready_at"],
            due_at=row["due_at"],
        )
        for row in connection.execute(query).mappings()
    ]


def claim(
    connection: Connection, batch_id: BatchId, holder: str, now: datetime, items: int = 0, once_more: bool = False
) -> bool:
    """Take the lease of a batch. False when somebody else holds it, or it has ended and may not be run `once_more`.

    Who wants it once more takes back that it was called off.
    """
    may_take = or_(_is_free(now), submissions.c.lease_holder == holder)
    may_run = true() if once_more else submissions.c.ended_at.is_(None)
    taken = connection.execute(
        update(submissions)
        .where(submissions.c.batch_id == batch_id, may_take, may_run)
        .values(
            lease_holder=holder,
            lease_until=now + LEASE_LIFE,
            lease_items=items,
            started_at=func.coalesce(submissions.c.started_at, now),
            ended_at=None,
            cancel_at=None if once_more else submissions.c.cancel_at,
        )
    )
    return taken.rowcount == 1


def renew(connection: Connection, batch_id: BatchId, holder: str, now: datetime) -> bool:
    """Keep the lease. False when it was lost, or the batch has ended: whoever hears that must stop."""
    kept = connection.execute(
        update(submissions)
        .where(
            submissions.c.batch_id == batch_id, submissions.c.lease_holder == holder, submissions.c.ended_at.is_(None)
        )
        .values(lease_until=now + LEASE_LIFE)
    )
    return kept.rowcount == 1


def holds(connection: Connection, batch_id: BatchId, holder: str | None, now: datetime) -> bool:
    """Whether the lease is this holder's; None: nobody's by now, or a batch that never came to the line.

    If so, it is kept, and nobody else takes it before this transaction ends.
    """
    if holder is not None:
        return renew(connection, batch_id, holder, now)
    own = select(submissions.c.lease_until).where(submissions.c.batch_id == batch_id).with_for_update()
    until: datetime | None = connection.execute(own).scalar()
    return until is None or until <= now


def has_dispatcher_at_work(connection: Connection, now: datetime) -> bool:
    """Whether some dispatcher is in the middle of a turn: it lives, and looks for the next one in line after it."""
    query = (
        select(submissions.c.batch_id)
        .join_from(submissions, batches, submissions.c.batch_id == batches.c.batch_id)
        .where(submissions.c.lease_until > now, submissions.c.lease_holder.startswith(DISPATCHER))
        .where(batches.c.purge_at > now, batches.c.purged_at.is_(None))  # by the index of those
    )
    return connection.execute(query.limit(1)).first() is not None


def release(connection: Connection, batch_id: BatchId, holder: str, now: datetime, worked: int = 0) -> None:
    """Give the lease back. A batch that has not left the line waits for its next turn.

    `worked`: how many photos had workers; 0 tells who watches that it came to nothing, if no count has changed either.

    It does not say that the batch has ended: since that was said, its customer may have asked for it once more.
    """
    values: dict[str, object] = {"lease_holder": None, "lease_until": None, "lease_items": worked, "ready_at": now}
    connection.execute(
        update(submissions)
        .where(submissions.c.batch_id == batch_id, submissions.c.lease_holder == holder)
        .values(values)
    )


def leave(connection: Connection, batch_id: BatchId, now: datetime) -> None:
    """The batch has ended. In the transaction that says so: whoever dies after it has nothing more to say.

    With its end the wish is granted: who runs the batch once more means what is wanted of any other.
    """
    ended = update(submissions).where(submissions.c.batch_id == batch_id)
    connection.execute(ended.values(ended_at=now, again=None, again_before=None))


def ask_again(
    connection: Connection, batch_id: BatchId, codes: Iterable[str], now: datetime, failed_until: datetime | None = None
) -> None:
    """Put a batch that has ended in line once more, for what failed with one of these codes until now.

    `failed_until`: when the last of it failed, by the clock of a worker that may be ahead of ours. What was wished at
    the same moment and is not granted yet stays wished. Raises `PastDeadline` when it was purged meanwhile.
    """
    stand_still(connection, batch_id)
    wish = find_submission(connection, batch_id)
    wished = wish.again or () if wish is not None and wish.ended_at is None else ()
    before = max(now, failed_until or now)
    values = {"again": sorted({*codes, *wished}), "again_before": before, "ready_at": now}
    values |= {"ended_at": None, "cancel_at": None}
    connection.execute(update(submissions).where(submissions.c.batch_id == batch_id).values(values))
    lives = (batches.c.batch_id == batch_id) & batches.c.purged_at.is_(None)
    if connection.execute(update(batches).where(lives).values(state=BatchState.SEALED)).rowcount == 0:
        raise PastDeadline("The batch is purged, so there is nothing of it to try again. Submit it again.")


def note_tried(connection: Connection, batch_id: BatchId) -> None:
    """All that was wanted once more has been tried, whatever a worker's clock says."""
    connection.execute(update(submissions).where(submissions.c.batch_id == batch_id).values(again=[]))


def ask_to_stop(connection: Connection, batch_id: BatchId, now: datetime) -> None:
    """Call a batch off: at once while it is open or nobody works on it; else its worker finds the note."""
    noted = update(submissions).where(submissions.c.batch_id == batch_id).values(cancel_at=now)
    connection.execute(noted)
    is_idle = or_(_is_free(now), submissions.c.ready_at.is_(None))
    idle = select(submissions.c.batch_id).where(submissions.c.batch_id == batch_id, is_idle)
    going = (BatchState.OPEN, *_GOING)
    sealed_items = case((batches.c.state == BatchState.OPEN, 0), else_=batches.c["items"])  # never sealed: no results
    connection.execute(
        update(batches)
        .where(batches.c.batch_id.in_(idle), batches.c.state.in_(going))
        .values(state=BatchState.CANCELLED, items=sealed_items)
    )
    connection.execute(
        update(submissions).where(submissions.c.batch_id == batch_id, is_idle).values(ended_at=now, upload_key=None)
    )


def is_called_off(connection: Connection, batch_id: BatchId) -> bool:
    """Whether the customer wants no more of this batch."""
    query = select(submissions.c.cancel_at).where(submissions.c.batch_id == batch_id)
    return connection.execute(query).scalar() is not None


@dataclass(frozen=True)
class Load:
    """What an account, or everybody, has under way: batches and photos that are open, waiting or being worked on."""

    batches: int
    items: int


def load_of(connection: Connection, now: datetime, account_id: AccountId | None = None) -> Load:
    """Open, waiting and running batches whose time is not over."""
    left = func.coalesce(func.sum(batches.c["items"] - batches.c.done - batches.c.failed), 0)
    query = select(func.count(), left).where(batches.c.state.in_((BatchState.OPEN, *_GOING)))
    query = query.where(batches.c.purge_at > now, batches.c.purged_at.is_(None))  # the last: by the index of those
    if account_id is not None:
        query = query.where(batches.c.account_id == account_id)
    count, items = connection.execute(query).one()
    return Load(count, items)


def _is_free(now: datetime) -> ColumnElement[bool]:
    """Nobody holds the lease, or its time is over."""
    return or_(submissions.c.lease_until.is_(None), submissions.c.lease_until <= now)
