"""Plain words: each option that can be asked for shows, and each flag has its sentence."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.nights.timetable import next_due
from portal.web.plainly import FLAGS, asked_for, when
from schemas.options import CutoutOptions, parse_options

DOCS = Path(__file__).parents[2] / "docs" / "pixels.md"


def test_what_was_asked_for_is_said_as_on_the_upload_page() -> None:
    assert asked_for(CutoutOptions()) == "PNG, transparent"
    asked = {"format": "jpg", "bg_color": "white", "crop": True, "crop_margin": "5%", "shadow": True}
    said = asked_for(parse_options(asked))
    assert said == "JPEG, on white, cropped to the subject with 5% around it, with a soft shadow"
    assert asked_for(parse_options({"size": "preview"})) == "PNG, transparent, of 0.25 megapixels at most"
    assert asked_for(parse_options({"format": "zip"})) == "the photo as it came and its mask, in a zip each"


OTHERS: dict[str, dict[str, object]] = {
    "format": {"format": "webp"},
    "channels": {"channels": "alpha"},
    "size": {"size": "hd"},
    "crop": {"crop": True},
    "crop_margin": {"crop": True, "crop_margin": "30px"},
    "bg_color": {"bg_color": "#e8eaed"},
    "bg_image": {"bg_image": "backdrops/wall.jpg"},
    "refine": {"refine": True},
    "despill": {"despill": True},
    "shadow": {"shadow": True},
    "consistent": {"consistent": True},
}


def test_no_option_goes_unsaid() -> None:
    assert set(OTHERS) == set(CutoutOptions.model_fields)
    said = {asked_for(parse_options(each)) for each in OTHERS.values()}
    assert len(said | {asked_for(CutoutOptions())}) == len(OTHERS) + 1


def test_every_flag_has_a_sentence() -> None:
    told = DOCS.read_text().partition("## Flags")[2].partition(": a person")[0]
    assert set(re.findall(r"`(\w+)`", told)) == set(FLAGS)


@pytest.mark.parametrize(
    ("cron", "words", "days"),
    [
        ("0 2 * * *", "every day at 02:00", "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
        ("30  4 * * 1-5", "Monday to Friday at 04:30", "Monday Tuesday Wednesday Thursday Friday"),
        ("5 23 * * 0", "every Sunday at 23:05", "Sunday"),
        ("5 23 * * 7", "every Sunday at 23:05", "Sunday"),
    ],
)
def test_plain_times_are_said_in_words_and_mean_what_the_timetable_does(cron: str, words: str, days: str) -> None:
    assert when(cron) == words
    runs, now = [], datetime(2026, 11, 22, 23, 59, tzinfo=UTC)  # a Sunday, at its end
    while (now := next_due(cron, "UTC", now)) < datetime(2026, 11, 30, tzinfo=UTC):
        runs.append(now)
    assert [f"{each:%A}" for each in runs] == days.split()
    assert {f"{each:%H:%M}" for each in runs} == {words[-5:]}


def test_times_that_are_not_plain_stay_a_cron_line() -> None:
    for cron in (
        "0 2 * * 0-7",
        "0 2 * * 1-1",
        "15,45 */6 * * 1-5",
        "0 2 1 * *",
        "0 2 * 3 *",
        "* * * * *",
        "0 2 * * MON",
        "@daily",
        "0 2 * * 1#2",
    ):
        assert when(cron) is None
