"""What goes in and out of the REST API. The names are the API: docs/api.md."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from schemas.batch import BatchState
from schemas.ids import GrantId
from schemas.industries import Industry
from schemas.left_out import LeftOut
from schemas.options import CutoutOptions
from schemas.record import Moment, Record
from store.records.batches import BatchRecord

MOST_ITEMS = 100_000
_MOST_FIELDS = 100


def body_of_bytes(media_type: str) -> dict[str, object]:
    """How an operation's description says that its body is bytes of a photo."""
    return {"requestBody": {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}}


def with_headers(status: int, words: str, **headers: str) -> dict[int | str, dict[str, object]]:
    """How it says that a success carries these headers: name, with `_` for `-`, and what it tells."""
    described = {
        name.replace("_", "-"): {"description": tells, "schema": {"type": "string"}} for name, tells in headers.items()
    }
    return {status: {"description": words, "headers": described}}


class _Sent(Record):
    """What may come in by the thousands. Each field that there is not would be a fault of its own."""

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, given: object) -> object:
        if isinstance(given, dict):
            objects = [given, *(each for each in given.values() if isinstance(each, dict))]
            if any(len(each) > _MOST_FIELDS for each in objects):
                raise ValueError(f"An object has at most {_MOST_FIELDS} fields.")
        return given


class NewItem(_Sent):
    """A photo at an address that is fetched, or in a place that the account may use. `path`: what to call it."""

    url: Annotated[str, Field(max_length=2_000)]
    path: Annotated[str | None, Field(max_length=1_000)] = None
    options: CutoutOptions | None = None


def _in_our_days(moment: datetime) -> datetime:
    """PostgreSQL tells times in its server's zone. There the calendar's last hours can be in the year 10000, which our
    driver does not read: it could tell nobody any more who is in line.
    """
    if not 1970 <= moment.year < 9000:
        raise ValueError("Give a year from 1970 to 8999.")
    return moment


class NewBatch(_Sent):
    """A batch to open. With `items` or `source` it is sealed at once; else photos are sent, and then it is sealed.

    `source`: a place whose photos are read where they are. `due_at`: when the cutouts are needed.
    """

    industry: Industry | None = None
    options: CutoutOptions = CutoutOptions()
    due_at: Annotated[Moment, AfterValidator(_in_our_days)] | None = None
    items: Annotated[tuple[NewItem, ...] | None, Field(max_length=MOST_ITEMS, fail_fast=True)] = None
    source: Annotated[str | None, Field(max_length=500)] = None


class BatchAnswer(Record):
    """A batch: numbers, states and times. `items` of an open one: photos announced so far.

    `left_out`: how many files of a `source` are not in it, and why. `may_train_models`: whether a permission was live
    when it was opened, and still is.
    """

    batch_id: str
    state: BatchState
    industry: Industry | None
    options: CutoutOptions
    items: int
    done: int
    failed: int
    left_out: dict[LeftOut, int]
    received_at: Moment
    purge_at: Moment
    purged_at: Moment | None
    may_train_models: bool


class Page(Record):
    """Batches, the newest first. `next`: give it as `before` for the page after this one."""

    batches: tuple[BatchAnswer, ...]
    next: str | None


class ItemAnswer(Record):
    """A photo and what became of it. `cutout`: where its cutout is while the batch lives."""

    number: int
    path: str
    size: int
    outcome: str
    code: str | None = None
    sentence: str | None = None
    width: int | None = None
    height: int | None = None
    flags: tuple[str, ...] = ()
    cutout: str | None = None
    cutout_path: str | None = None


class Items(Record):
    """One page of a batch's photos. `next`: give it as `after` for the page after this one."""

    items: tuple[ItemAnswer, ...]
    next: int | None


class Retry(Record):
    """Which failures to try again, by code; all when left out."""

    codes: Annotated[tuple[str, ...] | None, Field(max_length=50)] = None


class Uploaded(Record):
    """A photo that has come, or is still coming."""

    path: str
    size: int
    bytes_received: int


class UploadsPage(Record):
    """What has come of an open batch's photos. `next`: give it as `after` for the page after this one."""

    uploads: tuple[Uploaded, ...]
    next: str | None


def batch_answer(record: BatchRecord, live: Collection[GrantId]) -> BatchAnswer:
    """What the API says of a batch. `live`: the account's grants that are not withdrawn."""
    stamp = record.stamp
    return BatchAnswer(
        batch_id=stamp.batch_id,
        state=record.state,
        industry=stamp.industry,
        options=stamp.options,
        items=record.counts.items,
        done=record.counts.done,
        failed=record.counts.failed,
        left_out=record.left_out,
        received_at=stamp.received_at,
        purge_at=stamp.purge_at,
        purged_at=record.purged_at,
        may_train_models=stamp.grant_id in live,
    )
