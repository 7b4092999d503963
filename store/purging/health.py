"""Whether the promise is being kept, in four numbers: the oldest byte, the backlog, the last good cleanup, the skew.

Deciding (`why_stop`, `metrics_text`) is pure. The oldest byte is read off the store: records can be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from schemas.clock import Clock
from schemas.ids import BatchId, received_at
from store.objects.object_store import ObjectStore
from store.objects.storage import Children
from store.records.batches import overdue
from store.records.database import Records
from store.records.tables import canaries, cleanups
from store.transient.transient_store import batch_in, parse_hour

OLDEST = timedelta(hours=23, minutes=30)
"""Past this age of the oldest byte nothing more is taken in."""
SILENCE = timedelta(hours=1)
"""Past so long without a good cleanup nothing more is taken in, where cleanups are expected."""
_OF_LATE = timedelta(minutes=30)  # they come every ten
_BESIDE = timedelta(minutes=15)  # each cleaner has been there since: where one fails, another must not hide it
_TOO_FAR_AHEAD = timedelta(minutes=5)  # a batch's life is counted by the clock of whoever takes it in
_LATE = timedelta(minutes=20)  # two cleanups passed it by; where many come in, some are due at any moment between two
_MEASURABLE = timedelta(seconds=2)  # a store tells whole seconds, and an answer takes its time


@dataclass(frozen=True)
class Health:
    """`oldest_at`: when the oldest byte that is still there was received.

    `overdue`: batches whose time came so long ago that a cleanup had to purge them since, and that are not purged.
    `faults`, and `skew`, how far the store's clock was ahead of a cleanup's: the most of any of the latest cleanups.
    `canaries_found`: markers of our own batches that were still somewhere after their deadline.
    """

    oldest_at: datetime | None
    overdue: int
    last_good_at: datetime | None
    faults: int
    skew: timedelta
    canaries_found: int


def oldest_byte(objects: ObjectStore) -> datetime | None:
    """When the oldest byte of the transient store was received; None when it is empty. Two listings, whatever lives.

    Something that does not lie in a batch of that hour counts from the hour's start. Raises `StoreFault`.
    """
    hours = [(hour, name) for name in objects.folders("") if (hour := parse_hour(name)) is not None]
    for hour, name in sorted(hours):
        inside = objects.children(name)
        if inside == Children():
            continue
        moments = [received_at(batch_id) for each in inside.folders if (batch_id := batch_in(name, each)) is not None]
        is_all_ours = not inside.nameless and len(moments) == len(inside.folders) + len(inside.files)
        return min(moments) if is_all_ours else hour
    return None


def read_health(objects: ObjectStore, records: Records, now: datetime) -> Health:
    """The four numbers, now. Raises `StoreFault`."""
    oldest_at = oldest_byte(objects)  # before: a store that hangs must keep no connection from who withdraws
    with records.reading() as connection:
        return _as_recorded(connection, oldest_at, now)


def _as_recorded(connection: Connection, oldest_at: datetime | None, now: datetime) -> Health:
    past = cleanups.c.finished_at <= now  # else one of a clock that was ahead would be the newest for as long as it was
    newest = select(func.max(cleanups.c.finished_at)).where(past)
    last_at = connection.execute(newest).scalar()
    beside = past & (cleanups.c.finished_at > (last_at or now) - _BESIDE)
    latest = connection.execute(select(cleanups.c.faults, cleanups.c.skew_seconds).where(beside)).all()
    good = connection.execute(newest.where(cleanups.c.faults == 0)).scalar()
    found = connection.execute(
        select(canaries.c.found_in).where(canaries.c.checked_at > now - timedelta(days=1))
    ).scalars()
    return Health(
        oldest_at=oldest_at,
        overdue=len(overdue(connection, now - _LATE)),
        last_good_at=good,
        faults=max((each.faults for each in latest), default=0),
        skew=timedelta(seconds=max((each.skew_seconds for each in latest), key=abs, default=0.0)),
        canaries_found=sum(1 for places in found if places),
    )


def cleans_up_by_itself(connection: Connection, now: datetime) -> bool:
    """Whether cleanups have been coming of late, as where something runs them. One alone may be a command's own.

    Not where a canary was sent of late, too: whatever keeps running sends its first right after its first cleanup.
    """
    late = (cleanups.c.faults == 0) & (cleanups.c.finished_at > now - _OF_LATE)
    count = connection.execute(select(func.count()).select_from(cleanups).where(late)).scalar_one()
    newest = connection.execute(select(func.max(canaries.c.batch_id))).scalar()
    is_watched = newest is not None and received_at(BatchId(newest)) > now - _OF_LATE
    return count > (0 if is_watched else 1)


def why_stop(health: Health, now: datetime, is_expected: bool) -> str | None:
    """Why no batch may be taken in now; None when one may. `is_expected`: somebody was told to run cleanups.

    Without that, a silence alone is no reason: on a machine where nothing is stored, nothing needs cleaning up.
    """
    if health.oldest_at is not None and now - health.oldest_at >= OLDEST:
        return "Something in the transient store is older than 23.5 hours, and nothing may be kept over 24."
    if is_expected and (health.last_good_at is None or now - health.last_good_at > SILENCE):
        return "No cleanup came to a good end in the last hour."
    return None


def why_stop_by_clock(objects: ObjectStore, machine: Clock) -> str | None:
    """Why no batch may be taken in by this machine's real clock; None when one may. Raises `StoreFault`."""
    if measure_skew(objects, machine) > -_TOO_FAR_AHEAD:
        return None
    return (
        "This machine's clock is 5 minutes or more ahead of the store's, and what comes in now would be kept for that "
        "much longer."
    )


def measure_skew(objects: ObjectStore, machine: Clock) -> timedelta:
    """How far the store's clock is ahead of this machine's (`machine` is the real clock). Raises `StoreFault`."""
    before = machine()
    store = objects.now()
    middle = before + (machine() - before) / 2
    skew = store - middle
    return skew if abs(skew) > _MEASURABLE else timedelta()


def metrics_text(health: Health, now: datetime) -> str:
    """The numbers as Prometheus reads them. An absent last cleanup shows as one at the beginning of time."""
    age = (now - health.oldest_at).total_seconds() if health.oldest_at else 0.0
    last_good = health.last_good_at.timestamp() if health.last_good_at else 0.0
    values = {
        "bgbatch_transient_oldest_age_seconds": ("Age of the oldest byte in the transient store, from receipt.", age),
        "bgbatch_purge_overdue_batches": ("Batches not purged 20 minutes after their time.", health.overdue),
        "bgbatch_cleanup_last_success_timestamp_seconds": ("When a cleanup last ended without a fault.", last_good),
        "bgbatch_cleanup_faults": ("Most faults of one of the newest cleanups.", health.faults),
        "bgbatch_clock_skew_seconds": ("The store's clock less that of a newest cleanup.", health.skew.total_seconds()),
        "bgbatch_canaries_found": ("Canaries of the last day found after their deadline.", health.canaries_found),
    }
    return gauges(values)


def gauges(values: Mapping[str, tuple[str, float]]) -> str:
    """Numbers as Prometheus reads them: name -> what it tells, and the number."""
    return "".join(f"# HELP {n} {what}\n# TYPE {n} gauge\n{n} {value}\n" for n, (what, value) in values.items())
