"""Erasure: withdrawing is deleting whole files. Nothing is rewritten, and no old snapshot keeps a copy.

`erase_grant` empties every folder of one grant. `reconcile` compares the whole lake with the ledger and the records,
and erases whatever has no live grant or no admission behind it: that repairs a crash, a lost event and a late writer.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Table, exists, or_, select, update

from lake.admission import discard, forget_file, lock_file, places_told_of, remember_file
from lake.layout import Place, may_be_in_the_making, may_be_of_a_newer_grant, parse_place
from schemas.batch import PROMISED_LIFE
from schemas.clock import Clock
from schemas.consent import Grant
from schemas.errors import StillThere, StoreFault
from schemas.ids import GrantId
from schemas.receipt import Erased, Receipt
from schemas.record import Record
from store.objects.object_store import ObjectStore
from store.objects.storage import Children
from store.purging.receipts import begin_erasures, finish_erasures, unfinished_erasures
from store.records.database import Records
from store.records.tables import admissions, merged_files, receipts

_log = logging.getLogger(__name__)

READING = timedelta(hours=24)
"""How long a file whose rows were merged into another stays, for readers that had begun with it: a long epoch."""

LOOKED_INTO = (
    "the folder of this permission, under each industry of the training data",
    "older versions, delete markers and unfinished uploads in those folders",
)
"""What a grant's receipt lists: where nothing was left, in words for the customer."""


class Reconciled(Record):
    """What one reconcile did. `objects`: all that were erased.

    `strays`: those of them that had no grant known, or no admission. `retired`: those whose rows live on in a merged
    file. `lost`: files of live grants that were there no more, of which readers are told no longer.
    """

    objects: int
    strays: int
    retired: int
    receipts: tuple[Receipt, ...]
    lost: int = 0


def erase_grant(lake: ObjectStore, records: Records, grant: Grant, clock: Clock) -> Receipt | None:
    """Erase all that lies under a grant that was withdrawn. None when there was nothing, and no erasure had begun; or
    when another, beside this one, left the receipt.

    Raises `StillThere` and `StoreFault`; the next run goes on. `ValueError` for a live grant.
    """
    if grant.withdrawn_at is None:
        raise ValueError("a live grant's candidates are not erased")
    listed_at = clock()
    places = _folders_of(lake, grant.grant_id)
    found = [each for prefix in places for each in lake.walk(prefix)]
    with records.transaction() as connection:
        begun = grant.grant_id in unfinished_erasures(connection, Erased.GRANT)
        if not found and not begun and not _is_untold(connection, grant.grant_id):
            return None
        size = sum(each.size for each in found)
        begin_erasures(connection, Erased.GRANT, {grant.grant_id: (len(found), size)}, clock(), listed_at)
    for prefix in places:
        lake.delete_folder(prefix)
    if _folders_of(lake, grant.grant_id):
        raise StillThere("Objects came back under a withdrawn grant. The next reconcile erases them.")
    with records.transaction() as connection:
        now = clock()
        deadlines = {grant.grant_id: grant.withdrawn_at + PROMISED_LIFE}
        left = finish_erasures(connection, deadlines, now, LOOKED_INTO)
        _mark_erased(connection, grant.grant_id, now)
    return left[0] if left else None


def reconcile(
    lake: ObjectStore, records: Records, live: Collection[GrantId], ended: Collection[Grant], clock: Clock
) -> Reconciled:
    """Make the lake hold what it may: files that were admitted, of grants that are live.

    Raises `StoreFault` when all else is done: what cannot be deleted keeps nobody else's withdrawal from taking effect.
    `live` and `ended`: every grant of the ledger, read before this call. A grant that is in neither has no permission.
    """
    started = clock()
    live, by_id = frozenset(live), {grant.grant_id: grant for grant in ended}
    places = list(_places(lake))
    to_erase = {place.grant_id for place in places}
    with records.reading() as connection:
        if places:  # else the whole lake is out of sight, as when its disk is not mounted
            places += sorted(places_told_of(connection, live) - set(places), key=lambda place: place.prefix)
        to_erase.update(GrantId(each) for each in unfinished_erasures(connection, Erased.GRANT))
        to_erase.update(_untold_grants(connection))
    faults: list[StoreFault] = []
    left: list[Receipt] = []
    for grant_id in sorted(to_erase & by_id.keys()):
        with _kept_in(faults):
            receipt = erase_grant(lake, records, by_id[grant_id], clock)
            left += [receipt] if receipt is not None else []
    strays = retired = lost = 0
    for place in places:
        with _kept_in(faults):
            if place.grant_id in live:
                unknown, old, gone = _sweep_live(lake, records, place, clock)
                strays, retired, lost = strays + unknown, retired + old, lost + gone
            elif place.grant_id not in by_id:
                strays += _sweep_unknown_grant(lake, place, started)
    strays += _sweep_unknown_folders(lake)
    if faults:
        raise faults[0]
    objects = sum(receipt.objects for receipt in left) + strays + retired
    return Reconciled(objects=objects, strays=strays, retired=retired, receipts=tuple(left), lost=lost)


@contextmanager
def _kept_in(faults: list[StoreFault]) -> Iterator[None]:
    try:
        yield
    except StoreFault as fault:
        faults.append(fault)


def _sweep_live(lake: ObjectStore, records: Records, place: Place, clock: Clock) -> tuple[int, int, int]:
    """Make a live grant's folder hold its candidate files, and the records no other. Returns how many were strays,
    retired and lost.
    """
    strays = retired = 0
    found = {each.key for each in lake.walk(place.prefix)}
    with records.reading() as connection:
        current, old, forgotten = _known_keys(connection, place.grant_id)
    for key in found:
        if key in current:
            continue
        now = clock()
        retired_at = old.get(key)
        if retired_at is not None:
            if retired_at + READING <= now:
                lake.delete([key])
                retired += 1
        elif key in forgotten:
            with records.transaction() as connection:
                lock_file(connection, key)
                if _is_there(lake, key):  # else an erasure beside this one has taken it
                    remember_file(connection, key)
        elif not may_be_in_the_making(key, now):
            with records.transaction() as connection:
                strays += discard(connection, key, lake)
    lost = _forget_lost(lake, records, current - found, clock)
    if lost:
        _log.warning("%d files of grant %s are gone from the lake without a withdrawal", lost, place.grant_id)
    return strays, retired, lost


def _forget_lost(lake: ObjectStore, records: Records, missing: Collection[str], clock: Clock) -> int:
    """Tell readers no longer of files that are gone: one of them would keep all others from being read.

    Another hand deleted them, or the records were restored from a backup of before they were merged.
    """
    lost = 0
    for key in sorted(missing):
        with records.transaction() as connection:
            lock_file(connection, key)  # `admit` looks for the object under it
            if not _is_there(lake, key):
                lost += forget_file(connection, key, clock())
    return lost


def _is_there(lake: ObjectStore, key: str) -> bool:
    """By a listing: who erases may read nothing, and S3 tells them nothing of a single object."""
    return any(each.key == key for each in lake.walk(key))


def _sweep_unknown_grant(lake: ObjectStore, place: Place, ledger_read_at: datetime) -> int:
    """Delete the files of a grant that the ledger does not know. One that may be younger than that look stays."""
    keys = {each.key for each in lake.walk(place.prefix)}
    lost = [key for key in keys if not may_be_of_a_newer_grant(key, ledger_read_at)]
    lake.delete(lost)
    return len(lost)


def _known_keys(connection: Connection, grant_id: GrantId) -> tuple[set[str], dict[str, datetime], set[str]]:
    """Keys of candidate files; those of retired ones, with the time since when; and those of files that were lost."""
    current: set[str] = set()
    retired: dict[str, datetime] = {}
    forgotten: set[str] = set()
    for table in (admissions, merged_files):
        query = select(table.c.key, table.c.retired_at, table.c.erased_at).where(table.c.grant_id == grant_id)
        for key, retired_at, erased_at in connection.execute(query):
            if retired_at is not None:
                retired[key] = retired_at
            else:
                (current if erased_at is None else forgotten).add(key)
    return current, retired, forgotten


def _sweep_unknown_folders(lake: ObjectStore) -> int:
    """Delete what lies in no grant's folder."""
    deleted = _sweep_files(lake, "", lake.children(""))
    for top in lake.folders(""):
        inside = lake.children(top)
        deleted += _sweep_files(lake, f"{top}/", inside)
        for name in inside.folders:
            if parse_place(top, name) is None:
                deleted += lake.delete_folder(f"{top}/{name}").objects
    return deleted


def _sweep_files(lake: ObjectStore, start: str, inside: Children) -> int:
    """Delete what lies directly in a folder and is none, nameless things too."""
    lake.delete(f"{start}{name}" for name in inside.files)
    nameless = lake.erase(lambda: lake.walk_nameless(start.rstrip("/"))).objects if inside.nameless else 0
    return len(inside.files) + nameless


def _places(lake: ObjectStore) -> Iterator[Place]:
    for top in lake.folders(""):
        for name in lake.folders(top):
            place = parse_place(top, name)
            if place is not None:
                yield place


def _folders_of(lake: ObjectStore, grant_id: GrantId) -> list[str]:
    """Every folder of the grant that holds something, whatever industry it is under."""
    prefixes = [f"{top}/grant={grant_id}" for top in lake.folders("")]
    return [prefix for prefix in prefixes if next(lake.walk(prefix), None) is not None]


def _is_untold(connection: Connection, grant_id: GrantId) -> bool:
    return any(
        connection.execute(select(table.c.key).where(table.c.grant_id == grant_id, _untold(table)).limit(1)).first()
        for table in (admissions, merged_files)
    )


def _untold_grants(connection: Connection) -> set[GrantId]:
    return {
        GrantId(each)
        for table in (admissions, merged_files)
        for each in connection.execute(select(table.c.grant_id).where(_untold(table)).distinct()).scalars()
    }


def _untold(table: Table) -> ColumnElement[bool]:
    """Files that are not erased, or of whose grant no receipt says so: they were lost before its withdrawal."""
    # Not `NOT IN`: PostgreSQL would look through all receipts of grants for each file, once they are many.
    is_told = exists().where(receipts.c.kind == Erased.GRANT, receipts.c.subject == table.c.grant_id)
    return or_(table.c.erased_at.is_(None), ~is_told)


def _mark_erased(connection: Connection, grant_id: GrantId, now: datetime) -> None:
    """The rows stay: they are the account of what was given."""
    for table in (admissions, merged_files):
        connection.execute(
            update(table).where(table.c.grant_id == grant_id, table.c.erased_at.is_(None)).values(erased_at=now)
        )
