"""The steps of a night, as plain functions over the parts in use: look, cut, deliver, close.

Each step finds in the stores what was done before it, so a night may die at any line and be gone on with. What only the
customer may know (names) lies in the batch's own prefix and in the customer's place, never in the records.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from sqlalchemy.exc import OperationalError

from flows.calling_off import call_off
from flows.lease import LeaseLost, batch_renewed, under_lease
from flows.night_delivery import deliver
from flows.night_look import ToDo, look, read_todo
from flows.night_report import NOT_DELIVERED, NOT_DONE, OVERLAP
from flows.night_telling import end, tell, watch_pace
from flows.night_worker import Worker, fenced, held
from flows.parts import Parts
from flows.timetable import Action, Going, Pace, Step, Timetable, decide
from schemas.batch import BatchState, Counts, Manifest
from schemas.errors import BatchNotSealed, BgbatchError, NotFound, PastDeadline
from schemas.results import Done, Failed, results_by_number
from store import line, nights, schedules
from store.batches import BatchRecord, get_batch
from store.logs import kind_and_place
from store.nights import Night, NightState
from store.schedules import Schedule, ScheduleId

T = TypeVar("T")

_log = logging.getLogger(__name__)

_DELIVERY_SHARE = 10
"""A tenth of a batch's life is kept for the delivery of what is cut by then."""


def run_due(parts: Parts, worker: Worker, at_once: int = 1) -> list[Night]:
    """Look after all schedules once: begin what is due, go on with what is not over. A schedule fails alone.

    With more than one `at_once`, a slow place of one customer holds up nobody else's night; for that the worker must
    leave the cutting to others, as a flow keeps to its own thread.
    """
    with parts.records.reading() as connection:
        known = schedules.list_ids(connection)
    if at_once == 1:
        touched = [run_alone(parts, each, worker) for each in known]
    else:
        with ThreadPoolExecutor(at_once) as pool:
            touched = list(pool.map(lambda each: run_alone(parts, each, worker), known))
    return [night for each in touched for night in each]


def run_alone(parts: Parts, schedule_id: ScheduleId, worker: Worker) -> list[Night]:
    """Look after one schedule. Whatever is wrong with it is said, and nobody else's night waits for it."""
    return _alone(parts, schedule_id, lambda schedule: run_schedule(parts, schedule, worker), [])


def anything_to_do(parts: Parts) -> bool:
    """Whether `run_due` would do anything now."""
    with parts.records.reading() as connection:
        known = schedules.list_ids(connection)
    return any(_alone(parts, each, lambda schedule: bool(_actions(parts, schedule)), False) for each in known)


def _alone(parts: Parts, schedule_id: ScheduleId, step: Callable[[Schedule], T], otherwise: T) -> T:
    try:
        with parts.records.reading() as connection:
            schedule = schedules.find(connection, schedule_id)
        return step(schedule)
    except OperationalError:  # the records are away, and so they are for all
        raise
    except BgbatchError as fault:
        _log.error("schedule %s: %s", schedule_id, fault.code)
    except Exception as fault:  # noqa: BLE001 - such as a stored option or time zone that this version does not know
        _log.error("schedule %s: %s", schedule_id, kind_and_place(fault))
    return otherwise


def run_schedule(parts: Parts, schedule: Schedule, worker: Worker) -> list[Night]:
    """What `decide` says for one schedule now. Returns the nights that were touched."""
    moved = []
    for action in _actions(parts, schedule):
        night = _carry_out(parts, schedule, action, worker)
        if night is not None:
            moved.append(night)
    return moved


def run_now(parts: Parts, schedule: Schedule, worker: Worker) -> Night | None:
    """A night out of turn, or the rest of the one that is going. None when another process works on it."""
    with parts.records.transaction() as connection:
        now = parts.clock()
        schedules.take_turns(connection, schedule.schedule_id)
        night = nights.running(connection, schedule.schedule_id)
        if night is None:
            night = nights.begin(connection, schedule, now.replace(microsecond=0), now, worker.randomness)
    return None if night is None else go_on(parts, schedule, night, worker)


def go_on(parts: Parts, schedule: Schedule, night: Night, worker: Worker) -> Night | None:
    """Bring a night as far as it goes. None when another process has it. What is not its fault is raised."""
    try:
        with held(parts, night, worker) as ours:
            return None if ours is None else _advance_or_note(parts, schedule, night, ours)
    except LeaseLost:
        _log.warning("night %s: another process has it by now, or its schedule is gone", night.night_id)
        return None


def _advance_or_note(parts: Parts, schedule: Schedule, night: Night, worker: Worker) -> Night:
    try:
        return _advance(parts, schedule, fresh(parts, night), worker)
    except BgbatchError as fault:
        if fault.fault == "user":
            photos = fresh(parts, night).left if isinstance(fault, PastDeadline) else 0
            return end(parts, schedule, night, worker, NightState.FAILED, {fault.code: photos})
        with fenced(parts, night, worker) as connection:
            night = nights.note(connection, night, failures={fault.code: 0})
        watch_pace(parts, schedule, night, worker, None)
        raise


def _give_up(parts: Parts, schedule: Schedule, night: Night, worker: Worker) -> Night | None:
    try:
        with held(parts, night, worker) as ours:
            if ours is None:
                return None
            code = next(iter(night.failures), NOT_DONE) if night.batch_id is None else PastDeadline.code
            return end(parts, schedule, night, ours, NightState.FAILED, {code: night.left})
    except LeaseLost:
        return None


def _actions(parts: Parts, schedule: Schedule) -> tuple[Action, ...]:
    now = parts.clock()
    with parts.records.reading() as connection:
        night = nights.running(connection, schedule.schedule_id)
        last = nights.last_due(connection, schedule.schedule_id, now)
        going = None
        if night is not None:
            batch = get_batch(connection, night.batch_id) if night.batch_id else None
            lives = batch is None or (batch.purged_at is None and batch.stamp.purge_at > now)
            going = Going(night.is_held(now), batch is not None, lives)
    times = Timetable(
        schedule.cron, schedule.timezone, schedule.overlap, schedule.counts_from, schedule.paused_at is not None
    )
    return decide(times, last, going, now)


def _carry_out(parts: Parts, schedule: Schedule, action: Action, worker: Worker) -> Night | None:
    now = parts.clock()
    with parts.records.transaction() as connection:
        schedules.take_turns(connection, schedule.schedule_id)
        night = nights.running(connection, schedule.schedule_id)
        if action.step is Step.BEGIN and action.due_at is not None:
            if night is not None:  # somebody began one by hand since that was decided
                return None
            night = nights.begin(connection, schedule, action.due_at, now, worker.randomness)
        elif action.step is Step.SKIP and action.due_at is not None:
            state = NightState.SKIPPED
            night = nights.begin(connection, schedule, action.due_at, now, worker.randomness, state)
            if night is not None:
                night = nights.note(connection, night, failures={OVERLAP: 0})
                tell(connection, schedule, night, "night.skipped", now)
    if night is None or action.step is Step.SKIP:
        return night
    if action.step is Step.GIVE_UP:
        return _give_up(parts, schedule, night, worker)
    return go_on(parts, schedule, night, worker)


def _advance(parts: Parts, schedule: Schedule, night: Night, worker: Worker) -> Night:
    batch = _batch_of(parts, night)
    if batch is None or batch.state is BatchState.OPEN:  # it died between look and seal: look again
        night = look(parts, schedule, night, worker)
        batch = _batch_of(parts, night)
    if batch is None:
        return end(parts, schedule, night, worker, NightState.COMPLETED, {})
    if not batch.state.has_ended:
        night = watch_pace(parts, schedule, night, worker, _pace_in_line(parts, batch))
        if parts.clock() >= _cut_until(batch):
            _call_off(parts, batch)
        elif worker.process is not None:
            _cut(parts, schedule, night, worker, batch)
        batch = _batch_of(parts, night)
    if batch is None or not batch.state.has_ended:
        return fresh(parts, night)
    return _finish(parts, schedule, fresh(parts, night), worker)


def _cut(parts: Parts, schedule: Schedule, night: Night, worker: Worker, batch: BatchRecord) -> None:
    """Cut in this process, under the batch's lease, unless another process has it."""
    batch_id, began = batch.stamp.batch_id, parts.clock()
    done_then = batch.counts.done + batch.counts.failed
    with parts.records.transaction() as connection:
        if not line.claim(connection, batch_id, worker.holder, began, batch.counts.items):
            return
    current = night

    def watch(counts: Counts) -> None:
        nonlocal current
        pace = Pace(began, done_then, counts.done + counts.failed, counts.items)
        current = watch_pace(parts, schedule, current, worker, pace)
        if parts.clock() >= _cut_until(batch):
            _call_off(parts, batch)
        parts.watch(counts)

    try:
        assert worker.process is not None
        with batch_renewed(parts, batch_id, worker.holder) as lost:
            watched = replace(parts, watch=watch, stop=lambda each: worker.has_lost() or parts.stop(each))
            worker.process(under_lease(watched, worker.holder, lost), batch_id)
    except LeaseLost:
        _log.warning("batch %s: another process cuts it by now", batch_id)
    finally:
        with parts.records.transaction() as connection:
            line.release(connection, batch_id, worker.holder, parts.clock())


def _cut_until(batch: BatchRecord) -> datetime:
    """When to call off what is not cut. A catalog too large for a day would else never get further in any night."""
    stamp = batch.stamp
    return stamp.purge_at - (stamp.purge_at - stamp.received_at) / _DELIVERY_SHARE


def _call_off(parts: Parts, batch: BatchRecord) -> None:
    with parts.records.transaction() as connection:
        call_off(connection, batch.stamp.batch_id, parts.clock())


def _finish(parts: Parts, schedule: Schedule, night: Night, worker: Worker) -> Night:
    """Deliver what was cut and is not delivered yet, then close. Raises `StoreFault` for a place that is away."""
    assert night.batch_id is not None
    try:
        manifest = parts.transient.manifest(night.batch_id)
        todo = read_todo(parts, night.batch_id)
        return _deliver_and_close(parts, schedule, night, worker, manifest, todo)
    except (BatchNotSealed, NotFound):  # purged, before the delivery or in the middle
        left = fresh(parts, night).left
        return end(parts, schedule, night, worker, NightState.FAILED, {PastDeadline.code: left})


def _deliver_and_close(
    parts: Parts, schedule: Schedule, night: Night, worker: Worker, manifest: Manifest, todo: list[ToDo]
) -> Night:
    assert night.batch_id is not None
    results = results_by_number(parts.transient.reports(night.batch_id))
    done = [number for number, each in sorted(results.items()) if isinstance(each, Done)]
    began, told = parts.clock(), night

    def watch(done: int, of: int) -> None:
        nonlocal told
        told = watch_pace(parts, schedule, told, worker, Pace(began, 0, done, of))

    refused = deliver(parts, schedule, night, worker, watch, {number: todo[number - 1] for number in done})
    lying = len(done) - len(refused)
    failures = Counter(each.code for each in results.values() if isinstance(each, Failed))
    if len(results) < len(manifest.items):
        failures[NOT_DONE] = len(manifest.items) - len(results)
    if refused:
        failures[NOT_DELIVERED] = len(refused)
    with fenced(parts, night, worker) as connection:
        delivered = lying if schedule.deliver is not None else 0
        night = nights.note(connection, night, done=len(done), delivered=delivered)
    named = [
        (manifest.items[number - 1].path, each.code, each.sentence)
        for number, each in sorted(results.items())
        if isinstance(each, Failed)
    ]
    named += [(manifest.items[number - 1].path, NOT_DELIVERED, why) for number, why in sorted(refused.items())]
    state = NightState.COMPLETED
    if failures:
        state = NightState.PARTIALLY_COMPLETED if lying else NightState.FAILED
    return end(parts, schedule, night, worker, state, dict(failures), named)


def fresh(parts: Parts, night: Night) -> Night:
    """The night as it stands now."""
    with parts.records.reading() as connection:
        return nights.find(connection, night.night_id)


def _batch_of(parts: Parts, night: Night) -> BatchRecord | None:
    if night.batch_id is None:
        return None
    with parts.records.reading() as connection:
        return get_batch(connection, night.batch_id)


def _pace_in_line(parts: Parts, batch: BatchRecord) -> Pace:
    with parts.records.reading() as connection:
        known = line.find_submission(connection, batch.stamp.batch_id)
    since = known.started_at if known and known.started_at else parts.clock()
    return Pace(since, 0, batch.counts.done + batch.counts.failed, max(1, batch.counts.items))
