"""What became of each photo of a batch: read from its reports once, and kept in this process as numbers and codes.

A batch of 100,000 photos has 12,500 reports, and a page shows 24 photos. What is kept holds no name, no address and no
pixel; it is of use to nobody once the batch is purged, and goes when other batches are looked at.

A report never changes. Whether there are new ones is looked up whenever the records say something new of the batch.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Lock

from schemas.batch import Manifest
from schemas.ids import BatchId
from schemas.naming import delivery_paths, names_of, renamed
from schemas.results import Done, Failed, ShardReport, results_by_number
from store.records import line
from store.records.batches import BatchRecord
from store.records.database import Records
from store.transient.reports import first_and_last
from store.transient.transient_store import TransientStore

_BATCHES, _PHOTOS = 32, 5_000_000
"""So many are kept, and with so many photos in all: those that were looked at last. A million take 30 MB."""


class Outcome(StrEnum):
    """What became of a photo, in the order in which people want to see them. `check`: done, but have a look."""

    FAILED = "failed"
    CHECK = "check"
    WAITING = "waiting"
    GOOD = "good"


@dataclass(frozen=True)
class Kind:
    """What became of some photos. `codes`: of a failure, or the flags of a cutout to look at."""

    outcome: Outcome
    codes: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """Whether there is a cutout."""
        return self.outcome in (Outcome.CHECK, Outcome.GOOD)


_WAITING = Kind(Outcome.WAITING)


@dataclass
class Became:
    """What became of every photo. `kind_of`: by number less 1, a place in `kinds`; `report_of`: one in `reports`."""

    kinds: list[Kind]
    kind_of: array[int]
    report_of: array[int]
    reports: list[str]
    _places: dict[str, int] = field(default_factory=dict)
    _finished: array[float] = field(default_factory=lambda: array("d"))

    @classmethod
    def of(cls, items: int, reports: Iterable[tuple[str, ShardReport]] = ()) -> Became:
        """Of a batch of so many photos. `reports`: with their names."""
        empty = array("H", bytes(2 * items)), array("I", bytes(4 * items))
        became = cls([_WAITING], *empty, [], _finished=array("d", bytes(8 * items)))
        for name, report in reports:
            became.take(name, report)
        return became

    def kind(self, number: int) -> Kind:
        """What became of one photo."""
        return self.kinds[self.kind_of[number - 1]]

    def reports_of(self, numbers: Collection[int]) -> list[str]:
        """The names of the reports that tell more of these photos."""
        places = {self.report_of[number - 1] for number in numbers if self.kind(number) is not _WAITING}
        return [self.reports[place] for place in sorted(places)]

    def take(self, name: str, report: ShardReport) -> None:
        """Learn of a report, by the rule of `schemas.results`: a cutout beats a failure, the later the earlier."""
        if name not in self._places:
            self._places[name] = len(self.reports)
            self.reports.append(name)
        for result in report.results:
            if not 0 < result.number <= len(self.kind_of):
                continue  # nothing that we wrote: there is no such photo
            at, is_done, finished = result.number - 1, isinstance(result, Done), result.finished_at.timestamp()
            known = self.kind(result.number)
            if known is _WAITING or (is_done, finished) > (known.is_done, self._finished[at]):
                self.kind_of[at] = self._place_of(kind_of(result))
                self.report_of[at] = self._places[name]
                self._finished[at] = finished

    def as_it_is(self) -> Became:
        """The same, which changes no more."""
        return Became(self.kinds.copy(), self.kind_of[:], self.report_of[:], self.reports.copy())

    def _place_of(self, kind: Kind) -> int:
        if kind not in self.kinds:
            self.kinds.append(kind)
        return self.kinds.index(kind)


def kind_of(result: Done | Failed | None) -> Kind:
    """By a photo's result, if it has one."""
    if result is None:
        return _WAITING
    if isinstance(result, Failed):
        return Kind(Outcome.FAILED, (result.code,))
    return Kind(Outcome.CHECK, result.flags) if result.flags else Kind(Outcome.GOOD)


@dataclass
class _Known:
    """A batch as far as its reports are read. `said`: what the records said of it when the reports were listed.

    `whole`: held while all of it is read, so that of many who look one reads; who asks for a few photos waits for none.
    `listed`: those that were not read by then. `renamed`: see `schemas.naming`; the names themselves are not kept.
    """

    became: Became
    lock: Lock = field(default_factory=Lock)
    whole: Lock = field(default_factory=Lock)
    said: object = None
    listed: list[tuple[int, int, str]] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    renamed: bytes = b""

    def list_anew(self, names: Iterable[str], said: object) -> None:
        """These are the reports by now."""
        self.listed = [(*first_and_last(name), name) for name in names if name not in self.read]
        self.said = said

    def to_read(self, numbers: range) -> list[str]:
        """The reports that may speak of these photos, and are not known."""
        return [
            name
            for first, last, name in self.listed
            if first < numbers.stop and numbers.start <= last and name not in self.read
        ]

    def take(self, name: str, report: ShardReport) -> None:
        """Learn of a report."""
        self.became.take(name, report)
        self.read.add(name)


class Outcomes:
    """Those of the batches that somebody looks at, each brought up to date when the records say something new of it."""

    def __init__(self, records: Records, transient: TransientStore) -> None:
        self._records = records
        self._transient = transient
        self._known: OrderedDict[BatchId, _Known] = OrderedDict()
        self._lock = Lock()

    def of(self, record: BatchRecord, numbers: range | None = None) -> Became:
        """What became of a sealed batch's photos: of all, or at least of these; no more reports are read for it.

        Raises `StoreFault`, `NotFound` when it is being purged.
        """
        batch_id = record.stamp.batch_id
        with self._records.reading() as connection:  # before the reports: what comes while they are read is news
            stands = line.find_submission(connection, batch_id)
        said = (record.counts, record.state, stands and (stands.ready_at, stands.ended_at))
        known = self._kept(batch_id, record.counts.items)
        with known.whole if numbers is None else nullcontext():
            asked = range(1, record.counts.items + 1) if numbers is None else numbers
            wanted = self._to_read(known, batch_id, said, asked)
            for name, report in self._transient.read_reports(batch_id, wanted):
                with known.lock:
                    known.take(name, report)
        with known.lock:
            return known.became.as_it_is()

    def results(self, record: BatchRecord, became: Became, numbers: Collection[int]) -> Mapping[int, Done | Failed]:
        """All that is known of a few photos: as many reports are read."""
        read = self._transient.read_reports(record.stamp.batch_id, became.reports_of(numbers))
        found = results_by_number(report for _, report in read)
        return {number: found[number] for number in numbers if number in found}

    def names(self, manifest: Manifest, numbers: Collection[int]) -> Mapping[int, str]:
        """What the cutouts of a few photos are called.

        To name all takes long where they are many: it is done once, and then where one is not called like its photo.
        """
        known = self._kept(manifest.stamp.batch_id, len(manifest.items))
        if not known.renamed or any(known.renamed[number - 1] for number in numbers):
            names = names_of(manifest)
            known.renamed = renamed(manifest, names)
            return names
        return delivery_paths([manifest.items[number - 1] for number in numbers], manifest.stamp.options.format.suffix)

    def _to_read(self, known: _Known, batch_id: BatchId, said: object, numbers: range) -> list[str]:
        """The reports to read. Listed without the lock: whom the store lets wait keeps nobody else waiting."""
        with known.lock:
            if known.said == said:
                return known.to_read(numbers)
        names = self._transient.report_names(batch_id)
        with known.lock:
            known.list_anew(names, said)
            return known.to_read(numbers)

    def _kept(self, batch_id: BatchId, items: int) -> _Known:
        with self._lock:
            known = self._known.pop(batch_id, None) or _Known(Became.of(items))
            self._known[batch_id] = known
            photos = sum(len(each.became.kind_of) for each in self._known.values())
            while len(self._known) > _BATCHES or (photos > _PHOTOS and len(self._known) > 1):
                _, dropped = self._known.popitem(last=False)
                photos -= len(dropped.became.kind_of)
            return known
