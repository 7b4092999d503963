"""The purge: whatever stands under an expired hour goes, whether or not a record knows of it.

Its cost grows with what expires, not with what lives: hours that are still alive are not looked into.
Deciding (`is_due`, `batch_is_due`) is pure; `Purge` carries the decisions out and leaves a receipt per batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto

from sqlalchemy.exc import SQLAlchemyError

from schemas.batch import PROMISED_LIFE
from schemas.clock import Clock
from schemas.errors import StoreFault
from schemas.ids import BatchId, parse_batch_id, received_at
from schemas.receipt import Erased, Receipt
from store.batches import is_unpurged, mark_purged, overdue
from store.objects import ObjectStore, StoredObject
from store.receipts import begin_erasure, finish_erasure, unfinished_erasures
from store.records import Records
from store.transient import batch_prefix, hour_name, parse_hour

_HOUR = timedelta(hours=1)
_RECORDS_FAULT = "records_fault"
SKEW = timedelta(hours=1)
"""An hour that lies further ahead than this is no hour of ours: nothing may live longer because a clock was wrong."""


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
    if hour is None or hour > now + SKEW:
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


@dataclass
class PurgeReport:
    """What one run did. `faults`: what could not be deleted, by stable code; the next run tries again."""

    receipts: list[Receipt] = field(default_factory=list)
    strays: int = 0
    faults: list[str] = field(default_factory=list)


class Purge:
    """One run over one store. A fault in one place does not stop the others; see `report.faults`.

    Killed anywhere, the next run finishes: what is left is found by its path, what is gone by its begun erasure.
    Records that cannot be reached cost the receipts of this run, never the deletion.
    """

    def __init__(self, objects: ObjectStore, records: Records, purge_after: timedelta, clock: Clock) -> None:
        self._objects = objects
        self._records = records
        self._purge_after = purge_after
        self._clock = clock
        self.report = PurgeReport()

    def run(self) -> PurgeReport:
        """Delete all that is due, then leave receipts for what is gone."""
        self._sweep_files("")
        for hour in self._objects.folders(""):
            due = is_due(hour, self._clock(), self._purge_after)
            if due is not Due.NO:
                self._sweep_hour(hour, due)
        with self._noting_faults():
            self._leave_receipts()
        return self.report

    def _sweep_hour(self, hour: str, due: Due) -> None:
        for name in self._objects.folders(hour):
            if due is Due.PARTLY and not batch_is_due(hour, name, self._clock(), self._purge_after):
                continue
            prefix = f"{hour}/{name}"
            found = list(self._objects.walk(prefix))
            batch_id = parse_batch_id(name)
            if batch_id is not None and prefix == batch_prefix(batch_id):
                with self._noting_faults():
                    self._begin(batch_id, found)
            else:
                self.report.strays += len(found)
            with self._noting_faults():
                self._objects.delete_folder(prefix)
        self._sweep_files(hour)
        if due is Due.WHOLLY:
            with self._noting_faults():
                self._objects.delete_folder(hour)

    def _sweep_files(self, folder: str) -> None:
        """No object of ours lies at the top or directly in an hour: such a file is a stray."""
        strays = [f"{folder}/{name}".lstrip("/") for name in self._objects.files(folder)]
        self.report.strays += len(strays)
        with self._noting_faults():
            self._objects.delete(strays)

    def _begin(self, batch_id: BatchId, found: list[StoredObject]) -> None:
        size = sum(each.size for each in found)
        with self._records.transaction() as connection:
            begin_erasure(connection, Erased.BATCH, batch_id, len(found), size, self._clock())

    def _leave_receipts(self) -> None:
        """For each batch whose time has come and of which nothing is left, also if an earlier run was killed here."""
        now = self._clock()
        with self._records.transaction() as connection:
            due = {*overdue(connection, now), *map(BatchId, unfinished_erasures(connection, Erased.BATCH))}
        for batch_id in sorted(due):
            if next(self._objects.walk(batch_prefix(batch_id)), None) is None:
                self._leave_receipt(batch_id, now)

    def _leave_receipt(self, batch_id: BatchId, now: datetime) -> None:
        deadline = received_at(batch_id) + PROMISED_LIFE
        with self._records.transaction() as connection:
            if is_unpurged(connection, batch_id):  # never had an object, or lost them to another hand
                begin_erasure(connection, Erased.BATCH, batch_id, 0, 0, now)
            receipt = finish_erasure(connection, batch_id, deadline, remaining=0, now=self._clock())
            mark_purged(connection, batch_id, now)
        if receipt is not None:
            self.report.receipts.append(receipt)

    @contextmanager
    def _noting_faults(self) -> Iterator[None]:
        try:
            yield
        except StoreFault as fault:
            self.report.faults.append(fault.code)
        except SQLAlchemyError:
            self.report.faults.append(_RECORDS_FAULT)
