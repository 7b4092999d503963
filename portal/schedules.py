"""What an account may do with its schedules, on a page, by program or command: find one, add one, when it is next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from flows import timetable
from schemas.clock import Clock
from schemas.errors import BadOptions, NotFound, UserError
from schemas.ids import AccountId, Randomness
from schemas.industries import Industry
from schemas.options import CutoutOptions
from store import fingerprints, schedules
from store.outside import check_place
from store.people import require_open
from store.records import Records
from store.schedules import Overlap, Schedule
from store.settings import Settings


@dataclass(frozen=True)
class Wanted:
    """What somebody wants to run by itself. `deadline_minutes` count from each due time."""

    cron: str
    timezone: str
    source: str
    deliver: str | None
    industry: Industry | None
    options: CutoutOptions
    overlap: Overlap = Overlap.SKIP
    deadline_minutes: int | None = None


def own_schedule(records: Records, account_id: AccountId, schedule_id: str) -> Schedule:
    """One of the account's own schedules. Raises `NotFound` for others' as for none."""
    with records.reading() as connection:
        for each in schedules.list_all(connection, account_id):
            if each.schedule_id == schedule_id:
                return each
    raise NotFound("There is no schedule of that id in your account.")


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
    """Record it, once all is checked. Raises `NotAllowed` for a place that is not the account's, else `UserError`."""
    require_open(connection, account_id)
    _refuse_what_needs_all(wanted.options)
    timetable.check(wanted.cron, wanted.timezone)
    source = check_place(connection, account_id, wanted.source, settings)
    deliver = check_place(connection, account_id, wanted.deliver, settings) if wanted.deliver else None
    if deliver is not None and _overlap(deliver, source):
        raise UserError("Source and delivery overlap, so cutouts would be taken for photos. Keep them apart.")
    if deliver is not None and any(
        each.deliver is not None and _overlap(deliver, each.deliver) and each.source != source
        for each in schedules.list_all(connection, account_id)
    ):
        raise UserError(
            "Another schedule delivers there from another source: photos of one path would overwrite each other's "
            "cutouts. Give each source a folder of its own."
        )
    if wanted.deadline_minutes is not None and wanted.deadline_minutes < 1:
        raise UserError("A deadline is some minutes after the run's time, at least one.")
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


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


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
