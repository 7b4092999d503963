"""Admission: a file is a candidate file from the moment that the records say so. Readers start from the records.

The order is object first, admission after; what a crash leaves between has no admission, so no reader sees it and
`reconcile` erases it. `admit` and that erasing take the same lock, and `admit` looks for the object under it: no
admission can stand for a file that was erased.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, func, insert, or_, select, union, union_all, update

from lake.layout import Place
from lake.write import LakeFile
from schemas.errors import StoreFault
from schemas.ids import BatchId, GrantId
from schemas.industries import Industry
from store.objects.object_store import ObjectStore
from store.records.database import hold_lock
from store.records.tables import admissions, merged_files

_FILE = ("key", "industry", "grant_id", "rows", "bytes", "sha256")
_IN_ONE_QUERY = 500  # databases limit how many values a query may carry


@dataclass(frozen=True)
class AdmittedFile:
    """A file that readers may read while its grant is live."""

    key: str
    industry: Industry
    grant_id: GrantId
    rows: int
    bytes: int
    sha256: str


@dataclass
class Seen:
    """Of a batch: how many files were admitted when somebody looked, and for which items.

    Items of which none could be written have no file, and are offered again whenever the batch is run again.
    """

    files: int = 0
    items: set[int] = field(default_factory=set)

    def take(self, file: LakeFile) -> None:
        """One more was admitted: that is so once it is committed."""
        self.files += 1
        self.items.update(file.items)


def admit(connection: Connection, file: LakeFile, now: datetime, lake: ObjectStore, seen: Seen | None = None) -> bool:
    """Record that `file` may be read. Call it in the transaction in which `consent.gate.confirm` said yes.

    `seen`: what the caller knows of the batch. Admitting the same file again changes nothing: False. Raises
    `StoreFault` when the object is not in `lake` (any more), or when another file was admitted for some of its items,
    by a run of the batch beside this one.
    """
    if file.rows == 0:
        return False
    hold_lock(connection, f"lake:{file.batch_id}")  # of two runs beside each other one sees the other's files
    lock_file(connection, file.key)
    known = connection.execute(select(admissions.c.sha256).where(admissions.c.key == file.key)).scalar()
    if known is not None:
        if known != file.sha256:
            raise StoreFault("Another file was admitted under the same key. Run the batch again.")
        return False
    if not look(connection, file.batch_id, seen).items.isdisjoint(file.items):
        raise StoreFault("Another file was admitted for the same photos. Run the batch again for the rest of them.")
    if not lake.exists(file.key):
        raise StoreFault("A candidate file is gone before its admission was recorded. Run the batch again.")
    connection.execute(
        insert(admissions).values(
            key=file.key,
            grant_id=file.grant_id,
            batch_id=file.batch_id,
            industry=file.industry,
            rows=file.rows,
            bytes=file.bytes,
            sha256=file.sha256,
            items=list(file.items),
            admitted_at=now,
        )
    )
    return True


def look(connection: Connection, batch_id: BatchId, seen: Seen | None = None) -> Seen:
    """What is admitted of a batch by now. `seen` spares reading it when nothing has come since: no row ever goes."""
    of_batch = admissions.c.batch_id == batch_id
    files = connection.execute(select(func.count()).where(of_batch)).scalar_one()
    if seen is not None and seen.files == files:
        return seen
    found = connection.execute(select(admissions.c["items"]).where(of_batch)).scalars()
    return Seen(files, {item for items in found for item in items})


def current(connection: Connection, keys: Collection[str]) -> set[str]:
    """Those of these files that readers are told of."""
    found: set[str] = set()
    for table in (admissions, merged_files):
        query = select(table.c.key).where(table.c.key.in_(keys), _is_current(table))
        found.update(connection.execute(query).scalars())
    return found


def discard(connection: Connection, key: str, lake: ObjectStore) -> bool:
    """Delete a file, unless it was admitted: by another run, or meanwhile. Whether it is gone. Raises `StoreFault`."""
    lock_file(connection, key)  # `admit` takes the same lock, and then looks whether the object is there
    if current(connection, [key]):
        return False
    lake.delete([key])
    return True


def forget_file(connection: Connection, key: str, now: datetime) -> bool:
    """Tell readers no longer of a file that is gone. Its row stays: it is the account of what was given."""
    forgotten = [
        connection.execute(update(table).where(table.c.key == key, _is_current(table)).values(erased_at=now)).rowcount
        for table in (admissions, merged_files)
    ]
    return any(forgotten)


def remember_file(connection: Connection, key: str) -> None:
    """Tell readers again of a file that was forgotten and is there again."""
    for table in (admissions, merged_files):
        forgotten = (table.c.key == key) & table.c.retired_at.is_(None)
        connection.execute(update(table).where(forgotten).values(erased_at=None))


def places_told_of(connection: Connection, live: Collection[GrantId]) -> set[Place]:
    """Where the files lie that readers are told of, of these live grants."""
    tables = (admissions, merged_files)
    query = union(*(select(each.c.industry, each.c.grant_id).where(_is_current(each)) for each in tables))
    found = connection.execute(query).all()
    return {Place(Industry(each.industry), GrantId(each.grant_id)) for each in found if each.grant_id in live}


def admitted_files(connection: Connection, industry: Industry | None, live: Collection[GrantId]) -> list[AdmittedFile]:
    """The files that hold each candidate of these live grants exactly once, by key. `industry` None: all of them."""
    return sorted(map(_file, _rows(connection, industry, live)), key=lambda each: each.key)


def files_at(connection: Connection, industry: Industry | None, moment: datetime) -> list[AdmittedFile]:
    """The files that held each candidate once at `moment`, by key, also of grants that have ended since.

    Whoever asks finds the same, whenever that is: what is recorded later does not change it.
    """
    found: list[RowMapping] = []
    for table, since in ((admissions, admissions.c.admitted_at), (merged_files, merged_files.c.merged_at)):
        query = select(*(table.c[name] for name in _FILE)).where(since <= moment)
        query = query.where(*(or_(end.is_(None), end > moment) for end in (table.c.retired_at, table.c.erased_at)))
        found += connection.execute(query if industry is None else query.where(table.c.industry == industry)).mappings()
    return sorted(map(_file, found), key=lambda each: each.key)


def admitted_rows(connection: Connection, key: str) -> dict[BatchId, int]:
    """How many rows of which batch a file holds that readers may read: those of one admission, or of many merged."""
    are_there = or_(admissions.c.key == key, admissions.c.merged_into == key)
    query = select(admissions.c.batch_id, func.sum(admissions.c.rows)).where(are_there)
    return {BatchId(batch_id): rows for batch_id, rows in connection.execute(query.group_by(admissions.c.batch_id))}


def lock_file(connection: Connection, key: str) -> None:
    """Until this transaction ends nobody else admits or erases this file."""
    hold_lock(connection, f"lake:{key}")


def _rows(connection: Connection, industry: Industry | None, live: Collection[GrantId]) -> Iterator[RowMapping]:
    grants = sorted(live)
    for start in range(0, len(grants), _IN_ONE_QUERY):
        some = grants[start : start + _IN_ONE_QUERY]
        queries = []
        for table in (admissions, merged_files):
            query = select(*(table.c[name] for name in _FILE)).where(table.c.grant_id.in_(some), _is_current(table))
            queries.append(query if industry is None else query.where(table.c.industry == industry))
        yield from connection.execute(union_all(*queries)).mappings()


def _is_current(table: Table) -> ColumnElement[bool]:
    return table.c.retired_at.is_(None) & table.c.erased_at.is_(None)


def _file(row: RowMapping) -> AdmittedFile:
    return AdmittedFile(
        key=row["key"],
        industry=Industry(row["industry"]),
        grant_id=GrantId(row["grant_id"]),
        rows=row["rows"],
        bytes=row["bytes"],
        sha256=row["sha256"],
    )
