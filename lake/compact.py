"""Compaction: many small files of one grant become one. Rows move by a change of the records, all at once.

Write the merged object, then in one transaction make it the file that readers are told of and retire the small ones.
Retired files stay for readers that had begun with them, until `reconcile` takes them; an erasure takes all of them,
because all lie in the grant's folder. Killed anywhere, either the small files hold the rows or the merged one does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random

import pyarrow as pa
from sqlalchemy import Connection, insert, update

from lake.admission import current, lock_file
from lake.candidate_file import UNREADABLE
from lake.layout import merged_key
from lake.merging import LEAST_FILES, Merge, plan_merges
from lake.parquet import to_parquet
from lake.reading import Lake, as_read
from schemas.candidate import CANDIDATE
from schemas.clock import Clock
from schemas.errors import NotFound, StoreFault
from schemas.ids import GrantId, Randomness, new_batch_id
from store.records.tables import admissions, merged_files

IsLive = Callable[[Connection, GrantId], bool]
"""Whether a grant is live, asked so that a withdrawal comes wholly before or wholly after this transaction."""


@dataclass(frozen=True)
class Compacted:
    """What one run did. `abandoned`: merges given up because their files changed or their grant ended meanwhile.

    `left`: merges that the time did not suffice for.
    """

    merged: int = 0
    files: int = 0
    rows: int = 0
    bytes: int = 0
    abandoned: int = 0
    left: int = 0


def compact(
    lake: Lake,
    is_live: IsLive,
    clock: Clock,
    randomness: Randomness,
    least_files: int = LEAST_FILES,
    on_merge: Callable[[int, int], None] = lambda done, of: None,
    until: datetime | None = None,
) -> Compacted:
    """Merge what is worth merging; after `until` none is begun. Two runs at once share the work, as far as luck has it.

    Raises `StoreFault` when all others that there was time for are merged: a damaged file stops nobody else's.
    """
    merges = plan_merges(lake.snapshot().files, least_files)
    Random(randomness(8)).shuffle(merges)  # in one order, two runs would make each merge twice, side by side
    done = Compacted()
    faults: list[StoreFault] = []
    for place, merge in enumerate(merges, start=1):
        if until is not None and clock() >= until:
            done = replace(done, left=len(merges) - place + 1)
            break
        try:
            size = merge_files(lake, merge, is_live, clock, randomness)
        except StoreFault as fault:
            faults.append(fault)
            continue
        if size is None:
            done = replace(done, abandoned=done.abandoned + 1)
        else:
            done = replace(
                done,
                merged=done.merged + 1,
                files=done.files + len(merge.files),
                rows=done.rows + sum(file.rows for file in merge.files),
                bytes=done.bytes + size,
            )
        on_merge(place, len(merges))
    if faults:
        raise faults[0]
    return done


def merge_files(lake: Lake, merge: Merge, is_live: IsLive, clock: Clock, randomness: Randomness) -> int | None:
    """Merge some files of one grant; returns the merged file's size, or None when it was given up. `StoreFault`."""
    with lake.records.reading() as connection:
        if not _are_current(connection, merge):
            return None  # another run was here
    try:
        table = pa.concat_tables([as_read(lake.open(file.key).read()) for file in merge.files])
        table = table.sort_by("candidate_id").cast(CANDIDATE)
    except NotFound:
        return None  # erased or merged by another run
    except (pa.ArrowException, ValueError):  # it is Parquet, but no candidate file: of other columns, or without some
        raise StoreFault(UNREADABLE) from None
    if len(table["candidate_id"].unique()) != sum(file.rows for file in merge.files):
        raise StoreFault("Files of one grant do not hold the rows that were admitted. Run `bgbatch lake audit`.")
    data = to_parquet(table)
    key = merged_key(merge.place, new_batch_id(clock(), randomness))
    lake.objects.write(key, data)
    with lake.records.transaction() as connection:
        if _swap(lake, connection, merge, key, data, is_live, clock()):
            return len(data)
    lake.objects.delete([key])
    return None


def _swap(
    lake: Lake, connection: Connection, merge: Merge, key: str, data: bytes, is_live: IsLive, now: datetime
) -> bool:
    """Tell readers of the merged file instead of the small ones; False when that may not be any more."""
    lock_file(connection, f"merges of {merge.place.grant_id}")  # one merge of a grant at a time
    lock_file(connection, key)
    if not is_live(connection, merge.place.grant_id) or not lake.objects.exists(key):
        return False
    if not _are_current(connection, merge):
        return False
    old = [file.key for file in merge.files]
    connection.execute(
        insert(merged_files).values(
            key=key,
            grant_id=merge.place.grant_id,
            industry=merge.place.industry,
            rows=sum(file.rows for file in merge.files),
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            merged_at=now,
        )
    )
    connection.execute(update(merged_files).where(merged_files.c.key.in_(old)).values(retired_at=now))
    connection.execute(update(admissions).where(admissions.c.merged_into.in_(old)).values(merged_into=key))
    connection.execute(update(admissions).where(admissions.c.key.in_(old)).values(merged_into=key, retired_at=now))
    return True


def _are_current(connection: Connection, merge: Merge) -> bool:
    old = {file.key for file in merge.files}
    return current(connection, old) == old
