from __future__ import annotations

from datetime import timedelta

import pytest

from schemas.certificate import Certificate, check_certificate, check_more
from schemas.errors import LedgerBroken, NotFound
from schemas.ids import BatchId
from schemas.receipt import Erased, Receipt, receipt_hash
from store.purging.certificates import certify, more_links
from store.purging.receipts import begin_erasures, finish_erasures
from store.records.database import Records
from tests.store.conftest import NOON, batch_at, later


def erase(records: Records, batch_id: BatchId, objects: int = 3) -> None:
    with records.transaction() as connection:
        begin_erasures(connection, Erased.BATCH, {batch_id: (objects, objects * 5)}, later(hours=23))
        finish_erasures(connection, {batch_id: later(hours=24)}, later(hours=23, minutes=1))


@pytest.fixture
def certificate(records: Records) -> Certificate:
    ours = batch_at(NOON, seed=100)
    for seed in range(3):
        erase(records, batch_at(NOON, seed))
    erase(records, ours)
    for seed in range(3, 6):
        erase(records, batch_at(NOON, seed))
    erase(records, ours, objects=1)
    erase(records, batch_at(NOON, 7))
    with records.transaction() as connection:
        return certify(connection, ours, later(hours=25))


def forged(receipt: Receipt, **to: object) -> Receipt:
    """One that says something else, and has the hash of that."""
    changed = receipt.model_copy(update=to)
    return changed.model_copy(update={"hash": receipt_hash(changed)})


def test_a_certificate_can_be_checked_by_whoever_holds_it(certificate: Certificate) -> None:
    again = Certificate.model_validate_json(certificate.model_dump_json())
    assert check_certificate(again) == 5
    assert [each.objects for each in again.receipts] == [3, 1]
    assert again.deadline - again.received_at == timedelta(hours=24)
    assert again.receipts[0].margin_seconds == 59 * 60


def test_a_certificate_says_nothing_about_others(certificate: Certificate) -> None:
    text = certificate.model_dump_json()
    assert not any(batch_at(NOON, seed) in text for seed in range(8))


def test_a_certificate_that_was_changed_does_not_hold(certificate: Certificate) -> None:
    first, second = certificate.receipts
    left = forged(first, remaining=1)
    lies = [
        {"receipts": (first.model_copy(update={"objects": 4}), second)},
        {"receipts": (first.model_copy(update={"last_deletion": later(hours=22)}), second)},
        {"receipts": ()},
        {"receipts": (second, first)},
        {"batch_id": batch_at(NOON, 1)},
        {"links": certificate.links[:-1]},
        {"links": certificate.links[::-1]},
        {"head": "0" * 64},
        {"head_sequence": 99},
        {"receipts": (first, forged(second, objects=4))},
        {"receipts": (first, forged(second, previous_hash=first.hash))},
        {"receipts": (first, second, forged(second, sequence=certificate.head_sequence + 1))},
        {"receipts": (left,), "links": (), "head": left.hash, "head_sequence": left.sequence},
    ]
    for lie in lies:
        with pytest.raises(LedgerBroken):
            check_certificate(certificate.model_copy(update=lie))


def test_a_long_chain_goes_on_in_further_files(
    records: Records, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.purging.certificates.LONGEST", 2)
    with records.transaction() as connection:
        first = certify(connection, BatchId(certificate.batch_id), later(hours=25))
        second = more_links(connection, first.head_sequence)
        third = more_links(connection, second.head_sequence)
        assert more_links(connection, third.head_sequence) == third.model_copy(
            update={"after_sequence": third.head_sequence, "after": third.head, "links": ()}
        )
        with pytest.raises(NotFound):
            more_links(connection, 99)
    assert (third.head_sequence, third.head) == (certificate.head_sequence, certificate.head)
    assert (check_certificate(first), check_more(first, second), check_more(second, third)) == (2, 2, 1)
    for lie in (
        third,
        second.model_copy(update={"links": second.links[::-1]}),
        second.model_copy(update={"links": second.links[:-1]}),
        second.model_copy(update={"head": "0" * 64}),
        second.model_copy(update={"head_sequence": second.head_sequence + 1}),
    ):
        with pytest.raises(LedgerBroken):
            check_more(first, lie)


def test_there_is_no_certificate_before_the_purge(records: Records) -> None:
    with records.transaction() as connection, pytest.raises(NotFound):
        certify(connection, batch_at(NOON), NOON)
