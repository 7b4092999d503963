"""One cleanup from end to end: measure the clocks, purge, look at what is left, and say in the records that it ended.

And the gate before intake: nothing is taken in that may not be gone in time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, insert
from sqlalchemy.exc import SQLAlchemyError

from schemas.clock import Clock
from schemas.errors import IntakeStopped, StoreFault
from schemas.ids import Randomness
from store.objects.object_store import ObjectStore
from store.purging.health import Health, measure_skew, oldest_byte, read_health, why_stop, why_stop_by_clock
from store.purging.purge import RECORDS_FAULT, Purge, PurgeReport
from store.records.batches import overdue
from store.records.database import Records
from store.records.tables import cleanups
from store.settings import Settings

REMEMBERED = timedelta(days=90)
"""How long the records say how each cleanup ended."""


@dataclass(frozen=True)
class Machine:
    """What a cleanup works with. `clock` may be shifted in a demo; `real` is this machine's own."""

    objects: ObjectStore
    records: Records
    purge_after: timedelta
    clock: Clock
    real: Clock
    randomness: Randomness


def clean_up(machine: Machine, found: Sequence[str] = ()) -> PurgeReport:
    """Purge what is due. What goes wrong is in the report's faults; the next cleanup tries again.

    `found`: codes of what was wrong already before; a cleanup with any is no good one.
    """
    faults = [*found]
    try:
        skew = measure_skew(machine.objects, machine.real)
    except StoreFault as fault:
        skew = timedelta()
        faults.append(fault.code)
    report = Purge(machine.objects, machine.records, machine.purge_after, machine.clock, skew).run()
    report.faults += faults
    report.skew = skew
    try:
        report.oldest_at = oldest_byte(machine.objects)
    except StoreFault as fault:
        report.faults.append(fault.code)
    _record(machine, report)
    try:
        machine.records.forget_deleted()  # names of closed accounts and used links, such as are in deleted rows
    except (SQLAlchemyError, sqlite3.Error):
        report.faults.append(RECORDS_FAULT)
    return report


def admit_intake(machine: Machine, settings: Settings) -> None:
    """Refuse to take anything in while it might not be gone in time. Raises `IntakeStopped`, `StoreFault`.

    Where cleanups are expected (`BGBATCH_CLEANUP_EXPECTED`: a server that somebody keeps running), a silent hour is
    reason enough. On a machine where somebody types commands, nothing runs between them: there, intake cleans up
    itself, first, whatever is due; and it stops only if that does not help.
    """
    if (ahead := why_stop_by_clock(machine.objects, machine.real)) is not None:
        raise IntakeStopped(f"{ahead} Set the clocks right; then send it again.")
    now = machine.clock()
    health = read_health(machine.objects, machine.records, now)
    if not settings.cleanup_expected and _has_something_due(machine, health, now):
        clean_up(machine)
        health = read_health(machine.objects, machine.records, now)
    reason = why_stop(health, now, settings.cleanup_expected)
    if reason is not None:
        raise IntakeStopped(f"{reason} Nothing new is taken in until `bgbatch cleanup` has run without a fault.")


def _has_something_due(machine: Machine, health: Health, now: datetime) -> bool:
    if health.oldest_at is not None and now - health.oldest_at >= machine.purge_after:
        return True
    with machine.records.reading() as connection:
        return bool(overdue(connection, now))


def _record(machine: Machine, report: PurgeReport) -> None:
    now = machine.clock()
    try:
        with machine.records.transaction() as connection:
            connection.execute(delete(cleanups).where(cleanups.c.finished_at < now - REMEMBERED))
            connection.execute(
                insert(cleanups).values(
                    cleanup_id="c" + machine.randomness(16).hex(),
                    finished_at=now,
                    faults=len(report.faults),
                    skew_seconds=report.skew.total_seconds(),
                )
            )
    except SQLAlchemyError:
        report.faults.append(RECORDS_FAULT)
