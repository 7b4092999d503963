"""Nights that are killed, lose their lease, or find a store that fails: they go on, and cut and tell nothing twice."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from flows.nights import look as night_look
from flows.nights.report import REPORTS
from flows.parts import Parts
from portal.schedules import remove
from schemas.batch import Counts
from schemas.errors import (
    DeviceAbsent,
    NotFound,
    StoreFault,
)
from schemas.ids import AccountId, BatchId
from store.objects.folder import Folder
from store.outside.listing import OutsideFile, list_place
from store.outside.opened import WithoutLinks
from store.records import fingerprints, line, nights, tables, webhooks
from store.records.nights import NightState
from store.settings import Settings
from tests.flows.nights.market import DAY, EVENING, FIRST, Killed, Market, fill


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


@pytest.mark.parametrize(("module", "take"), [(nights, "hold"), (line, "claim")])
def test_a_stop_while_a_lease_is_taken_leaves_it_to_others(
    market: Market, module: Any, take: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 3)
    market.schedule()
    real = getattr(module, take)

    def stopped_meanwhile(*what: Any) -> bool:
        signal.raise_signal(signal.SIGINT)
        return bool(real(*what))

    monkeypatch.setattr(module, take, stopped_meanwhile)
    with pytest.raises(KeyboardInterrupt):
        market.run_due(FIRST)
    with market.parts.records.reading() as connection:
        for table in (tables.nights, tables.submissions):
            assert set(connection.execute(select(table.c.lease_holder)).scalars()) <= {None}


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
