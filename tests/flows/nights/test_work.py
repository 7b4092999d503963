"""What a night cuts: all at first, then what changed, in portions, none twice."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from flows.nights import steps as night_steps
from flows.nights.report import REPORTS
from flows.nights.worker import Job, Worker
from schemas.industries import Industry
from schemas.naming import PHOTO_SUFFIXES
from schemas.options import CutoutOptions
from store.outside.listing import list_place
from store.records import fingerprints, line, nights, tables
from store.records.batches import get_batch
from store.records.nights import Night, NightState
from store.records.schedules import Overlap
from store.settings import Settings
from tests.consent.postgres import current_database
from tests.flows.nights.market import DAY, EVENING, FIRST, Killed, Market, everything_kept, fill, open_market
from tests.store import rclone


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_first_night_does_all_and_the_next_only_the_three_percent_that_changed(tmp_path: Path, place: str) -> None:
    if place == "s3":
        address = rclone.server()
        bucket = rclone.new_bucket_name()
        secrets = {"s3_endpoint": address, "s3_key": rclone.KEY, "s3_secret": rclone.SECRET}
        settings = Settings(**secrets)  # type: ignore[arg-type]
        from store.objects.s3 import S3

        S3(f"s3://{bucket}", settings).call("create_bucket")
        market = open_market(tmp_path, f"s3://{bucket}", **secrets)
    else:
        market = open_market(tmp_path, f"file://{tmp_path}/bazaar")
    fill(market, 100)
    market.source.write("readme.txt", b"no photo")
    market.schedule()
    assert market.run_due(EVENING) == [], "nothing is due in the evening"

    (first,) = market.run_due(FIRST + timedelta(seconds=3))
    assert (first.state, first.found, first.new, first.done, first.delivered) == ("completed", 100, 100, 100, 100)
    assert market.delivered() == [f"listing-{number:03d}/front.png" for number in range(100)]
    assert market.run_due(FIRST + timedelta(minutes=1)) == [], "a due time is run once"
    assert any("| new | 100 |" in page for page in market.pages)
    assert first.left_out == 1
    assert any("no cutout can have | 1 |" in page for page in market.pages), "nothing is left out in silence"
    assert len(list(list_place(market.target_url, market.parts.settings))) == 100, "and no page where none is needed"

    market.cut.clear()
    market.target.write("readme.txt", b"the customer's own")
    market.target.write(f"{REPORTS}/trial.png", b"of a night when the place was full")
    market.source.write("listing-003/front.jpg", b"photo 3, taken again")
    market.source.write("listing-017/front.jpg", b"photo 17, taken again")
    market.source.write("listing-200/front.jpg", b"a new one")
    market.source.delete(["listing-050/front.jpg"])
    (second,) = market.run_due(FIRST + DAY)
    assert sorted(market.cut) == ["listing-003/front.jpg", "listing-017/front.jpg", "listing-200/front.jpg"]
    assert (second.new, second.changed, second.skipped, second.deleted) == (1, 2, 97, 1)
    assert market.details(FIRST + DAY)["cutouts_without_photo"] == ["listing-050/front.png"]
    (third,) = market.run_due(FIRST + 2 * DAY)
    assert (third.found, third.skipped, third.deleted, third.batch_id) == (100, 100, 0, None), "reported once"
    kept = everything_kept(market)
    assert b"listing-" not in kept, "no name of the customer's is in the records"
    market.parts.records.engine.dispose()


def test_what_was_missed_for_a_week_is_caught_up_once(market: Market) -> None:
    fill(market, 2)
    market.schedule()
    (night,) = market.run_due(FIRST + 7 * DAY + timedelta(hours=5))
    assert night.due_at == FIRST + 7 * DAY
    assert market.run_due(FIRST + 7 * DAY + timedelta(hours=6)) == []


def test_a_night_without_end_is_given_up_when_its_batch_is_purged_and_the_next_does_all(market: Market) -> None:
    fill(market, 10)
    schedule = market.schedule()
    market.die_after = 5
    with pytest.raises(Killed):
        market.run_due(FIRST)
    market.die_after = None
    old, new = market.run_due(FIRST + DAY)
    assert (old.state, old.failures) == ("failed", {"past_deadline": 10})
    assert (new.state, new.new, new.delivered) == ("completed", 10, 10)
    with market.parts.records.transaction() as connection:
        assert len(fingerprints.known(connection, schedule.schedule_id)) == 10


@pytest.mark.parametrize("cuts", [True, False])
def test_a_catalog_too_large_for_one_night_is_done_in_some_nights_and_no_photo_twice(
    market: Market, cuts: bool
) -> None:
    fill(market, 50)
    market.schedule()
    market.minutes_per_photo = 51
    for at, delivered in ((FIRST, 25), (FIRST + DAY, 50)):
        (night,) = market.run_due(at, cuts=cuts)
        if not cuts:
            market.die_after = delivered
            with suppress(Killed):  # others cut, and get no further
                market._process(market.parts, night.batch_id)  # type: ignore[arg-type]
            (night,) = market.run_due(at + timedelta(hours=21, minutes=30), cuts=False)
        assert len(market.delivered()) == delivered
        if delivered < 50:
            assert (night.state, night.failures, night.delivered) == ("partially_completed", {"not_done": 25}, 25)
    assert len(market.cut) == len(set(market.cut)) == 50


@pytest.mark.parametrize(("overlap", "states"), [(Overlap.SKIP, ["skipped"]), (Overlap.WAIT, [])])
def test_a_run_whose_time_comes_while_one_is_going_is_skipped_or_waits(
    market: Market, overlap: Overlap, states: list[str]
) -> None:
    fill(market, 3)
    market.schedule(cron="0 * * * *", timezone="UTC", overlap=overlap)
    (night,) = market.run_due(FIRST, cuts=False)
    assert night.state is NightState.RUNNING, "its batch stands in line"
    with market.parts.records.transaction() as connection:
        nights.hold(connection, night.night_id, "somebody", FIRST + timedelta(hours=1))
    touched = market.run_due(FIRST + timedelta(hours=1, seconds=5))
    assert [each.state for each in touched] == states
    later = market.run_due(FIRST + timedelta(hours=1, minutes=2))
    assert [each.due_at for each in later] == [FIRST]
    after = market.run_due(FIRST + timedelta(hours=1, minutes=3))
    assert [each.due_at for each in after] == ([] if states else [FIRST + timedelta(hours=1)])


def test_a_broken_photo_is_reported_with_its_name_to_the_customer_alone_and_tried_again(market: Market) -> None:
    fill(market, 3)
    market.source.write("listing-009/front.jpg", b"broken")
    market.target.write("old.png", b"its photo went long ago")
    market.schedule()
    (night,) = market.run_due(FIRST)
    assert (night.state, night.failures, night.delivered) == ("partially_completed", {"damaged_image": 1}, 3)
    assert market.details(FIRST)["cutouts_without_photo"] == [], "no photo went tonight"
    assert market.details(FIRST)["failed"][0][:2] == ["listing-009/front.jpg", "damaged_image"]  # type: ignore[index]
    assert any("| damaged_image | 1 |" in page and "listing" not in page for page in market.pages)
    (lies_at,) = market.target.files(REPORTS)
    assert f"Which they are: `{REPORTS}/{lies_at}`, beside the cutouts." in market.pages[-1]
    market.source.write("listing-009/front.jpg", b"mended now")
    market.cut.clear()
    (night,) = market.run_due(FIRST + DAY)
    assert (night.state, market.cut) == ("completed", ["listing-009/front.jpg"])
    assert "Which they are" not in market.pages[-1]


def test_an_empty_source_forgets_nothing(market: Market) -> None:
    fill(market, 3)
    schedule = market.schedule()
    market.run_due(FIRST)
    market.source.delete([f"listing-{number:03d}/front.jpg" for number in range(3)])
    (night,) = market.run_due(FIRST + DAY)
    assert (night.state, night.failures) == ("failed", {"source_empty": 0})
    with market.parts.records.transaction() as connection:
        assert len(fingerprints.known(connection, schedule.schedule_id)) == 3


def test_a_first_night_over_a_source_that_holds_no_photo_yet_is_no_failure(market: Market) -> None:
    market.source.write("readme.txt", b"no photo")
    market.schedule()
    (night,) = market.run_due(FIRST)
    assert (night.state, night.failures, night.found, night.left_out) == ("completed", {}, 0, 1)
    with market.parts.records.reading() as connection:
        assert connection.execute(select(tables.batches)).all() == [], "and no batch is opened for nothing"


def test_a_schedule_without_a_place_cuts_what_is_new_and_delivers_nothing(market: Market) -> None:
    fill(market, 2)
    market.source.write("listing-009/front.jpg", b"broken")
    market.schedule(deliver=None)
    (night,) = market.run_due(FIRST)
    assert (night.state, night.done, night.delivered) == ("partially_completed", 2, 0)
    assert "Which they are" not in market.pages[-1]
    (night,) = market.run_due(FIRST + DAY)
    assert (night.skipped, night.new) == (2, 1)
    assert not market.target_folder.exists()


def test_the_line_knows_by_when_a_nights_photos_are_needed(market: Market) -> None:
    fill(market, 1)
    market.schedule(deadline_minutes=90)
    market.run_due(FIRST, cuts=False)
    with market.parts.records.reading() as connection:
        assert connection.execute(select(tables.submissions.c.due_at)).scalars().all() == [
            FIRST + timedelta(minutes=90)
        ]


@pytest.mark.parametrize("path", ["listing-002", "listing-002/front.jpg"])
def test_what_cannot_be_read_of_a_source_does_not_pass_for_deleted_and_what_is_deleted_meanwhile_does(
    market: Market, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    fill(market, 4)
    schedule = market.schedule()
    market.run_due(FIRST)
    calls = {"open": os.open, "lstat": os.lstat}
    refusal: OSError = PermissionError(errno.EACCES, "Permission denied")

    def refuse(name: str) -> None:
        def call(where: str, *rest: object, **named: object) -> object:
            inside = os.readlink(f"/proc/self/fd/{named['dir_fd']}") if named.get("dir_fd") is not None else ""
            if f"{inside}/{where}".endswith(f"catalog/{path}"):
                raise refusal
            return calls[name](where, *rest, **named)  # type: ignore[operator]

        monkeypatch.setattr(os, name, call)

    refuse("lstat" if path.endswith(".jpg") else "open")
    assert market.run_due(FIRST + DAY) == [], "it is tried again until the next due time"
    with market.parts.records.transaction() as connection:
        assert len(fingerprints.known(connection, schedule.schedule_id)) == 4
    refusal = FileNotFoundError(errno.ENOENT, "No such file or directory")
    (night,) = market.run_due(FIRST + DAY + timedelta(minutes=1))
    assert (night.state, night.found, night.deleted) == ("completed", 3, 1)


def test_a_schedule_of_old_whose_background_is_never_there_says_so_and_leaves_no_open_batch(market: Market) -> None:
    fill(market, 3)
    market.schedule()
    with market.parts.records.transaction() as connection:
        connection.execute(update(tables.schedules).values(options=CutoutOptions(bg_image="wall.jpg").model_dump()))
    (night,) = market.run_due(FIRST)
    assert (night.state, night.failures, night.batch_id) == ("failed", {"bad_options": 0}, None)
    assert "add one with bg_color" in market.pages[-1]
    with market.parts.records.transaction() as connection:
        assert line.load_of(connection, FIRST).batches == 0


def test_a_nights_batch_is_stamped_and_purged_as_any_other(market: Market) -> None:
    fill(market, 3)
    market.schedule()
    (night,) = market.run_due(FIRST)
    assert night.batch_id is not None
    with market.parts.records.transaction() as connection:
        batch = get_batch(connection, night.batch_id)
    assert batch.stamp.industry is Industry.MARKETPLACE
    assert batch.stamp.grant_id is None
    assert batch.stamp.purge_at - FIRST == timedelta(hours=23)


@pytest.mark.parametrize("records_on", ["sqlite", "postgresql"])
def test_of_two_nights_that_are_begun_at_once_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records_on: str
) -> None:
    records = {"records_url": current_database()} if records_on == "postgresql" else {}
    market = open_market(tmp_path, f"file://{tmp_path}/bazaar", **records)
    fill(market, 2)
    schedule = market.schedule()
    none_is_going, begin = threading.Barrier(2), nights.begin

    def begin_once_both_have_looked(*args: object) -> Night | None:
        with suppress(threading.BrokenBarrierError):
            none_is_going.wait(1)
        return begin(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(nights, "begin", begin_once_both_have_looked)

    def by_hand(seconds: int) -> None:
        parts = replace(market.parts, clock=lambda: EVENING + timedelta(seconds=seconds))
        night_steps.run_now(Job(parts, schedule, Worker(str(seconds), os.urandom, None)))

    with ThreadPoolExecutor(2) as both:
        list(both.map(by_hand, (1, 2)))
    with market.parts.records.reading() as connection:
        assert len(nights.of_schedule(connection, schedule.schedule_id)) == 1
    market.parts.records.engine.dispose()


def test_nights_that_a_wrong_clock_began_in_the_future_keep_no_night_until_then_from_running(market: Market) -> None:
    fill(market, 3)
    market.schedule()
    (ahead,) = market.run_due(FIRST + 3000 * DAY)
    assert [each.due_at for each in market.run_due(FIRST)] == [FIRST]
    assert market.run_due(FIRST + timedelta(minutes=1)) == []
    assert [each.due_at for each in market.run_due(FIRST + DAY)] == [FIRST + DAY]
    assert market.run_due(ahead.due_at + timedelta(minutes=1)) == [], "it is not run twice"


def test_the_page_on_nights_names_all_that_passes_for_a_photo() -> None:
    page = (Path(__file__).parents[3] / "docs/marketplaces.md").read_text()
    assert [each for each in sorted(PHOTO_SUFFIXES) if f"`{each}`" not in page] == []


def test_a_night_by_hand_at_the_very_moment_of_a_due_time_stays_the_only_one(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two at once each would cut and deliver all photos."""
    fill(market, 3)
    schedule, decide, by_hand = market.schedule(), night_steps.decide, []

    def decide_and_be_late(*facts: object) -> object:
        actions = decide(*facts)  # type: ignore[arg-type]
        if not by_hand:
            by_hand.append(night_steps.run_now(Job(market.parts, schedule, Worker("by hand", os.urandom, None))))
        return actions

    monkeypatch.setattr(night_steps, "decide", decide_and_be_late)
    market.run_due(FIRST + timedelta(seconds=3), cuts=False)
    with market.parts.records.reading() as connection:
        (only,) = nights.of_schedule(connection, schedule.schedule_id)
    assert by_hand[0] is not None
    assert only.night_id == by_hand[0].night_id
