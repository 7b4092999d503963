"""The purge: whatever stands under an expired hour goes, whether or not a record knows of it.

Its cost grows with what expires, not with what lives: hours that are still alive are not looked into.
Deciding (`is_due`, `batch_is_due`, `present`) is pure; `Purge` carries it out and leaves a receipt per batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto

from sqlalchemy.exc import SQLAlchemyError

from schemas.batch import PROMISED_LIFE
from schemas.clock import Clock
from schemas.errors import NotFound, StillThere, StoreFault
from schemas.ids import BatchId, parse_batch_id, received_at
from schemas.receipt import Erased, Receipt
from store.batches import due_early, is_unpurged, mark_purged, overdue
from store.erase import Erasure
from store.objects import ObjectStore, StoredObject
from store.receipts import begin_erasure, finish_erasure, unfinished_erasures
from store.records import Records
from store.transient import batch_prefix, hour_name, parse_hour

_HOUR = timedelta(hours=1)
_RECORDS_FAULT = "records_fault"
_IN_ONE_TRANSACTION = 200

AHEAD = timedelta(hours=1)
"""An hour that lies further ahead than this is no hour of ours: nothing may live longer because a clock was wrong."""
WATCHED = timedelta(hours=1)
"""So long after an early purge its prefix is swept again: its hour is alive, so nothing else would look there."""


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
    batch_id = parse_batch_id(name)
    if batch_id is None or hour_name(received_at(batch_id)) != hour:
        return True
    return received_at(batch_id) + purge_after <= now


def present(machine: datetime, skew: timedelta) -> datetime:
    """What time it is for the purge. `skew`: how far the store's clock is ahead of this machine's.

    The later of the two counts: a wrong clock can only shorten a life.
    """
    return machine + max(skew, timedelta())


@dataclass
class PurgeReport:
    """What one run did. `faults`: what could not be done, by stable code; the next run tries again.

    `refusals`: deletions that the store refused; each was tried again. `warnings`: what somebody should look at.
    `oldest_at`: when the oldest byte that is left was received. `skew`: the store's clock less this machine's.
    """

    receipts: list[Receipt] = field(default_factory=list)
    objects: int = 0
    bytes: int = 0
    strays: int = 0
    refusals: int = 0
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
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
        self.report = PurgeReport()

    def run(self) -> PurgeReport:
        """Delete all that is due, then leave receipts for what is gone."""
        hours: tuple[str, ...] = ()
        with self._noting_faults():
            top = self._objects.children("")
            hours = top.folders
            self._erase(top.files)
        living = []
        for hour in hours:
            with self._noting_faults():
                match is_due(hour, self._now(), self._purge_after):
                    case Due.WHOLLY:
                        self._erase([hour])
                    case Due.PARTLY:
                        self._erase(self._due_in(hour))
                        living.append(hour)
                    case Due.NO:
                        living.append(hour)
        with self._noting_faults():
            self._erase(self._due_early(living))
        with self._noting_faults():
            self._leave_receipts()
        return self.report

    def _due_in(self, hour: str) -> list[str]:
        """What goes of an hour that is partly due. A file directly in an hour is a stray."""
        inside = self._objects.children(hour)
        due = [name for name in inside.folders if batch_is_due(hour, name, self._now(), self._purge_after)]
        return [f"{hour}/{name}" for name in (*inside.files, *due)]

    def _due_early(self, living: Iterable[str]) -> list[str]:
        """Batches that are to go before their hour is due. This alone needs the records: the promise does not."""
        with self._records.transaction() as connection:
            due = due_early(connection, self._now(), WATCHED)
        alive = set(living)
        return [batch_prefix(each) for each in due if hour_name(received_at(each)) in alive]

    def _erase(self, prefixes: Sequence[str]) -> None:
        """Delete all that lies under these prefixes. When it fails for all together, each is tried alone."""
        if not prefixes:
            return
        try:
            self._erase_together(prefixes)
        except StillThere:
            raise
        except StoreFault:
            if len(prefixes) == 1:
                raise
            for prefix in prefixes:
                with self._noting_faults():
                    self._erase_together([prefix])

    def _erase_together(self, prefixes: Sequence[str]) -> None:
        listed_at = self._clock()
        seen: set[BatchId] = set()

        def before(found: Sequence[StoredObject]) -> None:
            counts = _by_batch(found)
            self.report.strays += counts.pop(None, (0, 0))[0]
            seen.update(batch_id for batch_id in counts if batch_id is not None)
            with self._noting_faults():
                self._begin(counts, listed_at)

        done = Erasure()
        try:
            self._objects.erase(lambda: self._objects.walk_all(prefixes), before, done)
        finally:
            self.report.objects += done.objects
            self.report.bytes += done.bytes
            self.report.refusals += done.refusals.total()
        for prefix in prefixes:
            self._objects.tidy(prefix)
        self._absent |= seen

    def _begin(self, counts: dict[BatchId | None, tuple[int, int]], listed_at: datetime) -> None:
        with self._records.transaction() as connection:
            for batch_id, (objects, size) in counts.items():
                if batch_id is not None:
                    begin_erasure(connection, Erased.BATCH, batch_id, objects, size, self._clock(), listed_at)

    def _leave_receipts(self) -> None:
        """For each batch whose time has come and of which nothing is left, also if an earlier run was killed here."""
        with self._records.transaction() as connection:
            due = {*overdue(connection, self._now()), *map(BatchId, unfinished_erasures(connection, Erased.BATCH))}
        absent = [batch_id for batch_id in sorted(due) if self._is_absent(batch_id)]
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
        left = []
        with self._records.transaction() as connection:
            for batch_id in absent:
                now = self._clock()
                if is_unpurged(connection, batch_id):  # never had an object, or lost them to another hand
                    begin_erasure(connection, Erased.BATCH, batch_id, 0, 0, now)
                deadline = received_at(batch_id) + PROMISED_LIFE
                receipt = finish_erasure(connection, batch_id, deadline, remaining=0, now=now)
                mark_purged(connection, batch_id, now)
                if receipt is not None:
                    left.append(receipt)
        self.report.receipts += left

    def _now(self) -> datetime:
        return present(self._clock(), self._skew)

    @contextmanager
    def _noting_faults(self) -> Iterator[None]:
        try:
            yield
        except (StoreFault, NotFound) as fault:
            self.report.faults.append(fault.code)
        except SQLAlchemyError:
            self.report.faults.append(_RECORDS_FAULT)


def _by_batch(found: Iterable[StoredObject]) -> dict[BatchId | None, tuple[int, int]]:
    """Objects and bytes of each batch; under None, those of strays."""
    counts: dict[BatchId | None, tuple[int, int]] = {}
    for each in found:
        batch_id = _batch_of(each.key)
        objects, size = counts.get(batch_id, (0, 0))
        counts[batch_id] = (objects + 1, size + each.size)
    return counts


def _batch_of(key: str) -> BatchId | None:
    """The batch under whose own prefix a key lies."""
    hour, _, rest = key.partition("/")
    batch_id = parse_batch_id(rest.partition("/")[0])
    return batch_id if batch_id is not None and hour_name(received_at(batch_id)) == hour else None
