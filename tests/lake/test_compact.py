"""Small files become one; whoever reads, withdraws or dies in between finds each row exactly once, or not at all."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import update

from lake.admission import AdmittedFile
from lake.audit import audit
from lake.compact import Compacted, compact
from lake.erase import READING, erase_grant
from lake.merging import LEAST_FILES, plan_merges
from lake.parquet import to_parquet
from portal.web.contributions import contributions
from schemas.candidate import CANDIDATE
from schemas.errors import StoreFault
from schemas.ids import GrantId
from schemas.industries import Industry
from store.objects.folder import Folder
from store.objects.object_store import ObjectStore
from store.records.tables import admissions
from tests.consent.postgres import current_database
from tests.lake.conftest import AUTO, World, build_world


def merge(world: World, **options: int) -> Compacted:
    return compact(
        world.reader(), lambda connection, grant_id: grant_id in world.live(), world.clock, os.urandom, **options
    )


def ids(world: World) -> list[str]:
    found = world.reader().labels(AUTO)["candidate_id"].to_pylist()
    assert len(set(found)) == len(found), "a row was seen twice"
    return sorted(found)


def file(name: str, size: int, grant: str = "g1", industry: Industry = AUTO) -> AdmittedFile:
    return AdmittedFile(name, industry, GrantId(grant), 1, size, "")


def test_files_are_merged_within_one_grant_and_industry_only() -> None:
    files = [file(f"{grant}{n}", 10, grant) for grant in ("g1", "g2") for n in range(LEAST_FILES)]
    files += [file(f"s{n}", 10, "g1", Industry.STUDIO) for n in range(LEAST_FILES - 1)]
    merges = plan_merges(files)
    assert [(each.place.grant_id, len(each.files)) for each in merges] == [("g1", LEAST_FILES), ("g2", LEAST_FILES)]


def test_a_merge_is_never_larger_than_one_worker_can_hold() -> None:
    merges = plan_merges([file(f"{n:02}", 300, "g1") for n in range(20)], least_files=2, largest_bytes=1000)
    assert [len(each.files) for each in merges] == [3, 3, 3, 3, 3, 3, 2]


def test_large_files_are_not_rewritten_for_a_few_small_ones() -> None:
    files = [file("large", 200 * 2**20), *(file(f"{n}", 1000) for n in range(LEAST_FILES))]
    (only,) = plan_merges(files)
    assert "large" not in [each.key for each in only.files]
    assert plan_merges(files[:-1]) == []


def test_merging_moves_every_row_and_none_twice(world: World) -> None:
    mine, other = world.grant(), world.grant()
    for _ in range(3):
        world.give(mine)
    world.give(other)
    before = ids(world)
    done = merge(world, least_files=2)
    assert (done.merged, done.files, done.rows, done.abandoned) == (1, 3, 6, 0)
    assert ids(world) == before
    (merged,) = [each for each in world.reader().snapshot(AUTO).files if each.grant_id == mine.grant_id]
    assert "merged-" in merged.key
    assert merge(world, least_files=2) == Compacted()


def test_a_merged_file_is_merged_again_and_the_account_page_still_says_what_was_given(world: World) -> None:
    grant = world.grant()
    for _ in range(2):
        world.give(grant)
    merge(world, least_files=2)
    world.give(grant)
    merge(world, least_files=2)
    assert len(ids(world)) == 6
    with world.records.transaction() as connection:
        told = contributions(connection, [grant])[grant.grant_id]
    assert [each.images for each in told.batches] == [2, 2, 2]


def test_the_audit_knows_what_a_merged_file_must_hold_of_each_batch(world: World) -> None:
    grant = world.grant()
    for count in (1, 2):
        world.give(grant, count)
    merge(world, least_files=2)
    world.give(grant)
    merge(world, least_files=2)
    assert audit(world.reader()).faults == []
    with world.records.transaction() as connection:  # as if one of the other batch had come for it
        of_first = admissions.c["items"] == [1]
        connection.execute(update(admissions).where(of_first).values(rows=admissions.c.rows + 1))
        connection.execute(update(admissions).where(~of_first).values(rows=admissions.c.rows - 1))
    ((_, fault),) = audit(world.reader()).faults
    assert fault == "its rows are not those of the batches that were admitted"


def test_files_that_were_merged_stay_for_readers_for_a_while(world: World) -> None:
    for _ in range(2):
        world.give(grant := world.grant())
        world.give(grant)
    before = len(world.keys())
    snapshot = world.reader().snapshot(AUTO)
    merge(world, least_files=2)
    assert world.sweep().objects == 0
    assert world.reader().labels_of(snapshot).num_rows == 8
    world.now += READING
    assert world.sweep().retired == before
    assert len(world.keys()) == 2
    assert len(ids(world)) == 8


def test_a_reader_whose_files_went_looks_again(world: World) -> None:
    grant = world.grant()
    for _ in range(2):
        world.give(grant)
    before, reader = ids(world), world.reader()
    stale = [reader.snapshot(AUTO)]

    class Late(type(reader)):  # type: ignore[misc]
        def snapshot(self, industry: object = None):
            return stale.pop() if stale else super().snapshot(industry)

    late = Late(reader.objects, reader.records, reader.live)
    merge(world, least_files=2)
    world.now += READING
    world.sweep()
    assert sorted(late.labels(AUTO)["candidate_id"].to_pylist()) == before


def test_a_withdrawal_during_a_merge_wins(world: World) -> None:
    grant = world.grant()
    for _ in range(2):
        world.give(grant)
    write = world.lake.write

    def withdrawn_meanwhile(key: str, data: bytes) -> None:
        erase_grant(world.lake, world.records, world.withdraw(grant), world.clock)
        write(key, data)

    world.lake.write = withdrawn_meanwhile  # type: ignore[method-assign]
    assert merge(world, least_files=2).abandoned == 1
    assert world.keys() == []
    assert ids(world) == []


def test_a_grant_that_ended_during_a_merge_gets_no_new_file(world: World) -> None:
    grant = world.grant()
    for _ in range(2):
        world.give(grant)
    before, write = world.keys(), world.lake.write

    def withdrawn_meanwhile(key: str, data: bytes) -> None:
        world.withdraw(grant)
        write(key, data)

    world.lake.write = withdrawn_meanwhile  # type: ignore[method-assign]
    assert merge(world, least_files=2).abandoned == 1
    assert world.keys() == before


def test_a_merge_of_a_file_that_is_gone_is_given_up(world: World) -> None:
    grant = world.grant()
    kept, gone = world.give(grant), world.give(grant)
    world.lake.delete([gone.key])
    assert merge(world, least_files=2).abandoned == 1
    assert world.keys() == [kept.key]


def test_a_run_begins_no_merge_after_its_time_and_says_what_is_left(world: World) -> None:
    for grant in 2 * [world.grant() for _ in range(3)]:
        world.give(grant)
    until = world.now + timedelta(hours=1)

    def an_hour_passes(*_: int) -> None:
        world.now = until

    done = compact(world.reader(), lambda *_: True, world.clock, os.urandom, 2, on_merge=an_hour_passes, until=until)
    assert (done.merged, done.left) == (1, 2)


def test_an_erasure_takes_merged_and_retired_files_alike(world: World) -> None:
    grant = world.grant()
    for _ in range(2):
        world.give(grant)
    merge(world, least_files=2)
    receipt = erase_grant(world.lake, world.records, world.withdraw(grant), world.clock)
    assert receipt is not None
    assert receipt.objects == 3
    assert world.keys() == []


DAMAGES = {
    "no Parquet": b"no Parquet",
    "other columns": to_parquet(pa.table({"candidate_id": ["1", "2"]})),
    "other types": to_parquet(pa.table({name: ["1", "2"] for name in CANDIDATE.names})),
}


@pytest.mark.parametrize("damage", ["the other's rows", *DAMAGES])
def test_a_damaged_file_stops_nobody_else_s_merge_and_is_told_of(world: World, damage: str) -> None:
    grants = [world.grant() for _ in range(3)]
    for grant in 2 * grants:
        world.give(grant)
    first, *others = sorted(world.live())
    key, other = [each.key for each in world.reader().snapshot().files if each.grant_id == first]
    world.lake.write(key, DAMAGES.get(damage) or world.lake.read(other))
    told: list[int] = []
    with pytest.raises(StoreFault, match="lake audit"):
        compact(
            world.reader(), lambda *_: True, world.clock, os.urandom, 2, on_merge=lambda done, of: told.append(done)
        )
    files = [each.grant_id for each in world.reader().snapshot().files]
    assert sorted(files) == sorted([first, first, *others])
    assert len(told) == 2
    for grant in grants:
        world.give(grant)
    for file in world.reader().snapshot().files:
        world.lake.write(file.key, b"no Parquet")
    began = world.clock()
    moments = iter((began, began + timedelta(hours=2)))
    with pytest.raises(StoreFault, match="lake audit"):  # also when there is no time for those after it
        compact(world.reader(), lambda *_: True, lambda: next(moments), os.urandom, 2, until=began + timedelta(hours=1))


class Dying(Folder):
    """A folder whose user dies at the `at`-th call of it from now, before or after what the call does."""

    at = 0
    after = False

    def put(self, key, data):  # type: ignore[no-untyped-def]
        return self._call(lambda: super(Dying, self).put(key, data))

    def get(self, key):  # type: ignore[no-untyped-def]
        return self._call(lambda: super(Dying, self).get(key))

    def has(self, key):  # type: ignore[no-untyped-def]
        return self._call(lambda: super(Dying, self).has(key))

    def find(self, prefix):  # type: ignore[no-untyped-def]
        return self._call(lambda: list(super(Dying, self).find(prefix)))

    def remove(self, objects):  # type: ignore[no-untyped-def]
        return self._call(lambda: super(Dying, self).remove(objects))

    def _call(self, call):  # type: ignore[no-untyped-def]
        self.at -= 1
        if self.at == 0 and not self.after:
            raise KeyboardInterrupt
        result = call()
        if self.at == 0:
            raise KeyboardInterrupt
        return result


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("withdrawn", [False, True])
def test_killed_at_any_storage_call_of_a_merge_each_row_is_found_once(
    world: World, after: bool, withdrawn: bool
) -> None:
    """Also where the merge gives up, because the grant ended while it wrote."""
    folder = Dying(world.lake.storage.root)  # type: ignore[attr-defined]
    world.lake = ObjectStore(folder, pause=lambda seconds: None)
    died = 0
    while True:
        grant = world.grant()
        for _ in range(2):
            world.give(grant, 1)
        before = ids(world)
        live = (lambda connection, grant_id: False) if withdrawn else (lambda connection, grant_id: True)
        folder.at, folder.after = died + 1, after
        try:
            compact(world.reader(), live, world.clock, os.urandom, 2)
        except KeyboardInterrupt:
            died += 1
        else:
            break
        finally:
            folder.at = 0
        assert ids(world) == before
        merge(world, least_files=2)
        assert ids(world) == before
        world.pass_time(hours=1)
        world.sweep()
        others = set(world.keys()) - {each.key for each in world.reader().snapshot(AUTO).files}
        assert not any("merged-" in key for key in others), "a merge does not take longer"
        world.pass_time(hours=24)
        world.sweep()
        assert ids(world) == before
        assert len(world.keys()) == len(world.reader().snapshot(AUTO).files), "nothing else is left"
    assert died >= 2, "it writes, and looks whether what it wrote is there"


def test_two_merges_at_once_move_the_rows_once(world: World) -> None:
    grant = world.grant()
    for _ in range(2):
        world.give(grant)
    before = ids(world)
    write, inner = world.lake.write, []

    def another_meanwhile(key: str, data: bytes) -> None:
        if not inner:
            inner.append(key)
            assert merge(world, least_files=2).merged == 1
        write(key, data)

    world.lake.write = another_meanwhile  # type: ignore[method-assign]
    assert merge(world, least_files=2).abandoned == 1
    assert ids(world) == before


def test_a_merge_waits_for_another_of_the_same_files_on_postgresql(tmp_path: Path) -> None:
    world = build_world(tmp_path, records_url=current_database())
    grant = world.grant()
    for _ in range(2):
        world.give(grant)
    before, exists = ids(world), world.lake.exists
    second: list[Compacted] = []
    other = threading.Thread(target=lambda: second.append(merge(world, least_files=2)))

    def another_meanwhile(key: str) -> bool:
        if other.ident is None:
            other.start()
            other.join(timeout=0.5)
        return exists(key)

    world.lake.exists = another_meanwhile  # type: ignore[method-assign]
    assert merge(world, least_files=2).merged == 1
    other.join(timeout=60)
    assert second == [Compacted(abandoned=1)]
    assert ids(world) == before
    world.records.engine.dispose()


def test_two_runs_at_once_begin_at_different_merges_and_leave_what_the_other_has_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(6):
        grant = world.grant()
        for _ in range(2):
            world.give(grant, 1)
    begun: list[GrantId] = []
    with monkeypatch.context() as idle:
        idle.setattr("lake.compact.merge_files", lambda lake, merge, *_: begun.append(merge.place.grant_id))
        for _ in range(10):
            merge(world, least_files=2)
    assert len({*begun[::6]}) > 1
    write, written = world.lake.write, []
    monkeypatch.setattr(world.lake, "write", lambda key, data: (written.append(key), write(key, data)))
    other: list[Compacted] = []

    def another_meanwhile(done: int, of: int) -> None:
        if not other:
            other.append(Compacted())
            other[0] = merge(world, least_files=2)

    done = compact(world.reader(), lambda *_: True, world.clock, os.urandom, 2, on_merge=another_meanwhile)
    assert (done.merged, done.abandoned, other[0].merged, len(written)) == (1, 5, 5, 6)


def test_rows_of_an_older_version_are_merged_with_new_ones(world: World) -> None:
    version_1 = (Path(__file__).parent / "versions" / "1.parquet").read_bytes()
    grant = world.grant()
    new = world.give(grant)
    old = replace(new, key=f"{new.key[:-20]}ffffff.parquet", items=(98, 99))
    world.lake.write(old.key, version_1)
    world.admit(replace(old, bytes=len(version_1)))
    merge(world, least_files=2)
    labels = world.reader().labels(AUTO)
    assert sorted(labels["schema_version"].to_pylist()) == [1, 1, 2, 2]
    assert labels["phash"].null_count == 2
