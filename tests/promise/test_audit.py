from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from consent.suppression import open_suppressions
from flows.admission import Portion
from flows.candidates import lake_of
from lake.audit import audit as audit_lake
from lake.pull import pull
from lake.query import Query
from lake.verify import verify
from lake.write import LakeFile, write_candidates
from portal.audit import Audit, audit
from schemas.errors import StoreFault
from schemas.industries import Industry
from schemas.receipt import Erased
from store.objects.object_store import open_store
from store.purging.receipts import begin_erasures, finish_erasures
from store.transient.transient_store import source_key
from tests.promise.world import START, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two batches with a grant, days ago; one without, now."""
    world = World(0, tmp_path)
    with world.its_clock():
        world.press_button(0, Industry.AUTOMOTIVE)
        world.submit_and_process(0, Industry.AUTOMOTIVE, 2)
        world.submit_and_process(0, Industry.AUTOMOTIVE, 1)
        world.advance(6 * 30)
        world.submit_and_process(1, None, 1)
    return world


def _audit(world: World) -> Audit:
    return audit(world.parts("portal"), START - timedelta(days=1), world.now)


def test_a_promise_that_held_is_said_to_have_held(world: World) -> None:
    result = _audit(world)
    assert result.broken == []
    assert result.held
    assert result.looked_at["batches of the period past their day"] == 2
    assert result.looked_at["rows in the lake"] == 3
    assert result.looked_at["receipts of all time"] == 2
    assert result.looked_at["objects in the transient store"] > 0
    assert result.longest_gap_minutes is not None


def test_cleanups_that_have_stopped_are_a_gap_that_goes_on(world: World) -> None:
    held = audit(world.parts("portal"), START - timedelta(days=1), world.now)
    later = audit(world.parts("portal"), START - timedelta(days=1), world.now + timedelta(hours=9))
    assert held.longest_gap_minutes is not None
    assert held.longest_gap_minutes < 9 * 60 <= (later.longest_gap_minutes or 0)


def test_a_write_of_a_try_that_was_given_up_comes_late_and_spoils_no_admitted_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[Portion, datetime]] = []

    def hangs(portions: Sequence[Portion], admitted_at: datetime) -> Iterator[LakeFile]:
        written.extend((portion, admitted_at) for portion in portions)
        raise StoreFault("The store is away.")

    with world.its_clock():
        world.submit(0, Industry.AUTOMOTIVE, 2)
        with monkeypatch.context() as broken:
            broken.setattr(world, "_write", lambda parts: hangs)
            world.process(0)
        world.now += timedelta(seconds=10)
        world.process(0)
    parts = world.parts("worker")
    for portion, admitted_at in written:
        write_candidates(parts.lake, parts.transient, portion, admitted_at)
    result = audit_lake(lake_of(parts))
    assert (len(written), result.rows, result.faults) == (1, 5, [])


def _keep_an_old_object(world: World) -> None:
    world.bucket.put(source_key(world.batches[0].stamp.batch_id, 1), b"kept")


def _keep_a_stray(world: World) -> None:
    world.bucket.put("stray", b"kept")


def _move_to_another_industry(world: World) -> None:
    key, data = world.lake.things[0].found.key, world.lake.things[0].data
    world.lake.put(key.replace("automotive", "ecommerce"), data)


def _keep_what_is_no_candidate_file(world: World) -> None:
    world.lake.put(world.lake.things[0].found.key.rpartition("/")[0] + "/notes.txt", b"kept")


def _take_what_came_before_the_yes(world: World) -> None:
    thing, (old,) = world.lake.things[0], world.owners[0].live.values()
    world.withdraw(0, Industry.AUTOMOTIVE)
    world.press_button(0, Industry.AUTOMOTIVE)
    (new,) = world.owners[0].live.values()
    world.lake.put(thing.found.key.replace(old, new), thing.data)


def _take_what_was_not_received_under_it(world: World) -> None:
    _by_force(world, f"UPDATE batches SET grant_id = NULL WHERE batch_id = '{world.batches[0].stamp.batch_id}'")


def _leave_something(world: World) -> None:
    _by_force(world, "UPDATE receipts SET remaining = 1 WHERE sequence = 1")


def _be_late(world: World) -> None:
    """With a receipt that says so itself."""
    batch = world.batches[0].stamp
    with world.database.calm() as connection:
        begin_erasures(connection, Erased.BATCH, {batch.batch_id: (1, 1)}, world.now)
        then = batch.received_at + timedelta(days=1.5)
        finish_erasures(connection, {batch.batch_id: then}, then)


def _lose_a_receipt(world: World) -> None:
    _by_force(world, "DELETE FROM receipts WHERE sequence = 2")
    open_suppressions(world.parts("portal").settings).delete_folder("purges")


def _change_a_receipt(world: World) -> None:
    _by_force(world, "UPDATE receipts SET objects = 99 WHERE sequence = 1")


def _change_consent(world: World) -> None:
    _by_force(world, "UPDATE consent_events SET received_at = '2027-01-01 00:00:00.000000'")


def _by_force(world: World, statement: str) -> None:
    with world.database.calm() as connection:
        for table in ("receipts", "consent_events"):
            for verb in ("update", "delete"):
                connection.execute(text(f"DROP TRIGGER {table}_no_{verb}"))
        connection.execute(text(statement))


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (_keep_an_old_object, "is older than a day"),
        (_keep_a_stray, "outside any batch"),
        (_move_to_another_industry, "no grant for ecommerce"),
        (_keep_what_is_no_candidate_file, "no candidate file"),
        (_take_what_came_before_the_yes, "was received before that grant was given"),
        (_take_what_was_not_received_under_it, "was not received under that grant"),
        (_leave_something, "1 thing remained"),
        (_be_late, "was gone 1 day, 12:00:00 after"),
        (_lose_a_receipt, "is past its day and has no receipt"),
        (_change_a_receipt, "was changed after it was written"),
        (_change_consent, "was changed after it was written"),
    ],
)
def test_a_broken_promise_is_found(world: World, lie: Callable[[World], None], words: str) -> None:
    with world.its_clock():
        lie(world)
    assert any(words in each for each in _audit(world).broken)


def test_a_copy_that_keeps_what_was_withdrawn_breaks_the_promise_after_a_day(world: World, tmp_path: Path) -> None:
    parts = world.parts("portal")
    with world.its_clock():
        lake, copy = lake_of(parts), open_store(str(tmp_path / "copy"), parts.settings)
        pull(lake, Query(Industry.AUTOMOTIVE), copy, parts.clock)
        world.withdraw(0, Industry.AUTOMOTIVE)
        world.advance(6)
        assert _audit(world).held
        world.advance(6 * 25)
    assert [each for each in _audit(world).broken if each.startswith("copy")]
    verify(copy, parts.records, lake.live(), parts.clock, erase=True)
    assert _audit(world).held


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1" + bytes(100)])
def test_a_file_that_cannot_be_read_is_said(world: World, damage: bytes) -> None:
    world.lake.put(world.lake.things[0].found.key, damage)
    assert any("cannot be read" in each for each in _audit(world).broken)


def test_what_was_withdrawn_has_its_day_to_go(world: World) -> None:
    with world.its_clock():
        world.withdraw(0, Industry.AUTOMOTIVE)
    result = _audit(world)
    assert result.broken == []
    assert result.looked_at["files in the lake that are still to be erased"] > 0
    world.now += timedelta(hours=25)
    assert any("a day after it was withdrawn" in each for each in _audit(world).broken)


def test_a_file_that_is_being_written_is_none_yet(world: World) -> None:
    with world.its_clock():
        world.submit_and_process(0, Industry.AUTOMOTIVE, 1)
        newest = max(thing.found.key for thing in world.lake.things)
        world.lake.put(f"{newest}.partial-0a", b"half a")
    assert _audit(world).broken == []
    world.now += timedelta(hours=25)
    assert any("half a file" in each for each in _audit(world).broken)


def test_what_is_erased_while_the_audit_reads_breaks_nothing(world: World) -> None:
    def gone(key: str) -> bytes:
        raise FileNotFoundError

    world.lake.get = gone  # type: ignore[method-assign]
    result = _audit(world)
    assert (result.broken, result.looked_at["rows in the lake"]) == ([], 0)
