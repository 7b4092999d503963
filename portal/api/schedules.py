"""Schedules over REST: nights of the account's own, in places that an operator has let it use."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from flows.nights.report import Report, report_of
from portal import schedules as known
from portal.api.sender import Sender, TheOwner, TheSender
from schemas.industries import Industry
from schemas.options import CutoutOptions
from schemas.record import Moment, Record
from store.records import nights, schedules
from store.records.schedules import Overlap, Schedule

router = APIRouter(tags=["schedules"])


class NewSchedule(known.Wanted):
    """A run that starts itself. `deadline_minutes` count from each due time."""

    cron: Annotated[str, Field(max_length=100)]
    timezone: Annotated[str, Field(max_length=64)] = "UTC"
    source: Annotated[str, Field(max_length=500)]
    deliver: Annotated[str | None, Field(max_length=500)] = None
    deadline_minutes: Annotated[int | None, Field(ge=1, le=known.MOST_MINUTES)] = None


def _without_default(described: dict[str, Any]) -> None:
    described.pop("default", None)


_Stays = Field(json_schema_extra=_without_default)
"""When it is left out: a client that is told of a default might send it."""


class NewTimes(Record):
    """Other times of a schedule; what is left out stays as it is. `deadline_minutes`: null takes the deadline away."""

    cron: Annotated[str, Field(max_length=100), _Stays] = ""
    timezone: Annotated[str, Field(max_length=64), _Stays] = ""
    overlap: Annotated[Overlap, _Stays] = Overlap.SKIP
    deadline_minutes: Annotated[int | None, Field(ge=1, le=known.MOST_MINUTES), _Stays] = None


class ScheduleAnswer(Record):
    """A schedule of the account, as it stands: it may be older than the limits of a new one."""

    cron: str
    timezone: str
    source: str
    deliver: str | None
    industry: Industry | None
    options: CutoutOptions
    overlap: Overlap
    deadline_minutes: int | None
    schedule_id: str
    created_at: Moment
    paused_at: Moment | None
    next_at: Moment | None


class NightsPage(Record):
    """Reports of nights, the latest first. `next`: give it as `before` for the page after this one."""

    nights: tuple[Report, ...]
    next: str | None


@router.post("/schedules", status_code=201)
def add_schedule(sender: TheOwner, wanted: NewSchedule) -> ScheduleAnswer:
    """Add a schedule; it starts with the next due time."""
    portal = sender.portal
    with portal.records.transaction() as connection:
        made = known.add(connection, sender.account_id, wanted, portal.settings, portal.clock, portal.randomness)
    return _answer(sender, made)


@router.get("/schedules")
def list_schedules(sender: TheSender) -> list[ScheduleAnswer]:
    """The account's schedules."""
    with sender.portal.records.reading() as connection:
        found = schedules.list_all(connection, sender.account_id)
    return [_answer(sender, each) for each in found]


@router.get("/schedules/{schedule_id}")
def show_schedule(sender: TheSender, schedule_id: str) -> ScheduleAnswer:
    """One schedule."""
    return _answer(sender, _own(sender, schedule_id))


@router.patch("/schedules/{schedule_id}")
def retime_schedule(sender: TheOwner, schedule_id: str, times: NewTimes) -> ScheduleAnswer:
    """Give a schedule other times. It forgets nothing of what it has done; a night that is going goes on."""
    own, said = _own(sender, schedule_id), times.model_dump(exclude_unset=True)
    with sender.portal.records.transaction() as connection:
        return _answer(sender, known.retime(connection, own.schedule_id, sender.portal.clock, **said))


@router.delete("/schedules/{schedule_id}", status_code=204)
def remove_schedule(sender: TheOwner, schedule_id: str) -> None:
    """Forget a schedule, its fingerprints and their key. A night that is going is over, and its batch called off."""
    own = _own(sender, schedule_id)
    with sender.portal.records.transaction() as connection:
        known.remove(connection, own.schedule_id, sender.portal.clock)


@router.post("/schedules/{schedule_id}/pause")
def pause_schedule(sender: TheSender, schedule_id: str) -> ScheduleAnswer:
    """Start no more nights; one that is going goes on."""
    own = _own(sender, schedule_id)
    with sender.portal.records.transaction() as connection:
        schedules.pause(connection, own.schedule_id, sender.portal.clock())
    return _answer(sender, _own(sender, schedule_id))


@router.post("/schedules/{schedule_id}/resume")
def resume_schedule(sender: TheSender, schedule_id: str) -> ScheduleAnswer:
    """Start nights again, from the next due time on."""
    own = _own(sender, schedule_id)
    with sender.portal.records.transaction() as connection:
        schedules.resume(connection, own.schedule_id, sender.portal.clock())
    return _answer(sender, _own(sender, schedule_id))


@router.get("/schedules/{schedule_id}/nights")
def list_nights(
    sender: TheSender,
    schedule_id: str,
    before: Annotated[str | None, Query(max_length=33, pattern="^[0-9a-z]*$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> NightsPage:
    """The reports of a schedule's nights, the latest first: numbers and codes."""
    own, portal = _own(sender, schedule_id), sender.portal
    than = known.own_night(portal.records, own, before).due_at if before is not None else None
    with portal.records.reading() as connection:
        found = nights.of_schedule(connection, own.schedule_id, limit + 1, than)
    reports = tuple(report_of(each, portal.clock()) for each in found[:limit])
    return NightsPage(nights=reports, next=reports[-1].night_id if len(found) > limit else None)


@router.get("/schedules/{schedule_id}/nights/{night_id}")
def show_night(sender: TheSender, schedule_id: str, night_id: str) -> Report:
    """The report of one night, however long ago."""
    night = known.own_night(sender.portal.records, _own(sender, schedule_id), night_id)
    return report_of(night, sender.portal.clock())


def _own(sender: Sender, schedule_id: str) -> Schedule:
    return known.own_schedule(sender.portal.records, sender.account_id, schedule_id)


def _answer(sender: Sender, schedule: Schedule) -> ScheduleAnswer:
    names = set(ScheduleAnswer.model_fields) & set(Schedule.model_fields)
    next_at = known.next_at(schedule, sender.portal.clock())
    return ScheduleAnswer(**{name: getattr(schedule, name) for name in names}, next_at=next_at)
