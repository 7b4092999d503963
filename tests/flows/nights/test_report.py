"""What a night tells people of itself."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from flows.nights.report import markdown, report_of
from schemas.errors import (
    DamagedImage,
)
from store.records.nights import NightState
from tests.flows.nights.market import DAY, FIRST, Market, fill


@pytest.mark.parametrize(
    ("failures", "deleted", "told"),
    [({"damaged_image": 1}, 0, True), ({"not_delivered": 1}, 0, True), ({}, 1, True), ({}, 0, False)]
    + [({code: 3}, 0, False) for code in ("past_deadline", "not_done", "store_fault", "not_allowed")],
)
def test_a_report_says_where_names_lie_only_where_there_are_some(
    market: Market, failures: dict[str, int], deleted: int, told: bool
) -> None:
    fill(market, 1)
    market.schedule()
    (night,) = market.run_due(FIRST)
    assert report_of(night.model_copy(update={"failures": failures, "deleted": deleted}), FIRST).has_names is told


def test_a_report_tells_whether_the_deadline_is_kept_and_when_the_night_ends(market: Market) -> None:
    fill(market, 1)
    schedule = market.schedule(deadline_minutes=60)
    (night,) = market.run_due(FIRST)
    due, second = FIRST + timedelta(hours=1), timedelta(seconds=1)

    def told(now: datetime, **numbers: object) -> tuple[bool, list[str]]:
        report = report_of(night.model_copy(update=numbers), now)
        lines = markdown(report, schedule).splitlines()
        return report.was_late, [each for each in lines if each.startswith(("Deadline", "Schedule"))]

    stands = f"Schedule {schedule.schedule_id}, batch {night.batch_id}. Begun at 02:00:00, "
    deadline = "Deadline 2026-11-26 03:00: "
    assert told(due + DAY, ended_at=due) == (False, [f"{stands}ended at 03:00:00.", f"{deadline}kept."])
    assert told(due, ended_at=due + second) == (True, [f"{stands}ended at 03:00:01.", f"{deadline}missed."])
    going = {"ended_at": None, "estimate_at": due}
    assert told(due, **going) == (False, [f"{stands}expected to end at 03:00:00.", f"{deadline}not reached yet."])
    assert told(due + second, ended_at=None, estimate_at=None) == (
        True,
        [f"{stands}still going.", f"{deadline}missed."],
    )
    assert told(due + DAY, deadline_at=None, ended_at=None, batch_id=None, estimate_at=None) == (
        False,
        [f"Schedule {schedule.schedule_id}, batch none. Begun at 02:00:00, still going."],
    )


def test_a_report_says_in_words_what_failed_and_counts_no_photos_where_the_night_itself_did(market: Market) -> None:
    fill(market, 1)
    schedule = market.schedule()
    (night,) = market.run_due(FIRST)
    failures = {"source_empty": 0, "unheard_of": 2, "damaged_image": 1}
    page = markdown(report_of(night.model_copy(update={"failures": failures}), FIRST), schedule)
    rows = [line for line in page.splitlines() if line.startswith(tuple(f"| {code} |" for code in failures))]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| damaged_image", "1"],
        ["| source_empty", ""],
        ["| unheard_of", "2"],
    ]
    assert rows[0].endswith(f"| {DamagedImage.__doc__.partition(chr(10))[0]} |")  # type: ignore[union-attr]
    assert rows[1].endswith(
        "| The source held no photo at all, though it did before. Nothing was changed or forgotten. |"
    )
    assert rows[2].endswith("| A fault of ours; the operator finds it in the log. |")


def test_a_night_that_is_going_or_was_called_off_left_no_names(market: Market) -> None:
    fill(market, 1)
    schedule = market.schedule()
    (night,) = market.run_due(FIRST)
    for other in ({"ended_at": None}, {"state": NightState.CANCELLED}):
        report = report_of(night.model_copy(update={"deleted": 1} | other), FIRST)
        assert "Which they are" not in markdown(report, schedule)
