"""A copy of candidates for the ML team: only rows whose grant is live at the moment that they are read.

Each part is read, its grant asked for once more, and then written whole; a pull that was interrupted goes on where it
stopped. At its end every grant is asked for again, and what ended meanwhile is not in the copy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from math import isfinite
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from lake.copies.card import plot
from lake.copies.choose import HARDEST_FIRST, choose, cut, summarise
from lake.copies.formats import Candidates, encode
from lake.copies.manifest import (
    CARD,
    DONE,
    MANIFEST,
    PLAN,
    PLOTS,
    USUAL,
    CopiedFile,
    DonePart,
    Kind,
    Manifest,
    Part,
    Plan,
    Shares,
    Split,
    Wanted,
)
from lake.copies.stored import read_manifest, read_plan, sweep_half_written, write_manifest
from lake.duplicates import mark_duplicates
from lake.pulls import finish_pull, mark_cleared, record_pull, resume_pull
from lake.query import Query, as_filter, columns_of
from lake.reading import Lake, as_read
from schemas.candidate import IMAGE_COLUMNS, LABELS, LICENCE, SCHEMA_VERSION
from schemas.clock import Clock
from schemas.errors import CopyInTheWay, NotFound, UserError
from schemas.ids import GrantId, Randomness
from store.objects.object_store import ObjectStore
from store.records.database import Records

_LONGEST_RECIPIENT, _LONGEST_PLACE = 200, 1000  # that the records hold
_AT_ONCE = 4
"""Parts: reading, hashing and writing wait for disk or network, or leave Python to others. Each is made in memory."""


@dataclass(frozen=True)
class Order:
    """`kind`: what the copy's files are. `recipient`: who gets it, as customers may read it. `place`: where it goes.

    `shares`: how customers are split.
    """

    kind: Kind = Kind.PARQUET
    recipient: str = "the ML team"
    place: str = ""
    shares: Shares = USUAL

    def __post_init__(self) -> None:
        if min(self.shares) < 0 or not isfinite(total := sum(self.shares)) or not total:
            raise UserError("Shares are three numbers from 0 on, not all 0, as in 80,10,10.")
        if not 0 < len(self.recipient.strip()) <= _LONGEST_RECIPIENT or not self.recipient.isprintable():
            raise UserError(f"Say who gets the copy in 1 to {_LONGEST_RECIPIENT} characters: customers read it.")
        if len(self.place) > _LONGEST_PLACE:
            raise UserError(f"The copy's place has more than {_LONGEST_PLACE} characters. Choose another.")


@dataclass(frozen=True)
class Pulled:
    """What was copied. `files`: relative to the copy. `resumed`: parts that an interrupted pull had written before."""

    pull_id: str
    rows: int
    bytes: int
    files: tuple[str, ...]
    grants: tuple[GrantId, ...]
    resumed: int


def pull(
    lake: Lake,
    query: Query,
    copy: ObjectStore,
    clock: Clock,
    on_part: Callable[[int, int], None] = lambda done, of: None,
    order: Order = Order(),
    randomness: Randomness = os.urandom,
) -> Pulled:
    """Copy what `query` asks for to the place of `copy`. Raises `BadQuery`, `CopyInTheWay`, `StoreFault`.

    A finished copy of an earlier pull in the same place is replaced, once it is known by what. `on_part` is told how
    many parts of how many are done.
    """
    as_filter(query.where)
    sweep_half_written(copy)
    plan = _unfinished(copy, query, order)
    if plan is None:
        old = _old_copy(copy)
        plan = _new_plan(lake, query, order, clock, randomness)
        if old is not None:
            _clear(copy, lake.records, old, clock)
        copy.write(PLAN, plan.model_dump_json().encode())  # first: who is killed here is on record once it goes on
        with lake.records.transaction() as connection:
            record_pull(connection, plan, order.place)
    else:
        live = lake.live()
        with lake.records.transaction() as connection:
            resume_pull(connection, plan, order.place, live)
    written = set(copy.files(DONE))
    missing = [part for part in plan.parts if f"{part.name}.json" not in written]
    resumed = len(plan.parts) - len(missing)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        copying = [pool.submit(_copy_part, lake, copy, plan, part) for part in missing]
        try:
            for done, each in enumerate(as_completed(copying), start=resumed + 1):
                each.result()
                on_part(done, len(plan.parts))
        finally:
            pool.shutdown(cancel_futures=True)
    manifest = _finish(lake, copy, plan, clock)
    return Pulled(
        pull_id=plan.pull_id,
        rows=manifest.rows,
        bytes=sum(file.bytes for file in manifest.files),
        files=tuple(file.path for file in manifest.files),
        grants=tuple(sorted(manifest.rows_by_grant)),
        resumed=resumed,
    )


def _unfinished(copy: ObjectStore, query: Query, order: Order) -> Plan | None:
    plan = read_plan(copy)
    if plan is None:
        return None
    if (plan.wanted, plan.kind, plan.recipient) != (_wanted(query, order), order.kind, order.recipient):
        raise CopyInTheWay(
            "An interrupted pull of something else, or for others, is there. Ask for the same or choose another place."
        )
    return plan


def _old_copy(copy: ObjectStore) -> Manifest | None:
    old = read_manifest(copy)
    if old is None and next(copy.walk(""), None) is not None:
        raise CopyInTheWay("There are files that are no copy of candidates. Choose an empty place.")
    return old


def _clear(copy: ObjectStore, records: Records, old: Manifest, clock: Clock) -> None:
    """The manifest goes last: whoever finds it does all of this again."""
    copy.delete(file.path for file in old.files)  # also behind a link to another disk, into which no walk leads
    for top in (DONE, "data", PLOTS):  # a pull that was killed at its very end left word of what it had done
        copy.delete_folder(top)
    copy.delete([CARD])
    with records.transaction() as connection:
        mark_cleared(connection, old.pull_id, clock())
    copy.delete([MANIFEST])


def _new_plan(lake: Lake, query: Query, order: Order, clock: Clock, randomness: Randomness) -> Plan:
    started = clock()
    asked = columns_of(query.where)
    columns = [name for name in LABELS if name != "licence" or name in asked]  # long, and the same in every row
    snapshot, labels = lake.look(query.industry, columns)
    chosen = choose(mark_duplicates(labels), query)
    sizes = {file.key: file.bytes / file.rows for file in snapshot.files}
    return Plan(
        pull_id="c" + randomness(16).hex(),
        kind=order.kind,
        recipient=order.recipient,
        wanted=_wanted(query, order),
        lake_state=snapshot.state,
        started_at=started,
        parts=tuple(cut(chosen, sizes, query.hardest_first, order.shares)),
        summary=summarise(chosen),
    )


def _copy_part(lake: Lake, copy: ObjectStore, plan: Plan, part: Part) -> None:
    rows = _rows_of(lake, part, plan.wanted.hardest_first)
    files = []
    if rows is not None and part.grant_id in lake.live():  # asked after reading
        for path, data, count in encode(plan.kind, part, rows):
            copy.write(path, data)
            digest = hashlib.sha256(data).hexdigest()
            files.append(
                CopiedFile(
                    path=path, sha256=digest, bytes=len(data), rows=count, grant_id=part.grant_id, split=part.split
                )
            )
        if part.grant_id not in lake.live():  # who erases from copies may have looked while this was being written
            copy.delete([file.path for file in files])
            files = []
    done = DonePart(name=part.name, rows=rows.labels.num_rows if rows is not None and files else 0, files=tuple(files))
    copy.write(f"{DONE}/{part.name}.json", done.model_dump_json().encode())


def _rows_of(lake: Lake, part: Part, hardest_first: bool) -> Candidates | None:
    """The part's candidates, the hardest first or in the part's order; None when they were taken back."""
    wanted = [candidate for source in part.sources for candidate in source.candidates]
    try:
        found = [_from_file(lake, source.key, source.candidates) for source in part.sources]
    except NotFound:  # merged into another file, or erased
        keys = [file.key for file in lake.snapshot(part.industry).files if file.grant_id == part.grant_id]
        try:
            found = [_from_file(lake, key, wanted) for key in keys]
        except NotFound:
            return None
    if not found:
        return None
    labels = pa.concat_tables([each.labels for each in found])
    masks = [mask for each in found for mask in each.masks]
    images = [image for each in found for image in each.images]
    if hardest_first:
        order = pc.sort_indices(labels, HARDEST_FIRST)
    else:
        order = pc.index_in(pa.array(wanted), value_set=labels["candidate_id"].combine_chunks()).drop_null()
    masks, images = ([column[place] for place in order.to_pylist()] for column in (masks, images))
    return Candidates(labels.take(order), masks, images)


def _from_file(lake: Lake, key: str, wanted: Sequence[str]) -> Candidates:
    """Those of `wanted` that are in the file, in that order; only row groups that hold one are read."""
    file = lake.open(key)
    labels = as_read(file.read([name for name in LABELS if name in file.schema_arrow.names]), LABELS)
    place = pc.index_in(pa.array(wanted, pa.string()), value_set=labels["candidate_id"].combine_chunks()).drop_null()
    wide = max(file.metadata.row_group(0).num_rows, 1)
    at = [divmod(each, wide) for each in place.to_pylist()]
    masks, images = (
        {group: file.values(group, name) for group in sorted({group for group, _ in at})} for name in IMAGE_COLUMNS
    )
    return Candidates(
        labels.take(place), [masks[group][row] for group, row in at], [images[group][row] for group, row in at]
    )


def _finish(lake: Lake, copy: ObjectStore, plan: Plan, clock: Clock) -> Manifest:
    done = [DonePart.model_validate_json(copy.read(f"{DONE}/{part.name}.json")) for part in plan.parts]
    live = set(lake.live())
    files = tuple(file for part in done for file in part.files if file.grant_id in live)
    own = {file.path for file in files}  # a pull that was killed may have left more than it could note
    above = {str(folder) for path in own for folder in PurePosixPath(path).parents}  # which may be links to other disks
    copy.delete([found.key for found in copy.walk("data") if found.key not in own | above])
    copy.tidy("data")
    by_grant: dict[GrantId, int] = {}
    by_split: dict[Split, int] = {}
    for part, result in zip(plan.parts, done, strict=True):
        if result.rows and part.grant_id in live:
            by_grant[part.grant_id] = by_grant.get(part.grant_id, 0) + result.rows
            by_split[part.split] = by_split.get(part.split, 0) + result.rows
    manifest = Manifest(
        **plan.model_dump(exclude={"parts"}),
        finished_at=clock(),
        licence=LICENCE,
        schema_version=SCHEMA_VERSION,
        rows=sum(by_grant.values()),
        rows_by_grant=by_grant,
        rows_by_split=by_split,
        files=files,
    )
    for name, bars in plan.summary.plots.items():
        copy.write(f"{PLOTS}/{name}.svg", plot(name, bars).encode())
    write_manifest(copy, manifest)
    with lake.records.transaction() as connection:
        finish_pull(connection, plan.pull_id, by_grant, clock())
    copy.delete([PLAN])
    copy.delete_folder(DONE)
    return manifest


def _wanted(query: Query, order: Order) -> Wanted:
    return Wanted(
        industry=query.industry,
        where=query.where,
        limit=query.limit,
        hardest_first=query.hardest_first,
        leave_out=query.leave_out,
        shares=order.shares,
    )
