"""Readers start from the records; a file and its admission never come apart."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest
from sqlalchemy import event

from lake.admission import Seen, admit, admitted_files, discard, look
from lake.audit import audit
from lake.compact import compact
from lake.erase import reconcile
from schemas.errors import StoreFault
from schemas.industries import Industry
from store.records.database import open_records
from tests.consent.postgres import current_database
from tests.lake.conftest import AUTO, World, a_photo, build_world
from tests.records import at_home


def test_a_file_is_read_only_once_it_is_admitted(world: World) -> None:
    grant = world.grant()
    file = world.write(world.batch(grant, [a_photo(1)]))
    with world.records.transaction() as connection:
        assert admitted_files(connection, AUTO, world.live()) == []
    world.admit(file)
    with world.records.transaction() as connection:
        (found,) = admitted_files(connection, AUTO, world.live())
        assert (found.key, found.rows, found.sha256) == (file.key, 1, file.sha256)
        assert look(connection, file.batch_id).items == {1}


def test_files_of_ended_grants_and_other_industries_are_not_named(world: World) -> None:
    grant = world.grant()
    world.give(grant)
    with world.records.transaction() as connection:
        assert admitted_files(connection, AUTO, []) == []
        assert admitted_files(connection, next(each for each in type(AUTO) if each is not AUTO), world.live()) == []
        assert len(admitted_files(connection, None, world.live())) == 1


def test_what_was_there_at_a_moment_is_told_the_same_after_merges_and_erasures(world: World) -> None:
    told = {}

    def note() -> None:
        for industry in (AUTO, None):
            told[world.now, industry] = world.reader().snapshot(industry).files
        world.pass_time(minutes=1)

    note()
    mine, other, studio = world.grant(), world.grant(), world.grant(Industry.STUDIO)
    for grant in (mine, mine, other, studio):
        world.give(grant)
    note()
    compact(world.reader(), lambda *_: True, world.clock, os.urandom, least_files=2)
    note()
    world.withdraw(other)
    world.sweep()
    note()
    assert [len(files) for files in told.values()] == [0, 0, 3, 4, 2, 3, 1, 2]
    assert {asked: world.reader().files_at(*asked) for asked in told} == told


def test_more_grants_than_one_query_can_carry(world: World) -> None:
    files = {world.give(world.grant(), 1).key for _ in range(3)}
    for _ in range(1200):
        world.grant()
    with world.records.transaction() as connection:
        assert {each.key for each in admitted_files(connection, AUTO, world.live())} == files


def test_admitting_twice_is_admitting_once(world: World) -> None:
    file = world.give(world.grant())
    world.admit(file)
    with world.records.transaction() as connection:
        assert len(admitted_files(connection, AUTO, world.live())) == 1
    with pytest.raises(StoreFault, match="Another file"):
        world.admit(replace(file, sha256="0" * 64))


def test_a_write_of_a_try_with_fewer_photos_comes_late_and_replaces_no_admitted_file(world: World) -> None:
    facts = world.batch(world.grant(), [a_photo(1), a_photo(2)])
    world.admit(world.write(facts))
    late = world.write(facts[:1])
    assert audit(world.reader()).faults == []
    with pytest.raises(StoreFault, match="same photos"):
        world.admit(late)
    assert len(world.reader().labels(AUTO)) == 2
    world.pass_time(hours=23)
    assert reconcile(world.lake, world.records, world.live(), [], world.clock).strays == 1
    assert audit(world.reader()).rows == 2


def test_a_photo_that_its_owner_changed_between_two_writes_replaces_no_admitted_file(world: World) -> None:
    facts = world.batch(world.grant(), [a_photo(1)])
    world.admit(world.write(facts))
    (source,) = [each.key for each in world.transient.objects.walk("") if "/source/" in each.key]
    world.transient.objects.write(source, a_photo(3))
    world.write(facts)
    assert audit(world.reader()).faults == []


def test_two_runs_beside_each_other_admit_no_photo_twice(world: World) -> None:
    facts = world.batch(world.grant(), [a_photo(seed) for seed in range(3)])
    one, other = world.write(facts[:2]), world.write(facts[1:])
    world.admit(one)
    with pytest.raises(StoreFault, match="same photos"):
        world.admit(other)
    world.admit(world.write(facts[2:]))
    assert audit(world.reader()).rows == 3


def test_a_batch_of_many_files_is_not_read_again_for_each_of_them(world: World) -> None:
    facts = world.batch(world.grant(), [a_photo(seed) for seed in range(9)])
    asked: list[str] = []
    event.listen(world.records.engine, "before_cursor_execute", lambda *execute: asked.append(execute[2]), named=False)
    seen = Seen()
    for one in facts[:6]:
        file = world.write([one])
        with world.records.transaction() as connection:
            assert admit(connection, file, world.now, world.lake, seen)
        seen.take(file)
    assert not [each for each in asked if "SELECT admissions.items" in each]
    world.admit(world.write(facts[6:8]))
    with world.records.transaction() as connection, pytest.raises(StoreFault, match="same photos"):
        admit(connection, world.write(facts[7:]), world.now, world.lake, seen)


def test_a_file_that_is_gone_is_not_admitted(world: World) -> None:
    file = world.write(world.batch(world.grant(), [a_photo(1)]))
    world.lake.delete([file.key])
    with pytest.raises(StoreFault, match="gone"):
        world.admit(file)


@pytest.mark.parametrize("records_on", ["sqlite", "postgresql"])
def test_reconcile_between_object_and_admission_leaves_no_admission_without_its_object(
    tmp_path: Path, records_on: str
) -> None:
    """Reconcile finds the file without an admission and old enough, and erases it while `admit` waits for the lock."""
    world = build_world(tmp_path)
    if records_on == "postgresql":
        world.records = open_records(at_home(tmp_path, records_url=current_database()))
    file = world.write(world.batch(world.grant(), [a_photo(1)]))
    world.pass_time(hours=23)
    erasing, go_on = Event(), Event()
    delete = world.lake.delete

    def slowly(keys: object) -> None:
        keys = list(keys)  # type: ignore[call-overload]
        if keys:
            erasing.set()
            go_on.wait(300)
        delete(keys)

    world.lake.delete = slowly  # type: ignore[method-assign, assignment]
    sweep = Thread(target=lambda: reconcile(world.lake, world.records, world.live(), [], world.clock))
    sweep.start()
    assert erasing.wait(300)
    outcome: list[Exception | None] = []

    def offer() -> None:
        try:
            world.admit(file)
            outcome.append(None)
        except StoreFault as fault:
            outcome.append(fault)

    admission = Thread(target=offer)
    admission.start()
    admission.join(0.2)
    assert outcome == [], "the admission must wait for the erasing"
    go_on.set()
    sweep.join(300)
    admission.join(300)
    assert isinstance(outcome[0], StoreFault)
    with world.records.transaction() as connection:
        assert admitted_files(connection, AUTO, world.live()) == []
    world.records.engine.dispose()


def test_a_file_that_one_run_may_not_admit_stays_when_another_has(world: World) -> None:
    facts = world.batch(world.grant(), [a_photo(1)])
    file = world.write(facts)
    world.admit(world.write(facts))
    with world.records.transaction() as connection:
        assert not discard(connection, file.key, world.lake)
    assert world.keys() == [file.key]
    other = world.write(world.batch(world.grant(), [a_photo(2)]))
    with world.records.transaction() as connection:
        assert discard(connection, other.key, world.lake)
    assert world.keys() == [file.key]


def test_an_admission_that_was_first_saves_the_file(world: World) -> None:
    file = world.write(world.batch(world.grant(), [a_photo(1)]))
    world.pass_time(hours=23)
    with world.records.transaction() as connection:
        admit(connection, file, world.now, world.lake)
    assert reconcile(world.lake, world.records, world.live(), [], world.clock).objects == 0
    assert world.keys() == [file.key]
