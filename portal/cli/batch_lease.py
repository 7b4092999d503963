"""While a command works on a batch it holds the batch's lease, so that a dispatcher beside it keeps off.

A dispatcher that lives is let go first, because its workers are warm: the command would start Ray and a network of its
own beside them, and the two would fight for the machine. The command then watches: who asked wants the batch done, by
whomever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from time import monotonic, sleep

from sqlalchemy.exc import OperationalError

from flows.lease import LeaseLost, batch_renewed, under_lease
from flows.parts import Parts
from portal.cli.this_command import holder_name, is_gone
from schemas.ids import BatchId
from store.records import line
from store.records.batches import BatchRecord, get_batch

_log = logging.getLogger(__name__)

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
    holder = holder_name()
    with parts.records.reading() as connection:
        stands = line.find_submission(connection, batch_id)
    if stands is not None and stands.ready_at is None:
        parts.transient.manifest(batch_id)  # there is none: whoever uploads the batch goes on with that
    try:  # begun before it is held: a stop that comes while that is recorded is heard when it is
        is_ours = once_more and _claim(parts, batch_id, holder, once_more=True)
        if not is_ours and not _falls_to_us(parts, batch_id, holder, once_more, tell_whether_it_waits):
            yield None
            return
        with batch_renewed(parts, batch_id, holder) as lost:
            yield under_lease(parts, holder, lost)
    except LeaseLost:
        _log.warning("batch %s: another process has it by now", batch_id)  # what it came to so far is shown
    finally:
        with parts.records.transaction() as connection:
            line.release(connection, batch_id, holder, parts.clock())


@dataclass(frozen=True)
class _Look:
    """How a batch stood at a time. `is_busy`: some dispatcher was in the middle of a turn."""

    at: datetime
    batch: BatchRecord
    in_line: line.Submission | None
    is_busy: bool

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or its time has: then nobody takes it from the line any more."""
        has_left = self.in_line is not None and self.in_line.ended_at is not None
        return self.batch.state.has_ended or self.batch.stamp.purge_at <= self.at or has_left

    @property
    def is_free(self) -> bool:
        """Whether nobody works on it."""
        if self.in_line is None or self.in_line.lease_until is None or self.in_line.lease_until <= self.at:
            return True
        return is_gone(self.in_line.lease_holder or "")

    @property
    def seconds_in_line(self) -> float:
        """For how long it has waited for workers."""
        ready_at = self.in_line.ready_at if self.in_line is not None else None
        return 0.0 if ready_at is None else (self.at - ready_at).total_seconds()

    def was_in_vain(self, before: _Look | None) -> bool:
        """Whether somebody had it since that look, and gave it back without having done any of it.

        Photos that were measured, or failed once more, had workers though no count tells of it.
        """
        if before is None or before.in_line is None or self.in_line is None:
            return False
        was_given_back = before.in_line.ready_at != self.in_line.ready_at
        return was_given_back and self.in_line.lease_items == 0 and before.batch.counts == self.batch.counts


def _falls_to_us(
    parts: Parts, batch_id: BatchId, holder: str, at_once: bool, tell_whether_it_waits: Callable[[bool], None]
) -> bool:
    """Watch the batch until it is ours, because no dispatcher takes it; False once others have brought it to its end.

    One that took it and gave it back without having done any of it will do no better: that, too, is ours to tell of.
    `at_once`: take it as soon as nobody has it.
    """
    quiet_since = monotonic()
    before: _Look | None = None
    while True:
        now = _look(parts, batch_id)
        parts.watch(now.batch.counts)
        if now.is_over:
            return False
        if now.in_line is None:
            return True
        is_free = now.is_free
        tell_whether_it_waits(is_free and now.is_busy and before is not None)  # a second dispatcher may have no work
        if now.is_busy or not is_free:
            quiet_since = monotonic()
        elif before is None:  # a dispatcher may be between two turns: one more look
            quiet_since -= max(0.0, min(now.seconds_in_line, _FOR_THE_IDLE - _A_MOMENT))
        is_left = at_once or now.was_in_vain(before) or monotonic() - quiet_since >= _FOR_THE_IDLE
        if is_free and is_left and _claim(parts, batch_id, holder, once_more=False):
            return True
        if is_free or before is None:
            before = now
        sleep(_LOOK_EVERY if now.is_busy or not is_free else _A_MOMENT)


def _look(parts: Parts, batch_id: BatchId) -> _Look:
    """How the batch stands now. Raises `OperationalError` when the records stay away."""
    began = monotonic()
    while True:
        now = parts.clock()
        try:
            with parts.records.reading() as connection:
                batch, in_line = get_batch(connection, batch_id), line.find_submission(connection, batch_id)
                return _Look(now, batch, in_line, line.has_dispatcher_at_work(connection, now))
        except OperationalError:
            if monotonic() - began >= _MOST_AWAY:
                raise
            sleep(_LOOK_EVERY)


def _claim(parts: Parts, batch_id: BatchId, holder: str, once_more: bool) -> bool:
    with parts.records.transaction() as connection:
        stands = line.find_submission(connection, batch_id)
        if stands is None:
            return True
        if stands.lease_holder is not None and is_gone(stands.lease_holder):
            line.release(connection, batch_id, stands.lease_holder, parts.clock())
        return line.claim(connection, batch_id, holder, parts.clock(), once_more=once_more)
