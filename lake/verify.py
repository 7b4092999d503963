"""Compares a copy with the live grants and with what it said of itself; erases from it what was taken back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

from lake.copies.manifest import CARD, DONE, MANIFEST, PLOTS, DonePart, Manifest, Part, Plan, TakenBack
from lake.copies.stored import read_manifest, read_plan, sweep_half_written, write_manifest
from lake.pulls import mark_cleared, remember_pull
from schemas.clock import Clock
from schemas.errors import NotFound, UserError
from schemas.ids import GrantId, parse_grant_id
from store.objects.object_store import ObjectStore
from store.records.database import Records

_GRANT = 33  # letters of a grant's id, with which the names of a copy's files or folders begin


@dataclass(frozen=True)
class Verified:
    """What was found. `must_go`: files of grants that have ended; `erased`: whether they are gone now.

    `missing`, `changed`: files that are not as the manifest says. `unknown`: other files that it does not name.
    """

    pull_id: str
    rows: int
    must_go: tuple[str, ...]
    must_go_rows: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    unknown: tuple[str, ...]
    erased: bool

    @property
    def is_good(self) -> bool:
        """Whether the copy holds what it may, unchanged, and nothing else."""
        must_go = () if self.erased else self.must_go
        return not (must_go or self.missing or self.changed or self.unknown)


def verify(
    copy: ObjectStore,
    records: Records,
    live: Collection[GrantId],
    clock: Clock,
    erase: bool = False,
    is_on_record: Callable[[str], bool] = lambda pull_id: True,
    place: str | None = None,
) -> Verified:
    """Check every file of a copy. `live`: read now. Raises `UserError` where there is no copy, `StoreFault`.

    `place`: where it lies, so that a copy which the records have forgotten comes back on record.

    With `erase`, what must go is deleted, and what a killed writer left of the copy's own pages; the card and the
    manifest say so, and the records learn of it: if it is the copy of that pull which they know, and not one that was
    made of it.
    """
    if erase:
        sweep_half_written(copy)
    manifest = read_manifest(copy)
    if manifest is None:
        return _verify_unfinished(copy, records, live, clock, erase, is_on_record, place)
    _remember(records, manifest, place, live)
    gone = [file.path for file in manifest.files if file.grant_id not in live]
    own = {file.path for file in manifest.files} | {CARD, MANIFEST}
    unknown = [each.key for each in copy.walk("") if each.key not in own and not each.key.startswith(f"{PLOTS}/")]
    strays = [key for key in unknown if _is_of_an_ended_grant(key, live)]
    rows = sum(count for grant_id, count in manifest.rows_by_grant.items() if grant_id not in live)
    if erase and gone + strays:  # before any is read: a file that cannot be shall keep none that must go
        copy.delete(gone)
        copy.delete(strays)  # then: one may be the link behind which the others lie
        copy.tidy("data")
        write_manifest(copy, _without(manifest, live, clock))
    if erase and is_on_record(manifest.pull_id):  # also what an erasing that was killed had not noted
        with records.transaction() as connection:
            kept = manifest.rows_by_grant.keys() & set(live)
            mark_cleared(connection, manifest.pull_id, clock(), kept)
    missing, changed = [], []
    for file in manifest.files:
        if file.grant_id in live:
            try:
                if hashlib.sha256(copy.read(file.path)).hexdigest() != file.sha256:
                    changed.append(file.path)
            except NotFound:
                missing.append(file.path)
    return Verified(
        pull_id=manifest.pull_id,
        rows=manifest.rows,
        must_go=(*gone, *strays),
        must_go_rows=rows,
        missing=tuple(missing),
        changed=tuple(changed),
        unknown=tuple(key for key in unknown if key not in strays),
        erased=erase,
    )


def _verify_unfinished(
    copy: ObjectStore,
    records: Records,
    live: Collection[GrantId],
    clock: Clock,
    erase: bool,
    is_on_record: Callable[[str], bool],
    place: str | None,
) -> Verified:
    """A pull that was interrupted holds images, too."""
    plan = read_plan(copy)
    if plan is None:
        raise UserError("There is no copy of candidates there: neither manifest.json nor plan.json.")
    _remember(records, plan, place, live)
    ended = {part.grant_id for part in plan.parts if part.grant_id not in live}
    noted = [path for part in plan.parts if part.grant_id in ended for path in _noted(copy, part)]
    found = [each.key for each in copy.walk("data") if any(grant_id in each.key for grant_id in ended)]
    gone = list(dict.fromkeys(noted + found))
    if erase and ended:
        copy.delete(noted)  # first, as above
        copy.delete(found)
        copy.tidy("data")
        for part in plan.parts:
            if part.grant_id in ended:
                empty = DonePart(name=part.name, rows=0, files=())
                copy.write(f"{DONE}/{part.name}.json", empty.model_dump_json().encode())
        if is_on_record(plan.pull_id):
            with records.transaction() as connection:
                kept = {part.grant_id for part in plan.parts} - ended
                mark_cleared(connection, plan.pull_id, clock(), kept)
    rows = sum(part.rows for part in plan.parts if part.grant_id in ended)
    return Verified(plan.pull_id, 0, tuple(gone), rows if gone else 0, (), (), (), erase)


def _remember(records: Records, said: Plan | Manifest, place: str | None, live: Collection[GrantId]) -> None:
    if place is not None:
        with records.transaction() as connection:
            remember_pull(connection, said, place, live)


def _noted(copy: ObjectStore, part: Part) -> list[str]:
    """The files that a part which is written became."""
    try:
        return [file.path for file in DonePart.model_validate_json(copy.read(f"{DONE}/{part.name}.json")).files]
    except NotFound:
        return []


def _is_of_an_ended_grant(key: str, live: Collection[GrantId]) -> bool:
    """Whether a file that the manifest does not name is told by its path to be of a grant that is not live."""
    folders = key.split("/")
    grant_id = parse_grant_id(folders[2][:_GRANT]) if folders[0] == "data" and len(folders) > 2 else None
    return grant_id is not None and grant_id not in live


def _without(manifest: Manifest, live: Collection[GrantId], clock: Clock) -> Manifest:
    now = clock()
    taken = tuple(
        TakenBack(grant_id=grant_id, rows=rows, erased_at=now)
        for grant_id, rows in manifest.rows_by_grant.items()
        if grant_id not in live
    )
    split_of = {file.grant_id: file.split for file in manifest.files}
    by_split = dict(manifest.rows_by_split)
    for each in taken:
        by_split[split_of[each.grant_id]] -= each.rows
    kept = {grant_id: rows for grant_id, rows in manifest.rows_by_grant.items() if grant_id in live}
    return manifest.model_copy(
        update={
            "files": tuple(file for file in manifest.files if file.grant_id in live),
            "rows_by_grant": kept,
            "rows_by_split": by_split,
            "rows": sum(kept.values()),
            "taken_back": (*manifest.taken_back, *taken),
        }
    )
