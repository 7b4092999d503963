"""The flow of one batch: plan its shards, cut them on Ray, admit what consent allows, record how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import ParamSpec, TypeVar, cast
from uuid import UUID

import ray
from prefect import State, flow, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from ray.exceptions import RayTaskError

from consent.policy import Reason
from flows import steps
from flows.admission import Admitted, Portion, Write
from flows.lease import LeaseLost
from flows.parts import Parts, current_parts
from flows.unforeseen import without_its_text
from lake.write import LakeFile, write_candidates
from schemas.batch import Counts
from schemas.counting import so_many
from schemas.errors import BgbatchError
from schemas.ids import BatchId
from store.objects.object_store import open_store
from store.settings import Settings
from store.transient.transient_store import open_transient
from workers.placement import connect, is_cut_off, require_joined
from workers.pool import Pool, open_pool, ours

_STEP_PERCENT = 2.0
_WRITES_AT_ONCE = 4
_LOOK_EVERY = 5.0  # seconds


def _may_pass(_task: object, _run: object, state: State) -> bool:
    """Whether trying again can help: not after a mistake of the caller's, at the deadline, or without the lease."""
    try:
        state.result(raise_on_failure=True)
    except BgbatchError as error:
        return error.fault == "ours"
    except LeaseLost:
        return False
    except Exception:  # noqa: BLE001  # whatever else went wrong is ours, and is raised again after the last try
        return True
    return False


P = ParamSpec("P")
R = TypeVar("R")


def _retried(step: Callable[P, R]) -> Callable[P, R]:
    """A coarse task that is tried again when that can help."""
    return task(
        name=step.__name__.removesuffix("_batch"),
        persist_result=False,
        retries=2,
        retry_delay_seconds=10,
        retry_condition_fn=_may_pass,
    )(step)


@flow(name="process-batch", flow_run_name="batch {batch_id}", persist_result=False)
def process_batch(batch_id: BatchId) -> Counts:
    """Process a sealed batch, or what is left of it.

    Raises `BatchNotSealed`, `PastDeadline`, `StoreFault`, `WorkersLost`, `LeaseLost`.
    """
    cut_batch(batch_id)
    admitted = admit_batch(batch_id)
    counts = finish_batch(batch_id)
    create_markdown_artifact(_report(batch_id, counts, admitted), key="batch-report", description="How a batch ended")
    return counts


@_retried
@without_its_text
def cut_batch(batch_id: BatchId) -> None:
    """Cut what is left; tried again as a whole when the store or the workers fail, it goes on where it stopped."""
    parts = current_parts()
    planned = steps.plan(parts, batch_id)
    if not planned.shards:
        return
    said = f"Batch {batch_id}: {len(planned.shards)} calls"
    artifact = cast(UUID, create_progress_artifact(0.0, key="batch-progress", description=said))
    shown = 0.0

    def show(counts: Counts) -> None:
        nonlocal shown
        percent = 100.0 * (counts.done + counts.failed) / max(counts.items, 1)
        if percent >= shown + _STEP_PERCENT or percent >= 100.0:
            shown = percent
            update_progress_artifact(artifact, progress=percent)
        parts.watch(counts)

    steps.cut(replace(parts, watch=show), planned, _pool(parts.settings).run)


@_retried
@without_its_text
def admit_batch(batch_id: BatchId) -> Admitted:
    """Offer what is done to the consent gate and the lake."""
    parts = current_parts()
    return steps.admit(parts, batch_id, _write_on_ray(parts))


@_retried
@without_its_text
def finish_batch(batch_id: BatchId) -> Counts:
    """Record how the batch ended."""
    return steps.finish(current_parts(), batch_id)


def _pool(settings: Settings) -> Pool:
    """The one of this process; another when it was cut off from the cluster where that one's actors were."""
    if is_cut_off():
        _opened.cache_clear()
    return _opened(settings)


@cache
def _opened(settings: Settings) -> Pool:
    return open_pool(settings)


def _write_on_ray(parts: Parts) -> Write:
    """Images go from the transient store to the lake inside Ray workers; a small record of each file comes back."""

    def write(portions: Sequence[Portion], admitted_at: datetime) -> Iterator[LakeFile]:
        connect(parts.settings)
        settings = parts.settings.without_secrets()
        todo = list(portions)
        running: list[ray.ObjectRef[LakeFile]] = []
        while todo or running:
            while todo and len(running) < _WRITES_AT_ONCE:
                running.append(_write_portion.remote(settings, todo.pop(0), admitted_at))
            ended, running = ray.wait(running, num_returns=1, timeout=_LOOK_EVERY)
            if not ended:
                require_joined()
            for file in ended:
                try:
                    yield ray.get(file)
                except RayTaskError as fault:  # what it says is a whole traceback
                    raise ours(fault.cause) from None

    return write


@ray.remote(num_cpus=0, max_retries=3)  # 0: the warm actors hold all CPUs and would be waited for without end
def _write_portion(settings: dict[str, object], portion: Portion, admitted_at: datetime) -> LakeFile:
    here = Settings(**settings)  # type: ignore[arg-type]
    transient = open_transient(here, lambda: admitted_at)
    return write_candidates(open_store(here.lake_root, here), transient, portion, admitted_at)


def _report(batch_id: BatchId, counts: Counts, admitted: Admitted) -> str:
    lines = [
        f"# Batch {batch_id}: {counts.state}",
        "",
        f"{counts.done:,} of {so_many(counts.items, 'photo')} done, {counts.failed:,} failed.",
        f"{so_many(admitted.rows, 'candidate')} in {so_many(admitted.files, 'lake file')}.",
        "",
        "| kept out of the lake because | outputs |",
        "|---|---:|",
    ]
    lines += [f"| {Reason(reason).sentence} | {count} |" for reason, count in sorted(admitted.refusals.items())]
    return "\n".join(lines)
