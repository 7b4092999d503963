"""When nights are due: tables of times, clocks that change, and what was missed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flows.nights.timetable import (
    Action,
    Going,
    Pace,
    Step,
    Timetable,
    decide,
    estimate,
    is_at_risk,
    newest_due,
    next_due,
)
from store.records.schedules import Overlap

BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NOW = utc("2026-11-26T01:00")
STILL_GOING = Going(is_held=True, has_batch=True, can_go_on=True)
INTERRUPTED = Going(is_held=False, has_batch=True, can_go_on=True)
NOT_BEGUN = Going(is_held=False, has_batch=False, can_go_on=True)
PURGED = Going(is_held=False, has_batch=True, can_go_on=False)
BEGIN, SKIP, GO_ON, GIVE_UP = Action(Step.BEGIN, NOW), Action(Step.SKIP, NOW), Action(Step.GO_ON), Action(Step.GIVE_UP)


@pytest.mark.parametrize(
    ("cron", "after", "due"),
    [
        ("0 2 * * *", "2026-11-25T18:00", "2026-11-26T01:00"),
        ("0 2 * * *", "2026-07-01T18:00", "2026-07-02T00:00"),
        # 29 March 2026: from 02:00 on it is 03:00. A time that does not exist is run when the hour is over.
        ("30 2 * * *", "2026-03-28T12:00", "2026-03-29T01:00"),
        ("30 2 * * *", "2026-03-29T01:00", "2026-03-30T00:30"),
        # 25 October 2026: the hour from 02:00 to 03:00 comes twice. It is run the first time.
        ("30 2 * * *", "2026-10-24T12:00", "2026-10-25T00:30"),
        ("30 2 * * *", "2026-10-25T00:30", "2026-10-26T01:30"),
    ],
)
def test_due_times_follow_the_clock_on_the_wall(cron: str, after: str, due: str) -> None:
    assert next_due(cron, BERLIN, utc(after)) == utc(due)


@example(utc("2026-10-25T01:00"), "30 2 * * *")  # 02:30 has come once, and the clock says 02:00 again
@given(
    st.integers(0, 274 * 24 * 60).map(lambda minutes: utc("2026-03-01T00:00") + timedelta(minutes=minutes)),
    st.sampled_from(["0 2 * * *", "30 2 * * *", "*/20 * * * *", "15 2,3 * * 0", "0 0 1 * *"]),
)
def test_the_newest_due_time_is_the_last_one_that_has_come(moment: datetime, cron: str) -> None:
    newest = newest_due(cron, BERLIN, moment - timedelta(days=400), moment)
    assert newest is not None
    assert newest <= moment < next_due(cron, BERLIN, newest)


@pytest.mark.parametrize("cron", ["0 2 * * *", "30 2 * * *", "0 5 * * 1"])
@pytest.mark.parametrize("month", [3, 10])
def test_a_night_is_due_when_prefect_starts_it(cron: str, month: int) -> None:
    """Prefect runs a time that does not exist later than we do, never earlier: so it finds its night due."""
    from prefect.server.schemas.schedules import CronSchedule

    start = datetime(2026, month, 20, tzinfo=ZoneInfo(BERLIN))
    theirs = asyncio.run(CronSchedule(cron=cron, timezone=BERLIN).get_dates(n=14, start=start))
    before = start
    for date in theirs:
        moment = datetime.fromtimestamp(date.timestamp(), UTC)
        assert newest_due(cron, BERLIN, before, moment) is not None
        before = moment


@pytest.mark.parametrize(
    ("last", "going", "overlap", "actions"),
    [
        (None, None, Overlap.SKIP, (BEGIN,)),
        (NOW - timedelta(days=9), None, Overlap.SKIP, (BEGIN,)),
        (NOW, None, Overlap.SKIP, ()),
        (NOW, INTERRUPTED, Overlap.SKIP, (GO_ON,)),
        (NOW, NOT_BEGUN, Overlap.SKIP, (GO_ON,)),
        (NOW, STILL_GOING, Overlap.SKIP, ()),
        (NOW, PURGED, Overlap.SKIP, (GIVE_UP,)),
        (NOW - timedelta(days=1), STILL_GOING, Overlap.SKIP, (SKIP,)),
        (NOW - timedelta(days=1), STILL_GOING, Overlap.WAIT, ()),
        (NOW - timedelta(days=1), INTERRUPTED, Overlap.SKIP, (SKIP, GO_ON)),
        (NOW - timedelta(days=1), INTERRUPTED, Overlap.WAIT, (GO_ON,)),
        (NOW - timedelta(days=1), NOT_BEGUN, Overlap.SKIP, (GIVE_UP, BEGIN)),
        (NOW - timedelta(days=1), PURGED, Overlap.WAIT, (GIVE_UP, BEGIN)),
    ],
)
def test_what_is_done_now(
    last: datetime | None, going: Going | None, overlap: Overlap, actions: tuple[Action, ...]
) -> None:
    times = Timetable("0 2 * * *", BERLIN, overlap, counts_from=NOW - timedelta(days=30))
    assert decide(times, last, going, NOW + timedelta(minutes=3)) == actions


@pytest.mark.parametrize(
    ("going", "actions"),
    [(None, ()), (STILL_GOING, ()), (INTERRUPTED, (GO_ON,)), (NOT_BEGUN, (GIVE_UP,)), (PURGED, (GIVE_UP,))],
)
def test_a_schedule_that_is_paused_begins_nothing_and_ends_what_it_began(
    going: Going | None, actions: tuple[Action, ...]
) -> None:
    times = Timetable("0 2 * * *", BERLIN, Overlap.SKIP, counts_from=NOW - timedelta(days=30), is_paused=True)
    assert decide(times, NOW - timedelta(days=1), going, NOW + timedelta(minutes=3)) == actions
    if going is NOT_BEGUN:
        assert decide(times, NOW, going, NOW + timedelta(minutes=3)) == (GO_ON,), "its own time is not over"


def test_a_schedule_is_not_due_for_the_time_before_it_was_made() -> None:
    times = Timetable("0 2 * * *", BERLIN, Overlap.SKIP, counts_from=NOW + timedelta(minutes=1))
    assert decide(times, None, None, NOW + timedelta(hours=5)) == ()


@pytest.mark.parametrize(
    ("done_then", "done", "minutes", "left"),
    [(0, 0, 10, None), (0, 50, 10, 10), (40, 50, 10, 50), (0, 100, 10, 0), (50, 50, 10, None), (0, 50, 0, None)],
)
def test_an_estimate_goes_by_the_pace_since_the_work_began(
    done_then: int, done: int, minutes: int, left: int | None
) -> None:
    now = NOW + timedelta(minutes=minutes)
    ends = estimate(Pace(NOW, done_then, done, 100), now)
    assert ends == (None if left is None else now + timedelta(minutes=left))


@pytest.mark.parametrize(
    ("ends_after", "minutes", "risk"),
    [(61, 5, True), (60, 5, False), (59, 5, False), (None, 29, False), (None, 30, True)],
)
def test_a_deadline_is_at_risk_by_estimate_or_when_nothing_was_done_by_half_time(
    ends_after: int | None, minutes: int, risk: bool
) -> None:
    ends = None if ends_after is None else NOW + timedelta(minutes=ends_after)
    now = NOW + timedelta(minutes=minutes)
    assert is_at_risk(NOW, NOW + timedelta(hours=1), ends, now) is risk
    assert not is_at_risk(NOW, None, ends, now)
