"""The steps of a batch, as plain functions over the parts in use.

The Prefect flow wraps these; tests drive them without an engine. Each step reads what it needs from the stores, so it
may be run again after a crash at any line: what is done is found there and not done again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flows.admission import Admitted, Write, admit_outputs
from flows.calling_off import call_off
from flows.lease import batch_fenced
from flows.parts import Parts
from flows.receive import sealed_manifest
from schemas.batch import BatchState, Counts, Item, Manifest
from schemas.clock import Clock
from schemas.errors import PastDeadline
from schemas.ids import BatchId
from schemas.results import ShardReport, Standing, standing
from store.outside.allowed import still_allowed
from store.records import batches, line, webhooks
from store.spans import span
from store.transient.transient_store import is_in_place
from workers.measuring import is_to_be_set_alike, set_alike, unmeasured
from workers.plan import OUR_CODES, Shard, plan_shards

_log = logging.getLogger(__name__)

RunShards = Callable[
    [BatchId, Sequence[Shard], Clock, Callable[[ShardReport], None], Callable[[], bool]], Iterator[ShardReport]
]
"""Cuts shards and yields their reports as they end: `workers.pool.Pool.run`, or the same in this process in a test."""


@dataclass(frozen=True)
class Plan:
    """What is left to do of a batch, and how it stands."""

    manifest: Manifest
    stands: Standing
    shards: list[Shard]


def plan(parts: Parts, batch_id: BatchId) -> Plan:
    """What is left to do. Raises `BatchNotSealed`, `PastDeadline`.

    A batch with photos in a place that was taken back from its account is called off instead.
    """
    manifest = sealed_manifest(parts.records, parts.transient, batch_id)
    if parts.clock() >= manifest.stamp.purge_at:
        raise PastDeadline("The batch's purge time has come, so it is not processed any more. Submit it again.")
    stands = standing(parts.transient.reports(batch_id))
    with parts.records.reading() as connection:
        wish = line.find_submission(connection, batch_id)
    wanted = _wanted_again(stands, wish)
    again = OUR_CODES if wanted is None else frozenset()
    failed = {number: each for number, each in stands.failed.items() if number not in (wanted or ())}
    left = [number for number in range(1, len(manifest.items) + 1) if number not in stands.done]
    if _would_read_where_it_may_not(parts, batch_id, [manifest.items[number - 1] for number in left]):
        _log.warning(
            "batch %s is called off: its account may not use the place any more where its photos are", batch_id
        )
        with parts.records.transaction() as connection:
            call_off(connection, batch_id, parts.clock())
        return Plan(manifest, stands, [])
    return Plan(manifest, stands, plan_shards(left, failed, parts.settings.items_per_call, again))


def _would_read_where_it_may_not(parts: Parts, batch_id: BatchId, left: Sequence[Item]) -> bool:
    in_place = [item.source for item in left if is_in_place(item)]
    if not in_place:
        return False
    with parts.records.reading() as connection:
        is_allowed = still_allowed(connection, batches.get_batch(connection, batch_id).account_id)
    return not all(map(is_allowed, in_place))


def cut(parts: Parts, planned: Plan, run_shards: RunShards) -> Counts:
    """Turn what is left into cutouts; records and watchers see how far it is after each shard.

    Photos that are to be consistent are measured first. Raises `LeaseLost`.
    """
    manifest, stands, shards = planned.manifest, planned.stands, planned.shards
    batch_id = manifest.stamp.batch_id
    tried: set[int] = set()

    def keep(report: ShardReport) -> None:
        parts.transient.write_report(manifest.stamp, report)

    def tell() -> Counts:
        counts = _counts(manifest, stands)
        with batch_fenced(parts, batch_id) as connection:
            batches.set_progress(connection, batch_id, counts, BatchState.RUNNING)
        parts.watch(counts)
        return counts

    def run(some: Sequence[Shard]) -> Iterator[ShardReport]:
        for report in run_shards(batch_id, some, parts.clock, keep, lambda: parts.stop(batch_id)):
            stands.take(report)
            tried.update(each.number for each in report.results)
            parts.worked(min(report.last - report.first + 1, parts.settings.items_per_call))
            tell()
            yield report

    tell()
    if is_to_be_set_alike(parts.transient, manifest):
        measuring = run(unmeasured(parts.transient, manifest, shards))
        failed = {each.number for report in measuring for each in report.results}
        shards = [able for shard in shards if (able := tuple(n for n in shard if n not in failed))]
        if unmeasured(parts.transient, manifest, shards):  # called off on the way: who goes on measures the rest
            return _counts(manifest, stands)
        set_alike(parts.transient, manifest)
    deque(run(shards), maxlen=0)
    parts.transient.gather_reports(manifest.stamp)
    with batch_fenced(parts, batch_id) as connection:
        wanted = _wanted_again(stands, line.find_submission(connection, batch_id))
        if wanted and wanted <= tried:  # by a clock that is behind; a wish that came after the plan is still to be met
            line.note_tried(connection, batch_id)
    return _counts(manifest, stands)


def admit(parts: Parts, batch_id: BatchId, write: Write) -> Admitted:
    """Offer what is done to the consent gate, and put what it lets through into the lake."""
    done = standing(parts.transient.reports(batch_id)).done
    with span(parts.settings, batch_id, "admit", offered=len(done)):
        return admit_outputs(parts, batch_id, done, write)


def finish(parts: Parts, batch_id: BatchId) -> Counts:
    """Record how the batch ended: `completed`, `partially_completed` or `failed`.

    If work is left it is `cancelled` when the customer called it off, else `running`. Raises `LeaseLost`.
    """
    manifest = parts.transient.manifest(batch_id)
    stands = standing(parts.transient.reports(batch_id))
    counts = _counts(manifest, stands)
    with span(parts.settings, batch_id, "finish", done=counts.done, failed=counts.failed):
        _record_end(parts, batch_id, counts, stands)
    return counts


def _record_end(parts: Parts, batch_id: BatchId, counts: Counts, stands: Standing) -> None:
    with batch_fenced(parts, batch_id) as connection:
        wish = line.find_submission(connection, batch_id)
        state = BatchState.RUNNING if _wanted_again(stands, wish) else counts.state
        if state is BatchState.RUNNING and wish is not None and wish.cancel_at is not None:
            state = BatchState.CANCELLED
        batches.set_progress(connection, batch_id, counts, state)
        if state.has_ended:
            webhooks.enqueue_end(connection, batches.get_batch(connection, batch_id), parts.clock())
            line.leave(connection, batch_id, parts.clock())


def _wanted_again(stands: Standing, wish: line.Submission | None) -> frozenset[int] | None:
    """What failed and its customer wants tried once more; None without such a wish."""
    if wish is None or wish.again_before is None:
        return None
    before, codes = wish.again_before, frozenset(wish.again or ())
    # What failed after the wish was tried for it already.
    return frozenset(n for n, each in stands.failed.items() if each.code in codes and each.finished_at <= before)


def _counts(manifest: Manifest, stands: Standing) -> Counts:
    return Counts(items=len(manifest.items), done=len(stands.done), failed=len(stands.failed))
