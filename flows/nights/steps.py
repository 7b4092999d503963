"""The steps of a night, as plain functions over the parts in use: look, cut, deliver, close.

Each step finds in the stores what was done before it, so a night may die at any line and be gone on with. What only the
customer may know (names) lies in the batch's own prefix and in the customer's place, never in the records.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from sqlalchemy.exc import OperationalError

from flows.calling_off import call_off
from flows.lease import LeaseLost, batch_renewed, under_lease
from flows.nights.delivery import deliver
from flows.nights.look import ToDo, look, read_todo
from flows.nights.report import NOT_DELIVERED, NOT_DONE, OVERLAP
from flows.nights.telling import end, tell, watch_pace
from flows.nights.timetable import Action, Going, Pace, Step, Timetable, decide
from flows.nights.worker import Job, Worker, fenced, held
from flows.parts import Parts
from schemas.batch import BatchState, Counts, Manifest
from schemas.errors import BatchNotSealed, BgbatchError, NotFound, PastDeadline
from schemas.results import standing
from store.logs import kind_and_place
from store.records import line, nights, schedules
from store.records.batches import BatchRecord, get_batch
from store.records.nights import Night, NightState
from store.records.schedules import Schedule, ScheduleId

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


def skip_due(parts: Parts, worker: Worker) -> list[Night]:
    """Record what came while the night before was going, and begin or go on with nothing: for that no engine is needed.

    Once that night is over nobody could tell any more that it came too soon.
    """
    with parts.records.reading() as connection:
        known = schedules.list_ids(connection)

    def skip(schedule: Schedule) -> list[Night]:
        return _carried_out(Job(parts, schedule, worker), {Step.SKIP})

    touched: list[list[Night]] = [_alone(parts, each, skip, otherwise=[]) for each in known]
    return [night for each in touched for night in each]


def run_alone(parts: Parts, schedule_id: ScheduleId, worker: Worker) -> list[Night]:
    """Look after one schedule. Whatever is wrong with it is said, and nobody else's night waits for it."""
    return _alone(parts, schedule_id, lambda schedule: run_schedule(Job(parts, schedule, worker)), otherwise=[])


def anything_to_do(parts: Parts) -> bool:
    """Whether `run_due` would do anything now."""
    with parts.records.reading() as connection:
        known = schedules.list_ids(connection)
    return any(_alone(parts, each, lambda schedule: bool(_actions(parts, schedule)), otherwise=False) for each in known)


def _alone(parts: Parts, schedule_id: ScheduleId, step: Callable[[Schedule], T], *, otherwise: T) -> T:
    try:
        with parts.records.reading() as connection:
            schedule = schedules.find(connection, schedule_id)
        return step(schedule)
    except OperationalError:  # the records are away, and so they are for all
        raise
    except BgbatchError as fault:
        _log.error("schedule %s: %s. %s", schedule_id, fault.code, fault)
    except Exception as fault:  # noqa: BLE001 - such as a stored option or time zone that this version does not know
        _log.error("schedule %s: %s", schedule_id, kind_and_place(fault))
    return otherwise


def run_schedule(job: Job) -> list[Night]:
    """What `decide` says for one schedule now. Returns the nights that were touched."""
    return _carried_out(job, set(Step))


def _carried_out(job: Job, steps: Set[Step]) -> list[Night]:
    touched = [_carry_out(job, action) for action in _actions(job.parts, job.schedule) if action.step in steps]
    return [night for night in touched if night is not None]


def run_now(job: Job) -> Night | None:
    """A night out of turn, or the rest of the one that is going. None when another process works on it."""
    parts, schedule = job.parts, job.schedule
    with parts.records.transaction() as connection:
        now = parts.clock()
        schedules.take_turns(connection, schedule.schedule_id)
        night = nights.running(connection, schedule.schedule_id)
        if night is None:
            night = nights.begin(connection, schedule, now.replace(microsecond=0), now, job.worker.randomness)
    return None if night is None else go_on(job, night)


def go_on(job: Job, night: Night) -> Night | None:
    """Bring a night as far as it goes. None when another process has it. What is not its fault is raised."""
    try:
        with held(job, night) as ours:
            return None if ours is None else _advance_or_note(ours, night)
    except LeaseLost:
        _log.warning("night %s: another process has it by now, or its schedule is gone", night.night_id)
        return None


def _advance_or_note(job: Job, night: Night) -> Night:
    try:
        return _advance(job, fresh(job.parts, night))
    except BgbatchError as fault:
        if fault.fault == "user":
            photos = fresh(job.parts, night).left if isinstance(fault, PastDeadline) else 0
            return end(job, night, NightState.FAILED, {fault.code: photos})
        with fenced(job, night) as connection:
            night = nights.note(connection, night, failures={fault.code: 0})
        watch_pace(job, night, None)
        raise


def _give_up(job: Job, night: Night) -> Night | None:
    try:
        with held(job, night) as ours:
            if ours is None:
                return None
            code = next(iter(night.failures), NOT_DONE) if night.batch_id is None else PastDeadline.code
            return end(ours, night, NightState.FAILED, {code: night.left})
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
            can_go_on = batch is None or batch.lives(now)
            going = Going(night.is_held(now), batch is not None, can_go_on)
    times = Timetable(
        schedule.cron, schedule.timezone, schedule.overlap, schedule.counts_from, schedule.paused_at is not None
    )
    return decide(times, last, going, now)


def _carry_out(job: Job, action: Action) -> Night | None:
    parts, schedule, randomness = job.parts, job.schedule, job.worker.randomness
    now = parts.clock()
    with parts.records.transaction() as connection:
        schedules.take_turns(connection, schedule.schedule_id)
        night = nights.running(connection, schedule.schedule_id)
        if action.step is Step.BEGIN and action.due_at is not None:
            if night is not None:  # somebody began one by hand since that was decided
                return None
            night = nights.begin(connection, schedule, action.due_at, now, randomness)
        elif action.step is Step.SKIP and action.due_at is not None:
            state = NightState.SKIPPED
            night = nights.begin(connection, schedule, action.due_at, now, randomness, state)
            if night is not None:
                night = nights.note(connection, night, failures={OVERLAP: 0})
                tell(connection, schedule, night, "night.skipped", now)
    if night is None or action.step is Step.SKIP:
        return night
    if action.step is Step.GIVE_UP:
        return _give_up(job, night)
    return go_on(job, night)


def _advance(job: Job, night: Night) -> Night:
    parts = job.parts
    batch = _batch_of(parts, night)
    if batch is None or batch.state is BatchState.OPEN:  # it died between look and seal: look again
        night = look(job, night)
        batch = _batch_of(parts, night)
    if batch is None:
        return end(job, night, NightState.COMPLETED, {})
    if not batch.state.has_ended:
        night = watch_pace(job, night, _pace_in_line(parts, batch))
        if parts.clock() >= _cut_until(batch):
            _call_off(parts, batch)
        elif job.worker.process is not None:
            _cut(job, night, batch)
        batch = _batch_of(parts, night)
    if batch is None or not batch.state.has_ended:
        return fresh(parts, night)
    return _finish(job, fresh(parts, night))


def _cut(job: Job, night: Night, batch: BatchRecord) -> None:
    """Cut in this process, under the batch's lease, unless another process has it."""
    parts, worker = job.parts, job.worker
    batch_id, began = batch.stamp.batch_id, parts.clock()
    done_then = batch.counts.done + batch.counts.failed
    current = night

    def watch(counts: Counts) -> None:
        nonlocal current
        pace = Pace(began, done_then, counts.done + counts.failed, counts.items)
        current = watch_pace(job, current, pace)
        if parts.clock() >= _cut_until(batch):
            _call_off(parts, batch)
        parts.watch(counts)

    try:  # begun before it is held: a stop that comes while that is recorded is heard when it is
        with parts.records.transaction() as connection:
            if not line.claim(connection, batch_id, worker.holder, began, batch.counts.items):
                return
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


def _finish(job: Job, night: Night) -> Night:
    """Deliver what was cut and is not delivered yet, then close. Raises `StoreFault` for a place that is away."""
    assert night.batch_id is not None
    try:
        manifest = job.parts.transient.manifest(night.batch_id)
        todo = read_todo(job.parts, night.batch_id)
        return _deliver_and_close(job, night, manifest, todo)
    except (BatchNotSealed, NotFound):  # purged, before the delivery or in the middle
        left = fresh(job.parts, night).left
        return end(job, night, NightState.FAILED, {PastDeadline.code: left})


def _deliver_and_close(job: Job, night: Night, manifest: Manifest, todo: list[ToDo]) -> Night:
    stands = standing(job.parts.transient.reports(manifest.stamp.batch_id))
    done, failed = sorted(stands.done), sorted(stands.failed.items())
    began, told = job.parts.clock(), night

    def watch(done: int, of: int) -> None:
        nonlocal told
        told = watch_pace(job, told, Pace(began, 0, done, of))

    refused = deliver(job, night, watch, {number: todo[number - 1] for number in done})
    written = len(done) - len(refused)
    failures = Counter(each.code for _, each in failed)
    if not_done := len(manifest.items) - len(done) - len(failed):
        failures[NOT_DONE] = not_done
    if refused:
        failures[NOT_DELIVERED] = len(refused)
    with fenced(job, night) as connection:
        delivered = written if job.schedule.deliver is not None else 0
        night = nights.note(connection, night, done=len(done), delivered=delivered)
    named = [(manifest.items[number - 1].path, each.code, each.sentence) for number, each in failed]
    named += [(manifest.items[number - 1].path, NOT_DELIVERED, why) for number, why in sorted(refused.items())]
    state = NightState.COMPLETED
    if failures:
        state = NightState.PARTIALLY_COMPLETED if written else NightState.FAILED
    return end(job, night, state, dict(failures), named)


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
