"""The transient store: every byte of a batch under one time-stamped prefix, `<hour received>/<batch id>/…`.

The prefix is a function of the batch id alone. Objects are named by item number, so no customer's file name stands
in a path, an access log or an error. What a batch writes, it writes through `TransientStore.write`, which refuses
after the batch's purge time (the fence against late writers).

    <hour>/<batch id>/source/000001          the customer's bytes, as they came (or source/<token> of an upload)
    <hour>/<batch id>/upload/…               names and parts of uploads until the seal: see `store.transient.uploads`
    <hour>/<batch id>/night.json             names and fingerprints of a night's photos: see `flows.nights.look`
    <hour>/<batch id>/backdrop               the photo behind the subjects, if any: see `store.transient.backdrop`
    <hour>/<batch id>/cutout/000001.png      what the customer gets
    <hour>/<batch id>/mask/000001.png        8-bit gray, upright full size; only for batches with a grant
    <hour>/<batch id>/measure/000001.json    where the subject is, if its folder is to be consistent; .png: its mask
    <hour>/<batch id>/alike.json             what the photos of each such folder have in common
    <hour>/<batch id>/preview/000001-cutout.webp    small pictures that somebody looked at on a page
    <hour>/<batch id>/report/000001-000008-4f1c….json       a ShardReport
    <hour>/<batch id>/gathered/000001-004096-90ab….lines    hundreds of them in one: see `store.transient.reports`
    <hour>/<batch id>/sealing/90ab….json     a list of photos that somebody set out to seal the batch with
    <hour>/<batch id>/manifest.json          the list that counts, written when the records say which that is
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from schemas.batch import DAMAGED_IN_ZIP, UNREAD, Item, Manifest, Stamp
from schemas.clock import Clock
from schemas.errors import (
    BatchNotSealed,
    DamagedInZip,
    NotFound,
    PastDeadline,
    SourceMissing,
    StoreFault,
    Unreadable,
)
from schemas.ids import BatchId, parse_batch_id, received_at
from schemas.results import ShardReport
from store.no_core_dumps import forbid_core_dumps
from store.objects.object_store import ObjectStore, no_such_object, open_store
from store.outside.opened import FETCHED, ReadOutside, open_outside
from store.parallel import in_parallel
from store.settings import Settings
from store.transient.reports import TOGETHER, each_in, first_and_last, gathered, gathering_name, report_name

_log = logging.getLogger(__name__)
_HOUR = "%Y-%m-%dT%H"
UPLOAD = "upload:"
"""How the `source` of an item begins that was uploaded; its token follows."""
_MANY_REPORTS = 64
"""It is as quick to read fewer one by one."""


def hour_name(moment: datetime) -> str:
    """The hour that `moment` lies in, as a folder name: `2026-11-24T16`."""
    return moment.astimezone(UTC).strftime(_HOUR)


def parse_hour(name: str) -> datetime | None:
    """The start of the hour that a folder is named for; None when it is no such name."""
    try:
        hour = datetime.strptime(name, _HOUR).replace(tzinfo=UTC)
    except ValueError:
        return None
    return hour if hour_name(hour) == name else None


def batch_prefix(batch_id: BatchId) -> str:
    """Where all of a batch lies."""
    return f"{hour_name(received_at(batch_id))}/{batch_id}"


def batch_in(hour: str, name: str) -> BatchId | None:
    """The batch that lies in a folder of that name in an hour; None for a stray, as for a batch of another hour."""
    batch_id = parse_batch_id(name)
    return batch_id if batch_id is not None and hour_name(received_at(batch_id)) == hour else None


def source_key(batch_id: BatchId, number: int) -> str:
    """The customer's bytes of an item."""
    return f"{batch_prefix(batch_id)}/source/{number:06d}"


def uploaded_key(batch_id: BatchId, token: str) -> str:
    """The customer's bytes of an upload, whose item number is not known before the seal."""
    return f"{batch_prefix(batch_id)}/source/{token}"


def cutout_key(batch_id: BatchId, number: int, suffix: str) -> str:
    """The cutout of an item; `suffix` is its format's, with the dot."""
    return f"{batch_prefix(batch_id)}/cutout/{number:06d}{suffix}"


def mask_key(batch_id: BatchId, number: int) -> str:
    """The full-size mask of an item, for the lake."""
    return f"{batch_prefix(batch_id)}/mask/{number:06d}.png"


def measures_prefix(batch_id: BatchId) -> str:
    """Where the measures lie."""
    return f"{batch_prefix(batch_id)}/measure"


def measure_key(batch_id: BatchId, number: int) -> str:
    """Where an item's subject is, for the photos of its folder that are to be set alike."""
    return f"{measures_prefix(batch_id)}/{number:06d}.json"


def coarse_mask_key(batch_id: BatchId, number: int) -> str:
    """What the network made of an item when it was measured, so that it is not asked again."""
    return f"{measures_prefix(batch_id)}/{number:06d}.png"


def alike_key(batch_id: BatchId) -> str:
    """What the photos of each folder have in common. It is there once all of them are measured."""
    return f"{batch_prefix(batch_id)}/alike.json"


def preview_key(batch_id: BatchId, number: int, of: str) -> str:
    """A small picture of an item's `photo` or `cutout`."""
    return f"{batch_prefix(batch_id)}/preview/{number:06d}-{of}.webp"


def manifest_key(batch_id: BatchId) -> str:
    """The seal."""
    return f"{batch_prefix(batch_id)}/manifest.json"


def _list_key(batch_id: BatchId, name: str) -> str:
    return f"{batch_prefix(batch_id)}/sealing/{name}.json"


def is_in_place(item: Item) -> bool:
    """Whether its photo stays in the customer's own store, where they can replace it at any time."""
    return bool(item.source) and not item.source.startswith((*FETCHED, UPLOAD, DAMAGED_IN_ZIP, UNREAD))


class TransientStore:
    """Reads and fenced writes of batches. `objects` is the store below, for listing and purging."""

    def __init__(self, objects: ObjectStore, clock: Clock, outside: ReadOutside | None = None) -> None:
        self.objects = objects
        self._clock = clock
        self._outside = outside
        self._manifest: Manifest | None = None

    def write(self, stamp: Stamp, key: str, data: bytes) -> None:
        """Write one object of a batch. Raises `PastDeadline` once `stamp.purge_at` has come, `StoreFault`."""
        self._fence(stamp)
        self.objects.write(key, data)
        try:
            self._fence(stamp)
        except PastDeadline:  # a slow write: the purge may have been here meanwhile
            self.objects.delete([key])
            raise

    def link(self, stamp: Stamp, key: str, life: timedelta) -> str | None:
        """An address that hands out one object for `life`, never past the batch's purge time; None on a folder.

        Raises `PastDeadline`, `StoreFault`.
        """
        self._fence(stamp)
        return self.objects.link(key, min(life, stamp.purge_at - self._clock()))

    def _fence(self, stamp: Stamp) -> None:
        if self._clock() >= stamp.purge_at:
            raise PastDeadline("The batch's purge time has come, so nothing more is written for it. Submit it again.")

    def read(self, key: str) -> bytes:
        """One object. Raises `NotFound`, `StoreFault`."""
        return self.objects.read(key)

    def source(self, stamp: Stamp, item: Item) -> bytes:
        """The customer's bytes of an item, wherever they lie. Raises `SourceMissing`, `StoreFault`, other `ItemError`s.

        What is read in place stays there. What was fetched from an address is kept, so that it is fetched once.
        """
        try:
            return self._source(stamp, item)
        except NotFound:
            raise SourceMissing("There is no image where the batch says. Put it there, and submit it again.") from None

    def source_of(self, batch_id: BatchId, number: int, sha256: str | None) -> bytes:
        """The same by number, as it was cut; the manifest is read only for a source that has another name.

        It must have the hash that its result tells: else it is another photo by now, `SourceMissing`. One in place may
        be replaced by its owner at any time, an upload by a request that was slower than the seal.
        """
        is_told = sha256 is not None
        try:
            source = self.read(source_key(batch_id, number))
        except NotFound:
            item = self._sealed(batch_id).items[number - 1]
            if not item.source or item.source.startswith(FETCHED):
                raise
            source, is_told = self.source(self._sealed(batch_id).stamp, item), is_told or is_in_place(item)
        if is_told and hashlib.sha256(source).hexdigest() != sha256:
            raise SourceMissing("The image is not the one that was cut any more.")
        return source

    def _sealed(self, batch_id: BatchId) -> Manifest:
        if self._manifest is None or self._manifest.stamp.batch_id != batch_id:
            try:
                self._manifest = self.manifest(batch_id)
            except BatchNotSealed:
                raise no_such_object() from None
        return self._manifest

    def _source(self, stamp: Stamp, item: Item) -> bytes:
        if item.source == DAMAGED_IN_ZIP:
            raise DamagedInZip(
                "The photo is damaged in the zip file that it came in. Pack it again from the original, and send that."
            )
        if item.source == UNREAD:
            raise Unreadable(
                "The photo could not be read on the disk that it was sent from. Mend that, and submit it again."
            )
        if item.source.startswith(UPLOAD):
            return self.read(uploaded_key(stamp.batch_id, item.source.removeprefix(UPLOAD)))
        key = source_key(stamp.batch_id, item.number)
        if not item.source or self._outside is None:
            return self.read(key)
        if not item.source.startswith(FETCHED):
            return self._outside(item.source)
        try:
            return self.read(key)
        except NotFound:
            data = self._outside(item.source)
            self.write(stamp, key, data)
            return data

    def keep_list(self, manifest: Manifest) -> str:
        """Keep a list of photos to seal a batch with; returns what it is called.

        A write may stand still for minutes, and another request seals the batch meanwhile: so each list has a name of
        its own, and the records say which of them counts. It says nothing of the list: they keep it for good. Raises
        `PastDeadline`.
        """
        name = secrets.token_hex(8)
        key = _list_key(manifest.stamp.batch_id, name)
        self.write(manifest.stamp, key, manifest.model_dump_json().encode())
        return name

    def publish_list(self, stamp: Stamp, name: str) -> None:
        """Make the list of that name the batch's manifest. Raises `NotFound`, `PastDeadline`, `StoreFault`."""
        self.write(stamp, manifest_key(stamp.batch_id), self.read(_list_key(stamp.batch_id, name)))

    def seal(self, manifest: Manifest) -> None:
        """The same, by whoever has it at hand. Raises `PastDeadline`."""
        batch_id = manifest.stamp.batch_id
        self.write(manifest.stamp, manifest_key(batch_id), manifest.model_dump_json().encode())

    def manifest(self, batch_id: BatchId) -> Manifest:
        """The sealed batch. Raises `BatchNotSealed` when it was never sealed, or is purged; `StoreFault`."""
        try:
            return Manifest.from_json(self.read(manifest_key(batch_id)))
        except NotFound:
            raise BatchNotSealed(
                f"Batch {batch_id} has no manifest: its upload was not completed, or it was purged. Submit it again."
            ) from None
        except ValidationError:
            raise StoreFault(f"The manifest of batch {batch_id} is damaged. Submit the batch again.") from None

    def write_report(self, stamp: Stamp, report: ShardReport) -> None:
        """Keep the results of one call. Raises `PastDeadline`."""
        # Without what is not known: a version that does not know a hash reads the reports that have none.
        data = report.model_dump_json(exclude_none=True).encode()
        self.write(stamp, f"{_reports_prefix(stamp.batch_id)}/{report_name(report.numbers, data)}", data)

    def gather_reports(self, stamp: Stamp) -> None:
        """Make the reports quick to read, if they are many. Raises `PastDeadline`, `NotFound`, `StoreFault`."""
        names = self.report_names(stamp.batch_id)
        if len(names) < _MANY_REPORTS:
            return
        known = {name for name, _ in self._gathered(stamp.batch_id, names)}
        loose = [name for name in names if name not in known]
        if len(loose) < _MANY_REPORTS:
            return
        for first in range(0, len(loose), TOGETHER):
            some = loose[first : first + TOGETHER]
            read = list(zip(some, self._each_of(_reports_prefix(stamp.batch_id), some), strict=True))
            self.write(stamp, f"{_gathered_prefix(stamp.batch_id)}/{gathering_name(some)}", gathered(read))

    def reports(self, batch_id: BatchId) -> Iterator[ShardReport]:
        """All reports that were written so far, in any order, with few of them in memory at once."""
        return (report for _, report in self.read_reports(batch_id, self.report_names(batch_id)))

    def report_names(self, batch_id: BatchId) -> list[str]:
        """What the reports that were written so far are called, in order of their first item."""
        return [name for name in self.objects.files(_reports_prefix(batch_id)) if name.endswith(".json")]

    def read_reports(self, batch_id: BatchId, names: Sequence[str]) -> Iterator[tuple[str, ShardReport]]:
        """The reports of these names, with them, in any order. A damaged one says nothing: its items are done again."""
        left = dict.fromkeys(names)
        if len(names) >= _MANY_REPORTS:
            for name, data in self._gathered(batch_id, names):
                if name in left and (report := _report(data)) is not None:
                    del left[name]
                    yield name, report
        for name, data in zip(left, self._each_of(_reports_prefix(batch_id), list(left)), strict=True):
            if (report := _report(data)) is not None:
                yield name, report
            else:
                _log.warning("a report of batch %s is damaged; its photos count as not begun", batch_id)

    def _gathered(self, batch_id: BatchId, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """What was gathered of these reports, and some besides."""
        ends = [first_and_last(name) for name in names]
        first, last = min(first for first, _ in ends), max(last for _, last in ends)
        folder = _gathered_prefix(batch_id)
        spans = [(name, *first_and_last(name)) for name in self.objects.files(folder) if name.endswith(".lines")]
        of_these = [name for name, begins, ends_at in spans if begins <= last and first <= ends_at]
        for gathering in self._each_of(folder, of_these):
            yield from each_in(gathering)

    def _each_of(self, folder: str, names: Sequence[str]) -> Iterator[bytes]:
        """The objects of these names."""
        return in_parallel(self.objects.storage.AT_ONCE, lambda name: self.read(f"{folder}/{name}"), names)


def _report(data: bytes) -> ShardReport | None:
    try:
        return ShardReport.model_validate_json(data)
    except ValidationError:
        return None


def _reports_prefix(batch_id: BatchId) -> str:
    return f"{batch_prefix(batch_id)}/report"


def _gathered_prefix(batch_id: BatchId) -> str:
    return f"{batch_prefix(batch_id)}/gathered"


def open_transient(settings: Settings, clock: Clock) -> TransientStore:
    """The transient store that the settings name. Who opens it holds photos in memory: no core dumps from here on."""
    forbid_core_dumps()
    return TransientStore(open_store(settings.transient_root, settings), clock, open_outside(settings))
