"""Many nights at once: none holds up another, and what is due is run."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import update

from flows.nights import look as night_look
from flows.nights import steps as night_steps
from flows.nights.watch import NightWatch
from flows.nights.worker import Worker
from flows.parts import Parts
from portal.cli import night_rounds
from store.outside.allowed import allow
from store.outside.listing import OutsideFile, list_place
from store.records import nights, tables
from store.records.nights import Night
from store.records.people import create_account
from store.settings import Settings
from tests.flows.nights.market import FIRST, Market, fill


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
    with NightWatch(market.parts, lambda: Worker(os.urandom(4).hex(), os.urandom, None), 3) as watch:
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


def test_nights_of_one_account_that_take_long_leave_a_thread_to_another_accounts(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(market, 2)
    for _ in range(3):
        market.schedule(deliver=None)
    with market.parts.records.transaction() as connection:
        other, _ = create_account(connection, "Kiosk", "owner@kiosk.example", market.clock[0], os.urandom)
        allow(connection, other, market.target_url, market.clock[0])
    market.target.write("1.jpg", b"a photo")
    late = replace(market, account_id=other).schedule(cron="30 2 * * *", source=market.target_url, deliver=None)
    goes_on, are_slow, other_is_begun = threading.Event(), threading.Semaphore(0), threading.Event()

    def list_slowly(place: str, settings: Settings) -> Iterator[OutsideFile]:
        if place == market.target_url:
            other_is_begun.set()
        else:
            are_slow.release()
            assert goes_on.wait(60)
        return list_place(place, settings)

    monkeypatch.setattr(night_look, "list_place", list_slowly)
    market.clock[0] = FIRST
    with NightWatch(market.parts, lambda: Worker(os.urandom(4).hex(), os.urandom, None), 3) as watch:
        watch.look()
        assert all(are_slow.acquire(timeout=60) for _ in range(2))
        market.clock[0] = FIRST + timedelta(minutes=30)
        for _ in range(1000):
            watch.look()
            if other_is_begun.wait(0.01):
                break
        has_begun, is_third_held = other_is_begun.is_set(), are_slow.acquire(blocking=False)
        goes_on.set()
    assert (has_begun, is_third_held) == (True, False)
    with market.parts.records.transaction() as connection:
        assert nights.of_schedule(connection, late.schedule_id)[0].new == 1


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
