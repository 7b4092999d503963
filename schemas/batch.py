"""A batch: stamped once when it is opened, before its first byte; sealed when its upload is complete."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Self

from pydantic import field_validator, model_validator

from schemas.ids import BatchId, GrantId, parse_batch_id, received_at
from schemas.industries import Industry
from schemas.options import CutoutOptions
from schemas.record import Moment, Record

PROMISED_LIFE = timedelta(hours=24)
"""Nothing that a customer sends is kept longer, counted from receipt."""


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
    place, or (`https://`, `http://`) from where they are fetched once. `options`, if any, instead of the batch's.
    """

    number: int
    path: str
    size: int
    source: str = ""
    options: CutoutOptions | None = None

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = path.split("/")
        if not path or "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
            raise ValueError("an item's path must be relative, with forward slashes, and stay inside its folder")
        return path


class Manifest(Record):
    """The seal of a batch: it is written last, whole, and lists every item. Items are numbered from 1 in order."""

    stamp: Stamp
    items: tuple[Item, ...]

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
