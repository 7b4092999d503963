"""What is told of a night while it goes and when it is over: records, webhooks, a page; numbers and codes alone."""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy import Connection

from flows.night_delivery import write_details
from flows.night_report import markdown, report_of
from flows.night_worker import Worker, fenced
from flows.parts import Parts
from flows.timetable import Pace, estimate, is_at_risk
from schemas.counting import so_many
from store import nights, webhooks
from store.nights import Night, NightState
from store.schedules import Schedule

_log = logging.getLogger(__name__)


def watch_pace(parts: Parts, schedule: Schedule, night: Night, worker: Worker, pace: Pace | None) -> Night:
    """Estimate the end, and alert once, before the deadline is missed. `pace`: None while it gets no further."""
    now = parts.clock()
    ends_at = None if pace is None else estimate(pace, now)
    alerts = night.alerted_at is None and is_at_risk(night.started_at, night.deadline_at, ends_at, now)
    values: dict[str, object] = {"estimate_at": ends_at}
    if alerts:
        values["alerted_at"] = now
    with parts.records.transaction() as connection:
        night = nights.note(connection, night, **values)
        if alerts:
            tell(connection, schedule, night, "night.at_risk", now)
    if alerts:
        far = "it gets no further" if pace is None else f"{pace.done:,} of {so_many(pace.items, 'photo')}"
        _log.warning("night %s will miss its deadline: %s", night.night_id, far)
        worker.publish("night-at-risk", markdown(report_of(night, now), schedule))
    return night


def end(
    parts: Parts,
    schedule: Schedule,
    night: Night,
    worker: Worker,
    state: NightState,
    failures: dict[str, int],
    failed: list[tuple[str, str, str]] | None = None,
) -> Night:
    """Record how the night ended, and tell: a page, the account's webhooks, and with names the customer's own place.

    Raises `LeaseLost`.
    """
    now = parts.clock()
    with fenced(parts, night, worker):
        pass  # else the page with names would be written over the one of who has the night by now
    over = {"state": state, "failures": failures, "ended_at": now, "estimate_at": None}
    write_details(parts, schedule, night.model_copy(update=over), failed or [], now)
    with fenced(parts, night, worker) as connection:
        night = nights.note(connection, night, **over)
        tell(connection, schedule, night, "night.ended", now)
    worker.publish("night-report", markdown(report_of(night, now), schedule))
    return night


def tell(connection: Connection, schedule: Schedule, night: Night, kind: str, now: datetime) -> None:
    """Tell the account's webhooks. In the transaction that notes it: whoever dies after it has nothing more to say."""
    body = report_of(night, now).model_dump(mode="json")
    webhooks.enqueue(connection, schedule.account_id, kind, night.night_id, body, now)
