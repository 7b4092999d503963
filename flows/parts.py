"""What the flows work with. It stands in a context variable, because only ids may be parameters (Prefect keeps them).

A deployed flow finds nothing there and opens what the settings name. The command line, the demo and the tests put in
their own: another home, another clock, someone who watches the progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from consent.suppression import open_suppressions, replay
from schemas.batch import Counts
from schemas.clock import Clock, system_clock
from schemas.ids import BatchId
from store.bucket_check import check_bucket
from store.objects import ObjectStore, open_store
from store.records import Records, open_records, unopened_records
from store.settings import Settings
from store.transient import TransientStore, open_transient

Watch = Callable[[Counts], None]
"""Is told how far a running batch is."""

Stop = Callable[[BatchId], bool]
"""Is asked, often, whether a running batch should give out no more work: called off, or another's turn."""


@dataclass(frozen=True)
class Parts:
    """Settings, clock and open stores."""

    settings: Settings
    clock: Clock
    records: Records
    transient: TransientStore
    lake: ObjectStore
    watch: Watch = lambda counts: None
    stop: Stop = lambda batch_id: False


def open_parts(settings: Settings, clock: Clock, watch: Watch = lambda counts: None) -> Parts:
    """Open what the settings name. A ledger restored from a backup learns of later withdrawals before it serves.

    Raises `BucketUnfit` for a bucket that would keep what is deleted, or show it to others.
    """
    transient, lake = open_transient(settings, clock), open_store(settings.lake_root, settings)
    for objects in (transient.objects, lake):
        check_bucket(objects, settings)
    records = open_records(settings)
    with records.transaction() as connection:
        replay(connection, open_suppressions(settings), clock())
    return _parts(settings, clock, records, transient, lake, watch)


def parts_without_records(settings: Settings, clock: Clock) -> Parts:
    """For a cleanup while the records are down: it purges all the same, and says that they could not be reached."""
    transient, lake = open_transient(settings, clock), open_store(settings.lake_root, settings)
    return _parts(settings, clock, unopened_records(settings), transient, lake, lambda counts: None)


def _parts(
    settings: Settings, clock: Clock, records: Records, transient: TransientStore, lake: ObjectStore, watch: Watch
) -> Parts:
    return Parts(
        settings=settings,
        clock=clock,
        records=records,
        transient=transient,
        lake=lake,
        watch=watch,
    )


def watching(parts: Parts, watch: Watch) -> Parts:
    """The same parts, with somebody else told how far a batch is."""
    return replace(parts, watch=watch)


_current: ContextVar[Parts] = ContextVar("parts")


def current_parts() -> Parts:
    """The parts in use, or those that the environment's settings name."""
    parts = _current.get(None)
    if parts is None:
        parts = open_parts(Settings(), system_clock)
        _current.set(parts)
    return parts


@contextmanager
def using(parts: Parts) -> Iterator[Parts]:
    """Run flows on these parts until the end of the block."""
    token = _current.set(parts)
    try:
        yield parts
    finally:
        _current.reset(token)
