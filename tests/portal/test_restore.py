"""A database restored from yesterday's backup: whatever begins on it, what was taken back since stays taken back."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from consent import ledger
from consent.suppression import open_suppressions
from flows import reconciling
from flows.cleaning import purge
from flows.parts import open_parts
from flows.receive import stamp_batch
from lake.layout import Place
from portal.audit import audit
from portal.cli.app import app
from portal.closing import close_account
from schemas.consent import Method
from schemas.errors import LedgerBroken
from schemas.ids import BatchId, new_batch_id
from schemas.industries import Industry
from schemas.options import CutoutOptions
from schemas.receipt import Erased, Receipt, receipt_hash
from store.purging.receipts import list_receipts
from store.records import people
from store.records.database import open_records
from store.records.tables import consent_events
from store.settings import Settings
from tests.consent.conftest import NOON, later, new_owner
from tests.consent.test_ledger import tampered
from tests.consent.test_suppression import backed_up, home, restored

__all__ = ["home"]
AUTO, STUDIO = Industry.AUTOMOTIVE, Industry.STUDIO


def withdrawn_after_the_backup(home: Settings):
    """Yes for two industries, a backup, one taken back and noted by a reconcile, the backup restored."""
    records = open_records(home)
    owner = new_owner(records)
    withdrawn, kept = owner.press(AUTO, STUDIO)
    backup = backed_up(records, home)
    with records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(1)), AUTO, later(1))
    records.engine.dispose()
    parts = open_parts(home, lambda: later(2))
    reconciling.reconcile(parts)
    parts.records.engine.dispose()
    restored(backup, home).engine.dispose()
    return owner, withdrawn, kept


def test_whatever_opens_the_parts_serves_no_permission_that_was_taken_back(home: Settings) -> None:
    _, withdrawn, kept = withdrawn_after_the_backup(home)
    parts = open_parts(home, lambda: later(60))
    with parts.records.transaction() as connection:
        assert ledger.live_grants(connection) == [kept]
        event = ledger.read_events(connection)[-1]
    assert (event.grant_id, event.method) == (withdrawn.grant_id, Method.OPERATOR)
    assert "restored" in event.reason
    parts.records.engine.dispose()


def test_a_reconcile_repairs_a_database_that_was_restored_under_running_programs(home: Settings) -> None:
    parts = open_parts(home, lambda: later(60))
    owner = new_owner(parts.records)
    _, kept = owner.press(AUTO, STUDIO)
    backup = backed_up(parts.records, home)
    with parts.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(1)), AUTO, later(1))
    reconciling.reconcile(parts)
    parts.records.engine.dispose()
    restored(backup, home).engine.dispose()
    with parts.records.transaction() as connection:
        assert len(ledger.live_grants(connection)) == 2, "the running program now sees the past"
    reconciling.reconcile(parts)
    with parts.records.transaction() as connection:
        assert ledger.live_grants(connection) == [kept]
    parts.records.engine.dispose()


def test_nothing_begins_while_a_suppression_cannot_be_read(home: Settings) -> None:
    _, withdrawn, _ = withdrawn_after_the_backup(home)
    open_suppressions(home).write(f"grants/{withdrawn.grant_id}.json", b"no json")
    with pytest.raises(LedgerBroken):
        open_parts(home, lambda: NOON + timedelta(days=1))


def test_an_event_that_cannot_be_read_stops_no_start_and_no_reconcile(home: Settings) -> None:
    """Neither that of a live grant nor that of a withdrawal, which is noted beside the lake all the same."""
    records = open_records(home)
    owner = new_owner(records)
    withdrawn, kept = owner.press(AUTO, STUDIO)
    backup = backed_up(records, home)
    with records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(1)), AUTO, later(1))
    with tampered(records) as connection:
        connection.execute(update(consent_events).values(method="x"))
    records.engine.dispose()
    parts = open_parts(home, lambda: later(2))
    parts.lake.write(f"{Place(AUTO, withdrawn.grant_id).prefix}/left-behind.parquet", b"rows")
    assert reconciling.reconcile(parts).objects == 1
    parts.records.engine.dispose()
    restored(backup, home).engine.dispose()
    parts = open_parts(home, lambda: later(60))
    with parts.records.transaction() as connection:
        assert ledger.live_grants(connection) == [kept]
    parts.records.engine.dispose()


def test_an_account_that_was_closed_after_the_backup_is_closed_again_before_anything_serves(home: Settings) -> None:
    parts = open_parts(home, lambda: later(60))
    owner, other = new_owner(parts.records, "Smith & Sons"), new_owner(parts.records, "Bazaar")
    owner.press(AUTO)
    backup = backed_up(parts.records, home)
    close_account(home, parts.records, parts.transient.objects, lambda: later(1), owner.refusal(later(1)))
    for way in ("noted when it was closed", "noted by the next reconcile"):
        if way.startswith("noted by"):
            open_suppressions(home).delete([f"accounts/{owner.account_id}.json"])
            reconciling.reconcile(parts)
        parts.records.engine.dispose()
        restored(backup, home).engine.dispose()
        parts = open_parts(home, lambda: later(80))
        with parts.records.transaction() as connection:
            closed = people.find_account_or_closed(connection, owner.account_id)
            assert (closed.name, closed.closed_at) == (owner.account_id, later(1)), way
            assert people.people_of(connection, owner.account_id) == []
            assert people.find_account(connection, other.account_id).name == "Bazaar"
            assert ledger.live_grants(connection) == []
            assert ledger.verify(connection) == 2
    parts.records.engine.dispose()


def purged_after_the_backup(home: Settings) -> tuple[BatchId, Path]:
    """A batch that was sent before it and purged after it, which a reconcile has noted; and the backup."""
    parts = open_parts(home, lambda: NOON)
    owner = new_owner(parts.records)
    batch_id = stamp_batch(parts, owner.account_id, None, CutoutOptions(), Random(1).randbytes).batch_id
    backup = backed_up(parts.records, home)
    parts = replace(parts, clock=lambda: later(60 * 23))
    purge(parts)
    reconciling.reconcile(parts)
    parts.records.engine.dispose()
    return batch_id, backup


@pytest.mark.parametrize("is_changed", [False, True])
def test_what_was_purged_after_the_backup_is_no_broken_promise(home: Settings, is_changed: bool) -> None:
    batch_id, backup = purged_after_the_backup(home)
    suppressions = open_suppressions(home)
    if is_changed:
        (noted,) = suppressions.files("purges")
        told = suppressions.read(f"purges/{noted}")
        suppressions.write(f"purges/{noted}", told.replace(b'"remaining":0', b'"remaining":1'))
    restored(backup, home).engine.dispose()
    parts = open_parts(home, lambda: later(60 * 40))
    purge(parts)
    with parts.records.reading() as connection:
        assert list_receipts(connection) == []
    broken = [f"batch {batch_id} is past its day and has no receipt"] if is_changed else []
    found = audit(parts, NOON, later(60 * 40))
    assert found.broken == broken
    assert found.looked_at["receipts that only the notes beside the lake have"] == 1 - len(broken)
    parts.records.engine.dispose()


@pytest.fixture
def forgotten(home: Settings) -> Iterator[BatchId]:
    batch_id, backup = purged_after_the_backup(home)
    restored(backup, home).engine.dispose()
    parts = open_parts(home, lambda: later(60 * 40))
    reconciling.reconcile(parts)
    yield batch_id
    parts.records.engine.dispose()


def test_the_receipt_of_a_purge_that_restored_records_forgot_is_shown_to_the_operator(
    home: Settings, forgotten: BatchId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGBATCH_HOME", str(home.home))
    done = CliRunner().invoke(app, ["receipts", forgotten, "--json"])
    (told,) = json.loads(done.stdout)
    assert (told["subject"], told["remaining"]) == (forgotten, 0)
    assert "restored from a backup of before this purge" in done.stderr


def test_an_audit_goes_on_where_a_note_cannot_be_read_and_says_so(home: Settings, forgotten: BatchId) -> None:
    parts = open_parts(home, lambda: later(60 * 40))
    (noted,) = open_suppressions(home).files("purges")
    open_suppressions(home).write(f"purges/{noted}", b"no json")
    (parts.settings.home / "transient" / "2026-11-20T00").mkdir(parents=True)
    (parts.settings.home / "transient" / "2026-11-20T00" / "stray").touch()
    unreadable, left = audit(parts, NOON, later(60 * 40)).broken
    assert unreadable.startswith("An object among the suppressions beside the lake cannot be read.")
    assert left == "something lies in the transient store outside any batch"
    parts.records.engine.dispose()


def test_an_audit_holds_no_more_of_the_notes_than_one_object(home: Settings) -> None:
    parts = open_parts(home, lambda: NOON)
    owner = new_owner(parts.records)
    stamp_batch(parts, owner.account_id, None, CutoutOptions(), Random(1).randbytes)
    parts = replace(parts, clock=lambda: later(60 * 40))
    suppressions = open_suppressions(home)
    for number in range(20):  # of batches of the year before
        told = [receipt(f"{new_batch_id(NOON - timedelta(days=99), Random(number).randbytes)}") for _ in range(200)]
        lines = ",".join(each.model_dump_json() for each in told)
        suppressions.write(f"purges/{number:012d}.json", f'{{"receipts":[{lines}]}}'.encode())
    tracemalloc.start()
    try:
        found = audit(parts, NOON, later(60 * 40))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.looked_at["receipts that only the notes beside the lake have"] == 0
    assert most < 2e6, "of 4,000 receipts, 1.7 KB each"
    parts.records.engine.dispose()


def receipt(subject: str) -> Receipt:
    """Of a batch that was purged in time, with the hash that it must have."""
    told = Receipt(
        sequence=1,
        kind=Erased.BATCH,
        subject=subject,
        objects=1,
        bytes=1,
        first_deletion=NOON,
        last_deletion=NOON,
        deadline=NOON,
        remaining=0,
        previous_hash="0" * 64,
        hash="",
    )
    return told.model_copy(update={"hash": receipt_hash(told)})
