"""A lease is kept while its work goes on, whatever the records do for a moment."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, update
from sqlalchemy.exc import OperationalError

from flows.calling_off import call_off
from flows.fair_share import TURN_ITEMS
from flows.lease import LeaseLost, batch_fenced, renewed, under_lease
from flows.parts import Parts, using
from flows.process_batch import finish_batch
from flows.receive import stamp_batch
from flows.steps import plan
from portal.cli.batch_lease import _FOR_THE_IDLE, holding
from schemas.batch import BatchState, Counts
from schemas.errors import BatchNotSealed, PastDeadline, WorkersLost
from schemas.ids import BatchId
from schemas.options import CutoutOptions
from schemas.results import Failed, ShardReport
from store.records import line
from store.records.batches import set_progress
from store.records.tables import submissions
from tests.flows.conftest import Place
from tests.flows.test_dispatch import another_account, dispatcher, measured, pretend

NO_PROCESS = 2**22  # Linux gives smaller numbers only


def test_records_that_are_away_for_a_moment_do_not_cost_the_lease() -> None:
    asked: list[str] = []
    kept = threading.Event()

    def renew() -> bool:
        asked.append("renew")
        if len(asked) < 3:
            raise OperationalError("UPDATE", None, Exception("the server is starting up"))
        kept.set()
        return True

    with renewed(timedelta(milliseconds=4), renew):
        assert kept.wait(60)


def test_a_lease_is_let_go_of_with_its_work() -> None:
    """However the work ends, and though it was being renewed at that moment."""
    begun, ended = threading.Event(), threading.Event()

    def renew() -> bool:
        begun.set()
        time.sleep(0.05)
        ended.set()
        return True

    def work() -> None:
        with renewed(timedelta(milliseconds=4), renew):
            assert begun.wait(60)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert ended.is_set()
    begun.clear()
    assert not begun.wait(0.1)


def test_a_lost_lease_is_asked_for_no_more() -> None:
    asked: list[str] = []
    lost = threading.Event()

    def renew() -> bool:
        asked.append("renew")
        lost.set()
        return False

    with renewed(timedelta(milliseconds=4), renew) as told:
        assert lost.wait(60)
        assert told.wait(60), "and who works under it is told"
        assert not threading.Event().wait(0.05)
    assert asked == ["renew"]


def test_a_command_whose_lease_another_has_taken_begins_no_more_of_the_batch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = place.send({"1.jpg": b"x"})
    monkeypatch.setattr(line, "LEASE_LIFE", timedelta(seconds=0.04))
    with holding(place.parts, stamp.batch_id) as held:
        assert held is not None
        assert not held.stop(stamp.batch_id)
        with place.parts.records.transaction() as connection:
            connection.execute(update(submissions).values(lease_holder="another"))
        assert comes(lambda: held.stop(stamp.batch_id))


def test_a_command_whose_lease_another_has_taken_says_so_in_a_line_and_shows_what_there_is(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    stamp = place.send({"1.jpg": b"x"})
    with holding(place.parts, stamp.batch_id) as held:
        assert held is not None
        with place.parts.records.transaction() as connection:
            connection.execute(update(submissions).values(lease_holder="another"))
        with batch_fenced(held, stamp.batch_id):
            pytest.fail("two would write to one batch")
    assert f"batch {stamp.batch_id}: another process has it by now" in caplog.text
    with place.parts.records.reading() as connection:
        stands = line.find_submission(connection, stamp.batch_id)
    assert stands is not None
    assert stands.lease_holder == "another", "whose it stays"


def test_a_step_of_the_flow_says_that_the_lease_is_lost_so_that_it_is_not_tried_again(place: Place) -> None:
    stamp = place.send({"1.jpg": b"x"})
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, stamp.batch_id, "another", place.parts.clock())
    with using(replace(place.parts, holder="one")), pytest.raises(LeaseLost):
        finish_batch.fn(stamp.batch_id)


def test_a_command_watches_whoever_has_the_batch_to_its_end_and_does_nothing_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp, seen = place.send({"1.jpg": b"x", "2.jpg": b"y"}), []
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, stamp.batch_id, "a dispatcher", place.parts.clock())
    states = iter([(1, BatchState.RUNNING), (2, BatchState.COMPLETED)])

    def goes_on(_seconds: float) -> None:
        done, state = next(states)
        with place.parts.records.transaction() as connection:
            set_progress(connection, stamp.batch_id, Counts(items=2, done=done, failed=0), state)
            if state.has_ended:
                line.leave(connection, stamp.batch_id, place.parts.clock())
                line.release(connection, stamp.batch_id, "a dispatcher", place.parts.clock())

    monkeypatch.setattr("portal.cli.batch_lease.sleep", goes_on)
    with holding(replace(place.parts, watch=lambda counts: seen.append(counts.done)), stamp.batch_id) as held:
        assert held is None
    assert seen == [0, 1, 2]


def test_a_batch_that_was_just_sent_is_an_idle_dispatchers_whose_workers_are_warm(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[BatchId] = []
    idle = dispatcher(place, lambda parts, batch_id: (seen.append(batch_id), pretend(parts, batch_id))[1])
    running = threading.Thread(target=idle.run)
    running.start()
    assert not threading.Event().wait(0.2)
    try:
        stamp = place.send({"1.jpg": b"x"})
        with monkeypatch.context() as busy:  # a machine on which a second is not enough for a look
            busy.setattr("portal.cli.batch_lease._FOR_THE_IDLE", 30 * _FOR_THE_IDLE)
            with holding(place.parts, stamp.batch_id) as held:
                assert held is None
        assert seen == [stamp.batch_id]
    finally:
        idle._ending.set()
        running.join()
    stamp = place.send({"1.jpg": b"x"})
    with holding(place.parts, stamp.batch_id) as held:
        assert held is not None, "where there is none, nobody waits for one"


def test_a_batch_that_is_sent_beside_a_busy_dispatcher_waits_for_its_turn_there(place: Place) -> None:
    other, told, goes_on = place.send({"1.jpg": b"x"}), [], threading.Event()
    order: list[BatchId] = []

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        order.append(batch_id)
        assert goes_on.wait(60)
        return pretend(parts, batch_id)

    def hear(waits: bool) -> None:
        told.append(waits)
        if told.count(True) == 2:  # it does not only wait for a moment
            goes_on.set()

    busy = dispatcher(place, process)
    running = threading.Thread(target=busy.run)
    running.start()
    try:
        assert comes(lambda: order == [other.batch_id])
        stamp = place.send({"1.jpg": b"x"})
        with holding(place.parts, stamp.batch_id, tell_whether_it_waits=hear) as held:
            assert held is None
        assert order == [other.batch_id, stamp.batch_id]
        assert told[:3] == [False, True, True], "another dispatcher, without work, may take it within a second"
    finally:
        goes_on.set()
        busy._ending.set()
        running.join()


def test_a_batch_that_waited_is_left_to_a_dispatcher_that_needs_a_moment_between_two_turns(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, stamp = place.send({"1.jpg": b"x"}), place.send({"1.jpg": b"x"})
    busy, started, begun, slept = f"{line.DISPATCHER}one", time.monotonic(), place.parts.clock(), [0.0]
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, other.batch_id, busy, begun)

    def sleep(length: float) -> None:
        slept[0] += length
        now = begun + timedelta(seconds=slept[0])
        with place.parts.records.transaction() as connection:
            if slept[0] > 10:
                line.release(connection, other.batch_id, busy, now)
            if slept[0] > 11.5 and line.claim(connection, stamp.batch_id, busy, now):
                set_progress(connection, stamp.batch_id, Counts(items=1, done=1, failed=0), BatchState.COMPLETED)

    monkeypatch.setattr("portal.cli.batch_lease.sleep", sleep)
    monkeypatch.setattr("portal.cli.batch_lease.monotonic", lambda: started + slept[0])
    parts = replace(place.parts, clock=lambda: begun + timedelta(seconds=slept[0]))
    with holding(parts, stamp.batch_id) as held:
        assert held is None


@pytest.mark.parametrize("seconds", [2, 1000])
def test_a_command_that_waits_outlasts_records_that_are_away_for_a_moment_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    stamp, slept, look = place.send({"1.jpg": b"x"}), [0.0], line.find_submission
    started = time.monotonic()

    def find(connection: Connection, batch_id: str) -> line.Submission | None:
        if 0 < slept[0] <= seconds:
            raise OperationalError("SELECT", None, Exception("the server is starting up"))
        return look(connection, batch_id)

    def sleep(length: float) -> None:
        slept[0] += length

    monkeypatch.setattr(line, "find_submission", find)
    monkeypatch.setattr("portal.cli.batch_lease.sleep", sleep)
    monkeypatch.setattr("portal.cli.batch_lease.monotonic", lambda: started + slept[0])
    with pytest.raises(OperationalError) if seconds == 1000 else nullcontext():  # noqa: SIM117 - the first may be raised
        with holding(place.parts, stamp.batch_id) as held:
            assert held is not None
    assert slept[0] < 100


@pytest.mark.parametrize("holder", ["host 1 command", "123-abc", f"{line.DISPATCHER}that died"])
def test_a_command_waits_for_nobody_who_takes_nothing_from_the_line(place: Place, holder: str) -> None:
    """Another command, a night that cuts by itself, a dispatcher whose lease is over."""
    other, now = place.send({"1.jpg": b"x"}), place.parts.clock()
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, other.batch_id, holder, now - line.LEASE_LIFE if "died" in holder else now)
    stamp, told = place.send({"1.jpg": b"x"}), []
    with holding(place.parts, stamp.batch_id, tell_whether_it_waits=told.append) as held:
        assert held is not None
    assert True not in told


@pytest.mark.parametrize("once_more", [True, False], ids=["run", "retry"])
@pytest.mark.parametrize(
    ("holder", "waits"),
    [
        (f"{socket.gethostname()} {NO_PROCESS} command", False),
        (f"{socket.gethostname()} {os.getppid()} command", True),
        (f"{socket.gethostname()} 1 command", True),
        (f"elsewhere {NO_PROCESS} command", True),
        (f"{socket.gethostname()} {NO_PROCESS} other", True),
        (f"{line.DISPATCHER}one", True),
    ],
    ids=["killed here", "alive", "alive and another user's", "on another machine", "no command", "a dispatcher"],
)
def test_only_a_command_that_was_killed_on_this_machine_has_its_batch_taken_over_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, holder: str, waits: bool, once_more: bool
) -> None:
    stamp, slept = place.send({"1.jpg": b"x"}), [0.0]
    started, now = time.monotonic(), place.parts.clock()
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, stamp.batch_id, holder, now)

    def sleep(length: float) -> None:
        slept[0] += length

    monkeypatch.setattr("portal.cli.batch_lease.sleep", sleep)
    monkeypatch.setattr("portal.cli.batch_lease.monotonic", lambda: started + slept[0])
    parts = replace(place.parts, clock=lambda: now + timedelta(seconds=slept[0]))
    with holding(parts, stamp.batch_id, once_more) as held:
        assert held is not None
    if waits:
        assert slept[0] >= line.LEASE_LIFE.total_seconds()
    else:
        assert slept[0] <= (0 if once_more else 3)


@pytest.mark.parametrize("did", [0, 1])
def test_a_command_goes_on_itself_only_where_a_dispatchers_turn_came_to_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, did: int
) -> None:
    """A fault over this batch is told to who asked for it; one that had its turn waits for the next."""
    other, stamp = place.send({"1.jpg": b"x"}), place.send({f"{n}.jpg": b"x" for n in range(3)})
    busy, now = f"{line.DISPATCHER}one", place.parts.clock()
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, other.batch_id, busy, now)
    turns = []

    def has_a_turn(_seconds: float) -> None:
        turns.append(did)
        assert len(turns) < 10
        with place.parts.records.transaction() as connection:
            if sum(turns) == 3:
                set_progress(connection, stamp.batch_id, Counts(items=3, done=3, failed=0), BatchState.COMPLETED)
                return
            assert line.claim(connection, stamp.batch_id, busy, now)
            set_progress(connection, stamp.batch_id, Counts(items=3, done=sum(turns), failed=0), BatchState.RUNNING)
            line.release(connection, stamp.batch_id, busy, now + timedelta(seconds=len(turns)))

    monkeypatch.setattr("portal.cli.batch_lease.sleep", has_a_turn)
    with holding(place.parts, stamp.batch_id) as held:
        assert (held is None) is (did == 1)
    assert len(turns) == (3 if did else 1)


@pytest.mark.parametrize("kind", ["measured", "retried", "failed"])
def test_a_command_waits_on_after_a_turn_that_gave_way_though_it_changed_no_count(
    place: Place, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Photos are measured, or tried again, without a new result; a turn that failed is told to who asked for it."""
    monkeypatch.setattr("flows.dispatch._LOOK_EVERY", 0.0)
    monkeypatch.setattr("flows.dispatch._ENOUGH", 0.0)
    options = CutoutOptions(consistent=kind == "measured")
    stamp = place.send({f"{n}.jpg": b"x" for n in range(3 * TURN_ITEMS)}, options=options)
    if kind == "retried":
        assert dispatcher(place).take_turn()
        with place.parts.records.transaction() as connection:
            line.ask_again(connection, stamp.batch_id, ["not_an_image"], place.parts.clock())
    smalls = another_account(place)
    other, small = smalls.send({"1.jpg": b"x"}), smalls.send({"1.jpg": b"x"})
    turns: list[tuple[BatchId, int]] = []

    def process(parts: Parts, batch_id: BatchId) -> Counts:
        if kind == "failed":
            raise WorkersLost
        counts = (measured if kind == "measured" and not turns else pretend)(parts, batch_id)
        turns.append((batch_id, counts.failed))
        return counts

    one = dispatcher(place, process)

    def has_a_turn(_seconds: float) -> None:
        with suppress(WorkersLost):
            one.take_turn()

    with place.parts.records.transaction() as connection:
        assert line.claim(connection, other.batch_id, f"{line.DISPATCHER}two", place.parts.clock())
    monkeypatch.setattr("flows.dispatch.next_turn", lambda waiting, *_: min(waiting, key=lambda each: each.ready_at))
    monkeypatch.setattr("portal.cli.batch_lease.sleep", has_a_turn)
    with holding(place.parts, stamp.batch_id) as held:
        assert (held is None) is (kind != "failed")
    if kind != "failed":
        before = 0 if kind == "measured" else 3 * TURN_ITEMS
        assert turns == [(stamp.batch_id, before), (small.batch_id, 1), (stamp.batch_id, 3 * TURN_ITEMS)]


def test_who_runs_a_batch_beside_a_busy_dispatcher_does_it_at_once(place: Place) -> None:
    other, stamp = place.send({"1.jpg": b"x"}), place.send({"1.jpg": b"x"})
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, other.batch_id, f"{line.DISPATCHER}one", place.parts.clock())
    with holding(place.parts, stamp.batch_id, once_more=True) as held:
        assert held is not None


@pytest.mark.parametrize("once_more", [True, False])
def test_a_stop_while_a_batch_is_taken_leaves_it_to_others(
    place: Place, monkeypatch: pytest.MonkeyPatch, once_more: bool
) -> None:
    stamp, claim = place.send({"1.jpg": b"x"}), line.claim

    def stopped_meanwhile(*what: Any, **how: Any) -> bool:
        signal.raise_signal(signal.SIGINT)
        return claim(*what, **how)

    monkeypatch.setattr(line, "claim", stopped_meanwhile)
    with pytest.raises(KeyboardInterrupt), holding(place.parts, stamp.batch_id, once_more=once_more):
        pass
    with place.parts.records.transaction() as connection:
        assert claim(connection, stamp.batch_id, "another", place.parts.clock())


def test_a_batch_that_ended_a_moment_ago_is_run_again_only_for_who_asks_for_that(place: Place) -> None:
    stamp = place.send({"1.jpg": b"x"})
    assert dispatcher(place).take_turn()
    with holding(place.parts, stamp.batch_id) as held:
        assert held is None
    with holding(place.parts, stamp.batch_id, once_more=True) as held:
        assert held is not None


def test_who_has_lost_its_lease_says_no_more_that_the_batch_has_ended(place: Place) -> None:
    """Another that runs it once more would else believe that it is over."""
    stamp = place.send({"1.jpg": b"x"})
    assert dispatcher(place).take_turn()
    with holding(place.parts, stamp.batch_id, once_more=True), place.parts.records.transaction() as connection:
        connection.execute(update(submissions).values(lease_holder="another"))
    with place.parts.records.transaction() as connection:
        assert line.renew(connection, stamp.batch_id, "another", place.parts.clock())


def test_a_command_does_not_wait_for_a_batch_whose_time_is_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = place.send({"1.jpg": b"x"})
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, stamp.batch_id, "a dispatcher", place.parts.clock())
    sleeps = iter([0])

    def is_over(_seconds: float) -> None:
        next(sleeps)
        with place.parts.records.transaction() as connection:
            line.leave(connection, stamp.batch_id, place.parts.clock())
            line.release(connection, stamp.batch_id, "a dispatcher", place.parts.clock())

    monkeypatch.setattr("portal.cli.batch_lease.sleep", is_over)
    with holding(place.parts, stamp.batch_id) as held:
        assert held is None


def test_a_command_waits_for_no_turn_beyond_the_purge_time_though_the_cleanup_is_late(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From then on no dispatcher takes it, however many turns there are."""
    stamp, other, looks = place.send({"1.jpg": b"x"}), place.send({"1.jpg": b"x"}), []
    assert stamp.purge_at < other.purge_at
    now = [place.parts.clock()]

    def time_goes_by(_seconds: float) -> None:
        looks.append(0)
        assert len(looks) < 4
        now[0] = stamp.purge_at
        with place.parts.records.transaction() as connection:
            assert line.renew(connection, other.batch_id, f"{line.DISPATCHER}one", now[0])

    with place.parts.records.transaction() as connection:
        assert line.claim(connection, other.batch_id, f"{line.DISPATCHER}one", now[0])
    monkeypatch.setattr("portal.cli.batch_lease.sleep", time_goes_by)
    with holding(replace(place.parts, clock=lambda: now[0]), stamp.batch_id) as held:
        assert held is None


def test_a_command_goes_on_with_a_batch_that_a_dispatcher_gives_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = place.send({"1.jpg": b"x"})
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, stamp.batch_id, "a dispatcher", place.parts.clock())

    def gives_back(_seconds: float) -> None:
        with place.parts.records.transaction() as connection:
            line.release(connection, stamp.batch_id, "a dispatcher", place.parts.clock())

    monkeypatch.setattr("portal.cli.batch_lease.sleep", gives_back)
    with holding(place.parts, stamp.batch_id) as held:
        assert held is not None


@pytest.mark.parametrize("why", ["the lease is lost", "it was stopped", "its customer calls it off"])
def test_a_batch_under_a_lease_stops(place: Place, why: str) -> None:
    stamp, now = place.send({"1.jpg": b"x"}), place.parts.clock()
    lost, stopped = threading.Event(), threading.Event()
    parts = under_lease(replace(place.parts, stop=lambda _: stopped.is_set()), "me", lost)
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, stamp.batch_id, "me", now)
    with batch_fenced(parts, stamp.batch_id):
        assert not parts.stop(stamp.batch_id)
    match why:
        case "the lease is lost":
            lost.set()
        case "it was stopped":
            stopped.set()
        case _:
            with place.parts.records.transaction() as connection:
                call_off(connection, stamp.batch_id, now)
    assert parts.stop(stamp.batch_id)


def test_a_batch_whose_purge_time_has_come_is_not_worked_on(place: Place) -> None:
    stamp = place.send({"1.jpg": b"x"})
    with pytest.raises(PastDeadline):
        plan(replace(place.parts, clock=lambda: stamp.purge_at), stamp.batch_id)


def test_who_works_without_a_lease_is_kept_off_by_a_living_one_alone(place: Place) -> None:
    stamp, now = place.send({"1.jpg": b"x"}), place.parts.clock()
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, stamp.batch_id, "one that died", now - line.LEASE_LIFE)
    with batch_fenced(place.parts, stamp.batch_id):
        pass
    with place.parts.records.transaction() as connection:
        assert line.claim(connection, stamp.batch_id, "another", now)
    with pytest.raises(LeaseLost), batch_fenced(place.parts, stamp.batch_id):
        pass


def test_hosts_whose_long_names_differ_in_their_last_letters_are_told_apart(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each would take the other's commands for its own dead ones."""
    holders = set()
    for host in ("bgbatch-work-" + "x" * 40 + "-abcde", "bgbatch-work-" + "x" * 40 + "-fghij"):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        stamp = place.send({"1.jpg": b"x"})
        with holding(place.parts, stamp.batch_id, once_more=True), place.parts.records.reading() as connection:
            stands = line.find_submission(connection, stamp.batch_id)
            assert stands is not None
            holders.add(stands.lease_holder)
    assert len(holders) == 2


def test_a_command_leaves_a_batch_whose_photos_are_still_coming_to_its_upload(place: Place) -> None:
    stamp = stamp_batch(place.parts, place.account_id, None, CutoutOptions(), takes_uploads=True)
    with pytest.raises(BatchNotSealed), holding(place.parts, stamp.batch_id):
        pass
    with place.parts.records.transaction() as connection:
        assert line.shut(connection, stamp.batch_id, "seal", place.parts.clock())


def comes(what: Callable[[], bool]) -> bool:
    return any(what() or threading.Event().wait(0.01) for _ in range(6000))


_TAKEN_OVER = """
import sys, threading
from dataclasses import replace
from sqlalchemy import update
from flows import engine
from flows.parts import open_parts, using
from schemas.clock import system_clock
from store import logs
from store.settings import Settings
from store.records.tables import submissions

settings = Settings()
engine.prepare(settings)
logs.set_up("text")
from flows.dispatch import Dispatcher
from flows.process_batch import process_batch

def process(parts, batch_id):
    with parts.records.transaction() as connection:
        connection.execute(update(submissions).values(lease_holder="another"))
    with using(parts):
        return process_batch(batch_id)

Dispatcher(open_parts(settings, system_clock), "one", process, threading.Event()).take_turn()
"""


def test_a_turn_that_another_process_has_taken_over_is_told_in_one_line(place: Place, prefect_server: str) -> None:
    stamp = place.send({"1.jpg": b"x"})
    result = Failed(number=1, code="not_an_image", sentence="No.", finished_at=place.parts.clock())
    place.parts.transient.write_report(stamp, ShardReport(first=1, last=1, results=(result,)))  # only its end is left
    settings = {"BGBATCH_HOME": str(place.parts.settings.home), "PREFECT_API_URL": prefect_server}
    command = (sys.executable, "-W", "ignore", "-c", _TAKEN_OVER)
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        "WARNING flows.dispatch: the turn ended: it stood still for so long that another process has the batch by now"
    ]
