"""What is asked of one schedule's nights says nothing of another's, and a night is worked on by one at a time."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from schemas.errors import NotFound
from store.records import fingerprints, nights, schedules
from store.records.database import Records
from store.records.nights import LEASE_LIFE, Night, NightState
from store.records.people import create_account
from store.records.schedules import Schedule
from tests.schedules import nightly
from tests.store.conftest import NOON, later

DAY = timedelta(days=1)


@pytest.fixture
def two(records: Records) -> list[Schedule]:
    """Two schedules of one account, with a deadline of four hours."""
    with records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", NOON, os.urandom)
        made = [nightly(account_id, NOON, deadline_minutes=240) for _ in range(2)]
        for each in made:
            schedules.add(connection, each)
    return made


def begin(records: Records, schedule: Schedule, day: int, state: NightState = NightState.RUNNING) -> Night:
    with records.transaction() as connection:
        night = nights.begin(connection, schedule, NOON + day * DAY, NOON + day * DAY, os.urandom, state)
    assert night is not None
    return night


def test_nights_are_found_by_schedule_and_due_time_the_latest_first(records: Records, two: list[Schedule]) -> None:
    one, other = two
    own = [begin(records, one, day) for day in (2, 0, 3, 1)]
    latest = sorted(own, key=lambda night: night.due_at, reverse=True)
    theirs = begin(records, other, 0)
    skipped = begin(records, one, 4, NightState.SKIPPED)
    with records.reading() as connection:
        asked = one.schedule_id
        assert nights.of_schedule(connection, asked) == [skipped, *latest]
        assert nights.of_schedule(connection, asked, limit=2) == [skipped, latest[0]]
        assert nights.of_schedule(connection, asked, before=NOON + 2 * DAY) == latest[2:]
        assert nights.due_between(connection, asked, NOON + DAY, NOON + 3 * DAY) == latest[1:3]
        assert nights.last(connection, asked) == latest[0]
        assert nights.running(connection, asked) == latest[-1]
        assert nights.last_due(connection, asked, NOON + DAY) == NOON + DAY
        assert nights.find(connection, theirs.night_id) == theirs
        assert nights.of_schedule(connection, other.schedule_id) == [theirs]
        nobodys = schedules.new_schedule_id(os.urandom)
        assert nights.last(connection, nobodys) is nights.running(connection, nobodys) is None
        with pytest.raises(NotFound):
            nights.find(connection, "n" + "0" * 32)
    assert theirs.deadline_at == theirs.due_at + timedelta(hours=4)
    assert (theirs.ended_at, skipped.ended_at) == (None, skipped.started_at)
    with records.transaction() as connection:
        assert nights.stand_still(connection, one.schedule_id) == latest[::-1]
        assert nights.begin(connection, one, NOON, NOON, os.urandom) is None, "one night for each due time"


def test_whoever_holds_a_night_holds_it_alone_until_they_let_go_or_their_time_is_over(
    records: Records, two: list[Schedule]
) -> None:
    night, beside = (begin(records, each, 0) for each in two)
    with records.transaction() as connection:
        assert nights.hold(connection, night.night_id, "me", NOON)
        assert nights.hold(connection, night.night_id, "me", NOON), "their own is no other's"
        assert nights.hold(connection, beside.night_id, "you", NOON)
        almost, over = NOON + LEASE_LIFE - timedelta(seconds=1), NOON + LEASE_LIFE
        assert not nights.hold(connection, night.night_id, "you", almost)
        assert not nights.renew(connection, night.night_id, "you", almost)
        assert not nights.renew(connection, night.night_id, "nobody", almost)
        nights.let_go(connection, night.night_id, "you")
        assert nights.find(connection, night.night_id).lease_holder == "me"
        assert nights.renew(connection, night.night_id, "me", almost)
        assert not nights.hold(connection, night.night_id, "you", over), "renewed"
        nights.let_go(connection, night.night_id, "me")
        assert nights.find(connection, night.night_id).lease_holder is None
        assert nights.find(connection, beside.night_id).lease_holder == "you"
        assert nights.hold(connection, night.night_id, "you", over)
        assert nights.hold(connection, night.night_id, "me", over + LEASE_LIFE), "whoever died is waited for so long"


def test_a_night_that_is_over_or_unwanted_is_held_by_nobody(records: Records, two: list[Schedule]) -> None:
    ended, unwanted = (begin(records, each, 0) for each in two)
    with records.transaction() as connection:
        for night in (ended, unwanted):
            assert nights.hold(connection, night.night_id, "me", NOON)
        assert nights.note(connection, ended, state=NightState.COMPLETED).state is NightState.COMPLETED
        assert nights.find(connection, unwanted.night_id).state is NightState.RUNNING
        schedules.remove(connection, two[1].schedule_id)
        for night in (ended, unwanted):
            assert not nights.renew(connection, night.night_id, "me", NOON)
            assert not nights.hold(connection, night.night_id, "me", NOON)


def test_what_is_done_to_one_schedule_leaves_the_other_as_it_is(records: Records, two: list[Schedule]) -> None:
    one, other = two
    with records.transaction() as connection:
        schedules.pause(connection, one.schedule_id, NOON)
        assert schedules.find(connection, one.schedule_id).paused_at == NOON
        assert schedules.find(connection, other.schedule_id) == other
        schedules.pause(connection, other.schedule_id, NOON)
        schedules.resume(connection, one.schedule_id, later(hours=1))
        assert schedules.find(connection, one.schedule_id).paused_at is None
        assert schedules.find(connection, other.schedule_id).paused_at == NOON
        for each in two:
            fingerprints.remember(connection, each.schedule_id, {"path": "state", "gone": "state"})
        fingerprints.forget(connection, one.schedule_id, ["gone"])
        assert fingerprints.known(connection, one.schedule_id) == {"path": "state"}
        fingerprints.remember(connection, one.schedule_id, {"path": "another"})
        schedules.remove(connection, one.schedule_id)
        assert fingerprints.known(connection, one.schedule_id) == {}
        assert fingerprints.known(connection, other.schedule_id) == {"path": "state", "gone": "state"}
        assert [each.schedule_id for each in schedules.list_all(connection)] == [other.schedule_id]
