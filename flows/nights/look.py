"""What a night finds in the source: compared with the fingerprints, what is new or changed becomes one batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from flows.lease import LeaseLost
from flows.nights.changes import Changes, Photo, compare
from flows.nights.worker import Job, fenced, require_night
from flows.parts import Parts
from flows.receive import require_complete, seal, stamp_batch
from schemas.batch import Item
from schemas.errors import BgbatchError, SourceEmpty
from schemas.ids import BatchId
from store.outside.allowed import check_place, real_place
from store.outside.listing import list_place
from store.records import fingerprints, line, nights
from store.records.nights import Night
from store.transient.transient_store import batch_prefix


class ToDo(NamedTuple):
    """A photo of the night's batch. Kept beside the batch's photos, and purged with them."""

    name: str
    path_hmac: str
    content_hmac: str


def look(job: Job, night: Night) -> Night:
    """List the source, compare it with the fingerprints, and seal what is to do. Raises what makes it impossible.

    Raises `LeaseLost` too: two that looked at once would have each photo cut twice.
    """
    parts, schedule = job.parts, job.schedule
    with parts.records.reading() as connection:
        source = real_place(connection, schedule.account_id, schedule.source, parts.settings)
        if schedule.deliver is not None:
            check_place(connection, schedule.account_id, schedule.deliver, parts.settings)
        known = fingerprints.known(connection, schedule.schedule_id)
    suffix = schedule.options.format.suffix
    changes = compare(list_place(source, parts.settings), schedule.fingerprint_key, known, suffix)
    if known and not changes.found:
        raise SourceEmpty("The source holds no photo, though it did before. Check its address; nothing was forgotten.")
    numbers: dict[str, object] = {
        "batch_id": None,
        "found": changes.found,
        "new": len(changes.new),
        "changed": len(changes.changed),
        "skipped": changes.skipped,
        "deleted": night.deleted + len(changes.deleted),  # a look before this one may have counted some
        "left_out": sum(changes.left_out.values()),
        "failures": {},
    }
    todo = changes.todo
    if not todo:
        return _noted(job, night, changes, numbers)
    require_complete(schedule.options, [(each.path, None) for each in todo])
    stamp = stamp_batch(
        parts,
        schedule.account_id,
        schedule.industry,
        schedule.options,
        job.worker.randomness,
        due_at=night.deadline_at,
    )
    try:
        parts.transient.write(stamp, _todo_key(stamp.batch_id), _todo_bytes(todo))
        night = _noted(job, night, changes, numbers | {"batch_id": stamp.batch_id})
    except (BgbatchError, LeaseLost):
        with parts.records.transaction() as connection:  # nobody knows of it, and each try leaves one
            line.ask_to_stop(connection, stamp.batch_id, parts.clock())
        raise
    items = [
        Item(number=number, path=each.path, size=each.size, source=f"{source}/{each.path}")
        for number, each in enumerate(todo, start=1)
    ]
    seal(parts, stamp, items, require=lambda connection: require_night(connection, job, night))
    return night


def _noted(job: Job, night: Night, changes: Changes, numbers: Mapping[str, object]) -> Night:
    """The night with what was found, and without the batch of a look before this one, which could not be sealed."""
    with fenced(job, night) as connection:
        if night.batch_id is not None:
            line.ask_to_stop(connection, night.batch_id, job.parts.clock())
        fingerprints.forget(connection, job.schedule.schedule_id, changes.deleted)
        return nights.note(connection, night, **numbers)


def _todo_key(batch_id: BatchId) -> str:
    return f"{batch_prefix(batch_id)}/night.json"


def _todo_bytes(todo: tuple[Photo, ...]) -> bytes:
    return json.dumps([[each.name, each.path_hmac, each.content_hmac] for each in todo]).encode()


def read_todo(parts: Parts, batch_id: BatchId) -> list[ToDo]:
    """The photos of a night's batch, by item number less one. Raises `NotFound` once it is purged."""
    rows = json.loads(parts.transient.read(_todo_key(batch_id)))
    return [ToDo(*row) for row in rows]
