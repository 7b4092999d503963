"""A copy that left the lake can be taken back, too: what must go is named, and goes when asked."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from sqlalchemy import delete

from lake.copies.manifest import Kind
from lake.pull import Order
from lake.pulls import list_pulls
from lake.verify import Verified, verify
from portal.web.contributions import contributions
from schemas.errors import StoreFault, UserError
from store.objects.object_store import open_store
from store.records.tables import pulled_grants, pulls
from store.settings import Settings
from tests.lake.conftest import World


def check(world: World, folder: Path, erase: bool = False) -> Verified:
    return verify(open_store(str(folder), Settings()), world.records, world.live(), world.clock, erase)


@pytest.fixture
def copy(world: World, tmp_path: Path) -> Path:
    for count in (2, 3):
        world.give(world.grant(), count)
    world.pull(tmp_path / "copy", order=Order(Kind.FILES))
    return tmp_path / "copy"


def test_a_fresh_copy_is_good(world: World, copy: Path) -> None:
    found = check(world, copy)
    assert found.is_good
    assert found.rows == 5


def test_after_a_withdrawal_the_copy_names_what_must_go_and_loses_it_when_asked(world: World, copy: Path) -> None:
    grant = next(iter(world.grants.values()))
    world.withdraw(grant)
    found = check(world, copy)
    assert (found.is_good, found.must_go_rows) == (False, 2)
    assert all(grant.grant_id in path for path in found.must_go)
    with world.records.transaction() as connection:
        assert list_pulls(connection)[0].must_go(world.live()) == {grant.grant_id: 2}
    world.pass_time(hours=1)
    assert check(world, copy, erase=True).is_good
    assert not [path for path in copy.rglob("*") if grant.grant_id in str(path)]
    again = check(world, copy)
    assert again.is_good
    assert again.rows == 3
    assert "2 images" in (copy / "README.md").read_text()
    with world.records.transaction() as connection:
        assert list_pulls(connection)[0].must_go(world.live()) == {}


def test_a_file_that_no_manifest_names_goes_with_its_grant_all_the_same(world: World, copy: Path) -> None:
    one, other = world.grants.values()
    for path, grant in (("data/train/{}-00009.parquet.partial-0a", one), ("data/test/{}/a.jpg", other)):
        left = copy / path.format(grant.grant_id)
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(b"of an older pull")
    assert len(check(world, copy).unknown) == 2
    world.withdraw(one)
    assert f"data/train/{one.grant_id}-00009.parquet.partial-0a" in check(world, copy).must_go
    assert check(world, copy, erase=True).unknown == (f"data/test/{other.grant_id}/a.jpg",)
    assert not [path for path in copy.rglob("*") if one.grant_id in str(path)]


def test_what_a_killed_writer_left_of_the_copys_own_pages_goes_and_nothing_else(world: World, copy: Path) -> None:
    for name in ("README.md", "manifest.json", "plots/week.svg"):
        (copy / f"{name}.partial-0123456789abcdef").write_bytes(b"half")
    (copy / "notes.partial-0123456789abcdef").write_bytes(b"somebody's own")
    assert check(world, copy, erase=True).unknown == ("notes.partial-0123456789abcdef",)
    assert [path.name for path in copy.rglob("*.partial-*")] == ["notes.partial-0123456789abcdef"]


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_copy_that_restored_records_have_forgotten_comes_back_on_record(
    world: World, tmp_path: Path, is_finished: bool
) -> None:
    kept, ended = world.grant(), world.grant()
    for grant in (kept, ended):
        world.give(grant, 2)
    with nullcontext() if is_finished else pytest.raises(KeyboardInterrupt):
        world.pull(tmp_path / "copy", on_part=(lambda done, of: None) if is_finished else killed)
    with world.records.transaction() as connection:
        (before,) = list_pulls(connection)
        for table in (pulled_grants, pulls):
            connection.execute(delete(table))
    world.withdraw(ended)
    there = open_store(str(tmp_path / "copy"), Settings())
    for _ in range(2):
        verify(there, world.records, world.live(), world.clock, place="/the/copy")
    with world.records.reading() as connection:
        assert list_pulls(connection) == [before.model_copy(update={"place": "/the/copy"})]
        assert before.must_go(world.live()) == {ended.grant_id: 2}


def test_a_copy_of_anothers_lake_is_not_put_on_record(world: World, copy: Path) -> None:
    with world.records.transaction() as connection:
        for table in (pulled_grants, pulls):
            connection.execute(delete(table))
    verify(open_store(str(copy), Settings()), world.records, [], world.clock, place=str(copy))
    with world.records.reading() as connection:
        assert list_pulls(connection) == []


def test_an_erasing_that_was_killed_before_the_records_knew_is_noted_by_the_next(
    world: World, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    grant = next(iter(world.grants.values()))
    world.withdraw(grant)
    with monkeypatch.context() as dying:
        dying.setattr("lake.verify.mark_cleared", killed)
        with pytest.raises(KeyboardInterrupt):
            check(world, copy, erase=True)
    assert check(world, copy, erase=True).is_good
    with world.records.transaction() as connection:
        assert list_pulls(connection)[0].must_go(world.live()) == {}


def test_a_file_that_cannot_be_read_keeps_none_that_must_go(world: World, copy: Path) -> None:
    one, other = world.grants.values()
    broken = next(path for path in copy.rglob("*.jpg") if other.grant_id in str(path))
    broken.unlink()
    (broken / "lost").mkdir(parents=True)
    (broken / "lost" / "a").touch()
    world.withdraw(one)
    with pytest.raises(StoreFault):
        check(world, copy, erase=True)
    assert not [path for path in copy.rglob("*") if one.grant_id in str(path)]
    with world.records.transaction() as connection:
        assert list_pulls(connection)[0].must_go(world.live()) == {}


def on_another_disk(folder: Path, disk: Path) -> None:
    """Where a copy has grown too large for its own: a link stands in its place."""
    folder.rename(disk)
    folder.symlink_to(disk)


@pytest.mark.parametrize("moved", ["data", "data/*", "data/*/*"])
def test_what_must_go_goes_also_from_a_folder_that_is_a_link(world: World, tmp_path: Path, moved: str) -> None:
    grant = world.grant()
    world.give(grant, 3)
    world.pull(tmp_path / "copy", order=Order(Kind.FILES))
    (folder,) = (tmp_path / "copy").glob(moved)
    on_another_disk(folder, tmp_path / "disk")
    world.withdraw(grant)
    check(world, tmp_path / "copy", erase=True)
    assert not [path for path in (tmp_path / "disk").rglob("*") if path.is_file()]


@pytest.mark.parametrize("moved", ["data", "data/*", "data/*/*"])
def test_the_same_of_an_interrupted_pull(world: World, tmp_path: Path, moved: str) -> None:
    grant = world.grant()
    world.give(grant, 3)
    with pytest.raises(KeyboardInterrupt):
        world.pull(tmp_path / "copy", order=Order(Kind.FILES), on_part=killed)
    (folder,) = (tmp_path / "copy").glob(moved)
    on_another_disk(folder, tmp_path / "disk")
    world.withdraw(grant)
    check(world, tmp_path / "copy", erase=True)
    assert not [path for path in (tmp_path / "disk").rglob("*") if path.is_file()]


def killed(done: int, of: int) -> None:
    raise KeyboardInterrupt


def test_missing_changed_and_unknown_files_are_named(world: World, copy: Path) -> None:
    missing, changed, *_ = sorted(copy.rglob("*.jpg"))
    missing.unlink()
    changed.write_bytes(b"x")
    (copy / "data" / "notes.txt").write_text("mine")
    found = check(world, copy)
    assert found.missing == (missing.relative_to(copy).as_posix(),)
    assert found.changed == (changed.relative_to(copy).as_posix(),)
    assert found.unknown == ("data/notes.txt",)


def test_an_interrupted_pull_can_be_taken_back_too(world: World, tmp_path: Path) -> None:
    grant = world.grant()
    world.give(grant)

    with pytest.raises(KeyboardInterrupt):
        world.pull(tmp_path / "copy", on_part=killed)
    world.withdraw(grant)
    assert check(world, tmp_path / "copy").must_go_rows == 2
    check(world, tmp_path / "copy", erase=True)
    assert list((tmp_path / "copy").rglob("*.parquet")) == []
    assert world.pull(tmp_path / "copy").rows == 0


def test_what_an_interrupted_pull_holds_of_others_stays_on_record(world: World, tmp_path: Path) -> None:
    ended, other = world.grant(), world.grant()
    for grant in (ended, other):
        world.give(grant)
    with pytest.raises(KeyboardInterrupt):
        world.pull(tmp_path / "copy", on_part=killed)
    world.withdraw(ended)
    check(world, tmp_path / "copy", erase=True)
    with world.records.transaction() as connection:
        (known,) = list_pulls(connection)
    assert known.cleared.keys() == {ended.grant_id}


def test_a_place_without_a_copy_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        check(world, tmp_path / "nothing")


def test_the_account_page_knows_who_has_what(world: World, copy: Path) -> None:
    grant = next(iter(world.grants.values()))
    with world.records.transaction() as connection:
        (taken,) = contributions(connection, [grant])[grant.grant_id].copies
    assert (taken.recipient, taken.images, taken.taken_at, taken.cleared_at) == ("the ML team", 2, world.now, None)
    world.withdraw(grant)
    world.pass_time(hours=2)
    check(world, copy, erase=True)
    with world.records.transaction() as connection:
        (taken,) = contributions(connection, [grant])[grant.grant_id].copies
    assert taken.cleared_at == world.now
