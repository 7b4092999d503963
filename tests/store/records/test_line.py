"""What is done to one batch in line changes nothing of another, and what one holder does nothing of another's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, update

from schemas.batch import BatchState, Counts
from schemas.errors import PastDeadline
from schemas.ids import AccountId, BatchId
from store.records import line
from store.records.batches import get_batch, mark_purged, set_progress
from store.records.database import Records, open_records
from store.records.early_purge import want_gone_on_download
from store.records.shares import share_to_charge
from store.records.tables import batches, submissions
from tests.consent.postgres import current_database
from tests.records import at_home
from tests.store.conftest import NOON, batch_at, later
from tests.store.purging.test_purge import ACCOUNT, record

ME, ANOTHER = f"{line.DISPATCHER}of mine", f"{line.DISPATCHER}of another"
MINE, OTHER = batch_at(NOON), batch_at(NOON, seed=2)

Act = Callable[[Connection, BatchId], object]

ACTS: dict[str, Act] = {
    "count_uploads": lambda connection, batch_id: line.count_uploads(connection, batch_id, 3),
    "shut": lambda connection, batch_id: line.shut(connection, batch_id, ME, NOON),
    "unshut": lambda connection, batch_id: line.unshut(connection, batch_id, ME),
    "make_ready": lambda connection, batch_id: line.make_ready(connection, batch_id, NOON),
    "claim": lambda connection, batch_id: line.claim(connection, batch_id, ME, NOON),
    "renew": lambda connection, batch_id: line.renew(connection, batch_id, ME, later(minutes=0.5)),
    "release": lambda connection, batch_id: line.release(connection, batch_id, ME, later(minutes=1)),
    "leave": lambda connection, batch_id: line.leave(connection, batch_id, NOON),
    "ask_again": lambda connection, batch_id: line.ask_again(connection, batch_id, ["item_failed"], later(minutes=2)),
    "ask_to_stop": lambda connection, batch_id: line.ask_to_stop(connection, batch_id, NOON),
    "want_gone_on_download": want_gone_on_download,
}
"""In an order in which each finds something to do."""


@pytest.fixture(params=["sqlite", "postgresql"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Records]:
    """Two batches that were just opened."""
    url = "" if request.param == "sqlite" else current_database()
    records = open_records(at_home(tmp_path, records_url=url))
    for batch_id in (MINE, OTHER):
        record(records, batch_id)
        with records.transaction() as connection:
            line.enter(connection, batch_id, ACCOUNT, f"key of {batch_id}")
    yield records
    records.engine.dispose()


def rows_of(connection: Connection, batch_id: BatchId) -> list[object]:
    return [
        connection.execute(select(table).where(table.c.batch_id == batch_id)).one() for table in (batches, submissions)
    ]


def test_what_is_done_to_one_batch_leaves_the_other_as_it_is(two: Records) -> None:
    for name, act in ACTS.items():
        with two.transaction() as connection:
            mine, other = rows_of(connection, MINE), rows_of(connection, OTHER)
            act(connection, MINE)
            assert rows_of(connection, OTHER) == other, name
            assert rows_of(connection, MINE) != mine, name
            act(connection, OTHER)


def test_who_does_not_hold_a_batch_changes_nothing_of_it(two: Records) -> None:
    with two.transaction() as connection:
        assert line.shut(connection, MINE, ME, NOON)
        shut = rows_of(connection, MINE)
        assert not line.shut(connection, MINE, ANOTHER, NOON)
        line.unshut(connection, MINE, ANOTHER)
        assert rows_of(connection, MINE) == shut
        line.unshut(connection, MINE, ME)
        line.make_ready(connection, MINE, NOON)
        assert line.claim(connection, MINE, ME, NOON)
        claimed = rows_of(connection, MINE)
        assert not line.claim(connection, MINE, ANOTHER, NOON)
        assert not line.renew(connection, MINE, ANOTHER, NOON)
        line.release(connection, MINE, ANOTHER, NOON)
        assert rows_of(connection, MINE) == claimed
        assert line.claim(connection, MINE, ANOTHER, NOON + line.LEASE_LIFE), "its time is over"
        assert not line.renew(connection, MINE, ME, NOON + line.LEASE_LIFE)


def test_a_dispatcher_is_at_work_while_its_lease_lasts(two: Records) -> None:
    with two.transaction() as connection:
        assert line.claim(connection, MINE, "a command", NOON)
        assert not line.has_dispatcher_at_work(connection, NOON)
        assert line.claim(connection, OTHER, ME, NOON)
        assert line.has_dispatcher_at_work(connection, NOON + line.LEASE_LIFE - timedelta(seconds=1))
        assert not line.has_dispatcher_at_work(connection, NOON + line.LEASE_LIFE)


def test_what_is_under_way_is_what_has_time_left(two: Records) -> None:
    with two.transaction() as connection:
        line.count_uploads(connection, MINE, 3)
        line.count_uploads(connection, OTHER, 4)
        set_progress(connection, OTHER, Counts(items=4, done=1, failed=1), BatchState.RUNNING)
        assert line.load_of(connection, NOON) == line.load_of(connection, NOON, ACCOUNT) == line.Load(2, 5)
        assert line.load_of(connection, NOON, AccountId("a" + "1" * 32)) == line.Load(0, 0)
        assert line.load_of(connection, later(hours=23), ACCOUNT) == line.Load(0, 0)


def test_in_line_stands_what_is_sealed_free_and_in_time_the_longest_waiting_first(two: Records) -> None:
    def waiting(now: datetime) -> list[BatchId]:
        return [each.batch_id for each in line.in_line(connection, now)]

    after = NOON + 2 * line.LEASE_LIFE
    with two.transaction() as connection:
        line.make_ready(connection, MINE, later(minutes=1))
        line.make_ready(connection, OTHER, NOON)
        assert waiting(after) == [], "what is not sealed"
        connection.execute(update(batches).values(state=BatchState.SEALED))
        assert waiting(after) == [OTHER, MINE]
        assert line.claim(connection, OTHER, ME, NOON)
        assert waiting(NOON) == [MINE]
        assert waiting(after) == [OTHER, MINE]
        line.leave(connection, OTHER, NOON)
        assert waiting(after) == [MINE]
        assert waiting(later(hours=23)) == []


@pytest.mark.parametrize(
    "hold",
    [
        lambda connection: line.stand_still(connection, MINE),
        lambda connection: line.holds(connection, MINE, None, NOON),
        lambda connection: share_to_charge(connection, ACCOUNT),
    ],
    ids=["stand_still", "holds", "share_to_charge"],
)
def test_what_one_transaction_holds_another_waits_for(two: Records, hold: Callable[[Connection], object]) -> None:
    with two.transaction() as connection:
        share_to_charge(connection, ACCOUNT)

    def hold_too() -> None:
        with two.transaction() as connection:
            hold(connection)

    other = threading.Thread(target=hold_too)
    with two.transaction() as connection:
        hold(connection)
        other.start()
        other.join(timeout=0.3)
        assert other.is_alive(), "it must wait"
    other.join(timeout=60)
    assert not other.is_alive()


def test_a_batch_that_was_purged_while_somebody_asked_for_it_again_stays_purged(two: Records) -> None:
    """It was looked at before: its reports take a while to read."""
    with two.transaction() as connection:
        mark_purged(connection, [MINE], later(hours=23))
    with pytest.raises(PastDeadline), two.transaction() as connection:
        line.ask_again(connection, MINE, ["item_failed"], later(hours=23))
    with two.reading() as connection:
        assert get_batch(connection, MINE).state is BatchState.PURGED
