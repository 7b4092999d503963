"""What a night writes into the customer's own place: cutouts, and a page with names, which are at home there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from flows.lease import LeaseLost
from flows.nights.changes import photos_in
from flows.nights.look import ToDo
from flows.nights.report import REPORTS, Details, details_key, report_of
from flows.nights.worker import Job, fenced
from flows.parts import Parts
from schemas.errors import BgbatchError, StoreFault
from schemas.naming import lasting_paths
from store.outside.allowed import real_place
from store.outside.listing import list_place
from store.outside.opened import open_to_deliver
from store.records import fingerprints, nights
from store.records.nights import Night
from store.records.schedules import Schedule
from store.transient.transient_store import cutout_key

_log = logging.getLogger(__name__)
_WRITERS = 16
_AT_ONCE = 200
_TRIAL = f"{REPORTS}/trial"
"""What a cutout is called that is written to see whether a place takes any: no name of a photo can be at fault then."""


def deliver(job: Job, night: Night, watch: Callable[[int, int], None], done: dict[int, ToDo]) -> dict[int, str]:
    """Write cutouts into the customer's place; each is remembered once it lies there. Returns why some do not, by item.

    `watch` is told how many of how many have been tried.

    Raises `StoreFault` when the place refuses some of a portion, and then one that it took (or the trial, if it took
    none): then no name is at fault, and it is away, or full.
    Raises `LeaseLost`: by then another delivers, perhaps newer cutouts of the same photos.
    """
    assert night.batch_id is not None
    parts, schedule, batch_id = job.parts, job.schedule, night.batch_id
    with parts.records.reading() as connection:
        known = fingerprints.known(connection, schedule.schedule_id)
        is_known = nights.have_delivered(connection, schedule.schedule_id)
        real = None
        if schedule.deliver is not None:
            real = real_place(connection, schedule.account_id, schedule.deliver, parts.settings)
    place = open_to_deliver(real, parts.settings, is_known) if real is not None else None
    left = [(number, each) for number, each in done.items() if known.get(each.path_hmac) != each.content_hmac]
    delivered = len(done) - len(left)
    refused: dict[int, str] = {}
    trial = f"{_TRIAL}{schedule.options.format.suffix}"

    def cutout(number: int) -> bytes:
        return parts.transient.read(cutout_key(batch_id, number, schedule.options.format.suffix))

    def write(pair: tuple[int, ToDo]) -> None:
        number, each = pair
        if job.worker.has_lost():
            raise LeaseLost
        if place is not None:
            data = cutout(number)
            try:
                place.write(each.name, data)
            except StoreFault as fault:
                refused[number] = str(fault)

    with ThreadPoolExecutor(_WRITERS) as writers:
        for start in range(0, len(left), _AT_ONCE):
            portion = left[start : start + _AT_ONCE]
            if replaced := known.keys() & {each.path_hmac for _, each in portion}:
                # First: who dies in between, or gets no answer, does not know which cutout lies there.
                with fenced(job, night) as connection:
                    fingerprints.forget(connection, schedule.schedule_id, replaced)
            list(writers.map(write, portion))
            taken = [(number, each) for number, each in portion if number not in refused]
            delivered += len(taken)
            with fenced(job, night) as connection:
                fingerprints.remember(
                    connection, schedule.schedule_id, {each.path_hmac: each.content_hmac for _, each in taken}
                )
                nights.note(connection, night, done=len(done), delivered=delivered if place is not None else 0)
            watch(start + len(portion), len(left))
            if len(taken) < len(portion) and place is not None:
                # As large as a cutout is: a page still fits on a full disk.
                number, name = (taken[0][0], taken[0][1].name) if taken else (portion[0][0], trial)
                place.write(name, cutout(number))
    return refused


def write_details(job: Job, night: Night, failed: Sequence[tuple[str, str, str]], now: datetime) -> bool:
    """What failed, and which cutouts have no photo any more, by name, into the customer's place. Never ends a night.

    False: it did not take them.
    """
    parts, schedule = job.parts, job.schedule
    if schedule.deliver is None or not (failed or night.deleted):
        return True
    try:
        with parts.records.reading() as connection:
            deliver = real_place(connection, schedule.account_id, schedule.deliver, parts.settings)
            source = real_place(connection, schedule.account_id, schedule.source, parts.settings)
            is_known = nights.have_delivered(connection, schedule.schedule_id)
        orphans = _orphans(parts, source, deliver, schedule) if night.deleted else ()
        details = Details(report=report_of(night, now), failed=tuple(failed), cutouts_without_photo=orphans)
        key = details_key(night.due_at, schedule.schedule_id)
        open_to_deliver(deliver, parts.settings, is_known).write(key, details.model_dump_json(indent=2).encode())
    except BgbatchError as fault:
        _log.error("night %s: its report with names could not be delivered: %s", night.night_id, fault)
        return False
    return True


def _orphans(parts: Parts, source: str, deliver: str, schedule: Schedule) -> tuple[str, ...]:
    suffix = schedule.options.format.suffix
    photos, _ = photos_in(list_place(source, parts.settings))
    names = set(lasting_paths((each.path for each in photos), suffix).values())
    lying = (each.path for each in list_place(deliver, parts.settings))
    return tuple(
        sorted(path for path in lying if path.endswith(suffix) and path not in names and not path.startswith(REPORTS))
    )
