"""Cutouts go into the customer's place: names, places that are full or away, portions."""

from __future__ import annotations

import errno
import json
import tracemalloc
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from flows.nights import delivery as night_delivery
from flows.nights.report import REPORTS, markdown, report_of
from schemas.options import CutoutOptions, Format
from store.objects.s3 import S3
from store.outside import allowed
from store.outside.opened import WithoutLinks
from store.records import nights
from store.records.nights import Night
from tests.flows.nights.market import DAY, FIRST, Market, fill, open_market
from tests.store import rclone


def test_two_schedules_that_deliver_into_one_place_at_one_time_leave_a_report_each_beside_those_of_old(
    market: Market,
) -> None:
    fill(market, 1)
    market.source.write("listing-009/front.jpg", b"broken")
    old = f"{REPORTS}/{FIRST:%Y-%m-%dT%H-%M-%S}.json"
    market.target.write(old, b"{}")
    both = {market.schedule(options=CutoutOptions(format=format)).schedule_id for format in (Format.PNG, Format.JPG)}
    assert len(market.run_due(FIRST)) == 2
    reports = [json.loads(market.target.read(f"{REPORTS}/{name}")) for name in market.target.files(REPORTS)]
    assert {each["report"]["schedule_id"] for each in reports if each} == both
    assert market.target.read(old) == b"{}"


@pytest.mark.parametrize("when", ["in mid-night", "between nights"])
def test_a_place_whose_disk_is_away_gets_nothing_where_the_disk_belongs_and_all_of_it_once_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    market = open_market(tmp_path, f"file://{tmp_path}/share")
    fill(market, 1)
    market.schedule()
    market.run_due(FIRST)
    fill(market, 3)
    market.source.write("listing-009/front.jpg", b"broken")
    away = tmp_path / "away"
    put, taken = WithoutLinks.put, list[str]()

    def unmounted(self: WithoutLinks, key: str, data: bytes) -> None:
        if not taken and when == "in mid-night":
            put(self, key, data)
        if not away.exists():
            market.target_folder.rename(away)
        taken.append(key)
        put(self, key, data)

    monkeypatch.setattr(night_delivery, "_WRITERS", 1)
    monkeypatch.setattr(WithoutLinks, "put", unmounted)
    assert market.run_due(FIRST + DAY) == []
    assert not market.target_folder.exists()
    monkeypatch.setattr(WithoutLinks, "put", put)
    away.rename(market.target_folder)
    (night,) = market.run_due(FIRST + DAY + timedelta(minutes=10))
    assert (night.done, night.delivered) == (3, 3)
    assert len(market.delivered()) == 3


@pytest.mark.parametrize("of_before", ["changed", "replaced by another"])
def test_a_place_whose_disk_is_away_is_known_also_once_no_fingerprint_is_left(tmp_path: Path, of_before: str) -> None:
    market = open_market(tmp_path, f"file://{tmp_path}/share")
    market.source.write("1.jpg", b"a photo")
    market.schedule()
    market.run_due(FIRST)
    if of_before == "replaced by another":
        market.source.delete(["1.jpg"])
    market.source.write("1.jpg" if of_before == "changed" else "2.jpg", b"another photo")
    away = market.target_folder.rename(tmp_path / "away")
    for minutes in (0, 10):
        assert market.run_due(FIRST + DAY + timedelta(minutes=minutes)) == []
        assert not market.target_folder.exists()
    away.rename(market.target_folder)
    (night,) = market.run_due(FIRST + DAY + timedelta(minutes=20))
    assert (night.state, night.delivered) == ("completed", 1)


def test_a_first_night_makes_the_folder_once_and_not_again_where_its_disk_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = open_market(tmp_path, f"file://{tmp_path}/share")
    fill(market, 3)
    market.schedule()
    put, away = WithoutLinks.put, tmp_path / "away"

    def unmounted_after_one(self: WithoutLinks, key: str, data: bytes) -> None:
        put(self, key, data)
        if not away.exists():
            market.target_folder.rename(away)

    monkeypatch.setattr(night_delivery, "_WRITERS", 1)
    monkeypatch.setattr(WithoutLinks, "put", unmounted_after_one)
    assert market.run_due(FIRST) == []
    assert not market.target_folder.exists()
    monkeypatch.setattr(WithoutLinks, "put", put)
    away.rename(market.target_folder)
    (night,) = market.run_due(FIRST + timedelta(minutes=10))
    assert (night.delivered, len(market.delivered())) == (3, 3)


def test_no_report_with_names_goes_where_a_disk_belongs_that_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    market = open_market(tmp_path, f"file://{tmp_path}/share")
    fill(market, 1)
    market.schedule()
    market.run_due(FIRST)
    market.source.write("listing-009/front.jpg", b"broken")
    market.target_folder.rename(tmp_path / "away")
    (night,) = market.run_due(FIRST + DAY)
    assert night.failures == {"damaged_image": 1, "names_not_delivered": 0}
    assert "refused to write: No such file or directory" in caplog.text, "what is wrong with the place"
    assert not market.target_folder.exists()


def test_a_delivery_holds_little_of_each_photo(market: Market) -> None:
    """Else a catalog of 250,000 photos would fill the memory that our own manifests give who delivers it."""
    photos = 700
    for number in range(photos):
        market.source.write(f"{number}.jpg", b"photo")
    market.schedule(deliver=None)
    (night,) = market.run_due(FIRST, cuts=False)
    assert night.batch_id is not None
    market._process(market.parts, night.batch_id)
    tracemalloc.start()
    (night,) = market.run_due(FIRST, cuts=False)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert night.done == photos
    assert most < 3_500 * photos


def test_a_cutout_that_the_place_does_not_take_is_reported_by_name_and_keeps_no_other_back(market: Market) -> None:
    fill(market, 3)
    for number in (1, 2):
        market.source.write(f"shop/{number}.jpg", b"a photo")
    market.target.write("shop", b"a file where a folder must be")
    market.schedule()
    (night,) = market.run_due(FIRST)
    assert (night.state, night.failures) == ("partially_completed", {"not_delivered": 2})
    assert (night.done, night.delivered, len(market.delivered())) == (5, 3, 3 + 1)
    path, code, why = market.details(FIRST)["failed"][1]  # type: ignore[index]
    assert (path, code) == ("shop/2.jpg", "not_delivered")
    assert "Not a directory" in why
    market.target.delete(["shop"])
    market.cut.clear()
    (night,) = market.run_due(FIRST + DAY)
    assert (night.state, night.skipped, market.cut) == ("completed", 3, ["shop/1.jpg", "shop/2.jpg"])


def test_a_night_of_which_no_cutouts_name_is_taken_ends_and_says_so(market: Market) -> None:
    fill(market, 3)
    market.schedule()
    market.target.write("listing-000", b"a file where folders must be")
    market.target.write("listing-001", b"another")
    market.target.write("listing-002", b"another")
    (night,) = market.run_due(FIRST)
    assert (night.state, night.failures, night.delivered) == ("failed", {"not_delivered": 3}, 0)


def test_names_that_the_place_does_not_take_are_not_said_to_lie_there(market: Market) -> None:
    fill(market, 3)
    market.source.write("listing-003/front.jpg", b"broken photo")
    market.target.write(REPORTS, b"a file where their folder must be")
    schedule = market.schedule()
    (night,) = market.run_due(FIRST)
    assert (night.state, night.delivered) == ("partially_completed", 3)
    assert night.failures == {"damaged_image": 1, "names_not_delivered": 0}
    page = markdown(report_of(night, FIRST), schedule)
    assert "did not take the report with names" in page
    assert "Which they are" not in page
    market.target.delete([REPORTS])
    (night,) = market.run_due(FIRST + DAY)
    assert (night.failures, len(market.details(FIRST + DAY)["failed"])) == ({"damaged_image": 1}, 1)  # type: ignore[arg-type]


def test_a_place_that_is_away_is_tried_again_the_same_night(market: Market, tmp_path: Path) -> None:
    fill(market, 3)
    market.schedule()
    (tmp_path / "bazaar/cutouts").write_bytes(b"no folder: its disk is not there")
    assert market.run_due(FIRST) == []
    (tmp_path / "bazaar/cutouts").unlink()
    (night,) = market.run_due(FIRST + timedelta(minutes=1))
    assert (night.state, night.delivered, len(market.cut)) == ("completed", 3, 3)


def test_a_bucket_that_is_gone_is_tried_again_the_same_night(tmp_path: Path) -> None:
    secrets = {"s3_endpoint": rclone.server(), "s3_key": rclone.KEY, "s3_secret": rclone.SECRET}
    market = open_market(tmp_path, f"file://{tmp_path}/bazaar", **secrets)
    fill(market, 3)
    bucket = S3(f"s3://{rclone.new_bucket_name()}", market.parts.settings)
    with market.parts.records.transaction() as connection:
        allowed.allow(connection, market.account_id, bucket.root, FIRST)
    schedule = market.schedule(deliver=bucket.root)
    assert market.run_due(FIRST) == []
    with market.parts.records.reading() as connection:
        night = nights.running(connection, schedule.schedule_id)
    assert night is not None, "it was taken for a batch that is purged"
    bucket.call("create_bucket")
    (night,) = market.run_due(FIRST + timedelta(minutes=10))
    assert (night.state, night.delivered) == ("completed", 3)


def test_a_place_that_is_full_is_tried_again_the_same_night(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(market, 3)
    market.schedule()
    market.target.write("older.png", b"there is a place, and it can be listed")
    put = WithoutLinks.put

    def full(self: WithoutLinks, key: str, data: bytes) -> None:
        if f"file://{self.root}" == market.target_url:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, key, data)

    monkeypatch.setattr(WithoutLinks, "put", full)
    assert market.run_due(FIRST) == []
    monkeypatch.setattr(WithoutLinks, "put", put)
    (night,) = market.run_due(FIRST + timedelta(minutes=1))
    assert (night.state, night.delivered, len(market.cut)) == ("completed", 3, 3), "and nothing was cut twice"


def test_a_place_that_goes_away_in_the_middle_of_a_delivery_is_tried_again_the_same_night(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a few photos, as most nights have: what it did not take was put down to the photos' names."""
    fill(market, 5)
    market.schedule()
    put, taken = WithoutLinks.put, []

    def until_it_goes(self: WithoutLinks, key: str, data: bytes) -> None:
        if len(taken) == 2:
            raise OSError(errno.EIO, "Input/output error")
        put(self, key, data)
        taken.append(key)

    monkeypatch.setattr(WithoutLinks, "put", until_it_goes)
    monkeypatch.setattr(night_delivery, "_WRITERS", 1)
    assert market.run_due(FIRST) == []
    monkeypatch.setattr(WithoutLinks, "put", put)
    (night,) = market.run_due(FIRST + timedelta(minutes=1))
    assert (night.state, night.delivered, len(market.cut)) == ("completed", 5, 5), "and nothing was cut twice"


def test_a_photo_that_comes_later_does_not_overwrite_another_ones_cutout(market: Market) -> None:
    market.source.write("a.jpg", b"the first")
    market.schedule()
    market.run_due(FIRST)
    assert market.delivered() == ["a.png"]
    market.source.write("a.heic", b"another")
    market.run_due(FIRST + DAY)
    assert {"a.heic.png", "a.jpg.png"} <= set(market.delivered())
    assert market.target.read("a.jpg.png") == market.target.read("a.png")


@pytest.mark.parametrize("is_delivered", [True, False])
def test_a_delivery_in_several_portions_remembers_counts_and_tells_of_each(
    market: Market, monkeypatch: pytest.MonkeyPatch, is_delivered: bool
) -> None:
    fill(market, 5)
    market.schedule(**{} if is_delivered else {"deliver": None})
    noted: list[tuple[object, object]] = []
    note = nights.note

    def listen(connection: Connection, night: Night, **numbers: object) -> Night:
        noted.append((numbers.get("done"), numbers.get("delivered")))
        return note(connection, night, **numbers)

    monkeypatch.setattr(night_delivery, "_AT_ONCE", 2)
    monkeypatch.setattr(nights, "note", listen)
    (night,) = market.run_due(FIRST)
    lie_there = [2, 4, 5] if is_delivered else [0, 0, 0]
    assert (night.state, night.delivered) == ("completed", lie_there[-1])
    assert [each for each in noted if None not in each][:3] == [(5, count) for count in lie_there]


def test_a_place_that_was_taken_back_ends_the_night(market: Market) -> None:
    fill(market, 3)
    market.schedule()
    with market.parts.records.transaction() as connection:
        allowed.disallow(connection, market.account_id, market.target_url)
    (night,) = market.run_due(FIRST)
    assert (night.state, night.failures, market.cut) == ("failed", {"not_allowed": 0}, [])
