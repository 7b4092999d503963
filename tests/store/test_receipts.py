"""An erasure is told of once, and receipts follow each other in one chain, however many clean up at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from schemas.receipt import Erased
from store.receipts import begin_erasures, finish_erasures, list_receipts, unfinished_erasures, verify_receipts
from store.records import Records, open_records
from store.settings import Settings
from tests.consent.postgres import new_database
from tests.store.conftest import NOON, batch_at, later

ONE, TWO = batch_at(NOON), batch_at(NOON, seed=2)


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Records]:
    records = open_records(Settings(home=tmp_path, records_url=new_database()))
    yield records
    records.engine.dispose()


def at_once(records: Records, one: Callable[[Connection], object], two: Callable[[Connection], object]) -> None:
    """`two` begins while the transaction of `one` is open."""
    faults: list[SQLAlchemyError] = []

    def run() -> None:
        try:
            with records.transaction() as connection:
                two(connection)
        except SQLAlchemyError as fault:
            faults.append(fault)

    other = threading.Thread(target=run)
    with records.transaction() as connection:
        one(connection)
        other.start()
        other.join(timeout=0.3)
    other.join(timeout=10)
    assert faults == []


def test_two_cleanups_that_begin_the_same_erasure_at_once_note_it_once(postgres: Records) -> None:
    at_once(
        postgres,
        lambda connection: begin_erasures(connection, Erased.BATCH, {ONE: (3, 15)}, NOON),
        lambda connection: begin_erasures(connection, Erased.BATCH, {ONE: (2, 10)}, NOON),
    )
    with postgres.transaction() as connection:
        assert unfinished_erasures(connection, Erased.BATCH) == [ONE]
        (receipt,) = finish_erasures(connection, {ONE: later(hours=24)}, later(hours=23))
    assert (receipt.objects, receipt.bytes) == (3, 15)


@pytest.mark.parametrize(("second", "receipts"), [(ONE, 1), (TWO, 2)])
def test_two_cleanups_that_end_at_once_leave_one_chain(postgres: Records, second: str, receipts: int) -> None:
    with postgres.transaction() as connection:
        begin_erasures(connection, Erased.BATCH, dict.fromkeys({ONE, second}, (3, 15)), NOON)
    at_once(
        postgres,
        lambda connection: finish_erasures(connection, {ONE: later(hours=24)}, later(hours=23)),
        lambda connection: finish_erasures(connection, {second: later(hours=24)}, later(hours=23)),
    )
    with postgres.transaction() as connection:
        assert verify_receipts(list_receipts(connection)) == receipts
