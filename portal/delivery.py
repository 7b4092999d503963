"""Handing cutouts over: each under its photo's relative path, once; to a folder, a zip, or their own place."""

from __future__ import annotations

import errno
import io
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.batch import Manifest, Stamp
from schemas.counting import so_many
from schemas.errors import AlreadyExists, NotDelivered, StoreFault
from schemas.ids import BatchId
from schemas.naming import names_of, shown
from schemas.results import Standing, standing
from store.objects.folder import write_whole
from store.objects.object_store import ObjectStore
from store.parallel import all_in_parallel, in_parallel
from store.transient.transient_store import TransientStore, cutout_key, is_in_place

if TYPE_CHECKING:
    from typing_extensions import Buffer

_AHEAD = 3
"""Cutouts that are read at once for a zip file, of which a portal may hand out several."""
_OF_ONE_NAME = frozenset(
    (
        errno.EINVAL,
        errno.ENOENT,
        errno.EPERM,
        errno.ENAMETOOLONG,
        errno.EILSEQ,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
    )
)
"""What a disk answers to a name that it does not take, as a stick does to a colon, or where something else lies."""
_MOST_REFUSED = 100
"""Of more it is their own place that is at fault, away or full, and each takes its time to fail."""


@dataclass(frozen=True)
class Results:
    """A batch as its customer sees it. `names`: item number -> relative path of its cutout."""

    manifest: Manifest
    became: Standing
    names: Mapping[int, str]

    @property
    def stamp(self) -> Stamp:
        """The batch's stamp."""
        return self.manifest.stamp

    @property
    def done(self) -> list[int]:
        """Numbers of the items that have a cutout."""
        return sorted(self.became.done)

    def key(self, number: int) -> str:
        """Where an item's cutout lies."""
        options = self.manifest.options_of(self.manifest.items[number - 1])
        return cutout_key(self.stamp.batch_id, number, options.format.suffix)


def read_results(transient: TransientStore, batch_id: BatchId) -> Results:
    """What has become of a batch so far. Raises `BatchNotSealed`, `StoreFault`."""
    manifest = transient.manifest(batch_id)
    return Results(manifest, standing(transient.reports(batch_id)), names_of(manifest))


def deliver(transient: TransientStore, results: Results, to: Path, on_item: Callable[[], None]) -> int:
    """Write all cutouts of a batch below `to`; returns how many. Raises `StoreFault`, `AlreadyExists` for a photo.

    One whose name the disk does not take keeps no other from being written; in the end it raises `NotDelivered`.
    A file appears whole under its name or not at all, so an interrupted download can be run again; and what is fetched
    may be deleted from the store at once, so it is on the disk first.
    """
    refused = dict[str, OSError]()

    def write(number: int) -> None:
        target = to / results.names[number]
        try:
            if _is_its_photo(transient, results, number, target):
                raise _in_place_of_photos()
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".bgbatch-{secrets.token_hex(8)}")  # the target's name may be as long as can be
            write_whole(str(partial), str(target), transient.read(results.key(number)))
        except OSError as fault:
            if fault.errno not in _OF_ONE_NAME:
                raise
            refused[results.names[number]] = fault

    count = len(all_in_parallel(transient.objects.storage.AT_ONCE, write, results.done, on_item))
    _require_all(refused, count)
    return count


def _require_all(refused: Mapping[str, Exception], count: int) -> None:
    """`refused`: names that a place did not take, of so many."""
    if refused and len(refused) == count:  # it is the place itself
        raise refused[min(refused)]
    if refused:
        raise NotDelivered(
            f"{so_many(len(refused), 'cutout')} of {count} could not be written, because the place takes no file of "
            f"such a name as {shown(min(refused))}. The others are there. Fetch all into another place."
        )


def _is_its_photo(transient: TransientStore, results: Results, number: int, target: Path) -> bool:
    """Whether the file where a cutout is to go is the photo that it was cut from: the customer may have no other."""
    item = results.manifest.items[number - 1]
    if not target.is_file() or target.stat().st_size != item.size:
        return False
    if is_in_place(item):
        return item.source == f"file://{target.resolve()}"
    return target.read_bytes() == transient.source(results.stamp, item)


def _in_place_of_photos() -> AlreadyExists:
    return AlreadyExists("The photos themselves lie there, and cutouts would replace them. Name another place.")


def require_apart(results: Results, place: str) -> None:
    """Raises `AlreadyExists` where a cutout in this place of theirs would replace a photo that is read there."""
    items = results.manifest.items
    if any(items[number - 1].source == f"{place}/{results.names[number]}" for number in results.done):
        raise _in_place_of_photos()


def deliver_to_place(
    transient: TransientStore, results: Results, place: ObjectStore, on_item: Callable[[], None]
) -> int:
    """Write all cutouts of a batch into the customer's own place; returns how many. Raises as `deliver` does."""
    refused = dict[str, StoreFault]()

    def write(number: int) -> None:
        cutout = transient.read(results.key(number))
        try:
            place.write(results.names[number], cutout)
        except StoreFault as fault:
            refused[results.names[number]] = fault
            if len(refused) > _MOST_REFUSED:
                raise

    at_once = max(transient.objects.storage.AT_ONCE, place.storage.AT_ONCE)
    count = len(all_in_parallel(at_once, write, results.done, on_item))
    taken = [number for number in results.done if results.names[number] not in refused]
    if refused and taken:  # once more: a place that went away meanwhile, or is full by now, does not take that either
        place.write(results.names[taken[0]], transient.read(results.key(taken[0])))
    _require_all(refused, count)
    return count


class _Pipe(io.RawIOBase):
    """What a zip file is written to: it gives the bytes on and keeps none.

    What was not taken yet may be written over: so each file has its size before it, and not behind it alone, which
    programs that read a zip as it comes cannot do with (Java's, for one).
    """

    def __init__(self) -> None:
        super().__init__()
        self._held = io.BytesIO()
        self._taken = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        return self._held.write(data)

    def tell(self) -> int:
        return self._taken + self._held.tell()

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return self._taken + self._held.seek(place - self._taken, whence)

    def take(self) -> bytes:
        piece, self._held = self._held.getvalue(), io.BytesIO()
        self._taken += len(piece)
        return piece


def zip_stream(transient: TransientStore, results: Results) -> Iterator[bytes]:
    """A zip file of all cutouts, piece by piece; a few cutouts are in memory. Images are not packed again."""
    pipe, done, at_once = _Pipe(), results.done, transient.objects.storage.AT_ONCE
    when = results.stamp.received_at
    moment = (when.year, when.month, when.day, when.hour, when.minute, when.second)
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        cutouts = in_parallel(min(_AHEAD, at_once), lambda number: transient.read(results.key(number)), done)
        for number, cutout in zip(done, cutouts, strict=True):
            entry = zipfile.ZipInfo(results.names[number], moment)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, cutout)
            yield pipe.take()
    yield pipe.take()
