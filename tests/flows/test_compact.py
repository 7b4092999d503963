"""Small files are merged at night, in the time between two cleanups, until none is left to merge."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.parts import Parts, open_parts
from lake.compact import Compacted
from portal.cli.upkeep import _compact_if_due
from schemas.errors import StoreFault
from tests.records import at_home

EVENING = datetime(2026, 11, 25, 20, tzinfo=UTC)
NIGHT = datetime(2026, 11, 26, 3, 1, tzinfo=UTC)
EVERY = timedelta(minutes=10)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return open_parts(at_home(tmp_path), lambda: EVENING)


@pytest.fixture
def merging(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """Until when each merging was told to work; the first does not get to its end."""
    begun: list[datetime] = []

    def compact(until: datetime) -> Compacted:
        begun.append(until)
        return Compacted(left=1 if len(begun) == 1 else 0)

    monkeypatch.setattr("flows.compact.compact", compact)
    return begun


def test_merging_begins_at_night_and_goes_on_after_each_cleanup_until_it_is_done(
    parts: Parts, merging: list[datetime]
) -> None:
    last, now = EVENING, EVENING
    while now < NIGHT + timedelta(hours=3):
        last = _compact_if_due("0 3 * * *", last, now + EVERY, replace(parts, clock=lambda now=now: now))
        now += EVERY
    assert merging == [NIGHT.replace(minute=10), NIGHT.replace(minute=20)]


def test_without_a_time_others_merge(parts: Parts, merging: list[datetime]) -> None:
    _compact_if_due("", EVENING, NIGHT, replace(parts, clock=lambda: NIGHT + timedelta(days=3)))
    assert merging == []


def test_a_merge_that_fails_waits_for_the_next_night(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def compact(until: datetime) -> Compacted:
        raise OSError

    monkeypatch.setattr("flows.compact.compact", compact)
    assert _compact_if_due("0 3 * * *", EVENING, NIGHT + EVERY, replace(parts, clock=lambda: NIGHT)) == NIGHT


def test_a_merge_that_fails_leaves_the_others_the_rest_of_the_night(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One damaged file, and more to merge than there is time for between two cleanups."""

    def compact(until: datetime) -> Compacted:
        moments[0] = until
        raise StoreFault("A candidate file cannot be read.")

    monkeypatch.setattr("flows.compact.compact", compact)
    moments = [NIGHT]
    in_time = replace(parts, clock=lambda: moments[0])
    assert _compact_if_due("0 3 * * *", EVENING, NIGHT + EVERY, in_time) == EVENING
