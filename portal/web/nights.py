"""Schedules and their mornings: what runs by itself, when it runs next, and what each night did.

GET  /nights                                  the account's schedules
POST /nights/{schedule_id}/pause, …/resume    field: form_token                       -> 303 /nights
GET  /nights/{schedule_id}                    one schedule and 30 of its nights; ?before=<night id> for earlier ones
GET  /nights/{schedule_id}/{night_id}         the morning's report
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, RedirectResponse

from flows.nights.report import Report, report_of
from portal.schedules import next_at, own_night, own_schedule
from portal.web.plainly import asked_for, when
from portal.web.portal import Changer, Portal, SignedIn, ThePortal
from store.records import nights, schedules
from store.records.schedules import Schedule
from store.records.sessions import Session

PAGE = "/nights"
_NIGHTS = 30  # on a page

router = APIRouter()


@dataclass(frozen=True)
class ScheduleView:
    """A schedule, when it runs next (None while it is paused), and its nights, the latest first."""

    schedule: Schedule
    next_at: datetime | None
    reports: tuple[Report, ...]

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which people think of it."""
        return ZoneInfo(self.schedule.timezone)

    @property
    def when(self) -> str | None:
        """Its times in words, if they are plain."""
        return when(self.schedule.cron)

    @property
    def cutouts(self) -> str:
        """What its cutouts are like."""
        return asked_for(self.schedule.options)


@router.get(PAGE)
def show_all(portal: ThePortal, session: SignedIn) -> HTMLResponse:
    """What runs by itself."""
    with portal.records.reading() as connection:
        own = schedules.list_all(connection, session.person.account_id)
    views = [_view(portal, each, 1) for each in own]
    return portal.page("nights.html", session=session, schedules=views)


@router.get(f"{PAGE}/{{schedule_id}}")
def show_schedule(
    portal: ThePortal,
    session: SignedIn,
    schedule_id: str,
    before: Annotated[str | None, Query(max_length=33, pattern="^[0-9a-z]*$")] = None,
) -> HTMLResponse:
    """One schedule and its nights, the latest first."""
    schedule = _find(portal, session, schedule_id)
    than = own_night(portal.records, schedule, before).due_at if before else None
    view = _view(portal, schedule, _NIGHTS + 1, than)
    shown = replace(view, reports=view.reports[:_NIGHTS])
    older = shown.reports[-1].night_id if len(view.reports) > _NIGHTS else None
    return portal.page("schedule.html", session=session, view=shown, older=older, is_first=than is None)


@router.get(f"{PAGE}/{{schedule_id}}/{{night_id}}")
def show_night(portal: ThePortal, session: SignedIn, schedule_id: str, night_id: str) -> HTMLResponse:
    """The report of one night."""
    schedule = _find(portal, session, schedule_id)
    report = report_of(own_night(portal.records, schedule, night_id), portal.clock())
    return portal.page("night.html", session=session, view=_view(portal, schedule, 0), report=report)


@router.post(f"{PAGE}/{{schedule_id}}/pause")
def pause(portal: ThePortal, session: Changer, schedule_id: str) -> RedirectResponse:
    """Start no more nights; one that is going goes on."""
    own = _find(portal, session, schedule_id)
    with portal.records.transaction() as connection:
        schedules.pause(connection, own.schedule_id, portal.clock())
    return RedirectResponse(PAGE, status_code=303)


@router.post(f"{PAGE}/{{schedule_id}}/resume")
def resume(portal: ThePortal, session: Changer, schedule_id: str) -> RedirectResponse:
    """Start nights again, from the next due time on."""
    own = _find(portal, session, schedule_id)
    with portal.records.transaction() as connection:
        schedules.resume(connection, own.schedule_id, portal.clock())
    return RedirectResponse(PAGE, status_code=303)


def _find(portal: Portal, session: Session, schedule_id: str) -> Schedule:
    return own_schedule(portal.records, session.person.account_id, schedule_id)


def _view(portal: Portal, schedule: Schedule, most: int, before: datetime | None = None) -> ScheduleView:
    """`most`: how many of its nights."""
    now = portal.clock()
    with portal.records.reading() as connection:
        found = nights.of_schedule(connection, schedule.schedule_id, most, before)
    return ScheduleView(schedule, next_at(schedule, now), tuple(report_of(each, now) for each in found))
