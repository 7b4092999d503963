"""The purge: whatever stands under an expired hour goes, whether or not a record knows of it.

Its cost grows with what expires, not with what lives: hours that are still alive are not looked into.
Deciding (`is_due`, `batch_is_due`, `present`) is pure; `Purge` carries it out and leaves a receipt per batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial
from itertools import groupby

from sqlalchemy.exc import SQLAlchemyError

from schemas.batch import PROMISED_LIFE
from schemas.clock import Clock
from schemas.errors import NotFound, StillThere, StoreFault
from schemas.ids import BatchId, received_at
from schemas.receipt import Erased, Receipt
from store.objects.erase import Erasure
from store.objects.object_store import ObjectStore
from store.objects.storage import Children, StoredObject
from store.purging.receipts import begin_erasures, finish_erasures, unfinished_erasures
from store.records.batches import due_early, mark_purged, overdue, unpurged
from store.records.database import Records
from store.transient.transient_store import batch_in, batch_prefix, hour_name, parse_hour

_log = logging.getLogger(__name__)

RECORDS_FAULT = "records_fault"
"""What a cleanup calls a database that cannot be reached."""
_HOUR = timedelta(hours=1)
_IN_ONE_TRANSACTION = 200
_TRIES_TO_NOTE = 3  # each may wait ten seconds for records that do not answer, and there may be thousands to make

Look = Callable[[], Iterable[StoredObject]]

AHEAD = timedelta(hours=1)
"""An hour that lies further ahead than this is no hour of ours: nothing may live longer because a clock was wrong."""
WATCHED = timedelta(hours=1)
"""So long after an early purge its prefix is swept again: its hour is alive, so nothing else would look there."""

LISTED_WITHIN = timedelta(hours=1)
"""A listing may lag: that it shows nothing of a batch is believed of one that was received at least so long ago."""


class Due(Enum):
    """What to do with an hour folder."""

    NO = auto()
    """All in it may live: do not even list it."""
    PARTLY = auto()
    """Some of its batches have expired: look at each."""
    WHOLLY = auto()
    """Everything in it goes."""


def is_due(name: str, now: datetime, purge_after: timedelta) -> Due:
    """Whether a folder at the top of the transient store has expired. One not named for an hour is a stray: it goes."""
    hour = parse_hour(name)
    if hour is None or hour > now + AHEAD:
        return Due.WHOLLY
    if hour + _HOUR + purge_after <= now:
        return Due.WHOLLY
    return Due.PARTLY if hour + purge_after <= now else Due.NO


def batch_is_due(hour: str, name: str, now: datetime, purge_after: timedelta) -> bool:
    """Whether a folder in an hour that is partly due goes: a batch by its own age, all else by the hour's start."""
    batch_id = batch_in(hour, name)
    return batch_id is None or received_at(batch_id) + purge_after <= now


def present(machine: datetime, skew: timedelta) -> datetime:
    """What time it is for the purge. `skew`: how far the store's clock is ahead of this machine's.

    The later of the two counts: a wrong clock can only shorten a life.
    """
    return machine + max(skew, timedelta())


@dataclass
class PurgeReport:
    """What one run did. `faults`: what could not be done, by stable code; the next run tries again.

    `refusals`: deletions that the store refused; each was tried again.
    `oldest_at`: when the oldest byte that is left was received. `skew`: the store's clock less this machine's.
    """

    receipts: list[Receipt] = field(default_factory=list)
    objects: int = 0
    bytes: int = 0
    strays: int = 0
    refusals: int = 0
    faults: list[str] = field(default_factory=list)
    oldest_at: datetime | None = None
    skew: timedelta = timedelta()


class Purge:
    """One run over one store. A fault in one place does not stop the others; see `report.faults`.

    Killed anywhere, the next run finishes: what is left is found by its path, what is gone by its begun erasure.
    Records that cannot be reached cost the receipts of this run, never the deletion.
    """

    def __init__(
        self,
        objects: ObjectStore,
        records: Records,
        purge_after: timedelta,
        clock: Clock,
        skew: timedelta = timedelta(),
    ) -> None:
        self._objects = objects
        self._records = records
        self._purge_after = purge_after
        self._clock = clock
        self._skew = skew
        self._absent: set[BatchId] = set()
        self._said: set[str] = set()
        self.report = PurgeReport()

    def run(self) -> PurgeReport:
        """Delete all that is due, then leave receipts for what is gone."""
        hours: tuple[str, ...] = ()
        with self._noting_faults():
            top = self._objects.children("")
            hours = top.folders
            self._erase_nameless("", top)
            self._erase(top.files)
        living = []
        for hour in hours:
            with self._noting_faults():
                match is_due(hour, self._now(), self._purge_after):
                    case Due.WHOLLY:
                        self._erase([hour])
                    case Due.PARTLY:
                        self._erase_due_in(hour)
                        living.append(hour)
                    case Due.NO:
                        living.append(hour)
        with self._noting_faults():
            self._erase(self._due_early(living))
        with self._noting_faults():
            self._leave_receipts()
        return self.report

    def _erase_due_in(self, hour: str) -> None:
        """What goes of an hour that is partly due, by one listing of what stands before the first that lives."""
        inside = self._objects.children(hour)
        self._erase_nameless(hour, inside)
        prefixes = [f"{hour}/{name}" for name in self._due_in(hour, inside)]
        self._erase(prefixes, lambda: self._objects.walk_among(hour, self._due_in(hour, self._objects.children(hour))))

    def _erase_nameless(self, folder: str, inside: Children) -> None:
        """Strays that are not erased by their prefix: it is the prefix of all that lives beside them."""
        if inside.nameless:
            with self._noting_faults():
                self._erase_together((), lambda: self._objects.walk_nameless(folder))

    def _due_in(self, hour: str, inside: Children) -> list[str]:
        """What goes of an hour that is partly due. A file directly in an hour is a stray."""
        due = [name for name in inside.folders if batch_is_due(hour, name, self._now(), self._purge_after)]
        return [*inside.files, *due]

    def _due_early(self, living: Iterable[str]) -> list[str]:
        """Batches that are to go before their hour is due. This alone needs the records: the promise does not."""
        now = self._now()
        with self._records.reading() as connection:
            early = due_early(connection, now, WATCHED)
        alive = set(living)
        by_hour = [(hour_name(received_at(each)), each) for each in early]
        return [
            batch_prefix(each)
            for hour, each in by_hour
            if hour in alive and not batch_is_due(hour, each, now, self._purge_after)  # its hour was looked through
        ]

    def _erase(self, prefixes: Sequence[str], look: Look | None = None) -> None:
        """Delete all that lies under these prefixes, which `look` finds when they are several.

        When it fails for all together, each is tried alone.
        """
        if not prefixes:
            return
        try:
            self._erase_together(prefixes, look or (lambda: self._objects.walk_all(prefixes)))
        except StillThere:
            raise
        except StoreFault:
            if len(prefixes) == 1:
                raise
            for prefix in prefixes:
                with self._noting_faults():
                    self._erase_together([prefix], partial(self._objects.walk, prefix))

    def _erase_together(self, prefixes: Sequence[str], look: Look) -> None:
        listed_at = self._clock()
        seen: set[BatchId] = set()

        def before(found: Sequence[StoredObject]) -> None:
            batches, strays = _by_batch(found)
            self.report.strays += strays
            seen.update(batches)
            if self.report.faults.count(RECORDS_FAULT) < _TRIES_TO_NOTE:
                with self._noting_faults(), self._records.transaction() as connection:
                    begin_erasures(connection, Erased.BATCH, batches, self._clock(), listed_at)

        done = Erasure()
        try:
            self._objects.erase(look, before, together=_home, done=done)
        finally:
            self.report.objects += done.objects
            self.report.bytes += done.bytes
            self.report.refusals += done.refusals.total()
        for prefix in prefixes:
            self._objects.tidy(prefix)
        self._absent |= seen

    def _leave_receipts(self) -> None:
        """For each batch whose time has come and of which nothing is left, also if an earlier run was killed here."""
        with self._records.reading() as connection:
            begun = {*map(BatchId, unfinished_erasures(connection, Erased.BATCH))}
            due = {*overdue(connection, self._now())}
        believed = begun | {each for each in due if received_at(each) <= self._now() - LISTED_WITHIN}
        absent = [batch_id for batch_id in sorted(believed) if self._is_absent(batch_id)]
        for start in range(0, len(absent), _IN_ONE_TRANSACTION):
            with self._noting_faults():
                self._leave_some(absent[start : start + _IN_ONE_TRANSACTION])

    def _is_absent(self, batch_id: BatchId) -> bool:
        """Whether a listing of this run, made after any deletion, showed nothing of the batch."""
        if batch_id in self._absent:
            return True
        with self._noting_faults():
            return next(iter(self._objects.walk(batch_prefix(batch_id))), None) is None
        return False

    def _leave_some(self, absent: Sequence[BatchId]) -> None:
        now = self._clock()
        with self._records.transaction() as connection:
            unnoted = dict.fromkeys(unpurged(connection, absent), (0, 0))  # had no object, or lost them to another hand
            begin_erasures(connection, Erased.BATCH, unnoted, now)
            deadlines = {batch_id: received_at(batch_id) + PROMISED_LIFE for batch_id in absent}
            left = finish_erasures(connection, deadlines, now)
            mark_purged(connection, absent, now)
        self.report.receipts += left

    def _now(self) -> datetime:
        return present(self._clock(), self._skew)

    @contextmanager
    def _noting_faults(self) -> Iterator[None]:
        try:
            yield
        except (StoreFault, NotFound) as fault:
            self.report.faults.append(fault.code)
            if str(fault) not in self._said:  # of a store that is away each batch says the same
                self._said.add(str(fault))
                _log.error("%s: %s", fault.code, fault)
        except SQLAlchemyError:
            self.report.faults.append(RECORDS_FAULT)


def _by_batch(found: Iterable[StoredObject]) -> tuple[dict[BatchId, tuple[int, int]], int]:
    """Objects and bytes of each batch, and how many objects are strays."""
    counts: dict[BatchId, tuple[int, int]] = {}
    strays = 0
    for (hour, name), things in groupby(found, _home):
        sizes = [each.size for each in things]
        batch_id = batch_in(hour, name)
        if batch_id is None:
            strays += len(sizes)
        else:
            objects, size = counts.get(batch_id, (0, 0))
            counts[batch_id] = (objects + len(sizes), size + sum(sizes))
    return counts, strays


def _home(found: StoredObject) -> tuple[str, str]:
    """The hour and the folder in it under which a thing lies: a batch's own, unless it is a stray."""
    hour, _, rest = found.key.partition("/")
    return hour, rest.partition("/")[0]
