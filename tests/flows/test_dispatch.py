"""The line is worked through: by fair share, on a lease, and a dispatcher that dies loses nothing."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, update
from sqlalchemy.exc import OperationalError

from flows import calling_off, steps
from flows.dispatch import Dispatcher
from flows.fair_share import TURN_ITEMS, charged
from flows.parts import Parts, open_parts
from portal.batches import ask_again
from schemas.batch import BatchState, Counts
from schemas.clock import system_clock
from schemas.errors import (
    BatchNotSealed,
    BgbatchError,
    BucketUnfit,
    DeviceAbsent,
    NotCompiled,
    NotFound,
    PastDeadline,
    StoreFault,
    WeightsInvalid,
)
from schemas.ids import BatchId
from schemas.options import CutoutOptions
from schemas.results import Failed, ShardReport
from store.records import line
from store.records.batches import get_batch, hasten, mark_purged
from store.records.people import create_account
from store.records.shares import Share, find_share, set_limits
from store.records.tables import submissions
from store.transient.transient_store import measure_key
from tests.consent.postgres import current_database
from tests.flows.conftest import Place
from workers.alike import Measure

MEASURE = Measure(width=4, height=3, left=0, top=0, across=0, down=0, on_frame=0.0).model_dump_json().encode()


def pretend(parts: Parts, batch_id: BatchId, code: str = "not_an_image") -> Counts:
    """Process without pixels: each photo gets a result of its own, and `stop` is obeyed between shards."""

    def run(batch_id, shards, clock, keep, stopped):
        for shard in shards:
            if stopped():
                return
            results = tuple(Failed(number=n, code=code, sentence="No.", finished_at=clock()) for n in shard)
            report = ShardReport(first=shard[0], last=shard[-1], results=results)
            keep(report)
            yield report

    steps.cut(parts, steps.plan(parts, batch_id), run)
    return steps.finish(parts, batch_id)


def dispatcher(place: Place, process=pretend, holder: str = "one") -> Dispatcher:
    return Dispatcher(place.parts, holder, process, threading.Event())


def state(place: Place, batch_id: BatchId) -> BatchState:
    with place.parts.records.transaction() as connection:
        return get_batch(connection, batch_id).state


def failed(place: Place, batch_id: BatchId) -> int:
    with place.parts.records.reading() as connection:
        return get_batch(connection, batch_id).counts.failed


def another_account(place: Place) -> Place:
    with place.parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Bazaar", "o@bazaar.example", place.parts.clock(), os.urandom)
    return replace(place, account_id=account_id)


def test_a_sealed_batch_is_worked_on_once_and_then_nobody_waits(place: Place) -> None:
    stamp = place.send({"1.jpg": b"x", "2.jpg": b"y"})
    assert dispatcher(place).take_turn()
    assert state(place, stamp.batch_id) is BatchState.FAILED
    assert not dispatcher(place).take_turn()


@pytest.mark.parametrize("whose", ["another", "its own"])
def test_a_large_batch_lets_a_small_one_go_first(place: Place, monkeypatch, whose: str) -> None:
    monkeypatch.setattr("flows.dispatch._LOOK_EVERY", 0.0)
    monkeypatch.setattr("flows.dispatch._ENOUGH", 0.0)
    large = place.send({f"{n}.jpg": b"x" for n in range(3 * TURN_ITEMS)})
    other = another_account(place) if whose == "another" else place
    order: list[BatchId] = []
    small = None

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        nonlocal small
        if small is None:
            small = other.send({"1.jpg": b"x"})
        order.append(batch_id)
        return pretend(parts, batch_id)

    one = dispatcher(place, process)
    while one.take_turn():
        pass
    assert small is not None
    assert order == [large.batch_id, small.batch_id, large.batch_id]
    assert state(place, large.batch_id) is state(place, small.batch_id) is BatchState.FAILED


def test_a_batch_that_has_ended_is_out_of_the_line_though_its_dispatcher_dies_at_that_moment(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = place.send({"1.jpg": b"x"})

    def away(*_: object) -> None:
        raise OperationalError("UPDATE", None, Exception("the server closed the connection"))

    monkeypatch.setattr(line, "release", away)
    with pytest.raises(OperationalError):
        dispatcher(place).take_turn()
    with place.parts.records.reading() as connection:
        stands = line.find_submission(connection, stamp.batch_id)
    assert stands is not None
    assert stands.ended_at is not None


def measured(parts: Parts, batch_id: BatchId) -> Counts:
    """The same for photos that are to be consistent, of which each call of the first ones only measures some."""

    def run(batch_id, shards, clock, keep, stopped):
        manifest = parts.transient.manifest(batch_id)
        for shard in shards:
            if stopped():
                return
            for number in shard:
                parts.transient.write(manifest.stamp, measure_key(batch_id, number), MEASURE)
            yield ShardReport(first=shard[0], last=shard[-1], results=())

    steps.cut(parts, steps.plan(parts, batch_id), run)
    return steps.finish(parts, batch_id)


@pytest.mark.parametrize("kind", ["retried", "measured"])
def test_a_batch_whose_counts_stay_as_they_are_while_it_is_worked_on_lets_others_go_first_too(
    place: Place, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("flows.dispatch._LOOK_EVERY", 0.0)
    monkeypatch.setattr("flows.dispatch._ENOUGH", 0.0)
    options = CutoutOptions(consistent=kind == "measured")
    large = place.send({f"{n}.jpg": b"x" for n in range(3 * TURN_ITEMS)}, options=options)
    if kind == "retried":
        assert dispatcher(place).take_turn()
        with place.parts.records.transaction() as connection:
            line.ask_again(connection, large.batch_id, ["not_an_image"], place.parts.clock())
    small = another_account(place).send({"1.jpg": b"x"})
    turns, ending = [], threading.Event()

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        turns.append(batch_id)
        ending.set() if batch_id == small.batch_id else None
        return (measured if kind == "measured" and batch_id == large.batch_id else pretend)(parts, batch_id)

    monkeypatch.setattr("flows.dispatch.next_turn", lambda waiting, *_: min(waiting, key=lambda each: each.ready_at))
    Dispatcher(place.parts, "one", process, ending).run(pause=0.01)
    assert turns == [large.batch_id, small.batch_id]
    assert state(place, large.batch_id) is BatchState.RUNNING, "and it goes on after it"


def test_a_large_batch_does_not_take_turns_with_another_large_one_of_its_account(place: Place, monkeypatch) -> None:
    monkeypatch.setattr("flows.dispatch._LOOK_EVERY", 0.0)
    monkeypatch.setattr("flows.dispatch._ENOUGH", 0.0)
    for _ in range(2):
        place.send({f"{n}.jpg": b"x" for n in range(2 * TURN_ITEMS)})
    one, turns = dispatcher(place), 0
    while one.take_turn():
        turns += 1
    assert turns == 2


@pytest.mark.parametrize(("beginning", "photos"), [(0, 40), (5, 80), (60, 80)])
def test_a_turn_of_quick_photos_takes_as_long_as_to_be_worth_its_beginning(
    place: Place, monkeypatch: pytest.MonkeyPatch, beginning: int, photos: int
) -> None:
    """A batch of 100,000 takes five seconds to begin, in which a GPU would do thousands of photos."""
    monkeypatch.setattr("flows.dispatch._LOOK_EVERY", 0.0)
    spent = [0.0]
    monkeypatch.setattr("flows.dispatch.monotonic", lambda: spent[0])
    for whose in (place, another_account(place)):
        whose.send({f"{n}.jpg": b"x" for n in range(5 * TURN_ITEMS)})
    turns: list[int] = []

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        def worked(photos: int) -> None:
            parts.worked(photos)
            spent[0] += photos / 4  # seconds

        before = failed(place, batch_id)
        spent[0] += beginning
        ended = pretend(replace(parts, worked=worked), batch_id)
        turns.append(ended.failed - before)
        return ended

    one = dispatcher(place, process)
    while one.take_turn():
        pass
    assert [each // 40 * 40 for each in turns[:2]] == [photos, photos]


def test_an_account_of_many_tiny_batches_has_no_more_of_the_workers_time_than_one_of_a_large_batch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn takes its time to begin, however few photos it is of."""
    monkeypatch.setattr("flows.dispatch._LOOK_EVERY", 0.0)
    monkeypatch.setattr("flows.dispatch._ENOUGH", 0.0)
    spent, other = [0.0], another_account(place)
    monkeypatch.setattr("flows.dispatch.monotonic", lambda: spent[0])
    for _ in range(20):
        other.send({"1.jpg": b"x"})
    large = place.send({f"{n}.jpg": b"x" for n in range(4 * TURN_ITEMS)})
    is_large: list[bool] = []

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        spent[0] += 1
        is_large.append(batch_id == large.batch_id)
        return pretend(parts, batch_id)

    one = dispatcher(place, process)
    while one.take_turn():
        pass
    assert is_large.count(True) == 4
    assert is_large[:8].count(True) == 4, "turn and turn about"


@pytest.mark.parametrize("records_on", ["sqlite", "postgresql"])
@pytest.mark.parametrize("stands_still_in", ["a shard", "the end"])
@pytest.mark.parametrize("asked_again", [False, True], ids=["ended", "asked_again"])
def test_a_dispatcher_that_stood_still_while_another_brought_its_batch_to_the_end_changes_nothing_of_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, records_on: str, stands_still_in: str, asked_again: bool
) -> None:
    if records_on == "postgresql":
        settings = place.parts.settings.model_copy(update={"records_url": current_database()})
        place = another_account(replace(place, parts=open_parts(settings, place.parts.clock)))
    stamp = place.send({f"{n}.jpg": b"x" for n in range(6)})
    record_end, stood_still = steps._record_end, []

    def stands() -> tuple[object, ...]:
        with place.parts.records.reading() as connection:
            return get_batch(connection, stamp.batch_id), line.find_submission(connection, stamp.batch_id)

    def stand_still() -> None:
        """Five minutes, in which another dispatcher does all of the rest."""
        if stood_still:
            return
        stood_still.append(None)
        later = replace(place.parts, clock=lambda: stamp.received_at + timedelta(minutes=5))
        other = Dispatcher(later, "two", pretend, threading.Event())
        assert other.take_turn()
        assert state(place, stamp.batch_id) is BatchState.FAILED
        if asked_again:
            with later.records.transaction() as connection:
                line.ask_again(connection, stamp.batch_id, ["not_an_image"], later.clock())
        stood_still.append(stands())

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        watching = stand_still if stands_still_in == "a shard" else lambda: None
        return pretend(replace(parts, watch=lambda counts: watching()), batch_id)

    def end(parts: Parts, batch_id: BatchId, *came_to: Any) -> None:
        if parts.holder == f"{line.DISPATCHER}one":
            stand_still()
        record_end(parts, batch_id, *came_to)

    monkeypatch.setattr(steps, "_record_end", end)
    assert dispatcher(place, process).take_turn(), "and it goes on with the next one"
    assert stands() == stood_still[1]
    place.parts.records.engine.dispose()


def test_a_dispatcher_that_stood_still_while_its_batch_was_called_off_does_not_set_it_going_again(place: Place) -> None:
    stamp = place.send({f"{n}.jpg": b"x" for n in range(6)})

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        def stand_still(counts: Counts) -> None:
            if counts.failed == 2:
                with parts.records.transaction() as connection:
                    calling_off.call_off(connection, batch_id, stamp.received_at + timedelta(minutes=5))
            told.append(state(place, batch_id))

        return pretend(replace(parts, watch=stand_still), batch_id)

    told: list[BatchState] = []
    assert dispatcher(place, process).take_turn()
    assert told == [BatchState.RUNNING, BatchState.CANCELLED], "not running again, not even for a moment"
    assert state(place, stamp.batch_id) is BatchState.CANCELLED


def test_two_dispatchers_never_hold_the_same_batch(place: Place) -> None:
    place.send({"1.jpg": b"x"})
    seen: list[bool] = []

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        seen.append(dispatcher(place, holder="two").take_turn())
        return pretend(parts, batch_id)

    assert dispatcher(place, process).take_turn()
    assert seen == [False]


def test_a_batch_whose_dispatcher_died_is_anybodys_when_the_lease_is_over(place: Place) -> None:
    stamp = place.send({"1.jpg": b"x"})
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, stamp.batch_id, "dead", place.parts.clock())
    assert not dispatcher(place).take_turn()
    later = replace(place.parts, clock=lambda: stamp.received_at + timedelta(minutes=5))
    assert Dispatcher(later, "two", pretend, threading.Event()).take_turn()
    assert state(place, stamp.batch_id) is BatchState.FAILED


def test_a_batch_that_ended_since_it_was_chosen_is_not_claimed(place: Place) -> None:
    stamp = place.send({"1.jpg": b"x"})
    now = place.parts.clock()
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, stamp.batch_id, "one", now)
        line.leave(connection, stamp.batch_id, now)
        line.release(connection, stamp.batch_id, "one", now)
        assert not line.claim(connection, stamp.batch_id, "two", now)
        ended = line.find_submission(connection, stamp.batch_id)
        assert ended is not None
        assert (ended.ended_at, ended.lease_holder) == (now, None)
        assert line.claim(connection, stamp.batch_id, "a command", now, once_more=True)


def test_a_fault_of_ours_puts_the_batch_back_in_line(place: Place) -> None:
    stamp = place.send({"1.jpg": b"x"})

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        raise StoreFault("The store is away.")

    with pytest.raises(StoreFault):
        dispatcher(place, process).take_turn()
    assert dispatcher(place).take_turn()
    assert state(place, stamp.batch_id) is BatchState.FAILED


def test_a_batch_that_was_put_off_gets_another_turn_of_the_same_dispatcher(place: Place, monkeypatch) -> None:
    now, faults = [0.0], [StoreFault("The store is away.")]
    monkeypatch.setattr("flows.dispatch.monotonic", lambda: now[0])
    stamp = place.send({"1.jpg": b"x"})

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        if faults:
            raise faults.pop()
        return pretend(parts, batch_id)

    same = dispatcher(place, process)
    with pytest.raises(StoreFault):
        same.take_turn()
    now[0] = 29.0
    assert not same.take_turn()
    now[0] = 31.0
    assert same.take_turn()
    assert state(place, stamp.batch_id) is BatchState.FAILED


@pytest.mark.parametrize("mistake", [DeviceAbsent, NotCompiled, WeightsInvalid, BucketUnfit, NotFound, BatchNotSealed])
def test_a_mistake_of_the_operators_empties_nobodys_line_and_is_told(
    place: Place, caplog: pytest.LogCaptureFixture, mistake: type[BgbatchError]
) -> None:
    stamp = place.send({"1.jpg": b"x"})

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        raise mistake("What to mend.")

    with pytest.raises(mistake), caplog.at_level("WARNING", "flows.dispatch"):
        dispatcher(place, process).take_turn()
    assert f"{mistake.code}; the batch waits in line. What to mend." in caplog.text
    assert dispatcher(place).take_turn()
    assert state(place, stamp.batch_id) is BatchState.FAILED


def test_a_batch_over_which_every_turn_fails_in_a_way_that_nobody_foresaw_holds_up_nobody_else(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.dispatch._BREATH", 0.01)
    poison = place.send({"1.jpg": b"x"})
    other = another_account(place).send({"1.jpg": b"x"})
    tried, ending = [], threading.Event()

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        tried.append(batch_id)
        if batch_id == poison.batch_id:
            raise ValueError("a manifest of a newer version")
        counts = pretend(parts, batch_id)
        ending.set()
        return counts

    Dispatcher(place.parts, "one", process, ending).run(pause=0.01)
    assert state(place, other.batch_id) is BatchState.FAILED
    assert tried == [poison.batch_id, other.batch_id]


def test_a_process_in_which_no_turn_ends_well_gives_way_to_a_new_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.dispatch._BREATH", 0.01)
    for _ in range(4):
        place.send({"1.jpg": b"x"})
    tried = []

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        tried.append(batch_id)
        raise ValueError("Prefect's server is gone")

    with pytest.raises(ValueError, match="gone"):
        dispatcher(place, process).run(pause=0.01)
    assert len(set(tried)) == len(tried) == 3


@pytest.mark.parametrize("end", [PastDeadline, BatchNotSealed])
def test_a_batch_whose_time_is_over_leaves_the_line(place: Place, end: type[BgbatchError]) -> None:
    stamp = place.send({"1.jpg": b"x"})

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        with parts.records.transaction() as connection:
            hasten(connection, batch_id, stamp.received_at)
        raise end("It is gone.")

    assert dispatcher(place, process).take_turn()
    with place.parts.records.reading() as connection:
        stands = line.find_submission(connection, stamp.batch_id)
    assert stands is not None
    assert stands.ended_at is not None


def test_a_batch_that_is_purged_while_it_is_worked_on_stays_purged_and_no_more_of_it_is_begun(place: Place) -> None:
    stamp = place.send({f"{n}.jpg": b"x" for n in range(10)})
    done: list[int] = []

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        def watch(counts: Counts) -> None:
            done.append(counts.failed)
            with parts.records.transaction() as connection:
                mark_purged(connection, [batch_id], parts.clock())

        return pretend(replace(parts, watch=watch), batch_id)

    assert dispatcher(place, process).take_turn()
    assert state(place, stamp.batch_id) is BatchState.PURGED
    assert done == [0]
    assert not dispatcher(place).take_turn()


@pytest.mark.parametrize("wish", ["retry", "cancel"])
def test_a_wish_that_comes_between_the_end_of_a_turn_and_its_lease_is_not_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    monkeypatch.setattr("flows.dispatch._LOOK_EVERY", 0.0)
    stamp = place.send({"1.jpg": b"x", "2.jpg": b"y"})

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        counts = pretend(parts if wish == "retry" else replace(parts, stop=lambda _: True), batch_id)
        with parts.records.transaction() as connection:
            if wish == "retry":
                line.ask_again(connection, batch_id, ["not_an_image"], parts.clock())
            else:
                line.ask_to_stop(connection, batch_id, parts.clock())
        return counts

    assert dispatcher(place, process).take_turn()
    assert dispatcher(place).take_turn()
    assert state(place, stamp.batch_id) is (BatchState.FAILED if wish == "retry" else BatchState.CANCELLED)
    assert not dispatcher(place).take_turn()


@pytest.mark.parametrize("stopped_by", ["the process", "its customer"])
def test_a_retry_that_is_stopped_on_the_way_has_not_ended_unless_its_customer_wants_so(
    place: Place, stopped_by: str
) -> None:
    stamp = place.send({f"{n}.jpg": b"x" for n in range(5)})
    assert dispatcher(place).take_turn()
    with place.parts.records.transaction() as connection:
        line.ask_again(connection, stamp.batch_id, ["not_an_image"], place.parts.clock())

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        if stopped_by == "its customer":
            with parts.records.transaction() as connection:
                calling_off.call_off(connection, batch_id, parts.clock())
        answers = iter([False, True])  # after the first call of two photos
        return pretend(replace(parts, stop=lambda _: next(answers)), batch_id)

    assert dispatcher(place, process).take_turn()
    if stopped_by == "its customer":
        assert state(place, stamp.batch_id) is BatchState.CANCELLED
        assert not dispatcher(place).take_turn()
        return
    assert state(place, stamp.batch_id) is BatchState.RUNNING
    assert steps.plan(place.parts, stamp.batch_id).shards == [(3, 4), (5,)]
    assert dispatcher(place).take_turn()
    assert state(place, stamp.batch_id) is BatchState.FAILED
    assert not dispatcher(place).take_turn()


def test_a_retry_ends_though_the_workers_clock_is_behind_that_of_the_wish(place: Place) -> None:
    stamp = place.send({f"{n}.jpg": b"x" for n in range(5)})
    assert dispatcher(place).take_turn()
    with place.parts.records.transaction() as connection:
        line.ask_again(connection, stamp.batch_id, ["not_an_image"], place.parts.clock() + timedelta(minutes=4))
    assert dispatcher(place).take_turn()
    assert state(place, stamp.batch_id) is BatchState.FAILED
    assert not dispatcher(place).take_turn()


def test_a_photo_that_failed_by_a_workers_clock_that_is_ahead_is_tried_again(place: Place) -> None:
    stamp, ahead = place.send({"1.jpg": b"x", "2.jpg": b"y"}), timedelta(minutes=4)
    parts = place.parts
    assert dispatcher(
        place, lambda these, batch_id: pretend(replace(these, clock=lambda: system_clock() + ahead), batch_id)
    ).take_turn()
    with parts.records.reading() as connection:
        record = get_batch(connection, stamp.batch_id)
    ask_again(parts.records, parts.transient, parts.clock, record, None)
    assert steps.plan(parts, stamp.batch_id).shards == [(1, 2)]
    assert dispatcher(place).take_turn()
    assert state(place, stamp.batch_id) is BatchState.FAILED
    assert not dispatcher(place).take_turn()


@pytest.mark.parametrize("is_called_off", [False, True])
def test_of_two_who_ask_at_once_each_gets_what_they_asked_for(place: Place, is_called_off: bool) -> None:
    stamp, parts = place.send({"1.jpg": b"x", "2.jpg": b"y", "3.jpg": b"z"}), place.parts
    assert dispatcher(place, partial(pretend, code="not_an_image")).take_turn()
    manifest = parts.transient.manifest(stamp.batch_id)
    other = Failed(number=3, code="damaged_image", sentence="No.", finished_at=parts.clock())
    parts.transient.write_report(manifest.stamp, ShardReport(first=3, last=3, results=(other,)))
    with parts.records.reading() as connection:
        record = get_batch(connection, stamp.batch_id)
    ask_again(parts.records, parts.transient, parts.clock, record, ["not_an_image"])
    if is_called_off:
        with parts.records.transaction() as connection:
            calling_off.call_off(connection, stamp.batch_id, parts.clock())
    ask_again(parts.records, parts.transient, parts.clock, record, ["damaged_image"])
    assert sorted(n for shard in steps.plan(parts, stamp.batch_id).shards for n in shard) == (
        [3] if is_called_off else [1, 2, 3]
    )


def test_a_wish_that_comes_after_the_plan_of_a_run_is_not_taken_for_tried(place: Place) -> None:
    stamp = place.send({"1.jpg": b"x", "2.jpg": b"y"})
    assert dispatcher(place).take_turn()
    planned = steps.plan(place.parts, stamp.batch_id)
    with place.parts.records.transaction() as connection:
        line.ask_again(connection, stamp.batch_id, ["not_an_image"], place.parts.clock())
    steps.cut(place.parts, planned, lambda *_: iter(()))
    steps.finish(place.parts, stamp.batch_id)
    assert state(place, stamp.batch_id) is BatchState.RUNNING
    assert steps.plan(place.parts, stamp.batch_id).shards, "who goes on tries them"


def test_what_failed_by_our_fault_in_a_retry_is_done_when_the_batch_is_run_again(place: Place) -> None:
    stamp = place.send({"1.jpg": b"x", "2.jpg": b"y"})
    assert dispatcher(place).take_turn()
    with place.parts.records.transaction() as connection:
        line.ask_again(connection, stamp.batch_id, ["not_an_image"], place.parts.clock())
    assert dispatcher(place, partial(pretend, code="worker_lost")).take_turn()
    assert not dispatcher(place).take_turn(), "the wish is granted once"
    assert steps.plan(place.parts, stamp.batch_id).shards == [(1, 2)], "a failure of ours is"


def test_a_decision_asks_for_the_shares_of_those_who_wait_and_of_nobody_else(place: Place) -> None:
    other = another_account(place)
    with place.parts.records.transaction() as connection:
        for account_id in (place.account_id, other.account_id):
            set_limits(connection, Share(account_id=account_id, weight=2.0))
    asked: list[tuple[str, ...]] = []

    def note(connection: object, cursor: object, statement: str, values: tuple[str, ...], *more: object) -> None:
        if "FROM shares" in statement:
            asked.append(values)

    event.listen(place.parts.records.engine, "before_cursor_execute", note)
    assert not dispatcher(place).take_turn()
    assert asked == []
    place.send({"1.jpg": b"x"})
    assert dispatcher(place).take_turn()
    assert asked[0] == (place.account_id,)


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
def test_turns_of_one_account_that_end_together_are_both_charged(
    place: Place, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    settings = place.parts.settings.model_copy(update={"records_url": current_database()})
    now = place.parts.clock()
    busy = another_account(replace(place, parts=open_parts(settings, lambda: now)))
    if not is_new:
        busy.send({"0.jpg": b"x"})
        assert dispatcher(busy).take_turn()
    with busy.parts.records.reading() as connection:
        before = find_share(connection, busy.account_id)
    both, spent = threading.Barrier(2), []

    def charged_together(share: Share, seconds: float, now: datetime) -> Share:
        spent.append(seconds)
        with suppress(threading.BrokenBarrierError):
            both.wait(0.3)  # who waits for the other's end finds nobody here
        return charged(share, seconds, now)

    def take_turn(holder: str) -> None:
        while not dispatcher(busy, holder=holder).take_turn():
            pass

    monkeypatch.setattr("flows.dispatch.charged", charged_together)
    for _ in range(2):
        busy.send({"1.jpg": b"x", "2.jpg": b"y"})
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(take_turn, ["one", "two"]))
    with busy.parts.records.reading() as connection:
        share = find_share(connection, busy.account_id)
    busy.parts.records.engine.dispose()
    once = charged(before, sum(spent), now)
    assert share.finish_tag == pytest.approx(once.finish_tag, rel=1e-9)


def needed_at_once(place: Place) -> None:
    with place.parts.records.transaction() as connection:
        connection.execute(update(submissions).values(due_at=place.parts.clock()))


def test_every_other_turn_is_no_matter_of_deadlines(place: Place) -> None:
    urgent = [place.send({"1.jpg": b"x"}).batch_id for _ in range(3)]
    needed_at_once(place)
    small = another_account(place).send({"1.jpg": b"x"})
    order: list[BatchId] = []

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        order.append(batch_id)
        return pretend(parts, batch_id)

    one = dispatcher(place, process)
    while one.take_turn():
        pass
    assert order == [urgent[0], small.batch_id, *urgent[1:]]


def test_batches_whose_turns_end_in_faults_hold_nobody_up_however_urgent_they_are(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.dispatch._BREATH", 0.0)
    sick = [place.send({"1.jpg": b"x"}).batch_id for _ in range(3)]
    needed_at_once(place)
    well = [place.send({"1.jpg": b"x"}).batch_id for _ in range(3)]
    ending, tried = threading.Event(), []

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        tried.append(batch_id)
        if len(tried) == 6:
            ending.set()
        if batch_id in sick:
            raise StoreFault("It cannot be read.")
        return pretend(parts, batch_id)

    Dispatcher(place.parts, "one", process, ending).run(pause=0)
    assert sorted(tried) == sorted([*sick, *well]), "each once: who failed is put off"


def test_records_that_are_away_for_a_moment_do_not_end_a_dispatcher(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = place.send({"1.jpg": b"x"})
    ending, reading, asked = threading.Event(), place.parts.records.reading, []

    def restarting():
        asked.append("reading")
        if len(asked) == 1:
            raise OperationalError("SELECT", None, Exception("the server is starting up"))
        return reading()

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        ending.set()
        return pretend(parts, batch_id)

    monkeypatch.setattr(place.parts.records, "reading", restarting)
    monkeypatch.setattr("flows.dispatch._PAUSE_AFTER_FAULT", 0.0)
    Dispatcher(place.parts, "one", process, ending).run(pause=0)
    assert state(place, stamp.batch_id) is not BatchState.OPEN
    assert ending.is_set()


def test_a_batch_that_is_called_off_stops_and_keeps_what_is_done(place: Place, monkeypatch) -> None:
    monkeypatch.setattr("flows.dispatch._LOOK_EVERY", 0.0)
    stamp = place.send({f"{n}.jpg": b"x" for n in range(10)})

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        def watch(counts: Counts) -> None:
            parts.watch(counts)
            if counts.failed >= 4:
                with place.parts.records.transaction() as connection:
                    line.ask_to_stop(connection, batch_id, place.parts.clock())

        return pretend(replace(parts, watch=watch), batch_id)

    assert dispatcher(place, process).take_turn()
    assert state(place, stamp.batch_id) is BatchState.CANCELLED
    with place.parts.records.transaction() as connection:
        assert get_batch(connection, stamp.batch_id).counts.failed == 4
    assert not dispatcher(place).take_turn()
