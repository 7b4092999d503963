"""An erasure is told of once, and receipts follow each other in one chain, however many clean up at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from schemas.errors import LedgerBroken
from schemas.receipt import Erased, receipt_hash
from store.purging.receipts import (
    begin_erasures,
    each_receipt,
    finish_erasures,
    list_receipts,
    unfinished_erasures,
    verify_receipts,
)
from store.records.database import Records
from tests.store.conftest import NOON, batch_at, later

ONE, TWO = batch_at(NOON), batch_at(NOON, seed=2)


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
    other.join(timeout=60)
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
        assert verify_receipts(each_receipt(connection)) == receipts


def test_an_erasure_that_is_begun_again_keeps_the_larger_count(records: Records) -> None:
    with records.transaction() as connection:
        for count in ((1, 5), (3, 15), (2, 20)):
            begin_erasures(connection, Erased.BATCH, {ONE: count}, NOON)
        (receipt,) = finish_erasures(connection, {ONE: later(hours=24)}, later(hours=23))
    assert (receipt.objects, receipt.bytes) == (3, 15)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("changed", "Receipt 2 was changed"),
        ("changed with its hash", "Receipt 3 was changed"),
        ("missing", "Receipt 2 is missing"),
        ("re-ordered", "Receipt 1 is missing or out of order"),
    ],
)
def test_a_receipt_that_somebody_touched_is_named(records: Records, harm: str, told: str) -> None:
    with records.transaction() as connection:
        for number in range(3):
            batch_id = batch_at(NOON, seed=number)
            begin_erasures(connection, Erased.BATCH, {batch_id: (3, 15)}, NOON)
            finish_erasures(connection, {batch_id: later(hours=24)}, later(hours=23))
        chain = list_receipts(connection)
        assert list(each_receipt(connection)) == chain
    assert verify_receipts(chain) == 3
    first, second, third = chain
    fewer = second.model_copy(update={"objects": 2})
    touched = {
        "changed": [first, fewer, third],
        "changed with its hash": [first, fewer.model_copy(update={"hash": receipt_hash(fewer)}), third],
        "missing": [first, third],
        "re-ordered": [second, first, third],
    }
    with pytest.raises(LedgerBroken, match=told):
        verify_receipts(touched[harm])
