"""While a command works on a batch it holds the batch's lease, so that a dispatcher beside it keeps off.

When the dispatcher was first, the command watches it: who asked wants the batch done, by whomever. An idle one is let
go first, because its workers are warm: the command would start Ray and a network of its own beside them. Of two pulls
into one place the second is refused.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from flows.lease import LeaseLost, batch_renewed, renewed, under_lease
from flows.parts import Parts
from lake import pulls
from schemas.errors import CopyInTheWay
from schemas.ids import BatchId
from store import line
from store.batches import get_batch

_log = logging.getLogger(__name__)

_OURS = "command"
_MOST_OF_HOST = 40  # letters of its name: with all of them, a holder might be longer than the records take
_LOOK_EVERY = 1.0  # seconds
_FOR_THE_IDLE = timedelta(seconds=2)  # a dispatcher without work looks every second
_A_MOMENT = 0.1  # seconds


@contextmanager
def holding(parts: Parts, batch_id: BatchId, once_more: bool = False) -> Iterator[Parts | None]:
    """Hold the lease until the end of the block. The parts to work with: the batch stops when the lease is lost.

    While somebody else works on the batch, that is watched; None once they have brought it to its end. With
    `once_more` one that has ended is run again, and nobody idle is let go first. Raises `BatchNotSealed`.
    """
    holder = _this_command()
    with parts.records.reading() as connection:
        stands = line.find_submission(connection, batch_id)
    if stands is not None and stands.ready_at is None:
        parts.transient.manifest(batch_id)  # there is none: whoever uploads the batch goes on with that
    is_ours = (once_more or not _is_taken(parts, batch_id)) and _claim(parts, batch_id, holder, once_more)
    while not is_ours:
        with parts.records.reading() as connection:
            record, stands = get_batch(connection, batch_id), line.find_submission(connection, batch_id)
        parts.watch(record.counts)
        if record.state.has_ended or (stands is not None and stands.ended_at is not None):  # or its time is over
            yield None
            return
        time.sleep(_LOOK_EVERY)
        is_ours = _claim(parts, batch_id, holder, once_more=False)
    try:
        with batch_renewed(parts, batch_id, holder) as lost:
            yield under_lease(parts, holder, lost)
    except LeaseLost:
        _log.warning("batch %s: another process has it by now", batch_id)  # what it came to so far is shown
    finally:
        with parts.records.transaction() as connection:
            has_ended = get_batch(connection, batch_id).state.has_ended
            if has_ended and line.renew(connection, batch_id, holder, parts.clock()):  # else somebody has said so
                line.leave(connection, batch_id, parts.clock())
            line.release(connection, batch_id, holder, parts.clock())


def _is_taken(parts: Parts, batch_id: BatchId) -> bool:
    """Whether an idle dispatcher takes a batch that has just come to the line, or has brought it to its end by now."""
    waited = 0.0
    while waited < _FOR_THE_IDLE.total_seconds():
        with parts.records.reading() as connection:
            stands = line.find_submission(connection, batch_id)
        if stands is None or stands.ready_at is None:
            return False
        if stands.lease_holder is not None or stands.ended_at is not None:
            return True
        if parts.clock() - stands.ready_at >= _FOR_THE_IDLE:
            return False
        time.sleep(_A_MOMENT)
        waited += _A_MOMENT
    return False


@contextmanager
def holding_place(parts: Parts, place: str) -> Iterator[Callable[[], None]]:
    """Make a copy of candidates there, alone, until the end of the block. What it gives is called before each step.

    That raises `CopyInTheWay` when another pull has begun there while this one stood still; so does this itself when
    one is under way. A folder is this machine's own.
    """
    holder, name = _this_command(), place if place.startswith("s3://") else f"{_host()} {place}"

    def renew() -> bool:
        with parts.records.transaction() as connection:
            return pulls.keep_place(connection, name, holder, parts.clock())

    with parts.records.transaction() as connection:
        other = pulls.hold_place(connection, name, holder, parts.clock())
        if other is not None and _is_gone(other):
            pulls.leave_place(connection, name, other)
            other = pulls.hold_place(connection, name, holder, parts.clock())
    if other is not None:
        raise CopyInTheWay(
            "Another pull writes into this place just now. Wait for its end, or choose another place. If it was killed "
            "on another machine, the place is free a minute later."
        )
    try:
        with renewed(pulls.LEASE_LIFE, renew) as lost:

            def require_ours() -> None:
                if lost.is_set() or not renew():
                    raise CopyInTheWay(
                        "This pull stood still for so long that another one has begun in its place. Wait for its end."
                    )

            yield require_ours
    finally:
        with parts.records.transaction() as connection:
            pulls.leave_place(connection, name, holder)


def _this_command() -> str:
    return f"{_host()} {os.getpid()} {_OURS}"


def _host() -> str:
    name = socket.gethostname()
    if len(name) <= _MOST_OF_HOST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]  # pods of one set differ in their last letters
    return f"{name[: _MOST_OF_HOST - 9]}-{digest}"


def _claim(parts: Parts, batch_id: BatchId, holder: str, once_more: bool) -> bool:
    with parts.records.transaction() as connection:
        stands = line.find_submission(connection, batch_id)
        if stands is None:
            return True
        if stands.lease_holder is not None and _is_gone(stands.lease_holder):
            line.release(connection, batch_id, stands.lease_holder, parts.clock())
        return line.claim(connection, batch_id, holder, parts.clock(), once_more=once_more)


def _is_gone(holder: str) -> bool:
    """Whether the holder was a command on this machine whose process is dead: nobody need wait for its lease to end."""
    host, _, rest = holder.partition(" ")
    pid, _, kind = rest.partition(" ")
    if host != _host() or kind != _OURS or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
