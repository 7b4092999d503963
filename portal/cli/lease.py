"""While a command works on a batch it holds the batch's lease, so that a dispatcher beside it keeps off.

A dispatcher that lives is let go first, because its workers are warm: the command would start Ray and a network of its
own beside them, and the two would fight for the machine. The command then watches: who asked wants the batch done, by
whomever. Of two pulls into one place, or into two of which one is inside the other, the second is refused.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep

from sqlalchemy.exc import OperationalError

from flows.lease import LeaseLost, batch_renewed, renewed, under_lease
from flows.parts import Parts
from lake import copies_under_way
from schemas.errors import CopyInTheWay
from schemas.ids import BatchId
from store import line
from store.batches import get_batch

_log = logging.getLogger(__name__)

_OURS = "command"
_MOST_OF_HOST = 40  # letters of its name: with all of them, a holder might be longer than the records take
_LOOK_EVERY = 1.0  # seconds
_FOR_THE_IDLE = 2.0  # a dispatcher without work looks every second
_A_MOMENT = 0.1  # seconds
_MOST_AWAY = 60.0  # seconds; records that are started anew are there within it


@contextmanager
def holding(
    parts: Parts,
    batch_id: BatchId,
    once_more: bool = False,
    tell_whether_it_waits: Callable[[bool], None] = lambda waits: None,
) -> Iterator[Parts | None]:
    """Hold the lease until the end of the block. The parts to work with: the batch stops when the lease is lost.

    While somebody else works on the batch, or will when its turn comes, that is watched; None once they have brought
    it to its end. With `once_more` nobody is let go first, and one that has ended is run again. Raises
    `BatchNotSealed`.
    """
    holder = _this_command()
    with parts.records.reading() as connection:
        stands = line.find_submission(connection, batch_id)
    if stands is not None and stands.ready_at is None:
        parts.transient.manifest(batch_id)  # there is none: whoever uploads the batch goes on with that
    is_ours = once_more and _claim(parts, batch_id, holder, once_more=True)
    if not is_ours and not _falls_to_us(parts, batch_id, holder, once_more, tell_whether_it_waits):
        yield None
        return
    try:
        with batch_renewed(parts, batch_id, holder) as lost:
            yield under_lease(parts, holder, lost)
    except LeaseLost:
        _log.warning("batch %s: another process has it by now", batch_id)  # what it came to so far is shown
    finally:
        with parts.records.transaction() as connection:
            line.release(connection, batch_id, holder, parts.clock())


def _falls_to_us(
    parts: Parts, batch_id: BatchId, holder: str, at_once: bool, tell_whether_it_waits: Callable[[bool], None]
) -> bool:
    """Watch the batch until it is ours, because no dispatcher takes it; False once others have brought it to its end.

    One that took it and gave it back without having done any of it will do no better: that, too, is ours to tell of.
    `at_once`: take it as soon as nobody has it.
    """
    since, before = monotonic(), None
    answered = since
    while True:
        now = parts.clock()
        try:
            with parts.records.reading() as connection:
                record, stands = get_batch(connection, batch_id), line.find_submission(connection, batch_id)
                is_busy = line.has_dispatcher_at_work(connection, now)
        except OperationalError:
            if monotonic() - answered >= _MOST_AWAY:
                raise
            sleep(_LOOK_EVERY)
            continue
        answered = monotonic()
        parts.watch(record.counts)
        is_over = record.stamp.purge_at <= now or (stands is not None and stands.ended_at is not None)
        if record.state.has_ended or is_over:  # after its time nobody takes it from the line
            return False
        if stands is None:
            return True
        is_free = stands.lease_until is None or stands.lease_until <= now or _is_gone(stands.lease_holder or "")
        tell_whether_it_waits(is_free and is_busy and before is not None)  # a second dispatcher may have no work
        stood = (stands.ready_at, record.counts)
        if is_busy or not is_free:
            since = monotonic()
        elif before is None and stands.ready_at is not None:  # a dispatcher may be between two turns: one more look
            since -= max(0.0, min((now - stands.ready_at).total_seconds(), _FOR_THE_IDLE - _A_MOMENT))
        is_in_vain = before is not None and before[0] != stood[0] and before[1] == stood[1]
        is_left = at_once or is_in_vain or monotonic() - since >= _FOR_THE_IDLE
        if is_free and is_left and _claim(parts, batch_id, holder, once_more=False):
            return True
        if is_free or before is None:
            before = stood
        sleep(_LOOK_EVERY if is_busy or not is_free else _A_MOMENT)


@contextmanager
def holding_place(parts: Parts, place: str) -> Iterator[Callable[[], None]]:
    """Make a copy of candidates there, alone, until the end of the block. What it gives is called before each step.

    That raises `CopyInTheWay` when another pull has begun there while this one stood still; so does this itself when
    one is under way. A folder is this machine's own.
    """
    holder, name = _this_command(), place if place.startswith("s3://") else f"{_host()} {place}"

    def renew() -> bool:
        with parts.records.transaction() as connection:
            return copies_under_way.keep_place(connection, name, holder, parts.clock())

    with parts.records.transaction() as connection:
        other = copies_under_way.hold_place(connection, name, holder, parts.clock(), _is_gone)
    if other is not None:
        raise CopyInTheWay(
            "Another pull writes into this place just now, or into one inside or around it. Wait for its end, or "
            "choose another place. If it was killed on another machine, the place is free a minute later."
        )
    try:
        with renewed(copies_under_way.LEASE_LIFE, renew) as lost:

            def require_ours() -> None:
                if lost.is_set() or not renew():
                    raise CopyInTheWay(
                        "This pull stood still for so long that another one has begun in its place. Wait for its end."
                    )

            yield require_ours
    finally:
        with parts.records.transaction() as connection:
            copies_under_way.leave_place(connection, name, holder)


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
