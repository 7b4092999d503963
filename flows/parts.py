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
from store.objects.bucket_check import check_bucket
from store.objects.object_store import ObjectStore, open_store
from store.records.database import Records, unopened_records, upgrade
from store.settings import Settings
from store.transient.transient_store import TransientStore, open_transient

Watch = Callable[[Counts], None]
"""Is told how far a running batch is."""

Worked = Callable[[int], None]
"""Is told of each call that ended how many photos it was of: measured or tried again, they change no count."""

Stop = Callable[[BatchId], bool]
"""Is asked, often, whether a running batch should give out no more work: called off, or another's turn."""

Process = Callable[["Parts", BatchId], Counts]
"""Cuts what is left of a batch on these parts: the flow on Ray, or the same in this process in a test."""


@dataclass(frozen=True)
class Parts:
    """Settings, clock and open stores. `troubles`: what a cleanup found wrong with them, and goes on in spite of.

    `holder`: whose lease a batch is worked on under; None where nobody else can know of the batch.
    """

    settings: Settings
    clock: Clock
    records: Records
    transient: TransientStore
    lake: ObjectStore
    watch: Watch = lambda counts: None
    worked: Worked = lambda photos: None
    stop: Stop = lambda batch_id: False
    holder: str | None = None
    troubles: tuple[Exception, ...] = ()


def open_parts(settings: Settings, clock: Clock) -> Parts:
    """Open what the settings name. A ledger restored from a backup learns of later withdrawals before it serves.

    Raises `BucketUnfit` for a bucket that would keep what is deleted, or show it to others.
    """
    parts = _unchecked(settings, clock)
    for check in _CHECKS:
        check(parts)
    return parts


def parts_to_clean(settings: Settings, clock: Clock) -> Parts:
    """The same for a cleanup, which purges whatever is wrong with bucket, lake, records or ledger, and says so then."""
    parts, troubles = _unchecked(settings, clock), []
    parts.records.wait_briefly()
    for check in _CHECKS:
        try:
            check(parts)
        except Exception as trouble:  # noqa: BLE001 - a defect of a check must not keep what is due either
            troubles.append(trouble)
    return replace(parts, troubles=tuple(troubles))


def _unchecked(settings: Settings, clock: Clock) -> Parts:
    return Parts(
        settings=settings,
        clock=clock,
        records=unopened_records(settings),
        transient=open_transient(settings, clock),
        lake=open_store(settings.lake_root, settings),
    )


def _replay(parts: Parts) -> None:
    replay(parts.records, open_suppressions(parts.settings), parts.clock())


_CHECKS: tuple[Callable[[Parts], object], ...] = (
    lambda parts: check_bucket(parts.transient.objects, parts.settings),
    lambda parts: check_bucket(parts.lake, parts.settings),
    lambda parts: upgrade(parts.records),
    _replay,
)


_current: ContextVar[Parts] = ContextVar("parts")


def current_parts(opened: Callable[[Settings, Clock], Parts] = open_parts) -> Parts:
    """The parts in use, or those that the environment's settings name."""
    parts = _current.get(None)
    if parts is None:
        parts = opened(Settings(), system_clock)
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
