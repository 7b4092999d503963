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
from store.objects import ObjectStore, open_store
from store.records import Records, open_records
from store.settings import Settings
from store.transient import TransientStore, open_transient

Watch = Callable[[Counts], None]
"""Is told how far a running batch is."""


@dataclass(frozen=True)
class Parts:
    """Settings, clock and open stores."""

    settings: Settings
    clock: Clock
    records: Records
    transient: TransientStore
    lake: ObjectStore
    watch: Watch = lambda counts: None


def open_parts(settings: Settings, clock: Clock, watch: Watch = lambda counts: None) -> Parts:
    """Open what the settings name. A ledger restored from a backup learns of later withdrawals before it serves."""
    records = open_records(settings)
    with records.transaction() as connection:
        replay(connection, open_suppressions(settings), clock())
    return Parts(
        settings=settings,
        clock=clock,
        records=records,
        transient=open_transient(settings, clock),
        lake=open_store(settings.lake_root, settings),
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
