"""Who works on a schedule's nights, and the lease that keeps two of them off the same night."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from flows.lease import LeaseLost, renewed
from flows.parts import Parts, Process
from schemas.ids import Randomness
from store.records import nights
from store.records.nights import Night
from store.records.schedules import Schedule

Publish = Callable[[str, str], None]
"""Shows a page, given its key and Markdown: a Prefect artifact where there is an engine."""


@dataclass(frozen=True)
class Worker:
    """Who works on nights. `process` is None where others (`bgbatch work`) cut what stands in line.

    `has_lost`: whether the lease of the night that it works on is another's by now.
    """

    holder: str
    randomness: Randomness
    process: Process | None
    publish: Publish = lambda key, page: None
    has_lost: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Job:
    """A worker at one schedule's nights, and what it works with."""

    parts: Parts
    schedule: Schedule
    worker: Worker


@contextmanager
def held(job: Job, night: Night) -> Iterator[Job | None]:
    """Hold the night's lease until the end of the block; None when another process has it.

    The worker knows when the lease is lost.
    """
    parts, holder = job.parts, job.worker.holder

    def renew() -> bool:
        with parts.records.transaction() as connection:
            return nights.renew(connection, night.night_id, holder, parts.clock())

    try:  # begun before it is held: a stop that comes while that is recorded is heard when it is
        with parts.records.transaction() as connection:
            is_ours = nights.hold(connection, night.night_id, holder, parts.clock())
        if not is_ours:
            yield None
            return
        with renewed(nights.LEASE_LIFE, renew) as lost:
            yield replace(job, worker=replace(job.worker, has_lost=lost.is_set))
    finally:
        with parts.records.transaction() as connection:
            nights.let_go(connection, night.night_id, holder)


@contextmanager
def fenced(job: Job, night: Night) -> Iterator[Connection]:
    """A transaction that is made only while the worker holds the night's lease. Raises `LeaseLost`."""
    with job.parts.records.transaction() as connection:
        require_night(connection, job, night)
        yield connection


def require_night(connection: Connection, job: Job, night: Night) -> None:
    """The same inside a transaction: until its end nobody else takes the night. Raises `LeaseLost`."""
    if job.worker.has_lost() or not nights.renew(connection, night.night_id, job.worker.holder, job.parts.clock()):
        raise LeaseLost
