"""Some items of one batch: each read from the transient store, cut, written back beside its source.

Items that are to be consistent come twice: they are measured first, and cut once all of the batch are measured.

An item fails alone: whatever goes wrong with one costs its own result. What is wrong with the store or the deadline
is not an item's fault and ends the call. Keys are functions of the item number, so doing an item again
writes the same objects again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Generic, TypeVar

from schemas.batch import Item, Manifest
from schemas.clock import Clock
from schemas.errors import BackgroundUnusable, BgbatchError, ItemError, OutOfMemory, SourceMissing
from schemas.results import Done, Failed, ShardReport
from store.logs import kind_and_place
from store.transient.transient_store import (
    TransientStore,
    coarse_mask_key,
    cutout_key,
    is_in_place,
    mask_key,
    measure_key,
)
from workers.alike import Alike
from workers.cutter import Cutter
from workers.decode import Pixels, too_many_bytes
from workers.device_lane import Made, Taken
from workers.lanes import overlapped
from workers.measuring import read_alike, read_mask
from workers.order import Cut, Opened, Order
from workers.png import write_png

T = TypeVar("T")
S = TypeVar("S")
In = TypeVar("In")
Out = TypeVar("Out")

Photo = Opened | Taken | Made

_log = logging.getLogger(__name__)

_UNFORESEEN = "The item could not be processed for a reason of ours, and the operator has been told. Run it again."


def process_shard(
    transient: TransientStore,
    cutter: Cutter,
    manifest: Manifest,
    numbers: Sequence[int],
    clock: Clock,
    moved: Callable[[], None] = lambda: None,
) -> ShardReport:
    """Cut the items of these numbers and write their report, which is returned.

    Those that are to be consistent are only measured, if that is not done for the batch: the report then has the
    failures alone. `moved` is called, in any thread, each time that a step of an item has ended.

    Raises `PastDeadline`, `StoreFault`, `DeviceBroken`.
    """
    items = [manifest.items[number - 1] for number in numbers]
    is_any_consistent = any(manifest.options_of(item).consistent for item in items)
    alike = read_alike(transient, manifest.stamp.batch_id) if is_any_consistent else None
    way = _Way(transient, cutter, manifest, clock, alike, _Behind())
    finish = way.measure if is_any_consistent and alike is None else way.finish
    results = overlapped(
        items,
        _telling(way.fetch, moved),
        _telling(way.open, moved),
        _telling(way.segment, moved),
        _telling(finish, moved),
        _telling(way.keep, moved),
        cutter.pace,
        _pixels,
    )
    report = ShardReport(
        first=numbers[0], last=numbers[-1], results=tuple(each for each in results if each is not None)
    )
    if report.results:
        transient.write_report(manifest.stamp, report)
    return report


def _telling(step: Callable[[In], Out], moved: Callable[[], None]) -> Callable[[In], Out]:
    def told(given: In) -> Out:
        try:
            return step(given)
        finally:
            moved()

    return told


@dataclass(frozen=True)
class _Step(Generic[T]):
    """An item on its way: what is there of it, or why it failed."""

    item: Item
    at: T | Failed


@dataclass(frozen=True)
class _Files:
    """What is to be kept of an item, by key and in this order. `cut`: none when it was only measured.

    `source_sha256`: as of its result.
    """

    by_key: dict[str, bytes]
    cut: Cut | None
    source_sha256: str | None = None


def _pixels(step: _Step[Photo]) -> int:
    """What it takes of memory, so to say."""
    match step.at:
        case Opened(picture=picture):
            return picture.width * picture.height
        case Taken(pixels=pixels):
            return pixels
    return 0


@dataclass
class _Behind:
    """The photo that the last item was put on, or why there is none: mostly it is the next one's, too."""

    lock: Lock = field(default_factory=Lock)
    path: str | None = None
    pixels: Pixels | None = None
    fault: str | None = None


@dataclass(frozen=True)
class _Way:
    """The five steps of an item, each of which may run in a thread of its own."""

    transient: TransientStore
    cutter: Cutter
    manifest: Manifest
    clock: Clock
    alike: Alike | None
    """Of the folders whose photos are to be consistent, once all are measured."""
    behind: _Behind

    def fetch(self, item: Item) -> _Step[Order]:
        """Its bytes."""
        return _Step(item, self._alone(item, lambda: self._order(item)))

    def open(self, step: _Step[Order]) -> _Step[Photo]:
        """Its pixels."""
        return self._next(step, self.cutter.open)

    def segment(self, steps: list[_Step[Photo]]) -> list[_Step[Photo]]:
        """Masks of several; when that fails, of one after the other, so that only the culprit is lost."""
        able = [step.at for step in steps if not isinstance(step.at, Failed)]
        if len(able) > 1:
            try:
                segmented = iter(self.cutter.segment(able))
                done: list[_Step[Photo]] = [
                    step if isinstance(step.at, Failed) else _Step(step.item, next(segmented)) for step in steps
                ]
                return [self._segment_alone(step) if isinstance(step.at, Taken) else step for step in done]
            except Exception as error:
                if isinstance(error, BgbatchError) and not isinstance(error, ItemError):
                    raise
        return [self._segment_alone(step) for step in steps]

    def finish(self, step: _Step[Photo]) -> _Step[_Files]:
        """Its cutout."""
        return self._next(step, lambda photo: self._finished(step.item, photo))

    def measure(self, step: _Step[Photo]) -> _Step[_Files]:
        """Where its subject is, and its mask."""
        return self._next(step, lambda photo: self._measured(step.item, photo))

    def keep(self, step: _Step[_Files]) -> Done | Failed | None:
        """What came of it, beside its source. Of an item that was only measured there is nothing to tell."""
        files = step.at
        return files if isinstance(files, Failed) else self._alone(step.item, lambda: self._kept(step.item, files))

    def _segment_alone(self, step: _Step[Photo]) -> _Step[Photo]:
        return self._next(step, lambda photo: self.cutter.segment([photo])[0])

    def _next(self, step: _Step[S], call: Callable[[S], T]) -> _Step[T]:
        at = step.at
        return _Step(step.item, at if isinstance(at, Failed) else self._alone(step.item, lambda: call(at)))

    def _alone(self, item: Item, step: Callable[[], T]) -> T | Failed:
        """What the step gives, or the item's failure. What is no item's fault is raised."""
        try:
            return step()
        except ItemError as error:
            return self._failed(item, error.code, str(error))
        except BgbatchError:
            raise
        except MemoryError:
            sentence = "There was not enough memory for this image even alone. Send a smaller one."
            return self._failed(item, OutOfMemory.code, sentence)
        except Exception as error:  # noqa: BLE001 - an item fails alone
            # No message: it may quote the customer's data.
            _log.error("batch %s item %d: %s", self.manifest.stamp.batch_id, item.number, kind_and_place(error))
            return self._failed(item, ItemError.code, _UNFORESEEN)

    def _failed(self, item: Item, code: str, sentence: str) -> Failed:
        return Failed(number=item.number, code=code, sentence=sentence, finished_at=self.clock())

    def _order(self, item: Item) -> Order:
        stamp, options = self.manifest.stamp, self.manifest.options_of(item)
        order = Order(self._source(item), options, stamp.grant_id is not None)
        if not options.consistent or self.alike is None:
            return order
        # In place there may be another photo by now: then the network is asked once more.
        mask = None if is_in_place(item) else read_mask(self.transient, stamp.batch_id, item.number)
        return replace(order, setting=self.alike.of(item.number), mask=mask)

    def _source(self, item: Item) -> bytes:
        if item.size > self.cutter.limits.bytes:  # such a source was not even uploaded
            raise too_many_bytes(self.cutter.limits)
        return self.transient.source(self.manifest.stamp, item)

    def _background(self, path: str) -> Pixels:
        """The batch's own photo at `path`, read and decoded once for all that ask for it one after the other.

        Raises `BackgroundUnusable` for what its owner can mend; what is ours stays what it is.
        """
        behind = self.behind
        with behind.lock:
            if behind.path != path:
                behind.path = behind.pixels = behind.fault = None
                try:
                    behind.pixels = self.cutter.backdrop(self._source(self._named(path)))
                except ItemError as error:
                    if error.fault != "user" and not isinstance(error, SourceMissing):
                        raise
                    behind.fault = str(error)  # not itself: it would keep all that its traceback can see
                behind.path = path
            if behind.fault is not None:
                raise BackgroundUnusable(f"The photo that bg_image names cannot be used. {behind.fault}")
            assert behind.pixels is not None
            return behind.pixels

    def _named(self, path: str) -> Item:
        item = self.manifest.item_at(path)
        if item is None:
            raise SourceMissing("It is not in the batch. Add it to the batch, or name another.")
        return item

    def _measured(self, item: Item, photo: Photo) -> _Files:
        batch_id = self.manifest.stamp.batch_id
        measure, mask = self.cutter.measure(photo)
        by_key = {
            coarse_mask_key(batch_id, item.number): write_png(mask),
            measure_key(batch_id, item.number): measure.model_dump_json().encode(),
        }
        return _Files(by_key, None)

    def _finished(self, item: Item, photo: Photo) -> _Files:
        batch_id, options = self.manifest.stamp.batch_id, self.manifest.options_of(item)
        # Decoded as late as this, so that no more backdrops are held than are being finished.
        behind = self._background(options.bg_image) if options.bg_image is not None else None
        cut = self.cutter.finish(photo, behind)
        by_key = {cutout_key(batch_id, item.number, options.format.suffix): cut.file}
        if cut.mask_png is not None:
            by_key[mask_key(batch_id, item.number)] = cut.mask_png
        is_told = is_in_place(item) and self.manifest.stamp.grant_id is not None
        return _Files(by_key, cut, hashlib.sha256(photo.order.source).hexdigest() if is_told else None)

    def _kept(self, item: Item, files: _Files) -> Done | None:
        for key, data in files.by_key.items():
            self.transient.write(self.manifest.stamp, key, data)
        return None if files.cut is None else _result(self.cutter, item, files.cut, files.source_sha256, self.clock)


def _result(cutter: Cutter, item: Item, cut: Cut, source_sha256: str | None, clock: Clock) -> Done:
    return Done(
        number=item.number,
        width=cut.width,
        height=cut.height,
        bytes=len(cut.file),
        source_width=cut.source_width,
        source_height=cut.source_height,
        scores=cut.scores,
        flags=cut.flags,
        network=cutter.network,
        weights_sha256=cutter.weights_sha256,
        device=cutter.device,
        finished_at=clock(),
        source_sha256=source_sha256,
    )
