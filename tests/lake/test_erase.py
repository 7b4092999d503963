"""Taking back is deleting whole files, and whatever has no permission behind it goes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lake.erase import erase_grant, reconcile
from portal.web.contributions import contributions
from schemas.batch import PROMISED_LIFE
from schemas.errors import StillThere, StoreFault
from schemas.ids import new_grant_id
from schemas.industries import Industry
from store.objects.folder import Folder
from store.objects.object_store import ObjectStore
from store.objects.storage import Refused, StoredObject
from store.purging.receipts import list_receipts
from tests.lake.conftest import World, a_photo


def test_a_withdrawn_grant_leaves_a_receipt_and_no_byte(world: World) -> None:
    mine, other = world.grant(), world.grant()
    files = [world.give(mine), world.give(mine)]
    kept = world.give(other)
    ended = world.withdraw(mine)
    world.pass_time(minutes=10)
    receipt = erase_grant(world.lake, world.records, ended, world.clock)
    assert receipt is not None
    assert (receipt.objects, receipt.bytes) == (2, sum(each.bytes for each in files))
    assert receipt.deadline == ended.withdrawn_at + PROMISED_LIFE
    assert receipt.margin_seconds == 23 * 3600 + 50 * 60
    assert world.keys() == [kept.key]
    assert erase_grant(world.lake, world.records, ended, world.clock) is None, "there is nothing left to do"


def test_the_account_page_still_says_what_was_given(world: World) -> None:
    grant = world.grant()
    world.give(grant, 2)
    ended = world.withdraw(grant)
    with world.records.transaction() as connection:
        assert contributions(connection, [ended])[grant.grant_id].is_waiting
    world.sweep()
    with world.records.transaction() as connection:
        told = contributions(connection, [ended])[grant.grant_id]
    assert (told.images, len(told.receipts), told.is_waiting) == (2, 1, False)


def test_a_live_grant_is_never_erased(world: World) -> None:
    grant = world.grant()
    file = world.give(grant)
    with pytest.raises(ValueError, match="live grant"):
        erase_grant(world.lake, world.records, grant, world.clock)
    assert world.sweep().objects == 0
    assert world.keys() == [file.key]


def test_killed_in_the_middle_the_next_run_finishes_with_the_whole_count(world: World) -> None:
    grant = world.grant()
    for _ in range(3):
        world.give(grant)
    ended = world.withdraw(grant)
    delete_folder = world.lake.delete_folder

    def killed(prefix: str) -> None:
        world.lake.delete([next(world.lake.walk(prefix)).key])
        raise KeyboardInterrupt

    world.lake.delete_folder = killed  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        erase_grant(world.lake, world.records, ended, world.clock)
    world.lake.delete_folder = delete_folder  # type: ignore[method-assign]
    assert len(world.keys()) == 2
    (receipt,) = world.sweep().receipts
    assert receipt.objects == 3
    assert world.keys() == []


@pytest.mark.parametrize("is_admitted", [True, False])
def test_killed_before_the_receipt_the_next_run_leaves_it(world: World, is_admitted: bool) -> None:
    grant = world.grant()
    file = world.write(world.batch(grant, [a_photo(1)]))
    if is_admitted:
        world.admit(file)
    ended = world.withdraw(grant)
    delete_folder = world.lake.delete_folder

    def killed(prefix: str) -> None:
        delete_folder(prefix)
        raise KeyboardInterrupt

    world.lake.delete_folder = killed  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        erase_grant(world.lake, world.records, ended, world.clock)
    world.lake.delete_folder = delete_folder  # type: ignore[method-assign]
    (receipt,) = world.sweep().receipts
    assert receipt.objects == 1
    assert world.sweep().receipts == ()


def test_a_late_writer_is_erased_again_with_a_second_receipt(world: World) -> None:
    grant = world.grant()
    late = world.batch(grant, [a_photo(1)])
    world.give(grant)
    world.withdraw(grant)
    world.sweep()
    world.pass_time(minutes=10)
    world.write(late)
    assert len(world.sweep().receipts) == 1
    assert world.keys() == []
    with world.records.transaction() as connection:
        assert [each.objects for each in list_receipts(connection, grant.grant_id)] == [1, 1]


def test_two_who_erase_at_once_leave_one_receipt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One lists the files; before it notes them, another erases them and leaves its receipt."""
    grant = world.grant()
    world.give(grant)
    ended, walk, other = world.withdraw(grant), world.lake.walk, []

    def listed_and_overtaken(prefix: str) -> Iterator[StoredObject]:
        yield from walk(prefix)
        monkeypatch.undo()
        other.append(erase_grant(world.lake, world.records, ended, world.clock))

    monkeypatch.setattr(world.lake, "walk", listed_and_overtaken)
    assert erase_grant(world.lake, world.records, ended, world.clock) is None
    with world.records.reading() as connection:
        assert list_receipts(connection, grant.grant_id) == other


def test_a_grant_whose_files_another_hand_deleted_is_told_of_all_the_same(world: World) -> None:
    grant = world.grant()
    file = world.give(grant)
    world.withdraw(grant)
    world.lake.delete([file.key])
    (receipt,) = world.sweep().receipts
    assert receipt.objects == 0
    assert world.sweep().receipts == ()


def test_objects_that_cannot_be_deleted_leave_no_receipt(world: World) -> None:
    grant = world.grant()
    world.give(grant)
    ended = world.withdraw(grant)
    world.lake.delete_folder = lambda prefix: None  # type: ignore[method-assign, assignment]
    with pytest.raises(StillThere):
        erase_grant(world.lake, world.records, ended, world.clock)
    with world.records.transaction() as connection:
        assert list_receipts(connection) == []


@pytest.mark.parametrize("whose", ["another live grant", "another withdrawn grant", "nobody"])
def test_what_cannot_be_deleted_keeps_nobody_elses_withdrawal_from_taking_effect(world: World, whose: str) -> None:
    first, mine, last = sorted((world.grant() for _ in range(3)), key=lambda each: each.grant_id)
    if whose == "nobody":
        world.lake.write(stuck := "a.txt", b"x")
    else:
        stuck = world.write(world.batch(first, [a_photo(1)])).key
    if whose == "another withdrawn grant":
        world.withdraw(first)
    for grant in (mine, last):
        world.give(grant)
        world.withdraw(grant)
    world.pass_time(hours=23)
    remove = world.lake.storage.remove

    def refuses(objects: Sequence[StoredObject]) -> list[Refused]:
        bad = [each for each in objects if each.key == stuck]
        return remove([each for each in objects if each not in bad]) + [Refused(each, "AccessDenied") for each in bad]

    world.lake.storage.remove = refuses  # type: ignore[method-assign]
    world.lake._pause = lambda seconds: None
    with pytest.raises(StoreFault):
        world.sweep()
    assert world.keys() == [stuck]
    with world.records.transaction() as connection:
        assert {each.subject for each in list_receipts(connection)} == {mine.grant_id, last.grant_id}


def test_a_file_without_an_admission_goes_within_the_promise(world: World) -> None:
    world.write(world.batch(world.grant(), [a_photo(1)]))
    world.pass_time(hours=22, minutes=59)
    assert world.sweep().objects == 0
    world.pass_time(minutes=2)
    assert world.sweep().strays == 1
    assert world.keys() == []


def test_the_leftovers_of_a_killed_writer_go_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    file = world.give(world.grant())

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            world.lake.write(file.key, b"half a file")
    assert len(world.keys()) == 2
    assert world.sweep().objects == 0
    world.pass_time(hours=23)
    assert world.sweep().strays == 1
    assert world.keys() == [file.key]


@pytest.mark.parametrize(
    "key",
    [
        "a.parquet",
        "industry=automotive/a.parquet",
        "industry=automotive/grant=1/a.parquet",
        "industry=space/grant={live}/{name}",
        "automotive/grant={live}/{name}",
        "industry=automotive/{live}/{name}",
        "industry=studio/grant={live}/a.parquet",
        "industry=automotive/grant={live}/a.parquet",
        "industry=automotive/grant={live}/deeper/a.parquet",
        "elsewhere/deep/a",
    ],
)
def test_what_lies_outside_goes(world: World, key: str) -> None:
    grant = world.grant()
    file = world.give(grant)
    world.lake.write(key.format(live=grant.grant_id, name=file.key.rsplit("/", 1)[-1]), b"x")
    assert world.sweep().strays == 1
    assert world.keys() == [file.key]


def test_a_grant_younger_than_the_look_into_the_ledger_is_left_alone(world: World) -> None:
    live, ended = world.live(), world.ended()
    file = world.give(world.grant())
    for minutes in (0, 9):  # so far may another machine's clock be behind
        world.pass_time(minutes=minutes)
        assert reconcile(world.lake, world.records, live, ended, world.clock).objects == 0
        assert world.keys() == [file.key]


def test_files_of_a_grant_that_the_ledger_does_not_know_go(world: World) -> None:
    grant = world.grant()
    world.give(grant)
    del world.grants[grant.grant_id]
    world.pass_time(minutes=11)
    assert world.sweep().strays == 1
    assert world.keys() == []


@pytest.mark.parametrize("is_last", [True, False])
def test_a_file_that_another_hand_deleted_keeps_nobody_from_reading_the_others(world: World, is_last: bool) -> None:
    mine, other = world.grant(), world.grant()
    gone, kept = world.give(mine), world.give(other if is_last else mine)
    world.lake.delete_folder(gone.key) if is_last else world.lake.delete([gone.key])
    with pytest.raises(StoreFault):
        world.reader().labels()
    assert world.sweep().lost == 1
    assert (world.sweep().lost, world.keys()) == (0, [kept.key])
    assert world.reader().labels().num_rows == kept.rows
    world.withdraw(mine)
    with world.records.reading() as connection:
        assert contributions(connection, [mine])[mine.grant_id].images == gone.rows + (0 if is_last else kept.rows)
    (receipt,) = world.sweep().receipts
    assert receipt.objects == (0 if is_last else 1), "who withdraws is told of it all the same"
    assert world.sweep().receipts == ()


def test_a_lake_that_is_out_of_sight_loses_nothing(world: World, tmp_path: Path) -> None:
    """As a disk that is not mounted, or settings that name another bucket."""
    file = world.give(world.grant())
    elsewhere = replace(world, lake=ObjectStore(Folder(str(tmp_path / "elsewhere"))))
    assert elsewhere.sweep().lost == 0
    assert [each.key for each in world.reader().snapshot().files] == [file.key]


def test_files_that_are_in_sight_again_are_read_again(world: World, tmp_path: Path) -> None:
    """As of a disk that holds a part of the lake, or settings that named another bucket for a day."""
    files = [world.give(each) for each in (world.grant(), world.grant(Industry.STUDIO))]
    root = Path(world.lake.storage.root)
    (root / files[0].key).parent.rename(tmp_path / "away")
    assert world.sweep().lost == 1
    world.pass_time(hours=24)
    (tmp_path / "away").rename((root / files[0].key).parent)
    assert world.sweep().strays == 0
    assert world.keys() == sorted(each.key for each in files)
    assert [each.key for each in world.reader().snapshot().files] == world.keys()


def test_one_grant_is_not_another_that_begins_alike(world: World) -> None:
    grant = world.grant()
    file = world.give(grant)
    other = world.withdraw(grant.model_copy(update={"grant_id": new_grant_id(world.random.randbytes)}))
    assert erase_grant(world.lake, world.records, other, world.clock) is None
    assert world.keys() == [file.key]
