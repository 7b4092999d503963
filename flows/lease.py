"""Keeping a lease while the work under it goes on, and when that work has to stop."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from flows.parts import Parts
from schemas.ids import BatchId
from store.logs import ToldAnyway
from store.records import line
from store.records.database import Records

_log = logging.getLogger(__name__)


class LeaseLost(ToldAnyway):
    """Another process has the work by now, or it is over: whoever hears that says so, and leaves all of it as it is."""


def new_holder() -> str:
    """What a process calls itself in leases: as no other does, on whatever machine."""
    return f"{os.getpid()}-{os.urandom(6).hex()}"


@contextmanager
def renewed(life: timedelta, renew: Callable[[], bool]) -> Iterator[threading.Event]:
    """Call `renew` four times in a lease's life until the end of the block, or until it says that the lease is lost.

    Then the event is set, and whoever works under the lease must stop: another may have begun the same work.
    Records that cannot be reached for a moment cost one renewal, not the lease.
    """
    over, lost = threading.Event(), threading.Event()

    def keep() -> None:
        while not over.wait(life.total_seconds() / 4):
            try:
                if not renew():
                    lost.set()
                    return
            except SQLAlchemyError as fault:
                _log.warning("a lease could not be renewed (%s); it is tried again", type(fault).__name__)

    keeper = threading.Thread(target=keep, daemon=True, name="lease")
    keeper.start()
    try:
        yield lost
    finally:
        over.set()
        keeper.join()


def batch_renewed(parts: Parts, batch_id: BatchId, holder: str) -> AbstractContextManager[threading.Event]:
    """The same for a batch's lease."""
    return renewed(line.LEASE_LIFE, lambda: renew_batch(parts, batch_id, holder))


def renew_batch(parts: Parts, batch_id: BatchId, holder: str) -> bool:
    """Keep a batch's lease for a while more. False when it was lost."""
    with parts.records.transaction() as connection:
        return line.renew(connection, batch_id, holder, parts.clock())


@contextmanager
def batch_fenced(parts: Parts, batch_id: BatchId) -> Iterator[Connection]:
    """A transaction that is made only while the batch's lease is that of `parts.holder`. Raises `LeaseLost`.

    Who stood still for longer than its lease may find that another has brought the batch to its end.
    """
    with parts.records.transaction() as connection:
        require_lease(connection, parts, batch_id)
        yield connection


def require_lease(connection: Connection, parts: Parts, batch_id: BatchId) -> None:
    """The same inside a transaction: until its end nobody else takes the lease. Raises `LeaseLost`."""
    if not line.holds(connection, batch_id, parts.holder, parts.clock()):
        raise LeaseLost


def under_lease(parts: Parts, holder: str, lost: threading.Event) -> Parts:
    """The same parts, where a batch stops when its lease is lost, too, or when its customer calls it off."""

    def stop(batch_id: BatchId) -> bool:
        return lost.is_set() or parts.stop(batch_id) or is_called_off(parts.records, batch_id)

    return replace(parts, stop=stop, holder=holder)


def is_called_off(records: Records, batch_id: BatchId) -> bool:
    """Whether the customer wants no more of this batch. It waits for nobody, so it may be asked often."""
    with records.reading() as connection:
        return line.is_called_off(connection, batch_id)
