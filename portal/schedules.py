"""What an account may do with its schedules, on a page, by program or command: find, add, retime or remove one."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from sqlalchemy import Connection

from flows.calling_off import call_off
from flows.nights import timetable
from flows.nights.report import SCHEDULE_REMOVED
from flows.nights.telling import tell
from schemas.clock import Clock
from schemas.errors import AlreadyExists, BadOptions, NotFound, UserError
from schemas.ids import AccountId, Randomness
from schemas.industries import Industry
from schemas.options import CutoutOptions, Format
from schemas.record import Record
from store.outside.allowed import check_place, overlap
from store.records import fingerprints, nights, schedules
from store.records.batches import get_batch
from store.records.database import Records, hold_lock
from store.records.nights import Night, NightState
from store.records.people import require_open
from store.records.schedules import Overlap, Schedule, ScheduleId
from store.settings import Settings

MOST_MINUTES = 100_000
"""Of a deadline: ten weeks."""


class Wanted(Record):
    """What somebody wants to run by itself. `deadline_minutes` count from each due time."""

    cron: str
    timezone: str = "UTC"
    source: str
    deliver: str | None = None
    industry: Industry | None = None
    options: CutoutOptions = CutoutOptions()
    overlap: Overlap = Overlap.SKIP
    deadline_minutes: int | None = None


def own_schedule(records: Records, account_id: AccountId, schedule_id: str) -> Schedule:
    """One of the account's own schedules. Raises `NotFound` for others' as for none."""
    with records.reading() as connection, suppress(NotFound):
        schedule = schedules.find(connection, schedule_id)
        if schedule.account_id == account_id:
            return schedule
    raise NotFound("There is no schedule of that id in your account.")


def own_night(records: Records, schedule: Schedule, night_id: str) -> Night:
    """One of the schedule's nights, however long ago. Raises `NotFound` for other schedules' as for none."""
    with records.reading() as connection:
        night = nights.find(connection, night_id)
    if night.schedule_id != schedule.schedule_id:
        raise NotFound("There is no night of that id.")
    return night


def next_at(schedule: Schedule, now: datetime) -> datetime | None:
    """When it runs next; None while it is paused."""
    return timetable.next_due(schedule.cron, schedule.timezone, now) if schedule.paused_at is None else None


def add(
    connection: Connection,
    account_id: AccountId,
    wanted: Wanted,
    settings: Settings,
    clock: Clock,
    randomness: Randomness,
) -> Schedule:
    """Record it, once all is checked. Raises `NotAllowed` for a place that is not the account's, else `UserError`.

    `AlreadyExists`: another schedule writes there.
    """
    require_open(connection, account_id)
    _refuse_what_needs_all(wanted.options)
    timetable.check(wanted.cron, wanted.timezone)
    source = check_place(connection, account_id, wanted.source, settings)
    deliver = check_place(connection, account_id, wanted.deliver, settings) if wanted.deliver else None
    if deliver is not None and overlap(deliver, source):
        raise UserError("Source and delivery overlap, so cutouts would be taken for photos. Keep them apart.")
    hold_lock(connection, f"schedules:{account_id}")  # two at once would each find the place free
    for each in schedules.list_all(connection, account_id):
        _keep_apart(each, source, deliver, wanted.options.format)
    _check_deadline(wanted.deadline_minutes)
    schedule = Schedule(
        schedule_id=schedules.new_schedule_id(randomness),
        account_id=account_id,
        cron=wanted.cron,
        timezone=wanted.timezone,
        source=source,
        deliver=deliver,
        industry=wanted.industry,
        options=wanted.options,
        overlap=wanted.overlap,
        deadline_minutes=wanted.deadline_minutes,
        fingerprint_key=fingerprints.new_key(randomness),
        created_at=clock(),
    )
    schedules.add(connection, schedule)
    return schedule


def retime(connection: Connection, schedule_id: ScheduleId, clock: Clock, **times: object) -> Schedule:
    """Give it other times, by name: cron, timezone, overlap, deadline_minutes. It forgets nothing of what it has done.

    Raises `NotFound`, `UserError`.
    """
    known = schedules.find(connection, schedule_id)
    changed = known.model_copy(update=times)
    is_other_clock = (known.cron, known.timezone) != (changed.cron, changed.timezone)
    if is_other_clock:
        timetable.check(changed.cron, changed.timezone)
    if "deadline_minutes" in times:  # what stays may be older than its limit
        _check_deadline(changed.deadline_minutes)
    if times:
        schedules.retime(connection, schedule_id, times, clock() if is_other_clock else None)
    return schedules.find(connection, schedule_id)


def remove(connection: Connection, schedule_id: ScheduleId, clock: Clock) -> list[Night]:
    """Forget it, its fingerprints and their key. A night that is going is over, its batch called off, and that is told.

    Returns such nights. Raises `NotFound`.
    """
    schedules.take_turns(connection, schedule_id)  # first, as a closing: a night may be being begun
    schedule, now = schedules.find(connection, schedule_id), clock()
    over = [_called_off(connection, each, now) for each in nights.stand_still(connection, schedule_id)]
    for each in over:
        tell(connection, schedule, each, "night.ended", now)
    schedules.remove(connection, schedule_id)
    return over


def _called_off(connection: Connection, night: Night, now: datetime) -> Night:
    if night.batch_id is not None and not get_batch(connection, night.batch_id).state.has_ended:
        call_off(connection, night.batch_id, now)
    failures = {SCHEDULE_REMOVED: night.left}
    return nights.note(connection, night, state=NightState.CANCELLED, failures=failures, ended_at=now, estimate_at=None)


def _check_deadline(minutes: int | None) -> None:
    if minutes is not None and not 1 <= minutes <= MOST_MINUTES:
        raise UserError(f"A deadline is 1 to {MOST_MINUTES} minutes after the run's time.")


def _keep_apart(other: Schedule, source: str, deliver: str | None, format: Format) -> None:
    """Refuse what would write over another schedule's cutouts, or take one's cutouts for the other's photos.

    A paused one counts, because it may go on at any time. Files of two formats never have the same name.
    """
    which = f"Schedule {other.schedule_id}" + (", though it is paused," if other.paused_at is not None else "")
    if other.deliver is not None and overlap(other.deliver, source):
        raise UserError(f"{which} delivers into that source: its cutouts would be taken for photos. Keep them apart.")
    if deliver is None:
        return
    if overlap(deliver, other.source):
        raise UserError(f"{which} has its photos there: these cutouts would be taken for photos. Keep them apart.")
    if other.deliver is not None and overlap(deliver, other.deliver) and other.options.format is format:
        where = "there" if other.deliver == deliver else "into a folder above or below that one"
        raise AlreadyExists(
            f"{which} delivers {format} files {where} already: photos of one path would overwrite each other's cutouts "
            "every night. Deliver into a folder of its own, or choose another format, or remove that schedule first."
        )


def _refuse_what_needs_all(options: CutoutOptions) -> None:
    """A night's batch holds only what is new or changed: neither the wall, once it is known, nor the other photos."""
    if options.bg_image is not None:
        raise BadOptions(
            "A schedule cuts only what is new or changed, so bg_image would not be among its photos each night. "
            "Use bg_color, or send the photos with their background as a batch."
        )
    if options.consistent:
        raise BadOptions(
            "A schedule cuts only what is new or changed, so `consistent` could not set it like the photos of earlier "
            "nights. Leave it out, or send the whole folder as a batch."
        )
