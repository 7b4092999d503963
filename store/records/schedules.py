"""Schedules: runs that start themselves. What the customer set, and the key of its fingerprints; gone when removed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import NewType

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from schemas.errors import NotFound
from schemas.ids import AccountId, Randomness
from schemas.industries import Industry
from schemas.options import CutoutOptions
from schemas.record import Moment, Record
from store.records.tables import fingerprints, schedules

ScheduleId = NewType("ScheduleId", str)


class Overlap(StrEnum):
    """What becomes of a run whose time comes while the one before is still going."""

    SKIP = "skip"
    WAIT = "wait"


class Schedule(Record):
    """When to look at which place, and where cutouts go. `deadline_minutes` count from the due time."""

    schedule_id: ScheduleId
    account_id: AccountId
    cron: str
    timezone: str
    source: str
    deliver: str | None
    industry: Industry | None
    options: CutoutOptions
    overlap: Overlap
    deadline_minutes: int | None
    fingerprint_key: str
    created_at: Moment
    paused_at: Moment | None = None
    resumed_at: Moment | None = None

    @property
    def counts_from(self) -> datetime:
        """Due times up to here are none of its business."""
        return max(self.created_at, self.resumed_at or self.created_at)


def new_schedule_id(randomness: Randomness) -> ScheduleId:
    """`s` and 32 hex digits."""
    return ScheduleId("s" + randomness(16).hex())


def add(connection: Connection, schedule: Schedule) -> None:
    """Record it."""
    connection.execute(insert(schedules).values(**_row(schedule)))


def find(connection: Connection, schedule_id: str) -> Schedule:
    """One schedule. Raises `NotFound`."""
    row = connection.execute(select(schedules).where(schedules.c.schedule_id == schedule_id)).mappings().first()
    if row is None:
        raise NotFound("There is no schedule of that id. `bgbatch schedule list` shows those that there are.")
    return _schedule(row)


def list_all(connection: Connection, account_id: AccountId | None = None) -> list[Schedule]:
    """All schedules, or those of one account, the oldest first."""
    query = select(schedules).order_by(schedules.c.created_at, schedules.c.schedule_id)
    if account_id is not None:
        query = query.where(schedules.c.account_id == account_id)
    return [_schedule(row) for row in connection.execute(query).mappings()]


def list_ids(connection: Connection) -> dict[ScheduleId, AccountId]:
    """All, also what can be read no more, and whose they are: the oldest of each account, then the second of each."""
    oldest = (schedules.c.created_at, schedules.c.schedule_id)
    place = func.row_number().over(partition_by=schedules.c.account_id, order_by=oldest)
    query = select(schedules.c.schedule_id, schedules.c.account_id).order_by(place, *oldest)
    return {ScheduleId(each.schedule_id): AccountId(each.account_id) for each in connection.execute(query)}


def take_turns(connection: Connection, schedule_id: ScheduleId) -> None:
    """Before it is looked whether a night is to be begun: whoever else does so waits until this transaction ends.

    Raises `NotFound` for a schedule that was removed since somebody looked.
    """
    own = select(schedules.c.schedule_id).where(schedules.c.schedule_id == schedule_id)
    if connection.execute(own.with_for_update()).first() is None:
        raise NotFound("There is no schedule of that id.")


def pause(connection: Connection, schedule_id: ScheduleId, now: datetime) -> None:
    """Start no more runs. One that is going goes on. Raises `NotFound`."""
    _set(connection, schedule_id, paused_at=now)


def resume(connection: Connection, schedule_id: ScheduleId, now: datetime) -> None:
    """Start runs again. What was missed in between is not caught up. Raises `NotFound`."""
    if find(connection, schedule_id).paused_at is not None:
        _set(connection, schedule_id, paused_at=None, resumed_at=now)


def retime(
    connection: Connection, schedule_id: ScheduleId, times: Mapping[str, object], other_clock_at: datetime | None
) -> None:
    """Record these of its times, and no other: somebody else may change those meanwhile. Raises `NotFound`.

    `other_clock_at`: from when on it goes by another clock, whose due times before are not caught up.
    """
    _set(connection, schedule_id, **times, **({} if other_clock_at is None else {"resumed_at": other_clock_at}))


def remove(connection: Connection, schedule_id: ScheduleId) -> None:
    """Forget a schedule, its fingerprints and the key that made them. Its nights stay as numbers. Raises `NotFound`."""
    connection.execute(delete(fingerprints).where(fingerprints.c.schedule_id == schedule_id))
    if connection.execute(delete(schedules).where(schedules.c.schedule_id == schedule_id)).rowcount == 0:
        raise NotFound("There is no schedule of that id.")


def _set(connection: Connection, schedule_id: ScheduleId, **values: object) -> None:
    changed = connection.execute(update(schedules).where(schedules.c.schedule_id == schedule_id).values(**values))
    if changed.rowcount == 0:
        raise NotFound("There is no schedule of that id.")


def _row(schedule: Schedule) -> dict[str, object]:
    return schedule.model_dump() | {"options": schedule.options.model_dump(mode="json")}


def _schedule(row: RowMapping) -> Schedule:
    return Schedule.model_validate(dict(row))
