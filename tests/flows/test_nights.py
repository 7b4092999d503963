"""A marketplace's nights, with real stores and everything but the pixels: first night, changes, kills, deletions."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from flows.nights import delivery as night_delivery
from flows.nights import look as night_look
from flows.nights import steps as night_steps
from flows.nights import timetable
from flows.nights.report import REPORTS, markdown, report_of
from flows.nights.watch import NightWatch
from flows.nights.worker import Job, Worker
from flows.parts import Parts, open_parts
from portal.cli import night_rounds
from portal.schedules import MOST_MINUTES, Wanted, add, remove, retime
from schemas.batch import BatchState, Counts, Item, Stamp
from schemas.errors import (
    AlreadyExists,
    BadOptions,
    DamagedImage,
    DeviceAbsent,
    NotAllowed,
    NotFound,
    StoreFault,
    UserError,
)
from schemas.ids import AccountId, BatchId
from schemas.industries import Industry
from schemas.naming import PHOTO_SUFFIXES
from schemas.options import CutoutOptions, Format
from store.objects.folder import Folder
from store.objects.object_store import ObjectStore, open_store
from store.outside import allowed
from store.outside.listing import OutsideFile, list_place
from store.outside.opened import WithoutLinks
from store.records import fingerprints, line, nights, schedules, tables, webhooks
from store.records.batches import get_batch
from store.records.closing import erase_account
from store.records.database import Records
from store.records.nights import Night, NightState
from store.records.people import create_account
from store.records.schedules import Overlap, Schedule
from store.settings import Settings
from tests.batches import run_batch
from tests.consent.postgres import current_database
from tests.promise.world import StandInCutter
from tests.records import at_home
from tests.schedules import nightly
from tests.store import rclone
from workers.order import Order
from workers.shard import process_shard

EVENING = datetime(2026, 11, 25, 18, tzinfo=UTC)
FIRST = datetime(2026, 11, 26, 1, tzinfo=UTC)  # two o'clock in Berlin
DAY = timedelta(days=1)


class Killed(BaseException):
    """The process dies: nothing below catches it."""


class Cutter(StandInCutter):
    """Finds what starts with `broken` broken."""

    def open(self, order: Order) -> Order:
        if order.source.startswith(b"broken"):
            raise DamagedImage("The image ends too early. Send it again.")
        return super().open(order)


@dataclass
class Market:
    """A marketplace, its bucket, and a clock in the test's hand. `cut` lists what was cut, by path."""

    parts: Parts
    account_id: AccountId
    source: ObjectStore
    target: ObjectStore
    source_url: str
    target_url: str
    clock: list[datetime]
    cut: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    die_after: int | None = None
    minutes_per_photo: float = 0

    def schedule(self, **wanted: object) -> Schedule:
        with self.parts.records.transaction() as connection:
            chosen: dict[str, object] = {
                "cron": "0 2 * * *",
                "timezone": "Europe/Berlin",
                "source": self.source_url,
                "deliver": self.target_url,
                "industry": Industry.MARKETPLACE,
                "options": CutoutOptions(),
            }
            want = Wanted(**(chosen | wanted))  # type: ignore[arg-type]
            return add(connection, self.account_id, want, self.parts.settings, self.parts.clock, os.urandom)

    def run_due(self, at: datetime, cuts: bool = True) -> list[Night]:
        self.clock[0] = at
        process = self._process if cuts else None
        worker = Worker(os.urandom(4).hex(), os.urandom, process, lambda key, page: self.pages.append(page))
        return night_steps.run_due(self.parts, worker)

    @property
    def target_folder(self) -> Path:
        return Path(self.target_url.removeprefix("file://"))

    def delivered(self) -> list[str]:
        found = (each.path for each in list_place(self.target_url, self.parts.settings))
        return sorted(path for path in found if not path.startswith(REPORTS))

    def details(self, at: datetime) -> dict[str, object]:
        """The one report of that night with names."""
        (found,) = [each for each in self.target.files(REPORTS) if each.startswith(f"{at:%Y-%m-%dT%H-%M-%S}")]
        return json.loads(self.target.read(f"{REPORTS}/{found}"))

    def _process(self, parts: Parts, batch_id: BatchId) -> Counts:
        def run_shards(batch_id, shards, clock, keep, stop):  # type: ignore[no-untyped-def]
            manifest = parts.transient.manifest(batch_id)
            for shard in shards:
                if stop():
                    return
                if self.die_after is not None and len(self.cut) >= self.die_after:
                    raise Killed
                self.cut += [manifest.items[number - 1].path for number in shard]
                self.clock[0] += len(shard) * timedelta(minutes=self.minutes_per_photo)
                yield process_shard(parts.transient, Cutter(), manifest, shard, clock)  # type: ignore[arg-type]

        return run_batch(parts, batch_id, run_shards)


def open_market(tmp_path: Path, root: str, **settings: object) -> Market:
    clock = [EVENING]
    here = at_home(tmp_path / "home", shard_items=5, **settings)
    parts = open_parts(here, lambda: clock[0])
    source, target = f"{root}/catalog", f"{root}/cutouts"
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Bazaar", "owner@bazaar.example", clock[0], os.urandom)
        for place in (source, target, f"{target}-of-bikes"):
            allowed.allow(connection, account_id, place, clock[0])
    return Market(parts, account_id, open_store(source, here), open_store(target, here), source, target, clock)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    made = open_market(tmp_path, f"file://{tmp_path}/bazaar")
    yield made
    made.parts.records.engine.dispose()


def fill(market: Market, count: int) -> None:
    for number in range(count):
        market.source.write(f"listing-{number:03d}/front.jpg", b"photo %d" % number)


def everything_kept(market: Market) -> bytes:
    """The whole of the records, where no name may be."""
    files = sorted(market.parts.settings.home.glob("records.db*"))
    return b"".join(path.read_bytes() for path in files)


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


def test_a_night_killed_in_the_middle_goes_on_with_the_rest(market: Market) -> None:
    fill(market, 30)
    schedule = market.schedule()
    market.die_after = 10
    with pytest.raises(Killed):
        market.run_due(FIRST)
    market.die_after = None
    assert len(market.cut) == 10
    (night,) = market.run_due(FIRST + timedelta(minutes=5))
    assert (night.state, night.done, night.delivered) == ("completed", 30, 30)
    assert len(market.cut) == 30, "each photo was cut once"
    with market.parts.records.transaction() as connection:
        assert len(nights.of_schedule(connection, schedule.schedule_id)) == 1
        assert len(fingerprints.known(connection, schedule.schedule_id)) == 30


@pytest.mark.parametrize("refused", ["night.json", "sealing", "manifest.json"])
def test_a_night_whose_batch_cannot_be_written_leaves_none_open_however_often_it_tries(
    market: Market, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each counted among those that the account may have under way: its own were refused after an hour of it."""
    fill(market, 2)
    market.schedule()
    put = Folder.put

    def full(self: Folder, key: str, data: bytes) -> None:
        if refused in key:
            raise OSError(errno.ENOSPC, "full")
        put(self, key, data)

    with monkeypatch.context() as disk:
        disk.setattr(Folder, "put", full)
        for minutes in range(4):
            market.run_due(FIRST + timedelta(minutes=minutes), cuts=False)
    with market.parts.records.reading() as connection:
        assert line.load_of(connection, market.clock[0]).batches <= 1
    (night,) = market.run_due(FIRST + timedelta(minutes=5))
    assert (night.state, night.delivered) == ("completed", 2)


def test_a_night_whose_photos_go_before_its_batch_could_be_sealed_has_nothing_to_do(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 2)
    market.schedule()
    market.run_due(FIRST)
    market.source.write("new.jpg", b"a new one")
    with monkeypatch.context() as disk:
        disk.setattr(night_look, "seal", lambda *_, **__: (_ for _ in ()).throw(StoreFault("full")))
        market.run_due(FIRST + DAY)
    market.source.delete(["new.jpg"])
    (night,) = market.run_due(FIRST + DAY + timedelta(minutes=1))
    assert (night.state, night.batch_id, night.found) == ("completed", None, 2)


def test_a_night_killed_while_it_delivers_goes_on_and_cuts_nothing_twice(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 12)
    market.schedule()
    remember = fingerprints.remember

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(fingerprints, "remember", die)
    with pytest.raises(Killed):
        market.run_due(FIRST)
    monkeypatch.setattr(fingerprints, "remember", remember)
    (night,) = market.run_due(FIRST + timedelta(minutes=5))
    assert (night.state, night.delivered, len(market.cut)) == ("completed", 12, 12)


def test_a_photo_that_is_put_back_as_it_was_after_a_night_that_died_in_its_delivery_is_done_again(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.source.write("a.jpg", b"the photo")
    market.source.write("b.jpg", b"another")
    lies = Path(market.source_url.removeprefix("file://")) / "a.jpg"
    as_it_was = lies.stat()
    market.schedule()
    market.run_due(FIRST)
    before = market.target.read("a.png")
    lies.write_bytes(b"a wrong one")
    remember = fingerprints.remember

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(fingerprints, "remember", die)
    with pytest.raises(Killed):
        market.run_due(FIRST + DAY)
    monkeypatch.setattr(fingerprints, "remember", remember)
    assert market.target.read("a.png") != before
    lies.write_bytes(b"the photo")
    os.utime(lies, ns=(as_it_was.st_atime_ns, as_it_was.st_mtime_ns))  # on S3 it would have the same ETag
    given_up, third = market.run_due(FIRST + 2 * DAY)
    assert (given_up.state, third.state) == ("failed", "completed")
    assert market.target.read("a.png") == before
    assert third.skipped == 1, "what was not begun to be replaced stays done"


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


def test_a_batch_that_is_purged_while_it_is_delivered_is_called_past_its_deadline(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 250)
    market.schedule()
    remember = fingerprints.remember

    def remember_and_purge(*given: object) -> None:
        remember(*given)  # type: ignore[arg-type]
        for hour in (market.parts.settings.home / "transient").iterdir():
            shutil.rmtree(hour)

    monkeypatch.setattr(fingerprints, "remember", remember_and_purge)
    (night,) = market.run_due(FIRST)
    assert (night.state, night.failures, night.delivered) == ("failed", {"past_deadline": 50}, 200)


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


def test_a_slow_place_holds_up_nobody_elses_night(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(market, 2)
    market.schedule()
    market.schedule(deliver=None)
    both_are_there = threading.Barrier(2, timeout=60)

    def slow(place: str, settings: Settings) -> Iterator[OutsideFile]:
        both_are_there.wait()
        return list_place(place, settings)

    monkeypatch.setattr(night_look, "list_place", slow)
    market.clock[0] = FIRST
    begun = night_steps.run_due(market.parts, Worker("one", os.urandom, None), at_once=2)
    assert [each.new for each in begun] == [2, 2]


def test_a_night_that_takes_long_holds_up_no_later_look_at_the_others(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 2)
    slow = market.schedule()
    market.schedule(cron="30 2 * * *", deliver=None)
    goes_on, is_slow, other_is_begun = threading.Event(), threading.Event(), threading.Event()

    def list_slowly(place: str, settings: Settings) -> Iterator[OutsideFile]:
        if market.clock[0] == FIRST:
            is_slow.set()
            assert goes_on.wait(60)
        else:
            other_is_begun.set()
        return list_place(place, settings)

    monkeypatch.setattr(night_look, "list_place", list_slowly)
    market.clock[0] = FIRST
    with NightWatch(market.parts, lambda: Worker(os.urandom(4).hex(), os.urandom, None), 2) as watch:
        watch.look()
        assert is_slow.wait(60)
        market.clock[0] = FIRST + timedelta(minutes=30)
        while not other_is_begun.is_set():  # the first look at the other one may just be ending
            watch.look()
            time.sleep(0.01)
        goes_on.set()
    with market.parts.records.transaction() as connection:
        (night,) = nights.of_schedule(connection, slow.schedule_id)
    assert night.new == 2


def test_messages_are_sent_while_a_night_takes_long(
    market: Market, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(market, 2)
    schedule = market.schedule()
    market.clock[0] = FIRST
    is_slow, is_sent, ending = threading.Event(), threading.Event(), threading.Event()

    def list_slowly(place: str, settings: Settings) -> Iterator[OutsideFile]:
        is_slow.set()
        assert is_sent.wait(60)
        ending.set()
        return list_place(place, settings)

    def send(parts: Parts) -> None:
        if is_slow.is_set():
            is_sent.set()
        raise UnicodeError("something that nobody foresaw")

    monkeypatch.setattr(night_look, "list_place", list_slowly)
    monkeypatch.setattr(night_rounds, "send_webhooks", send)
    monkeypatch.setattr(night_rounds, "_SEND_EVERY", 0.01)
    night_rounds.keep_looking(market.parts, True, ending)
    assert "a round of webhooks ended with UnicodeError; the next one goes on" in caplog.text
    assert "nobody foresaw" not in caplog.text
    with market.parts.records.transaction() as connection:
        assert nights.of_schedule(connection, schedule.schedule_id)[0].new == 2


def test_a_watch_that_leaves_the_cutting_to_nobody_runs_what_is_due_on_an_engine_of_its_own(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 2)
    market.schedule()
    market.clock[0] = FIRST
    ending, ran = threading.Event(), []

    def due_nights() -> list[Night]:
        ran.append("nights")
        ending.set()
        return []

    monkeypatch.setitem(sys.modules, "flows.nights.due_nights", SimpleNamespace(due_nights=due_nights))
    monkeypatch.setattr("flows.engine.start", lambda: ran.append("engine"))
    monkeypatch.setattr(night_steps, "run_due", lambda *_, **__: pytest.fail("nobody would cut it"))
    night_rounds.keep_looking(market.parts, False, ending)
    assert ran == ["engine", "nights"]


def test_a_watch_that_a_defect_ends_sends_no_messages_on_by_itself_but_ends_whole(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever keeps it running starts it anew only then."""

    def look(self: NightWatch) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(NightWatch, "look", look)
    ending = threading.Event()
    with ThreadPoolExecutor(1) as one:
        watch = one.submit(night_rounds.keep_looking, market.parts, True, ending)
        try:
            with pytest.raises(ZeroDivisionError):
                watch.result(60)
            assert "webhooks" not in {each.name for each in threading.enumerate()}
        finally:
            ending.set()


@pytest.mark.parametrize(
    "damage", [{"timezone": "Gone/Away"}, {"options": {"format": "png", "an option of a newer version": True}}]
)
def test_a_schedule_that_cannot_be_read_any_more_stops_nobody_elses_night(
    market: Market, damage: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    fill(market, 2)
    damaged, sound = market.schedule(), market.schedule(deliver=None)
    with market.parts.records.transaction() as connection:
        own = update(tables.schedules).where(tables.schedules.c.schedule_id == damaged.schedule_id)
        connection.execute(own.values(**damage))
    market.clock[0] = FIRST
    assert night_steps.anything_to_do(market.parts)
    (night,) = market.run_due(FIRST)
    assert (night.schedule_id, night.state) == (sound.schedule_id, "completed")
    assert damaged.schedule_id in caplog.text


def test_two_processes_do_not_work_on_one_night(market: Market) -> None:
    fill(market, 3)
    market.schedule()
    (night,) = market.run_due(FIRST, cuts=False)
    with market.parts.records.transaction() as connection:
        assert nights.hold(connection, night.night_id, "the other", FIRST)
    assert market.run_due(FIRST + timedelta(seconds=20)) == []
    assert market.cut == []


def test_a_night_cuts_no_batch_that_another_process_has_and_gives_its_own_back(market: Market) -> None:
    fill(market, 3)
    market.schedule()
    (night,) = market.run_due(FIRST, cuts=False)
    assert night.batch_id is not None
    with market.parts.records.transaction() as connection:
        assert line.claim(connection, night.batch_id, "another", FIRST)
    (night,) = market.run_due(FIRST + timedelta(seconds=20))
    assert (night.state, market.cut) == ("running", [])
    (night,) = market.run_due(FIRST + timedelta(minutes=5))
    assert (night.state, len(market.cut)) == ("completed", 3), "it died: its lease is over"
    assert night.batch_id is not None
    with market.parts.records.reading() as connection:
        known = line.find_submission(connection, night.batch_id)
    assert known is not None
    assert known.lease_until is None


@pytest.mark.parametrize("lease", ["night", "batch"])
def test_a_night_whose_lease_another_has_taken_cuts_no_more(
    market: Market, lease: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (line, nights):
        monkeypatch.setattr(module, "LEASE_LIFE", timedelta(seconds=0.04))
    fill(market, 3)
    market.schedule()
    process = market._process

    def lose_and_cut(parts: Parts, batch_id: BatchId) -> Counts:
        table = tables.nights if lease == "night" else tables.submissions
        with market.parts.records.transaction() as connection:
            connection.execute(update(table).values(lease_holder="another", lease_until=FIRST + DAY))
        told = any(parts.stop(batch_id) or time.sleep(0.01) for _ in range(6000))
        return process(parts, batch_id) if not told else Counts(items=3, done=0, failed=0)

    monkeypatch.setattr(market, "_process", lose_and_cut)
    (night,) = market.run_due(FIRST)
    assert (night.state, market.cut, night.delivered) == ("running", [], 0)


@pytest.mark.parametrize("end", ["taken", "taken and let go", "removed"])
def test_a_night_whose_lease_another_has_taken_delivers_remembers_and_tells_no_more(
    market: Market, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 3)
    schedule = market.schedule()
    market.source.write("broken.jpg", b"broken")  # so that there would be a page with names
    put = WithoutLinks.put

    def lose_and_put(self: WithoutLinks, key: str, data: bytes) -> None:
        if f"file://{self.root}" == market.target_url:
            with market.parts.records.transaction() as connection:
                if end == "removed":
                    with suppress(NotFound):
                        remove(connection, schedule.schedule_id, market.parts.clock)
                else:
                    holder, until = ("another", FIRST + DAY) if end == "taken" else (None, None)
                    connection.execute(update(tables.nights).values(lease_holder=holder, lease_until=until))
        put(self, key, data)

    monkeypatch.setattr(WithoutLinks, "put", lose_and_put)
    assert market.run_due(FIRST) == []
    assert len(market.pages) == 0
    assert not list((market.target_folder / REPORTS).glob("*"))
    with market.parts.records.transaction() as connection:
        (night,) = nights.of_schedule(connection, schedule.schedule_id)
        assert night.state is (NightState.CANCELLED if end == "removed" else NightState.RUNNING)
        assert fingerprints.known(connection, schedule.schedule_id) == {}


def test_a_delivery_stops_in_the_middle_when_the_lease_is_lost(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nights, "LEASE_LIFE", timedelta(seconds=0.04))
    fill(market, 100)
    market.schedule()
    put = WithoutLinks.put

    def lose_and_put(self: WithoutLinks, key: str, data: bytes) -> None:
        if f"file://{self.root}" == market.target_url:
            with market.parts.records.transaction() as connection:
                connection.execute(update(tables.nights).values(lease_holder="another", lease_until=FIRST + DAY))
            time.sleep(0.1)
        put(self, key, data)

    monkeypatch.setattr(WithoutLinks, "put", lose_and_put)
    assert market.run_due(FIRST) == []
    assert len(market.delivered()) < 100


def test_a_look_that_lost_its_lease_to_another_makes_no_second_batch(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 3)
    schedule = market.schedule()

    def slow(place: str, settings: Settings) -> Iterator[OutsideFile]:
        monkeypatch.setattr(night_look, "list_place", list_place)
        with market.parts.records.transaction() as connection:
            connection.execute(update(tables.nights).values(lease_until=FIRST))
        market.run_due(FIRST + timedelta(minutes=2), cuts=False)  # another, which lets go of the night again
        return list_place(place, settings)

    monkeypatch.setattr(night_look, "list_place", slow)
    assert market.run_due(FIRST) == []
    with market.parts.records.transaction() as connection:
        (waiting,) = line.in_line(connection, market.clock[0])
        (night,) = nights.of_schedule(connection, schedule.schedule_id)
    assert night.batch_id == waiting.batch_id


def test_a_batch_that_others_cut_in_line_is_delivered_and_reported(market: Market) -> None:
    fill(market, 4)
    market.schedule()
    (night,) = market.run_due(FIRST, cuts=False)
    market._process(market.parts, night.batch_id)  # type: ignore[arg-type]
    (night,) = market.run_due(FIRST + timedelta(minutes=1), cuts=False)
    assert (night.state, night.delivered) == ("completed", 4)


def test_a_deadline_is_alerted_before_it_is_missed_and_once(market: Market) -> None:
    fill(market, 50)
    market.schedule(deadline_minutes=60)
    with market.parts.records.transaction() as connection:
        hook = webhooks.add(connection, market.account_id, "https://bazaar.example/hook", EVENING, os.urandom)
    market.minutes_per_photo = 2
    (night,) = market.run_due(FIRST)
    assert night.deadline_at == FIRST + timedelta(hours=1)
    assert night.alerted_at is not None
    assert night.alerted_at < night.deadline_at
    with market.parts.records.transaction() as connection:
        events = webhooks.events_of(connection, hook.webhook_id)
    assert sorted(each.kind for each in events) == ["batch.ended", "night.at_risk", "night.ended"]
    (risk,) = [each for each in events if each.kind == "night.at_risk"]
    assert datetime.fromisoformat(str(risk.body["estimate_at"])) == FIRST + timedelta(minutes=100)
    assert "listing" not in json.dumps([each.body for each in events])


@pytest.mark.parametrize("away", ["source", "place"])
def test_a_night_that_gets_no_further_is_alerted_before_its_deadline_is_missed_and_once(
    market: Market, away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 3)
    schedule = market.schedule(deadline_minutes=60)
    with market.parts.records.transaction() as connection:
        hook = webhooks.add(connection, market.account_id, "https://bazaar.example/hook", EVENING, os.urandom)
    if away == "place":
        market.target_folder.write_bytes(b"no folder: its disk is not there")
    else:
        Path(market.source_url.removeprefix("file://")).rename(market.target_folder.parent / "elsewhere")
    for minute in (0, 29, 31, 50):
        assert market.run_due(FIRST + timedelta(minutes=minute)) == []
    with market.parts.records.transaction() as connection:
        (night,) = nights.of_schedule(connection, schedule.schedule_id)
        events = webhooks.events_of(connection, hook.webhook_id)
    assert night.alerted_at == FIRST + timedelta(minutes=31)
    assert [each.kind for each in events].count("night.at_risk") == 1
    assert sum("store_fault" in page for page in market.pages) == 1


def test_a_slow_delivery_is_alerted_before_the_deadline_is_missed(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 250)
    market.schedule(deadline_minutes=60)
    remember = fingerprints.remember

    def slowly(*given: object) -> None:
        remember(*given)  # type: ignore[arg-type]
        market.clock[0] += timedelta(minutes=50)

    monkeypatch.setattr(fingerprints, "remember", slowly)
    (night,) = market.run_due(FIRST)
    assert night.alerted_at == FIRST + timedelta(minutes=50)


@pytest.mark.parametrize("kind", ["night.ended", "night.at_risk", "night.skipped"])
def test_a_process_that_dies_while_it_tells_of_a_night_has_not_noted_it_either(
    market: Market, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    fill(market, 50)
    market.schedule(cron="0 * * * *", timezone="UTC", deadline_minutes=50)
    with market.parts.records.transaction() as connection:
        hook = webhooks.add(connection, market.account_id, "https://bazaar.example/hook", EVENING, os.urandom)
    market.minutes_per_photo = 2 if kind == "night.at_risk" else 0
    at = FIRST
    if kind == "night.skipped":
        (going,) = market.run_due(FIRST, cuts=False)
        at += timedelta(hours=1)
        with market.parts.records.transaction() as connection:
            nights.hold(connection, going.night_id, "somebody", at)

    def die(connection: Connection, account_id: AccountId, told: str, *rest: object) -> int:
        if told == kind:
            raise Killed
        return enqueue(connection, account_id, told, *rest)  # type: ignore[arg-type]

    enqueue = webhooks.enqueue
    with monkeypatch.context() as patch:
        patch.setattr(webhooks, "enqueue", die)
        with pytest.raises(Killed):
            market.run_due(at)
    market.run_due(market.clock[0] + timedelta(seconds=90))
    with market.parts.records.transaction() as connection:
        assert [each.kind for each in webhooks.events_of(connection, hook.webhook_id)].count(kind) == 1


def test_a_night_in_time_alerts_nobody(market: Market) -> None:
    fill(market, 50)
    market.schedule(deadline_minutes=60)
    market.minutes_per_photo = 1
    (night,) = market.run_due(FIRST)
    assert night.alerted_at is None


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


def test_a_place_that_is_away_is_tried_again_the_same_night(market: Market, tmp_path: Path) -> None:
    fill(market, 3)
    market.schedule()
    (tmp_path / "bazaar/cutouts").write_bytes(b"no folder: its disk is not there")
    assert market.run_due(FIRST) == []
    (tmp_path / "bazaar/cutouts").unlink()
    (night,) = market.run_due(FIRST + timedelta(minutes=1))
    assert (night.state, night.delivered, len(market.cut)) == ("completed", 3, 3)


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


def test_a_photo_that_comes_later_does_not_overwrite_another_ones_cutout(market: Market) -> None:
    market.source.write("a.jpg", b"the first")
    market.schedule()
    market.run_due(FIRST)
    assert market.delivered() == ["a.png"]
    market.source.write("a.heic", b"another")
    market.run_due(FIRST + DAY)
    assert {"a.heic.png", "a.jpg.png"} <= set(market.delivered())
    assert market.target.read("a.jpg.png") == market.target.read("a.png")


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


def test_a_place_that_was_taken_back_ends_the_night(market: Market) -> None:
    fill(market, 3)
    market.schedule()
    with market.parts.records.transaction() as connection:
        allowed.disallow(connection, market.account_id, market.target_url)
    (night,) = market.run_due(FIRST)
    assert (night.state, night.failures, market.cut) == ("failed", {"not_allowed": 0}, [])


@pytest.mark.parametrize("trouble", [StoreFault("The place could not be listed: SlowDown."), DeviceAbsent("No GPU.")])
def test_what_is_no_fault_of_the_customers_is_tried_again_the_same_night(
    market: Market, trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 3)
    market.schedule()

    def refuse(*_: object) -> None:
        raise trouble

    monkeypatch.setattr(night_look, "list_place", refuse)
    assert market.run_due(FIRST) == []
    monkeypatch.setattr(night_look, "list_place", list_place)
    (night,) = market.run_due(FIRST + timedelta(minutes=1))
    assert (night.state, night.failures, night.due_at) == ("completed", {}, FIRST)


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


@pytest.mark.parametrize("begun", [False, True])
def test_a_schedule_that_is_removed_in_mid_night_has_its_batch_called_off_and_that_is_told(
    market: Market, begun: bool
) -> None:
    fill(market, 12)
    schedule = market.schedule()
    with market.parts.records.transaction() as connection:
        hook = webhooks.add(connection, market.account_id, "https://bazaar.example/", EVENING, os.urandom)
    (night,) = market.run_due(FIRST, cuts=False)
    assert night.batch_id is not None
    with market.parts.records.transaction() as connection:
        if begun:
            assert line.claim(connection, night.batch_id, "dispatcher", FIRST, 12)
        (over,) = remove(connection, schedule.schedule_id, market.parts.clock)
        assert (over.state, over.failures, over.ended_at) == ("cancelled", {"schedule_removed": 12}, FIRST)
        assert line.is_called_off(connection, night.batch_id)
        assert line.in_line(connection, FIRST) == []
        assert (get_batch(connection, night.batch_id).state is BatchState.CANCELLED) is not begun
        told = {each.kind: each.body["state"] for each in webhooks.events_of(connection, hook.webhook_id)}
    assert told == {"night.ended": "cancelled"} | ({} if begun else {"batch.ended": "cancelled"})
    page = markdown(report_of(over.model_copy(update={"deleted": 1}), FIRST), schedule)
    assert "removed before these were delivered" in page
    assert "Which they are" not in page, "nothing more is written into the customer's place"
    assert market.run_due(FIRST + DAY) == []


def test_a_schedule_whose_night_has_no_batch_yet_or_an_ended_one_is_removed_and_the_batch_stays_as_it_ended(
    market: Market,
) -> None:
    fill(market, 2)
    ended, away = market.schedule(), market.schedule(deliver=None, source=f"{market.source_url}/nowhere")
    assert [each.schedule_id for each in market.run_due(FIRST, cuts=False)] == [ended.schedule_id]
    with market.parts.records.transaction() as connection:
        (night,) = nights.of_schedule(connection, ended.schedule_id)
        (without,) = nights.of_schedule(connection, away.schedule_id)
    assert night.batch_id is not None
    assert without.batch_id is None
    market._process(market.parts, night.batch_id)
    with market.parts.records.transaction() as connection:
        for schedule in (ended, away):
            assert [each.state for each in remove(connection, schedule.schedule_id, market.parts.clock)] == [
                "cancelled"
            ]
        assert get_batch(connection, night.batch_id).state is BatchState.COMPLETED
        assert not line.is_called_off(connection, night.batch_id)


def test_no_night_is_begun_of_a_schedule_that_was_removed_since_it_was_looked_at(market: Market) -> None:
    """Nobody could hold it, and it would be going for ever."""
    fill(market, 1)
    job = Job(market.parts, market.schedule(), Worker("one", os.urandom, None))
    market.clock[0] = FIRST
    with market.parts.records.transaction() as connection:
        remove(connection, job.schedule.schedule_id, market.parts.clock)
    for begin in (night_steps.run_schedule, night_steps.run_now):
        with pytest.raises(NotFound):
            begin(job)
    with market.parts.records.reading() as connection:
        assert nights.of_schedule(connection, job.schedule.schedule_id) == []


@pytest.mark.parametrize("ends", ["the schedule", "the account"])
def test_a_night_that_is_being_begun_while_its_schedule_ends_is_over_too(postgres: Records, ends: str) -> None:
    with postgres.transaction() as connection:
        account_id, _ = create_account(connection, "Bazaar", "o@bazaar.example", EVENING, os.urandom)
        schedule = nightly(account_id, EVENING)
        schedules.add(connection, schedule)

    def end() -> None:
        with postgres.transaction() as connection:
            if ends == "the schedule":
                remove(connection, schedule.schedule_id, lambda: FIRST)
            else:
                erase_account(connection, account_id, FIRST)

    other = threading.Thread(target=end)
    with postgres.transaction() as connection:
        schedules.take_turns(connection, schedule.schedule_id)
        assert nights.begin(connection, schedule, FIRST, FIRST, os.urandom)
        other.start()
        other.join(0.5)  # it comes as far as it can
    other.join(300)
    with postgres.reading() as connection:
        assert [each.state for each in nights.of_schedule(connection, schedule.schedule_id)] == ["cancelled"]


def test_a_schedule_that_is_removed_between_a_look_and_its_seal_leaves_nothing_in_line(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 3)
    schedule, seal = market.schedule(), night_look.seal

    def removed_first(parts: Parts, stamp: Stamp, items: list[Item], **how: Any) -> None:
        with parts.records.transaction() as connection:
            remove(connection, schedule.schedule_id, parts.clock)
        seal(parts, stamp, items, **how)

    monkeypatch.setattr(night_look, "seal", removed_first)
    assert market.run_due(FIRST, cuts=False) == []
    with market.parts.records.transaction() as connection:
        assert line.in_line(connection, FIRST) == []
        assert line.load_of(connection, FIRST).batches == 0


def test_removing_a_schedule_removes_its_fingerprints_and_its_key(market: Market) -> None:
    fill(market, 3)
    schedule = market.schedule()
    market.run_due(FIRST)
    with market.parts.records.transaction() as connection:
        assert remove(connection, schedule.schedule_id, market.parts.clock) == []
        assert fingerprints.known(connection, schedule.schedule_id) == {}
        assert schedules.list_all(connection) == []
        assert nights.of_schedule(connection, schedule.schedule_id)[0].state is NightState.COMPLETED


def test_a_paused_schedule_starts_nothing_and_catches_nothing_up(market: Market) -> None:
    fill(market, 3)
    schedule = market.schedule()
    with market.parts.records.transaction() as connection:
        schedules.pause(connection, schedule.schedule_id, EVENING)
    assert market.run_due(FIRST) == []
    with market.parts.records.transaction() as connection:
        schedules.resume(connection, schedule.schedule_id, FIRST + timedelta(hours=1))
    assert market.run_due(FIRST + timedelta(hours=2)) == []
    assert [each.due_at for each in market.run_due(FIRST + DAY)] == [FIRST + DAY]


def test_another_time_makes_no_photo_be_done_again_and_catches_nothing_up(market: Market) -> None:
    fill(market, 3)
    schedule = market.schedule()
    market.run_due(FIRST)
    noon = FIRST + timedelta(hours=11)
    with market.parts.records.transaction() as connection:
        changed = retime(
            connection, schedule.schedule_id, lambda: noon, cron="0 9 * * *", timezone="UTC", deadline_minutes=60
        )
    assert (changed.cron, changed.timezone, changed.deadline_minutes) == ("0 9 * * *", "UTC", 60)
    assert market.run_due(noon) == [], "nine o'clock of today has passed"
    (night,) = market.run_due(FIRST + DAY + timedelta(hours=8))
    assert (night.due_at.hour, night.skipped, len(market.cut)) == (9, 3, 3)


def test_another_deadline_lets_a_night_that_was_missed_be_caught_up(market: Market) -> None:
    fill(market, 3)
    schedule = market.schedule()
    with market.parts.records.transaction() as connection:
        retime(connection, schedule.schedule_id, lambda: FIRST + timedelta(hours=1), deadline_minutes=600)
    assert [each.due_at for each in market.run_due(FIRST + timedelta(hours=2))] == [FIRST]


def test_a_deadline_of_before_there_was_a_limit_keeps_nobody_from_another_time(market: Market) -> None:
    schedule = market.schedule(deadline_minutes=60)
    with market.parts.records.transaction() as connection:
        connection.execute(update(tables.schedules).values(deadline_minutes=MOST_MINUTES + 1))
        assert retime(connection, schedule.schedule_id, market.parts.clock, cron="0 4 * * *").cron == "0 4 * * *"
        with pytest.raises(UserError, match="1 to 100000 minutes"):
            retime(connection, schedule.schedule_id, market.parts.clock, deadline_minutes=MOST_MINUTES + 1)


@pytest.mark.parametrize("wrong", [{"cron": "often"}, {"timezone": "Mars/Olympus"}, {"deadline_minutes": 0}])
def test_times_that_cannot_be_are_refused_and_change_nothing(market: Market, wrong: dict[str, object]) -> None:
    schedule = market.schedule()
    with market.parts.records.transaction() as connection:
        with pytest.raises(UserError):
            retime(connection, schedule.schedule_id, market.parts.clock, **wrong)
        assert schedules.find(connection, schedule.schedule_id) == schedule


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


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"cron": "0 25 * * *"}, UserError),
        ({"cron": "often"}, UserError),
        ({"timezone": "Mars/Olympus"}, UserError),
        ({"source": "file:///etc"}, NotAllowed),
        ({"deliver": "s3://somebody-elses"}, NotAllowed),
        ({"deadline_minutes": 0}, UserError),
        ({"options": CutoutOptions(bg_image="wall.jpg")}, BadOptions),
        ({"options": CutoutOptions(consistent=True)}, BadOptions),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_added(market: Market, wrong: dict[str, object], kind: type) -> None:
    with pytest.raises(kind):
        market.schedule(**wrong)


@pytest.mark.parametrize("source", ["cars", "bikes"])
@pytest.mark.parametrize(("below", "other"), [("", ""), ("/cars", ""), ("", "/cars")])
def test_two_schedules_do_not_write_the_same_cutouts(market: Market, source: str, below: str, other: str) -> None:
    first = market.schedule(source=f"{market.source_url}/cars", deliver=f"{market.target_url}{below}")
    wanted = {"source": f"{market.source_url}/{source}", "deliver": f"{market.target_url}{other}"}
    for options in (CutoutOptions(), CutoutOptions(bg_color="white"), CutoutOptions(crop=True)):
        with pytest.raises(AlreadyExists, match=f"{first.schedule_id} delivers png files .* remove that schedule"):
            market.schedule(**wanted, options=options)
    for format in (Format.JPG, Format.WEBP):
        market.schedule(**wanted, options=CutoutOptions(format=format))
    market.schedule(**wanted | {"deliver": None})
    market.schedule(**wanted | {"deliver": f"{market.target_url}-of-bikes"})
    with market.parts.records.transaction() as connection:
        remove(connection, first.schedule_id, market.parts.clock)
    market.schedule(**wanted)


def test_a_paused_schedule_may_go_on_so_its_place_is_not_free(market: Market) -> None:
    first = market.schedule()
    with market.parts.records.transaction() as connection:
        schedules.pause(connection, first.schedule_id, EVENING)
    with pytest.raises(AlreadyExists, match="though it is paused, delivers"):
        market.schedule(options=CutoutOptions(bg_color="white"))


def test_a_place_is_known_again_by_another_path_to_it(market: Market) -> None:
    market.schedule()
    market.target_folder.mkdir(parents=True)
    link = market.target_folder.with_name("link")
    link.symlink_to(market.target_folder)
    with market.parts.records.transaction() as connection:
        allowed.allow(connection, market.account_id, f"file://{link}", EVENING)
    with pytest.raises(AlreadyExists):
        market.schedule(deliver=f"file://{link}")
    with pytest.raises(UserError, match="taken for photos"):
        market.schedule(source=f"file://{link}", deliver=None)


def test_no_schedule_takes_anothers_cutouts_for_photos_on_and_on(market: Market) -> None:
    first = market.schedule()
    turned = {"source": market.target_url, "options": CutoutOptions(format=Format.JPG)}
    with pytest.raises(UserError, match=f"{first.schedule_id} delivers into that source"):
        market.schedule(**turned, deliver=f"{market.target_url}-of-bikes")
    with pytest.raises(UserError, match=f"{first.schedule_id} has its photos there"):
        market.schedule(source=f"{market.target_url}-of-bikes", deliver=f"{market.source_url}/bikes")


@pytest.mark.parametrize("records_on", ["sqlite", "postgresql"])
def test_of_two_that_are_added_at_once_one_is_refused(tmp_path: Path, records_on: str) -> None:
    records = {"records_url": current_database()} if records_on == "postgresql" else {}
    market = open_market(tmp_path, f"file://{tmp_path}/bazaar", **records)
    want = Wanted("0 2 * * *", "UTC", market.source_url, market.target_url, None, CutoutOptions())
    refused: list[AlreadyExists] = []

    def add_one(connection: Connection) -> None:
        add(connection, market.account_id, want, market.parts.settings, market.parts.clock, os.urandom)

    def be_second() -> None:
        try:
            with market.parts.records.transaction() as connection:
                add_one(connection)
        except AlreadyExists as fault:
            refused.append(fault)

    second = threading.Thread(target=be_second)
    with market.parts.records.transaction() as connection:
        add_one(connection)
        second.start()
        second.join(1)  # it waits for the end of this one
    second.join()
    assert len(refused) == 1
    market.parts.records.engine.dispose()


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


def test_cutouts_must_not_be_delivered_into_the_source(market: Market) -> None:
    with pytest.raises(UserError, match="Keep them apart"):
        market.schedule(deliver=f"{market.source_url}/cutouts")


def test_a_deployment_starts_by_cron_and_time_zone_and_knows_only_an_id(market: Market) -> None:
    from flows.nights.due_nights import deployments

    schedule = market.schedule()
    (made,) = deployments(market.parts)
    (start,) = made.schedules or ()
    assert (start.schedule.cron, start.schedule.timezone) == ("0 2 * * *", "Europe/Berlin")  # type: ignore[union-attr]
    assert made.parameters == {"schedule_id": schedule.schedule_id}
    assert "bazaar" not in made.model_dump_json()


def test_the_page_on_nights_names_all_that_passes_for_a_photo() -> None:
    page = (Path(__file__).parents[2] / "docs/marketplaces.md").read_text()
    assert [each for each in sorted(PHOTO_SUFFIXES) if f"`{each}`" not in page] == []


def test_of_two_that_change_its_times_at_once_neither_undoes_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite one waits for the other."""
    market = open_market(tmp_path, f"file://{tmp_path}/bazaar", records_url=current_database())
    schedule, check, others = market.schedule(), timetable.check, []

    def meanwhile(cron: str, timezone: str) -> None:
        check(cron, timezone)
        if not others:
            others.append("")
            with market.parts.records.transaction() as connection:
                retime(connection, schedule.schedule_id, market.parts.clock, deadline_minutes=240)

    monkeypatch.setattr(timetable, "check", meanwhile)
    with market.parts.records.transaction() as connection:
        changed = retime(connection, schedule.schedule_id, market.parts.clock, cron="0 4 * * *")
    assert (changed.cron, changed.deadline_minutes, changed.resumed_at) == ("0 4 * * *", 240, EVENING)
    market.parts.records.engine.dispose()


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


def test_a_look_that_lost_its_night_before_it_could_seal_has_nothing_cut_twice(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 3)
    market.schedule()
    seal = night_look.seal

    def stand_still(*wanted: object, **how: object) -> object:
        """For longer than its lease. Another goes on with the night: its batch is open, so it looks again."""
        monkeypatch.setattr(night_look, "seal", seal)
        with market.parts.records.transaction() as connection:
            connection.execute(update(tables.nights).values(lease_until=FIRST))
        (night,) = market.run_due(FIRST + timedelta(minutes=2))
        assert (night.state, night.delivered) == ("completed", 3)
        return seal(*wanted, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(night_look, "seal", stand_still)
    assert market.run_due(FIRST) == []
    with market.parts.records.reading() as connection:
        assert line.in_line(connection, market.parts.clock()) == []
    assert len(market.cut) == 3
