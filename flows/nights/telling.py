"""What is told of a night while it goes and when it is over: records, webhooks, a page; numbers and codes alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from flows.nights.delivery import write_details
from flows.nights.report import NAMES_NOT_DELIVERED, markdown, report_of
from flows.nights.timetable import Pace, estimate, is_at_risk
from flows.nights.worker import Job, fenced
from schemas.counting import so_many
from store.records import nights, webhooks
from store.records.nights import Night, NightState
from store.records.schedules import Schedule

_log = logging.getLogger(__name__)


def watch_pace(job: Job, night: Night, pace: Pace | None) -> Night:
    """Estimate the end, and alert once, before the deadline is missed. `pace`: None while it gets no further."""
    now = job.parts.clock()
    ends_at = None if pace is None else estimate(pace, now)
    alerts = night.alerted_at is None and is_at_risk(night.started_at, night.deadline_at, ends_at, now)
    values: dict[str, object] = {"estimate_at": ends_at}
    if alerts:
        values["alerted_at"] = now
    with job.parts.records.transaction() as connection:
        night = nights.note(connection, night, **values)
        if alerts:
            tell(connection, job.schedule, night, "night.at_risk", now)
    if alerts:
        far = "it gets no further" if pace is None else f"{pace.done:,} of {so_many(pace.items, 'photo')}"
        _log.warning("night %s will miss its deadline: %s", night.night_id, far)
        job.worker.publish("night-at-risk", markdown(report_of(night, now), job.schedule))
    return night


def end(
    job: Job,
    night: Night,
    state: NightState,
    failures: dict[str, int],
    failed: Sequence[tuple[str, str, str]] = (),
) -> Night:
    """Record how the night ended, and tell: a page, the account's webhooks, and with names the customer's own place.

    `failures`: code -> photos. `failed`: name, code and sentence of each photo. Raises `LeaseLost`.
    """
    now = job.parts.clock()
    with fenced(job, night):
        pass  # else the page with names would be written over the one of who has the night by now
    over: dict[str, object] = {"state": state, "failures": failures, "ended_at": now, "estimate_at": None}
    if not write_details(job, night.model_copy(update=over), failed, now):
        over["failures"] = failures | {NAMES_NOT_DELIVERED: 0}
    with fenced(job, night) as connection:
        night = nights.note(connection, night, **over)
        tell(connection, job.schedule, night, "night.ended", now)
    job.worker.publish("night-report", markdown(report_of(night, now), job.schedule))
    return night


def tell(connection: Connection, schedule: Schedule, night: Night, kind: str, now: datetime) -> None:
    """Tell the account's webhooks. In the transaction that notes it: whoever dies after it has nothing more to say."""
    body = report_of(night, now).model_dump(mode="json")
    webhooks.enqueue(connection, schedule.account_id, kind, night.night_id, body, now)
