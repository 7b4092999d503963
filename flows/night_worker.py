"""Who works on nights, and the lease that keeps two of them off the same night."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flows.lease import renewed, stopping
from flows.parts import Parts
from schemas.batch import Counts
from schemas.ids import BatchId, Randomness
from store import nights
from store.nights import Night

RENEW_EVERY = nights.LEASE_LIFE.total_seconds() / 4

Process = Callable[[Parts, BatchId], Counts]
"""Cuts what is left of a batch: the flow on Ray, or the same in this process in a test."""
Publish = Callable[[str, str], None]
"""Shows a page, given its key and Markdown: a Prefect artifact where there is an engine."""


@dataclass(frozen=True)
class Worker:
    """Who works on nights. `process` is None where others (`bgbatch work`) cut what stands in line."""

    holder: str
    randomness: Randomness
    process: Process | None
    publish: Publish = lambda key, page: None


@contextmanager
def held(parts: Parts, night: Night, holder: str) -> Iterator[Parts | None]:
    """Hold the night's lease until the end of the block; None when another process has it.

    The parts to work with: cutting stops when the lease is lost.
    """
    if not _hold(parts, night, holder):
        yield None
        return
    try:
        with renewed(RENEW_EVERY, lambda: _hold(parts, night, holder)) as lost:
            yield stopping(parts, lost)
    finally:
        with parts.records.transaction() as connection:
            nights.let_go(connection, night.night_id, holder)


def _hold(parts: Parts, night: Night, holder: str) -> bool:
    with parts.records.transaction() as connection:
        return nights.hold(connection, night.night_id, holder, parts.clock())
