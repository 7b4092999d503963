"""The steps of a night, as plain functions over the parts in use: look, cut, deliver, close.

Each step finds in the stores what was done before it, so a night may die at any line and be gone on with. What only the
customer may know (names) lies in the batch's own prefix and in the customer's place, never in the records.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from flows.changes import Photo, compare, cutout_names, photos_in
from flows.night_report import Details, markdown, report_of
from flows.parts import Parts
from flows.receive import seal, stamp_batch
from flows.timetable import Action, Going, Pace, Step, Timetable, decide, estimate, is_at_risk
from schemas.batch import BatchState, Counts, Item
from schemas.errors import BatchNotSealed, BgbatchError, NotFound, PastDeadline, UserError
from schemas.ids import BatchId, Randomness
from schemas.record import Record
from schemas.results import Done, Failed, results_by_number
from store import fingerprints, line, nights, schedules, webhooks
from store.batches import BatchRecord, get_batch
from store.nights import Night, NightState
from store.objects import open_store
from store.outside import check_place
from store.places import list_place
from store.schedules import Schedule
from store.transient import batch_prefix, cutout_key

_log = logging.getLogger(__name__)
_RENEW_EVERY = nights.LEASE_LIFE.total_seconds() / 4
_WRITERS = 16
_AT_ONCE = 200
REPORTS = "bgbatch-reports"
"""The folder of the customer's place that the reports with names lie in."""

Process = Callable[[Parts, BatchId], Counts]
"""Cuts what is left of a batch: the flow on Ray, or the same in this process in a test."""
Publish = Callable[[str, str], None]
"""Shows a page, given its key and Markdown: a Prefect artifact where there is an engine."""


class SourceEmpty(UserError):
    """The source holds no photo, though it did before: more likely a wrong address than an empty catalog."""

    code = "source_empty"


@dataclass(frozen=True)
class Worker:
    """Who works on nights. `process` is None where others (`bgbatch work`) cut what stands in line."""

    holder: str
    randomness: Randomness
    process: Process | None
    publish: Publish = lambda key, page: None


class _ToDo(Record):
    """A photo of the night's batch. Kept beside the batch's photos, and purged with them."""

    name: str
    path_hmac: str
    content_hmac: str


def run_due(parts: Parts, worker: Worker) -> list[Night]:
    """Look after all schedules once: begin what is due, go on with what is not over. A schedule fails alone."""
    with parts.records.transaction() as connection:
        known = schedules.list_all(connection)
    moved = []
    for schedule in known:
        try:
            moved += run_schedule(parts, schedule, worker)
        except BgbatchError as fault:
            _log.error("schedule %s: %s", schedule.schedule_id, fault.code)
    return moved


def anything_to_do(parts: Parts) -> bool:
    """Whether `run_due` would do anything now."""
    with parts.records.transaction() as connection:
        known = schedules.list_all(connection)
    return any(_actions(parts, schedule) for schedule in known)


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
        night = nights.running(connection, schedule.schedule_id)
        if night is None:
            night = nights.begin(connection, schedule, now.replace(microsecond=0), now, worker.randomness)
    return None if night is None else go_on(parts, schedule, night, worker)


def go_on(parts: Parts, schedule: Schedule, night: Night, worker: Worker) -> Night | None:
    """Bring a night as far as it goes. None when another process has it. What is not its fault is raised."""
    with _held(parts, night, worker.holder) as is_ours:
        if not is_ours:
            return None
        try:
            return _advance(parts, schedule, _fresh(parts, night), worker)
        except BgbatchError as fault:
            if fault.fault == "user":
                return _end(parts, schedule, night, worker, NightState.FAILED, {fault.code: 0})
            with parts.records.transaction() as connection:
                nights.note(connection, night, failures={fault.code: 0})
            raise


def _actions(parts: Parts, schedule: Schedule) -> tuple[Action, ...]:
    now = parts.clock()
    with parts.records.transaction() as connection:
        night = nights.running(connection, schedule.schedule_id)
        last = nights.last_due(connection, schedule.schedule_id)
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
        night = nights.running(connection, schedule.schedule_id)
        if action.step is Step.BEGIN and action.due_at is not None:
            night = nights.begin(connection, schedule, action.due_at, now, worker.randomness)
        elif action.step is Step.SKIP and action.due_at is not None:
            state = NightState.SKIPPED
            night = nights.begin(connection, schedule, action.due_at, now, worker.randomness, state)
            if night is not None:
                night = nights.note(connection, night, failures={"overlap": 0})
    if night is None:
        return None
    if action.step is Step.SKIP:
        _tell(parts, schedule, night, "night.skipped", now)
        return night
    if action.step is Step.GIVE_UP:
        with _held(parts, night, worker.holder) as is_ours:
            left = max(0, night.new + night.changed - night.delivered)
            code = next(iter(night.failures), "not_done") if night.batch_id is None else PastDeadline.code
            return _end(parts, schedule, night, worker, NightState.FAILED, {code: left}) if is_ours else None
    return go_on(parts, schedule, night, worker)


def _advance(parts: Parts, schedule: Schedule, night: Night, worker: Worker) -> Night:
    batch = _batch_of(parts, night)
    if batch is None or batch.state is BatchState.OPEN:  # it died between look and seal: look again
        night = _look(parts, schedule, night, worker)
        batch = _batch_of(parts, night)
    if batch is None:
        return _end(parts, schedule, night, worker, NightState.COMPLETED, {})
    if not batch.state.has_ended:
        night = _watch(parts, schedule, night, worker, _pace_in_line(parts, batch))
        if worker.process is None or not _cut(parts, schedule, night, worker, batch):
            return _fresh(parts, night)
        batch = _batch_of(parts, night)
    if batch is None or not batch.state.has_ended:
        return _fresh(parts, night)
    return _finish(parts, schedule, _fresh(parts, night), worker)


def _look(parts: Parts, schedule: Schedule, night: Night, worker: Worker) -> Night:
    """List the source, compare it with the fingerprints, and seal what is to do. Raises what makes it impossible."""
    with parts.records.transaction() as connection:
        source = check_place(connection, schedule.account_id, schedule.source, parts.settings)
        if schedule.deliver is not None:
            check_place(connection, schedule.account_id, schedule.deliver, parts.settings)
        known = fingerprints.known(connection, schedule.schedule_id)
    suffix = schedule.options.format.suffix
    changes = compare(list_place(source, parts.settings), schedule.fingerprint_key, known, suffix)
    if known and not changes.found:
        raise SourceEmpty("The source holds no photo, though it did before. Check its address; nothing was forgotten.")
    numbers: dict[str, object] = {
        "found": changes.found,
        "new": len(changes.new),
        "changed": len(changes.changed),
        "skipped": changes.skipped,
        "deleted": night.deleted + len(changes.deleted),  # a look before this one may have counted some
        "failures": {},
    }
    todo = changes.todo
    stamp = None
    if todo:
        stamp = stamp_batch(
            parts,
            schedule.account_id,
            schedule.industry,
            schedule.options,
            worker.randomness,
            due_at=night.deadline_at,
        )
        parts.transient.write(stamp, _todo_key(stamp.batch_id), _todo_bytes(todo))
        numbers["batch_id"] = stamp.batch_id
    with parts.records.transaction() as connection:
        fingerprints.forget(connection, schedule.schedule_id, changes.deleted)
        night = nights.note(connection, night, **numbers)
    if stamp is not None:
        items = [
            Item(number=number, path=each.path, size=each.size, source=f"{source}/{each.path}")
            for number, each in enumerate(todo, start=1)
        ]
        seal(parts, stamp, items)
    return night


def _cut(parts: Parts, schedule: Schedule, night: Night, worker: Worker, batch: BatchRecord) -> bool:
    """Cut in this process, under the batch's lease. False when another process has it."""
    batch_id, began = batch.stamp.batch_id, parts.clock()
    done_then = batch.counts.done + batch.counts.failed
    with parts.records.transaction() as connection:
        if not line.claim(connection, batch_id, worker.holder, began, batch.counts.items):
            return False
    current = night

    def watch(counts: Counts) -> None:
        nonlocal current
        pace = Pace(began, done_then, counts.done + counts.failed, counts.items)
        current = _watch(parts, schedule, current, worker, pace)
        parts.watch(counts)

    def stop(batch: BatchId) -> bool:
        with parts.records.transaction() as connection:
            return line.is_called_off(connection, batch)

    has_ended = False
    try:
        assert worker.process is not None
        with _renewed(parts, lambda: _renew_batch(parts, batch_id, worker.holder)):
            counts = worker.process(replace(parts, watch=watch, stop=stop), batch_id)
        has_ended = counts.state is not BatchState.RUNNING or stop(batch_id)
    finally:
        with parts.records.transaction() as connection:
            line.release(connection, batch_id, worker.holder, parts.clock(), has_ended)
    return True


def _watch(parts: Parts, schedule: Schedule, night: Night, worker: Worker, pace: Pace) -> Night:
    """Estimate the end, and alert once, before the deadline is missed."""
    now = parts.clock()
    ends_at = estimate(pace, now)
    alerts = night.alerted_at is None and is_at_risk(night.started_at, night.deadline_at, ends_at, now)
    values: dict[str, object] = {"estimate_at": ends_at}
    if alerts:
        values["alerted_at"] = now
    with parts.records.transaction() as connection:
        night = nights.note(connection, night, **values)
    if alerts:
        _log.warning("night %s will miss its deadline: %d of %d photos", night.night_id, pace.done, pace.items)
        _tell(parts, schedule, night, "night.at_risk", now)
        worker.publish("night-at-risk", markdown(report_of(night, now), schedule))
    return night


def _finish(parts: Parts, schedule: Schedule, night: Night, worker: Worker) -> Night:
    """Deliver what was cut and is not delivered yet, then close. Raises `StoreFault`."""
    assert night.batch_id is not None
    try:
        manifest = parts.transient.manifest(night.batch_id)
        todo = _read_todo(parts, night.batch_id)
    except (BatchNotSealed, NotFound):
        left = max(0, night.new + night.changed - night.delivered)
        return _end(parts, schedule, night, worker, NightState.FAILED, {PastDeadline.code: left})
    results = results_by_number(parts.transient.reports(night.batch_id))
    done = [number for number, each in sorted(results.items()) if isinstance(each, Done)]
    delivered = _deliver(parts, schedule, night, {number: todo[number - 1] for number in done})
    failures = Counter(each.code for each in results.values() if isinstance(each, Failed))
    if len(results) < len(manifest.items):
        failures["not_done"] = len(manifest.items) - len(results)
    with parts.records.transaction() as connection:
        night = nights.note(connection, night, done=len(done), delivered=delivered)
    named = [
        (manifest.items[number - 1].path, each.code, each.sentence)
        for number, each in sorted(results.items())
        if isinstance(each, Failed)
    ]
    state = NightState.COMPLETED
    if failures:
        state = NightState.PARTIALLY_COMPLETED if done else NightState.FAILED
    return _end(parts, schedule, night, worker, state, dict(failures), named)


def _deliver(parts: Parts, schedule: Schedule, night: Night, done: dict[int, _ToDo]) -> int:
    """Write cutouts into the customer's place; each is remembered once it lies there. Returns how many lie there."""
    assert night.batch_id is not None
    batch_id = night.batch_id
    with parts.records.transaction() as connection:
        known = fingerprints.known(connection, schedule.schedule_id)
        if schedule.deliver is not None:
            check_place(connection, schedule.account_id, schedule.deliver, parts.settings)
    place = open_store(schedule.deliver, parts.settings) if schedule.deliver is not None else None
    left = [(number, each) for number, each in done.items() if known.get(each.path_hmac) != each.content_hmac]

    def write(pair: tuple[int, _ToDo]) -> None:
        number, each = pair
        if place is not None:
            key = cutout_key(batch_id, number, schedule.options.format.suffix)
            place.write(each.name, parts.transient.read(key))

    with ThreadPoolExecutor(_WRITERS) as writers:
        for start in range(0, len(left), _AT_ONCE):
            portion = left[start : start + _AT_ONCE]
            list(writers.map(write, portion))
            with parts.records.transaction() as connection:
                states = {each.path_hmac: each.content_hmac for _, each in portion}
                fingerprints.remember(connection, schedule.schedule_id, states)
    return len(done) if place is not None else 0


def _end(
    parts: Parts,
    schedule: Schedule,
    night: Night,
    worker: Worker,
    state: NightState,
    failures: dict[str, int],
    failed: list[tuple[str, str, str]] | None = None,
) -> Night:
    """Record how the night ended, and tell: a page, the account's webhooks, and with names the customer's own place."""
    now = parts.clock()
    over = {"state": state, "failures": failures, "ended_at": now, "estimate_at": None}
    _write_details(parts, schedule, night.model_copy(update=over), failed or [], now)
    with parts.records.transaction() as connection:
        night = nights.note(connection, night, **over)
    _tell(parts, schedule, night, "night.ended", now)
    worker.publish("night-report", markdown(report_of(night, now), schedule))
    return night


def _write_details(
    parts: Parts, schedule: Schedule, night: Night, failed: list[tuple[str, str, str]], now: datetime
) -> None:
    """What failed, and which cutouts have no photo any more, by name, into the customer's place. Never ends a night."""
    if schedule.deliver is None or not (failed or night.deleted):
        return
    try:
        with parts.records.transaction() as connection:
            deliver = check_place(connection, schedule.account_id, schedule.deliver, parts.settings)
            source = check_place(connection, schedule.account_id, schedule.source, parts.settings)
        orphans = _orphans(parts, source, deliver, schedule) if night.deleted else ()
        details = Details(report=report_of(night, now), failed=tuple(failed), cutouts_without_photo=orphans)
        key = f"{REPORTS}/{night.due_at:%Y-%m-%dT%H-%M-%S}.json"
        open_store(deliver, parts.settings).write(key, details.model_dump_json(indent=2).encode())
    except BgbatchError as fault:
        _log.error("night %s: its report with names could not be delivered: %s", night.night_id, fault.code)


def _orphans(parts: Parts, source: str, deliver: str, schedule: Schedule) -> tuple[str, ...]:
    suffix = schedule.options.format.suffix
    names = set(cutout_names(photos_in(list_place(source, parts.settings))[0], suffix).values())
    lying = (each.path for each in list_place(deliver, parts.settings))
    return tuple(
        sorted(path for path in lying if path.endswith(suffix) and path not in names and not path.startswith(REPORTS))
    )


def _tell(parts: Parts, schedule: Schedule, night: Night, kind: str, now: datetime) -> None:
    body = report_of(night, now).model_dump(mode="json")
    with parts.records.transaction() as connection:
        webhooks.enqueue(connection, schedule.account_id, kind, night.night_id, body, now)


def _fresh(parts: Parts, night: Night) -> Night:
    with parts.records.transaction() as connection:
        return nights.find(connection, night.night_id)


def _batch_of(parts: Parts, night: Night) -> BatchRecord | None:
    if night.batch_id is None:
        return None
    with parts.records.transaction() as connection:
        return get_batch(connection, night.batch_id)


def _pace_in_line(parts: Parts, batch: BatchRecord) -> Pace:
    with parts.records.transaction() as connection:
        known = line.find_submission(connection, batch.stamp.batch_id)
    since = known.started_at if known and known.started_at else parts.clock()
    return Pace(since, 0, batch.counts.done + batch.counts.failed, max(1, batch.counts.items))


def _todo_key(batch_id: BatchId) -> str:
    return f"{batch_prefix(batch_id)}/night.json"


def _todo_bytes(todo: tuple[Photo, ...]) -> bytes:
    return json.dumps([[each.name, each.path_hmac, each.content_hmac] for each in todo]).encode()


def _read_todo(parts: Parts, batch_id: BatchId) -> list[_ToDo]:
    rows = json.loads(parts.transient.read(_todo_key(batch_id)))
    return [_ToDo(name=name, path_hmac=path, content_hmac=content) for name, path, content in rows]


def _renew_batch(parts: Parts, batch_id: BatchId, holder: str) -> None:
    with parts.records.transaction() as connection:
        line.renew(connection, batch_id, holder, parts.clock())


def _hold(parts: Parts, night: Night, holder: str) -> bool:
    with parts.records.transaction() as connection:
        return nights.hold(connection, night.night_id, holder, parts.clock())


@contextmanager
def _held(parts: Parts, night: Night, holder: str) -> Iterator[bool]:
    """The night's lease, kept until the end of the block; False when another process has it."""
    if not _hold(parts, night, holder):
        yield False
        return
    try:
        with _renewed(parts, lambda: _hold(parts, night, holder)):
            yield True
    finally:
        with parts.records.transaction() as connection:
            nights.let_go(connection, night.night_id, holder)


@contextmanager
def _renewed(parts: Parts, renew: Callable[[], object]) -> Iterator[None]:
    over = threading.Event()

    def keep() -> None:
        while not over.wait(_RENEW_EVERY):
            renew()

    keeper = threading.Thread(target=keep, daemon=True, name="lease")
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
