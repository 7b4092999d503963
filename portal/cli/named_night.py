"""Which night somebody means: by its day, by its time, or by its id."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from portal.schedules import own_night
from schemas.errors import NotFound, UserError
from store.records import nights
from store.records.database import Records
from store.records.nights import Night
from store.records.schedules import Schedule

HOW = "its day (2026-11-25), its time (2026-11-25T02:00) on the schedule's own clock, or its id"


def named_night(records: Records, schedule: Schedule, which: str) -> Night:
    """The night that is meant, however long ago. Raises `NotFound`, `UserError` when it may be one of several."""
    times = _times(which.strip(), ZoneInfo(schedule.timezone))
    if times is None:
        try:
            return own_night(records, schedule, which.strip())
        except NotFound:
            raise NotFound(f"The schedule had no such night. Name it by {HOW}.") from None
    with records.reading() as connection:
        found = nights.due_between(connection, schedule.schedule_id, *times)
    if not found:
        raise NotFound(
            "No night of the schedule was due then. `bgbatch schedule show SCHEDULE --nights 100` lists its last ones."
        )
    if len(found) > 1:
        raise UserError(
            f"{len(found)} nights were due then. Say the time, too (2026-11-25T02:00), or the night's id: "
            "`bgbatch schedule show SCHEDULE --json` has both."
        )
    return found[0]


def _times(which: str, zone: ZoneInfo) -> tuple[datetime, datetime] | None:
    """From when until before when it was due; None for what is neither a day nor a time."""
    try:
        try:
            day = date.fromisoformat(which)
            begins = datetime(day.year, day.month, day.day, tzinfo=zone)
            return begins.astimezone(UTC), (begins + timedelta(days=1)).astimezone(UTC)  # of 23 or 25 hours
        except ValueError:
            time = datetime.fromisoformat(which)
            since = (time if time.tzinfo is not None else time.replace(tzinfo=zone)).astimezone(UTC)
            return since, since + timedelta(minutes=1)
    except (ValueError, OverflowError):
        return None
