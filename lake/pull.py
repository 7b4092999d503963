"""A copy of candidates for the ML team: only rows whose grant is live at the moment that they are read."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lake.admission import AdmittedFile, admitted_files
from lake.parquet import to_parquet
from lake.query import Query, as_filter
from schemas.clock import Clock
from schemas.errors import NotFound
from schemas.ids import GrantId
from store.objects import ObjectStore
from store.records import Records

LiveGrants = Callable[[], Collection[GrantId]]
"""Asks the ledger which grants are live now."""


@dataclass(frozen=True)
class Pulled:
    """What was copied. `files`: relative to the folder."""

    rows: int
    bytes: int
    files: tuple[str, ...]
    grants: tuple[GrantId, ...]


def pull(
    lake: ObjectStore,
    records: Records,
    live: Collection[GrantId] | LiveGrants,
    query: Query,
    to: Path,
    clock: Clock,
    on_file: Callable[[int, int], None] = lambda done, of: None,
) -> Pulled:
    """Copy what `query` asks for into `to`, as Parquet in the lake's own folders. Raises `StoreFault`, `BadQuery`.

    `on_file` is told how many files of how many are done.
    """
    ask = live if callable(live) else lambda: live
    keep = as_filter(query.where)
    live_now = ask()  # not inside the transaction: asking may take one of its own, and SQLite has one at a time
    with records.transaction() as connection:
        files = admitted_files(connection, query.industry, live_now)
    rows = size = 0
    written: list[tuple[str, GrantId]] = []
    for place, file in enumerate(files, start=1):
        left = None if query.limit is None else query.limit - rows
        if left == 0:
            break
        table = _read(lake, file, ask)
        if table is not None:
            table = table if keep is None else table.filter(keep)
            table = table if left is None else table.slice(0, left)
        if table is not None and table.num_rows:
            data = to_parquet(table)
            target = to / file.key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            rows, size = rows + table.num_rows, size + len(data)
            written.append((file.key, file.grant_id))
        on_file(place, len(files))
    grants = tuple(sorted({grant_id for _, grant_id in written}))
    return Pulled(rows, size, tuple(key for key, _ in written), grants)


def _read(lake: ObjectStore, file: AdmittedFile, ask: LiveGrants) -> pa.Table | None:
    """The file's rows; None when its grant has ended, asked after reading."""
    try:
        table = pq.read_table(pa.BufferReader(lake.read(file.key)))
    except NotFound:
        return None
    return table if file.grant_id in ask() else None
