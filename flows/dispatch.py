"""Work through the line: take the next turn by fair share, hold its lease, run the batch, give the lease back.

All state is in the records, so any number of dispatchers may run, and one that dies loses nothing: its lease ends
within a minute, and the batch goes on where it stopped. A batch that has had its turn lets others go first. Whatever
goes wrong, a mistake of the operator's included, it waits in line until it has ended or its time is over.
"""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass, field, replace
from time import monotonic

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from flows.fair_share import TURN_ITEMS, charged, may_cut_in, next_turn
from flows.lease import LeaseLost, batch_renewed
from flows.parts import Parts, Process
from schemas.batch import Counts
from schemas.errors import BgbatchError, PastDeadline
from schemas.ids import BatchId
from store.logs import about, kind_and_place
from store.records import line
from store.records.batches import get_batch
from store.records.line import InLine
from store.records.shares import charge, read_shares, share_to_charge
from store.spans import span

_log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0
_WORTH_ITS_BEGINNING = 4.0
_ENOUGH = 20.0
"""A turn works so many times as long as it took to begin, which takes seconds where a batch is large, and so many
seconds at most for that: the first one has to wait for workers to start, too."""
_PAUSE_AFTER_FAULT = 30.0
_BREATH = 1.0  # much shorter: else a batch that was put off would be the first again
_MOST_UNFORESEEN = 3
_FIRST_GUESS = 2.0  # photos per second, until a turn has shown better
_REMEMBERED = 4  # turns, about: how fast one was tells by so much of the pace of all


@dataclass
class _Turn:
    """One batch at work: since when and with how many photos done, and whether the lease was lost.

    `worked`: how many photos it has had workers for. `at_work`: since when they were done with the first of them.
    """

    batch: InLine
    started: float
    done_before: int
    lost: threading.Event = field(default_factory=threading.Event)
    looked: float = 0.0
    must_stop: bool = False
    done: int = 0
    worked: int = 0
    at_work: float = math.inf

    def is_worth_its_beginning(self) -> bool:
        """Whether others may go first by now."""
        least = min(_WORTH_ITS_BEGINNING * (self.at_work - self.started), _ENOUGH)
        return self.worked >= TURN_ITEMS and self.looked - self.at_work >= least


class Dispatcher:
    """`holder` names this process in leases; `process` does the work; `ending` is set when this process should end."""

    def __init__(self, parts: Parts, holder: str, process: Process, ending: threading.Event) -> None:
        self._parts = parts
        self._holder = f"{line.DISPATCHER}{holder}"
        self._process = process
        self._ending = ending
        self._items_per_second = _FIRST_GUESS
        self._is_for_deadlines = False  # every other turn
        self._put_off: dict[BatchId, float] = {}
        """Batches whose turn ended in a fault, and until when the others go on without them."""

    def run(self, pause: float = 1.0) -> None:
        """Take turns until `ending` is set. A fault puts off its batch alone: the others go on, after a breath.

        What nobody foresaw may lie in the batch or in this process: after three in a row, without a turn that ended
        well, it is raised, so that a new process can do better.
        """
        unforeseen = 0
        while not self._ending.is_set():
            try:
                if self.take_turn():
                    unforeseen = 0
                else:
                    self._ending.wait(pause)
            except BgbatchError:
                self._ending.wait(_BREATH)  # a store that is down fails all of them
            except OperationalError as fault:
                _log.warning("the records could not be reached (%s); the line is looked at again", type(fault).__name__)
                self._ending.wait(_PAUSE_AFTER_FAULT)
            except Exception:
                unforeseen += 1
                if unforeseen == _MOST_UNFORESEEN:
                    raise
                self._ending.wait(_BREATH)

    def take_turn(self) -> bool:
        """Give one batch its turn. False when none waits. Raises what ended the turn, after giving the lease back."""
        chosen = self._choose()
        if chosen is None:
            return False
        with self._parts.records.reading() as connection:
            counts = get_batch(connection, chosen.batch_id).counts
        turn = _Turn(chosen, monotonic(), counts.done + counts.failed)
        with about(batch_id=chosen.batch_id, account_id=chosen.account_id):
            self._work(turn)
        return True

    def _work(self, turn: _Turn) -> None:
        batch_id, is_over = turn.batch.batch_id, False
        try:
            with (
                batch_renewed(self._parts, batch_id, self._holder) as turn.lost,
                span(self._parts.settings, batch_id, "dispatch", left=turn.batch.left),
            ):
                _log.info("a turn begins, %d photos are left", turn.batch.left)
                ended = self._process(self._watched(turn), batch_id)
                _log.info("the turn ended: %s, %d done, %d failed", ended.state, ended.done, ended.failed)
        except LeaseLost:
            _log.warning("the turn ended: it stood still for so long that another process has the batch by now")
        except BgbatchError as fault:
            is_over = isinstance(fault, PastDeadline) or self._is_over(batch_id)
            if is_over:
                _log.info("the turn ended with %s: the batch's time is over", fault.code)
                return
            _log.warning("the turn ended with %s; the batch waits in line. %s", fault.code, fault)
            self._put_off[batch_id] = monotonic() + _PAUSE_AFTER_FAULT
            raise
        except OperationalError:  # the records are away, and so they are for all
            raise
        except Exception as fault:
            _log.error("the turn ended with %s, which nobody foresaw; the batch waits in line", kind_and_place(fault))
            self._put_off[batch_id] = monotonic() + _PAUSE_AFTER_FAULT
            raise
        finally:
            self._give_back(turn, is_over)

    def _choose(self) -> InLine | None:
        now = self._parts.clock()
        with self._parts.records.reading() as connection:
            waiting = self._waiting(connection)
            shares = read_shares(connection, {each.account_id for each in waiting})
        self._is_for_deadlines = not self._is_for_deadlines
        chosen = next_turn(waiting, shares, now, self._items_per_second, self._is_for_deadlines)
        if chosen is None:
            return None
        with self._parts.records.transaction() as connection:
            if not line.claim(connection, chosen.batch_id, self._holder, now, chosen.left):
                return None
        return chosen

    def _waiting(self, connection: Connection) -> list[InLine]:
        """Those in line that have not been put off."""
        now = monotonic()
        self._put_off = {batch_id: until for batch_id, until in self._put_off.items() if until > now}
        in_line = line.in_line(connection, self._parts.clock())
        return [each for each in in_line if each.batch_id not in self._put_off]

    def _watched(self, turn: _Turn) -> Parts:
        inner = self._parts.watch

        def watch(counts: Counts) -> None:
            turn.done = counts.done + counts.failed
            inner(counts)

        def worked(photos: int) -> None:
            turn.worked += photos
            turn.at_work = min(turn.at_work, monotonic())

        def stop(batch_id: BatchId) -> bool:
            return self._should_stop(turn)

        return replace(self._parts, watch=watch, worked=worked, stop=stop, holder=self._holder)

    def _should_stop(self, turn: _Turn) -> bool:
        """Called off, the lease lost, this process ending, or the turn over while another waits that may cut in."""
        if turn.must_stop or turn.lost.is_set() or self._ending.is_set():
            return True
        if monotonic() - turn.looked < _LOOK_EVERY:
            return False
        turn.looked = monotonic()
        with self._parts.records.reading() as connection:
            turn.must_stop = line.is_called_off(connection, turn.batch.batch_id)
            if not turn.must_stop and turn.is_worth_its_beginning():
                turn.must_stop = any(may_cut_in(each, turn.batch.account_id) for each in self._waiting(connection))
        return turn.must_stop

    def _is_over(self, batch_id: BatchId) -> bool:
        """Whether it is purged, or about to be: what it lacked is gone for good, not for a mistake of ours."""
        with self._parts.records.reading() as connection:
            return not get_batch(connection, batch_id).lives(self._parts.clock())

    def _give_back(self, turn: _Turn, is_over: bool) -> None:
        now = self._parts.clock()
        items = max(0, turn.done - turn.done_before)
        seconds = monotonic() - turn.started
        if items and seconds > 0:
            self._items_per_second += (items / seconds - self._items_per_second) / _REMEMBERED
        with self._parts.records.transaction() as connection:
            if is_over:
                line.leave(connection, turn.batch.batch_id, now)
            line.release(connection, turn.batch.batch_id, self._holder, now, turn.worked)
            share = share_to_charge(connection, turn.batch.account_id)
            charge(connection, charged(share, seconds, now))
