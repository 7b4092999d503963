"""The steps of a batch, as plain functions over the parts in use.

The Prefect flow wraps these; tests drive them without an engine. Each step reads what it needs from the stores, so it
may be run again after a crash at any line: what is done is found there and not done again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from flows.admission import Admitted, Write, admit_outputs
from flows.lease import batch_fenced
from flows.parts import Parts
from schemas.batch import BatchState, Counts, Manifest
from schemas.clock import Clock
from schemas.errors import PastDeadline
from schemas.ids import BatchId
from schemas.results import Done, Failed, ShardReport, Standing, results_by_number, standing
from store import batches, line, webhooks
from store.spans import span
from workers.measuring import is_to_be_set_alike, set_alike, unmeasured
from workers.plan import OUR_CODES, Shard, plan_shards

RunShards = Callable[
    [BatchId, Sequence[Shard], Clock, Callable[[ShardReport], None], Callable[[], bool]], Iterator[ShardReport]
]
"""Cuts shards and yields their reports as they end: `workers.pool.Pool.run`, or the same in this process in a test."""


def plan(parts: Parts, batch_id: BatchId) -> list[Shard]:
    """What is left to do. Raises `BatchNotSealed`, `PastDeadline`."""
    manifest = parts.transient.manifest(batch_id)
    if parts.clock() >= manifest.stamp.purge_at:
        raise PastDeadline("The batch's purge time has come, so it is not processed any more. Submit it again.")
    stands = standing(parts.transient.reports(batch_id))
    with parts.records.reading() as connection:
        wish = line.find_submission(connection, batch_id)
    again = OUR_CODES
    if wish is not None and wish.again_before is not None:  # what failed after the wish was tried for it already
        before, codes = wish.again_before, frozenset(wish.again or ())
        stands.failed = {n: each for n, each in stands.failed.items() if not _is_wanted_again(each, codes, before)}
        again = frozenset()
    left = [number for number in range(1, len(manifest.items) + 1) if number not in stands.done]
    return plan_shards(left, stands.failed, parts.settings.items_per_call, again)


def cut(parts: Parts, batch_id: BatchId, shards: Sequence[Shard], run_shards: RunShards) -> Counts:
    """Turn the items of `shards` into cutouts; records and watchers see how far it is after each shard.

    Photos that are to be consistent are measured first. Raises `LeaseLost`.
    """
    manifest = parts.transient.manifest(batch_id)
    stands = standing(parts.transient.reports(batch_id))

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
            tell()
            yield report

    tell()
    if is_to_be_set_alike(parts.transient, manifest):
        measuring = run(unmeasured(parts.transient, manifest, shards))
        failed = {each.number for report in measuring for each in report.results}
        shards = [left for shard in shards if (left := tuple(n for n in shard if n not in failed))]
        if unmeasured(parts.transient, manifest, shards):  # called off on the way: who goes on measures the rest
            return _counts(manifest, stands)
        set_alike(parts.transient, manifest)
    deque(run(shards), maxlen=0)
    parts.transient.gather_reports(manifest.stamp)
    return _counts(manifest, stands)


def admit(parts: Parts, batch_id: BatchId, write: Write) -> Admitted:
    """Offer what is done to the consent gate, and put what it lets through into the lake."""
    results = results_by_number(parts.transient.reports(batch_id))
    done = [result for _, result in sorted(results.items()) if isinstance(result, Done)]
    with span(parts.settings, batch_id, "admit", offered=len(done)):
        return admit_outputs(parts, batch_id, done, write)


def finish(parts: Parts, batch_id: BatchId) -> Counts:
    """Record how the batch ended: `completed`, `partially_completed` or `failed`.

    If work is left it is `cancelled` when the customer called it off, else `running`. Raises `LeaseLost`.
    """
    manifest = parts.transient.manifest(batch_id)
    counts = _counts(manifest, standing(parts.transient.reports(batch_id)))
    with span(parts.settings, batch_id, "finish", done=counts.done, failed=counts.failed):
        _record_end(parts, batch_id, counts)
    return counts


def _record_end(parts: Parts, batch_id: BatchId, counts: Counts) -> None:
    with batch_fenced(parts, batch_id) as connection:
        is_off = counts.state is BatchState.RUNNING and line.is_called_off(connection, batch_id)
        state = BatchState.CANCELLED if is_off else counts.state
        batches.set_progress(connection, batch_id, counts, state)
        if state.has_ended:
            webhooks.enqueue_end(connection, batches.get_batch(connection, batch_id), parts.clock())
            line.leave(connection, batch_id, parts.clock())


def _is_wanted_again(result: Failed, codes: frozenset[str], before: datetime) -> bool:
    return result.code in codes and result.finished_at <= before


def _counts(manifest: Manifest, stands: Standing) -> Counts:
    return Counts(items=len(manifest.items), done=len(stands.done), failed=len(stands.failed))
