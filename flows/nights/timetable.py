"""When a schedule's nights are due, and what to do about it now. Pure: times and facts in, decisions out.

1. A due time is run at most once. Of several that were missed, the last one is caught up, the others never.
2. An interrupted night goes on as long as its batch lives; one that found no batch, until the next due time, be the
   schedule paused by then. After that it is given up, and the newest due time is run.
3. A due time that comes while the night before is still going is skipped, or waits until that one is over.
4. When the clocks go forward, a time that does not exist is run as soon as the hour is over; when they go back, a time
   that happens twice is run the first time (cronsim, which follows Debian's cron).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from schemas.errors import UserError
from store.records.schedules import Overlap

MOST_OF_CRON = 100
"""Characters: the records hold no more."""
_SECOND = timedelta(seconds=1)


class Step(Enum):
    """What to do with a due time, or with the night that is there."""

    BEGIN = "begin"
    SKIP = "skip"
    GO_ON = "go on"
    GIVE_UP = "give up"


@dataclass(frozen=True)
class Action:
    """One thing to do. `due_at`: of the night to begin or to skip."""

    step: Step
    due_at: datetime | None = None


@dataclass(frozen=True)
class Timetable:
    """A schedule's times. Due times up to `counts_from` are none of its business, and while it is paused none is."""

    cron: str
    timezone: str
    overlap: Overlap
    counts_from: datetime
    is_paused: bool = False


@dataclass(frozen=True)
class Going:
    """The night that is not over. `is_held`: a process works on it. `can_go_on`: its batch lives, or is to be made."""

    is_held: bool
    has_batch: bool
    can_go_on: bool


def check(cron: str, timezone: str) -> None:
    """Raise `UserError` for a cron line or a time zone that cannot be."""
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise UserError("There is no time zone of that name. Give one such as Europe/Berlin or UTC.") from None
    if len(cron) > MOST_OF_CRON:
        raise UserError(f"A cron line has at most {MOST_OF_CRON} characters.")
    if len(cron.split()) != 5:
        raise UserError('A cron line has five fields, such as "0 2 * * *" for two o\'clock each night.')
    try:
        next(CronSim(cron, datetime(2026, 1, 1, tzinfo=zone)))
    except (CronSimError, StopIteration):
        raise UserError(
            'That cron line cannot be read, or never comes true. "0 2 * * *" is two o\'clock each night.'
        ) from None


def next_due(cron: str, timezone: str, after: datetime) -> datetime:
    """The first due time after `after`."""
    return next(CronSim(cron, after.astimezone(ZoneInfo(timezone)))).astimezone(UTC)


def newest_due(cron: str, timezone: str, after: datetime, now: datetime) -> datetime | None:
    """The last due time that has come by `now`, if it is later than `after`."""
    until = (now.replace(microsecond=0) + _SECOND).astimezone(ZoneInfo(timezone))
    try:
        due: datetime = next(CronSim(cron, until, reverse=True)).astimezone(UTC)
    except StopIteration:
        return None
    while (later := next_due(cron, timezone, due)) <= now:  # backwards it misses one in the hour that comes twice
        due = later
    return due if due > after else None


def decide(times: Timetable, last_due: datetime | None, going: Going | None, now: datetime) -> tuple[Action, ...]:
    """What to do now, in order. `last_due`: the latest due time that there was a night for, if any."""
    after = max(times.counts_from, last_due or times.counts_from)
    next_one = newest_due(times.cron, times.timezone, after, now)
    due = None if times.is_paused else next_one
    begins = () if due is None else (Action(Step.BEGIN, due),)
    if going is None:
        return begins
    if not going.is_held and (not going.can_go_on or (next_one is not None and not going.has_batch)):
        return (Action(Step.GIVE_UP), *begins)
    skips = () if due is None or times.overlap is Overlap.WAIT else (Action(Step.SKIP, due),)
    return skips if going.is_held else (*skips, Action(Step.GO_ON))


@dataclass(frozen=True)
class Pace:
    """How fast it goes: since `since`, when `done_then` photos were done, `done` are done of `items`."""

    since: datetime
    done_then: int
    done: int
    items: int


def estimate(pace: Pace, now: datetime) -> datetime | None:
    """When the last photo will be done at this pace; None while nothing tells a pace."""
    fresh = pace.done - pace.done_then
    if pace.done >= pace.items:
        return now
    if fresh <= 0 or now <= pace.since:
        return None
    return now + (now - pace.since) / fresh * (pace.items - pace.done)


def is_at_risk(started_at: datetime, deadline_at: datetime | None, ends_at: datetime | None, now: datetime) -> bool:
    """Whether the deadline will be missed as things go. Without an estimate: when half of the time is over."""
    if deadline_at is None:
        return False
    if ends_at is None:
        return now >= started_at + (deadline_at - started_at) / 2
    return ends_at > deadline_at
