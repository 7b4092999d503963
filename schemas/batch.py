"""A batch: stamped once when it is opened, before its first byte; sealed when its upload is complete."""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Self, overload

from pydantic import field_validator, model_validator
from pydantic_core import from_json, to_json

from schemas.ids import BatchId, GrantId, parse_batch_id, received_at
from schemas.industries import Industry
from schemas.options import CutoutOptions
from schemas.record import Moment, Record

PROMISED_LIFE = timedelta(hours=24)
"""Nothing that a customer sends is kept longer, counted from receipt."""
DAMAGED_IN_ZIP = "damaged-in-zip"
"""The `source` of an item whose bytes nobody has: its zip file did not give them."""
UNREAD = "unread"
"""The same of one that could not be read on the sender's own disk."""
LONGEST_NAME, _LONGEST_PATH = 255, 1024
"""Bytes: of a file on a disk, and of a key on S3."""


class BatchState(StrEnum):
    """Where a batch is on its way. There is no way back, but a batch that ended may be run again for what failed."""

    OPEN = "open"
    SEALED = "sealed"
    RUNNING = "running"
    COMPLETED = "completed"
    PARTIALLY_COMPLETED = "partially_completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PURGED = "purged"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is done for it unless somebody asks."""
        return self not in (BatchState.OPEN, BatchState.SEALED, BatchState.RUNNING)


class Stamp(Record):
    """What is fixed at receipt. `grant_id` is the live grant for the batch's industry at that moment, or none."""

    batch_id: BatchId
    received_at: Moment
    purge_at: Moment
    industry: Industry | None
    grant_id: GrantId | None
    options: CutoutOptions

    @model_validator(mode="after")
    def _times_hold(self) -> Self:
        if parse_batch_id(self.batch_id) is None:
            raise ValueError("batch_id must be a UUIDv7")
        if received_at(self.batch_id) != self.received_at:
            raise ValueError("received_at must be the time inside batch_id")
        if not self.received_at < self.purge_at <= self.received_at + PROMISED_LIFE:
            raise ValueError("purge_at must lie within 24 hours after received_at")
        return self


class Item(Record):
    """One image of a batch. `path` is the customer's relative path, with forward slashes.

    It never leaves the transient store. `source` is where its bytes lie: empty for the place that its number names,
    `upload:<token>` for an upload of the batch, else an address (`s3://`, `file://`) where they stay and are read in
    place, or (`https://`, `http://`) from where they are fetched once; or it is `DAMAGED_IN_ZIP` or `UNREAD`.
    `options`, if any, instead of the batch's.
    """

    number: int
    path: str
    size: int
    source: str = ""
    options: CutoutOptions | None = None

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if not _is_inside(path):
            raise ValueError("an item's path must be relative, with forward slashes, and stay inside its folder")
        return path


def _is_inside(path: str) -> bool:
    return not ("\0" in path or "\\" in path or any(part in ("", ".", "..") for part in path.split("/")))


def safe_path(path: str) -> str:
    """A relative path that stays inside, and that disks can hold. Raises `ValueError`."""
    path = unicodedata.normalize("NFC", path.replace("\\", "/")).strip("/") if "\\" in path else path
    if any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in path):
        raise ValueError("with control characters")
    if not _is_inside(path):
        raise ValueError("out of its folder")
    if len(path.encode()) > _LONGEST_PATH or any(len(name.encode()) > LONGEST_NAME for name in path.split("/")):
        raise ValueError("longer than a disk or a bucket holds")
    return path


def can_be_kept(path: str) -> bool:
    """Whether a photo may be called so, as it is."""
    try:
        return safe_path(path) == path
    except ValueError:
        return False


def without_background(options: CutoutOptions, photos: Sequence[tuple[str, CutoutOptions | None]]) -> int:
    """How many of these photos (path and own options) are to lie on a photo that is not one of them.

    `options`: of those that have none of their own.
    """
    wanted = Counter((own or options).bg_image for _, own in photos)
    del wanted[None]
    return wanted.total() - sum(wanted[path] for path in wanted.keys() & {path for path, _ in photos}) if wanted else 0


class SealedItems(Sequence[Item]):
    """The items of a manifest as its JSON holds them: read one by one when asked for, so that a million cost 100 MB."""

    def __init__(self, manifest: bytes, first: int) -> None:
        """`first`: where the first item begins."""
        self._manifest = manifest
        self._starts = array("Q", [first])
        self._starts.extend(match.start() + 2 for match in _NEXT_ITEM.finditer(manifest, first))
        self._end = len(manifest) - len(b"]}")

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, place: int | slice) -> Item | tuple[Item, ...]:
        if isinstance(place, slice):
            return tuple(self[each] for each in range(*place.indices(len(self))))
        place = range(len(self))[place]
        end = self._starts[place + 1] - 1 if place + 1 < len(self) else self._end
        item = Item.model_validate_json(self._manifest[self._starts[place] : end])
        if item.number != place + 1:
            raise ValueError("items must be numbered 1, 2, 3 …")
        return item

    def at(self, path: str) -> Item | None:
        """The item of this path, looked for in the JSON: no other item is read."""
        place = self._manifest.find(b'"path":' + to_json(path), self._starts[0])
        return self[bisect(self._starts, place) - 1] if place >= 0 else None

    def paths(self) -> list[str]:
        """The paths of all of them, in order: of no item is more read."""
        found = _PATH.findall(self._manifest, self._starts[0])
        paths: list[str] = from_json(b"[" + b",".join(found) + b"]")
        return paths

    def hold(self, json: bytes) -> bool:
        """Whether these bytes stand anywhere in the JSON of the items."""
        return self._manifest.find(json, self._starts[0]) >= 0


# Inside a JSON string a quotation mark has a backslash before it, so none of these can stand in one.
_NEXT_ITEM = re.compile(rb'},\{"number":')
_PATH = re.compile(rb',"path":("[^"\\]*(?:\\.[^"\\]*)*")')
_FIRST_ITEM = b',"items":['


class Manifest(Record):
    """The seal of a batch: it is written last, whole, and lists every item. Items are numbered from 1 in order."""

    stamp: Stamp
    items: Sequence[Item]

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """What `model_dump_json` wrote. Its items are checked as they are read."""
        end = data.find(_FIRST_ITEM)
        first = end + len(_FIRST_ITEM)
        if not data.startswith(b'{"stamp":') or data[first : first + 1] != b"{" or not data.endswith(b"}]}"):
            return cls.model_validate_json(data)
        stamp = Stamp.model_validate_json(data[len(b'{"stamp":') : end])
        return cls.model_construct(stamp=stamp, items=SealedItems(data, first))

    def options_of(self, item: Item) -> CutoutOptions:
        """How an item is to come out."""
        return item.options or self.stamp.options

    @property
    def wants_consistency(self) -> bool:
        """Whether any item is to be consistent. Sealed items are not read one by one for it."""
        if self.stamp.options.consistent:
            return True
        if isinstance(self.items, SealedItems):
            return self.items.hold(b'"consistent":true')  # in a path, quotation marks have a backslash before them
        return any(item.options is not None and item.options.consistent for item in self.items)

    @property
    def paths(self) -> list[str]:
        """What the items are called, in order. Sealed items are not read one by one for it."""
        if isinstance(self.items, SealedItems):
            return self.items.paths()
        return [item.path for item in self.items]

    def item_at(self, path: str) -> Item | None:
        """The item of this path, if it is in the batch."""
        if isinstance(self.items, SealedItems):
            return self.items.at(path)
        return next((item for item in self.items if item.path == path), None)

    @model_validator(mode="after")
    def _is_numbered(self) -> Self:
        if any(item.number != place for place, item in enumerate(self.items, start=1)):
            raise ValueError("items must be numbered 1, 2, 3 …")
        return self


class Counts(Record):
    """How many items of a batch ended how."""

    items: int
    done: int
    failed: int

    @property
    def state(self) -> BatchState:
        """How a batch with these counts ended."""
        if self.done + self.failed < self.items:
            return BatchState.RUNNING
        if self.failed == 0:
            return BatchState.COMPLETED
        return BatchState.PARTIALLY_COMPLETED if self.done else BatchState.FAILED
