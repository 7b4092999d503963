"""Nights: runs of schedules, each named by its schedule and its due time, so that none happens twice.

Whoever works on a night holds its lease. A process that dies loses it when its time is over, and the next one that asks
goes on where the night stands.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType

from pydantic import Field
from sqlalchemy import Connection, RowMapping, Select, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from schemas.errors import NotFound
from schemas.ids import AccountId, BatchId, Randomness
from schemas.record import Moment, Record
from store.records.schedules import Schedule, ScheduleId
from store.records.tables import nights, schedules

NightId = NewType("NightId", str)

LEASE_LIFE = timedelta(seconds=60)
"""A process that works on a night says so well within this; after it, the night is anybody's."""

_IS_WANTED = exists().where(schedules.c.schedule_id == nights.c.schedule_id)


class NightState(StrEnum):
    """How a night stands, or ended.

    `skipped`: its time came while the one before was still going. `cancelled`: its schedule was removed meanwhile.
    """

    RUNNING = "running"
    COMPLETED = "completed"
    PARTIALLY_COMPLETED = "partially_completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class Night(Record):
    """Numbers, codes and times of one run. `failures`: code -> photos, or the code of what ended the whole night.

    `skipped`: photos that were done before and have not changed. `deleted`: photos that are no longer in the source.
    `left_out`: files of the source that are no photo by their name, or whose path no cutout can have.
    `done`: cutouts made. `delivered`: of these, written into the customer's place.
    """

    night_id: NightId
    schedule_id: ScheduleId
    account_id: AccountId
    due_at: Moment
    started_at: Moment
    ended_at: Moment | None = None
    state: NightState
    batch_id: BatchId | None = None
    found: int = 0
    new: int = 0
    changed: int = 0
    skipped: int = 0
    deleted: int = 0
    left_out: int = 0
    done: int = 0
    delivered: int = 0
    failures: dict[str, int] = Field(default_factory=dict)
    deadline_at: Moment | None = None
    estimate_at: Moment | None = None
    alerted_at: Moment | None = None
    lease_holder: str | None = None
    lease_until: Moment | None = None

    @property
    def left(self) -> int:
        """Photos that were to be done and do not lie in the customer's place."""
        return max(0, self.new + self.changed - self.delivered)

    def is_held(self, now: datetime) -> bool:
        """Whether some process works on it."""
        return self.lease_until is not None and self.lease_until > now


def begin(
    connection: Connection,
    schedule: Schedule,
    due_at: datetime,
    now: datetime,
    randomness: Randomness,
    state: NightState = NightState.RUNNING,
) -> Night | None:
    """Record the run of a due time; None when there was one already."""
    deadline = due_at + timedelta(minutes=schedule.deadline_minutes) if schedule.deadline_minutes else None
    night = Night(
        night_id=NightId("n" + randomness(16).hex()),
        schedule_id=schedule.schedule_id,
        account_id=schedule.account_id,
        due_at=due_at,
        started_at=now,
        ended_at=None if state is NightState.RUNNING else now,
        state=state,
        deadline_at=deadline,
    )
    try:
        with connection.begin_nested():
            connection.execute(insert(nights).values(**night.model_dump()))
    except IntegrityError:
        return None
    return night


def find(connection: Connection, night_id: str) -> Night:
    """One night. Raises `NotFound`."""
    row = connection.execute(select(nights).where(nights.c.night_id == night_id)).mappings().first()
    if row is None:
        raise NotFound("There is no night of that id.")
    return _night(row)


def of_schedule(
    connection: Connection, schedule_id: str, limit: int = 30, before: datetime | None = None
) -> list[Night]:
    """A schedule's nights, the latest first; `before`: those that were due earlier."""
    query = select(nights).where(nights.c.schedule_id == schedule_id).order_by(nights.c.due_at.desc()).limit(limit)
    if before is not None:
        query = query.where(nights.c.due_at < before)
    return [_night(row) for row in connection.execute(query).mappings()]


def due_between(connection: Connection, schedule_id: str, since: datetime, until: datetime) -> list[Night]:
    """A schedule's nights that were due from `since` on and before `until`, the latest first."""
    is_then = (nights.c.due_at >= since) & (nights.c.due_at < until)
    query = select(nights).where(nights.c.schedule_id == schedule_id, is_then).order_by(nights.c.due_at.desc())
    return [_night(row) for row in connection.execute(query).mappings()]


def last(connection: Connection, schedule_id: str) -> Night | None:
    """A schedule's latest night that was not skipped, if there was one."""
    was_run = (nights.c.schedule_id == schedule_id) & (nights.c.state != NightState.SKIPPED)
    query = select(nights).where(was_run).order_by(nights.c.due_at.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else _night(row)


def running(connection: Connection, schedule_id: str) -> Night | None:
    """The night that is not over, if there is one: the oldest."""
    row = connection.execute(_going(schedule_id).limit(1)).mappings().first()
    return None if row is None else _night(row)


def stand_still(connection: Connection, schedule_id: str) -> list[Night]:
    """The nights that are not over. Until this transaction ends nobody else changes them."""
    return [_night(row) for row in connection.execute(_going(schedule_id).with_for_update()).mappings()]


def last_due(connection: Connection, schedule_id: str, now: datetime) -> datetime | None:
    """The latest due time by now that there was a night for, skipped ones included.

    A night of the future was begun by a clock that was wrong: no night waits until that time has come.
    """
    is_past = (nights.c.schedule_id == schedule_id) & (nights.c.due_at <= now)
    found: datetime | None = connection.execute(select(func.max(nights.c.due_at)).where(is_past)).scalar()
    return found


def have_delivered(connection: Connection, schedule_id: str) -> bool:
    """Whether a schedule's nights have written any cutout into the customer's place."""
    has_written = (nights.c.schedule_id == schedule_id) & (nights.c.delivered > 0)
    return connection.execute(select(nights.c.night_id).where(has_written).limit(1)).first() is not None


def count_held(connection: Connection, now: datetime) -> int:
    """How many nights processes work on just now."""
    is_held = nights.c.ended_at.is_(None) & (nights.c.lease_until > now)  # the first leads by the index
    return connection.execute(select(func.count()).select_from(nights).where(is_held)).scalar_one()


def hold(connection: Connection, night_id: NightId, holder: str, now: datetime) -> bool:
    """Take the lease of a running night. False when another process has it, or night or schedule are no more."""
    is_free = or_(nights.c.lease_until.is_(None), nights.c.lease_until <= now, nights.c.lease_holder == holder)
    taken = connection.execute(
        update(nights)
        .where(nights.c.night_id == night_id, nights.c.state == NightState.RUNNING, is_free, _IS_WANTED)
        .values(lease_holder=holder, lease_until=now + LEASE_LIFE)
    )
    return taken.rowcount == 1


def renew(connection: Connection, night_id: NightId, holder: str, now: datetime) -> bool:
    """Keep the lease. False when it was lost, or night or schedule are no more: whoever hears that must stop."""
    is_ours = (nights.c.night_id == night_id) & (nights.c.lease_holder == holder)
    kept = connection.execute(
        update(nights)
        .where(is_ours, nights.c.state == NightState.RUNNING, _IS_WANTED)
        .values(lease_until=now + LEASE_LIFE)
    )
    return kept.rowcount == 1


def let_go(connection: Connection, night_id: NightId, holder: str) -> None:
    """Give the lease back."""
    is_ours = (nights.c.night_id == night_id) & (nights.c.lease_holder == holder)
    connection.execute(update(nights).where(is_ours).values(lease_holder=None, lease_until=None))


def note(connection: Connection, night: Night, **values: object) -> Night:
    """Record more about a night; returns it as it is then."""
    connection.execute(update(nights).where(nights.c.night_id == night.night_id).values(**values))
    return find(connection, night.night_id)


def _going(schedule_id: str) -> Select[tuple[object, ...]]:
    """A schedule's nights that are not over, the oldest first."""
    is_going = (nights.c.schedule_id == schedule_id) & (nights.c.state == NightState.RUNNING)
    by_index = nights.c.ended_at.is_(None)  # says nothing new, and leads by the index of those past all that were
    return select(nights).where(is_going, by_index).order_by(nights.c.due_at)


def _night(row: RowMapping) -> Night:
    return Night.model_validate(dict(row))
