"""A restored old ledger cannot bring a permission back to life."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from random import Random
from threading import Thread

import pytest
from sqlalchemy import select

from consent import ledger
from consent.ledger import Refusal
from consent.suppression import accept_end, check_end, note, note_soon, open_suppressions, replay
from flows import reconciling
from flows.parts import open_parts
from lake.layout import Place, file_key
from schemas.batch import Stamp
from schemas.consent import Method
from schemas.errors import LedgerBroken, StoreFault
from schemas.ids import new_batch_id, received_at
from schemas.industries import Industry
from schemas.options import CutoutOptions
from schemas.receipt import Erased
from store.objects.object_store import ObjectStore
from store.objects.storage import Children
from store.purging.receipts import begin_erasures, finish_erasures, list_receipts, unfinished_erasures
from store.records.batches import get_batch, open_batch
from store.records.closing import erase_account
from store.records.database import Records, open_records
from store.records.people import find_account_or_closed
from store.records.tables import batches
from store.settings import Settings
from tests.consent.conftest import NOON, Owner, later, new_owner
from tests.records import at_home

AUTO, STUDIO = Industry.AUTOMOTIVE, Industry.STUDIO


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return at_home(tmp_path / "home")


@pytest.fixture
def objects(home: Settings) -> ObjectStore:
    return open_suppressions(home)


def backed_up(records: Records, home: Settings) -> Path:
    records.engine.dispose()
    path = home.home.parent / "backup.db"
    with sqlite3.connect(home.home / "records.db") as source, sqlite3.connect(path) as target:
        source.backup(target)
    return path


def restored(backup: Path, home: Settings) -> Records:
    for old in home.home.glob("records.db*"):
        old.unlink()
    shutil.copy(backup, home.home / "records.db")
    return open_records(home)


def test_a_withdrawal_survives_the_restore_of_an_older_database(home: Settings, objects: ObjectStore) -> None:
    records = open_records(home)
    owner = new_owner(records)
    withdrawn, kept = owner.press(AUTO, STUDIO)
    backup = backed_up(records, home)
    with records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(1)), AUTO, later(1))
        assert note(connection, objects) == 1
        assert note(connection, objects) == 0
    records.engine.dispose()
    records = restored(backup, home)
    with records.transaction() as connection:
        assert len(ledger.live_grants(connection)) == 2, "the backup really is older"
    ended = replay(records, objects, later(60))
    assert ended == [withdrawn.model_copy(update={"withdrawn_at": later(1)})]
    with records.transaction() as connection:
        assert ledger.live_grants(connection) == [kept]
    assert replay(records, objects, later(61)) == []
    with records.transaction() as connection:
        assert ledger.verify(connection) == 3
    (again,) = new_press(records, owner)
    assert replay(records, objects, later(99)) == [], "a later yes is another grant and stays"
    with records.transaction() as connection:
        assert again in ledger.live_grants(connection)


def test_what_somebody_wrote_as_a_reason_is_not_noted_outside_the_records(home: Settings, objects: ObjectStore) -> None:
    """The place is open to every role that opens the records, and nothing is ever deleted from it."""
    records = open_records(home)
    owner = new_owner(records)
    owner.press(AUTO)
    with records.transaction() as connection:
        asked = Refusal(owner.account_id, Method.OPERATOR, later(1), reason="asked by Jo Doe")
        ledger.withdraw(connection, asked, AUTO, later(1))
        assert note(connection, objects) == 1
    assert not any(b"Doe" in objects.read(each.key) for each in objects.walk(""))
    records.engine.dispose()


def new_press(records: Records, owner: Owner, industry: Industry = AUTO):
    return Owner(records, owner.account_id, owner.person_id, owner.act).press(industry, at=later(70))


def test_a_purge_survives_the_restore_of_an_older_database(home: Settings, objects: ObjectStore) -> None:
    records = open_records(home)
    owner = new_owner(records)
    batch_id = new_batch_id(NOON, lambda count: b"\1" * count)
    start = received_at(batch_id)
    stamp = Stamp(
        batch_id=batch_id,
        received_at=start,
        purge_at=later(60 * 23),
        industry=None,
        grant_id=None,
        options=CutoutOptions(),
    )
    with records.transaction() as connection:
        open_batch(connection, stamp, owner.account_id)
    backup = backed_up(records, home)
    with records.transaction() as connection:
        begin_erasures(connection, Erased.BATCH, {batch_id: (3, 300)}, later(5))
        finish_erasures(connection, {batch_id: later(60 * 24)}, later(5))
        assert note(connection, objects) == 1
        assert note(connection, objects) == 0, "what is noted is not written again"
    objects.write("purges/000000000002-0.json.partial-0", b'{"receipts": [')  # of a writer that was killed
    records.engine.dispose()
    records = restored(backup, home)
    replay(records, objects, later(10))
    with records.transaction() as connection:
        assert get_batch(connection, batch_id).purged_at == later(5)
        assert connection.execute(select(batches.c.state)).scalar() == "purged"


def test_a_purge_that_was_under_way_at_the_backup_gets_no_second_receipt(home: Settings, objects: ObjectStore) -> None:
    records = open_records(home)
    batch_id = new_batch_id(NOON, lambda count: b"\1" * count)
    with records.transaction() as connection:
        begin_erasures(connection, Erased.BATCH, {batch_id: (3, 300)}, later(5))
    backup = backed_up(records, home)
    with records.transaction() as connection:
        finish_erasures(connection, {batch_id: later(60 * 24)}, later(6))
        note(connection, objects)
    records.engine.dispose()
    records = restored(backup, home)
    replay(records, objects, later(60 * 30))
    with records.transaction() as connection:
        assert unfinished_erasures(connection, Erased.BATCH) == [], "of now, and so hours late, it would have been"


def test_an_unreadable_suppression_stops_the_start(home: Settings, objects: ObjectStore) -> None:
    records = open_records(home)
    (grant,) = new_owner(records).press(AUTO)
    objects.write(f"grants/{grant.grant_id}.json", b"{}")
    with pytest.raises(LedgerBroken):
        replay(records, objects, NOON)


def test_receipts_of_a_restored_database_are_noted_beside_the_older_ones(home: Settings, objects: ObjectStore) -> None:
    """Its receipts bear the same numbers as those that the backup did not know of: none may take another's place."""
    records = open_records(home)
    new_owner(records)
    backup = backed_up(records, home)
    subjects = [new_batch_id(NOON, Random(number).randbytes) for number in range(3)]
    for turn, subject in enumerate(subjects):
        if turn == 2:
            records.engine.dispose()
            records = restored(backup, home)
        with records.transaction() as connection:
            begin_erasures(connection, Erased.BATCH, {subject: (1, 1)}, later(turn))
            finish_erasures(connection, {subject: later(60)}, later(turn))
            assert note(connection, objects) == 1
    noted = [objects.read(f"purges/{name}").decode() for name in objects.files("purges")]
    assert all(sum(subject in text for text in noted) == 1 for subject in subjects)


def test_restored_records_read_and_write_no_note_of_what_they_know(home: Settings, objects: ObjectStore) -> None:
    """Of a year's there are 50,000: each command read all of them, and the next reconcile wrote them once more."""
    records = open_records(home)
    subjects = [new_batch_id(NOON, Random(number).randbytes) for number in range(3)]
    for turn, subject in enumerate(subjects):
        with records.transaction() as connection:
            begin_erasures(connection, Erased.BATCH, {subject: (1, 1)}, later(turn))
            finish_erasures(connection, {subject: later(60)}, later(turn))
            assert note(connection, objects) == 1
        if turn == 0:
            objects.write(f"purges/{objects.files('purges')[0]}", b"no json")  # who reads it says so
            backup = backed_up(records, home)
        if turn == 1:
            records.engine.dispose()
            records = restored(backup, home)
            replay(records, objects, later(turn))
    assert len(objects.files("purges")) == 3
    records.engine.dispose()


def test_a_second_restore_remembers_what_was_purged_since_the_first_one(home: Settings, objects: ObjectStore) -> None:
    """The first one took too old a backup: what is purged on it has a smaller number than what the later backup has."""
    records = open_records(home)
    owner = new_owner(records)
    subjects = [new_batch_id(NOON, Random(number).randbytes) for number in range(4)]
    for subject in subjects:
        start, options = received_at(subject), CutoutOptions()
        stamp = Stamp(
            batch_id=subject, received_at=start, purge_at=later(60), industry=None, grant_id=None, options=options
        )
        with records.transaction() as connection:
            open_batch(connection, stamp, owner.account_id)
    older = backed_up(records, home).rename(home.home.parent / "older.db")
    for turn, subject in enumerate(subjects):
        if turn == 3:
            newer = backed_up(records, home)
            records = restored(older, home)
        with records.transaction() as connection:
            begin_erasures(connection, Erased.BATCH, {subject: (1, 1)}, later(turn))
            finish_erasures(connection, {subject: later(60)}, later(turn))
            assert note(connection, objects) == 1
    records.engine.dispose()
    records = restored(newer, home)
    replay(records, objects, later(10))
    with records.transaction() as connection:
        assert get_batch(connection, subjects[3]).purged_at == later(3)
        assert note(connection, objects) == 0
    records.engine.dispose()


def test_a_file_of_another_name_among_the_notes_stops_a_start_as_one_that_cannot_be_read(
    home: Settings, objects: ObjectStore
) -> None:
    records = open_records(home)
    backup = backed_up(records, home)
    subject = new_batch_id(NOON, Random(1).randbytes)
    with records.transaction() as connection:
        begin_erasures(connection, Erased.BATCH, {subject: (1, 1)}, later(1))
        finish_erasures(connection, {subject: later(60)}, later(1))
        note(connection, objects)
    objects.write("purges/readme.json", b"{}")
    records.engine.dispose()
    records = restored(backup, home)
    with pytest.raises(LedgerBroken):
        replay(records, objects, later(10))
    records.engine.dispose()


def test_an_end_that_was_cut_off_is_found_and_stays_found(home: Settings, objects: ObjectStore) -> None:
    records = open_records(home)
    owner = new_owner(records)
    owner.press(AUTO)
    backup = backed_up(records, home)
    owner.press(STUDIO, at=later(1))
    with records.transaction() as connection:
        check_end(connection, objects)
        note(connection, objects)
        check_end(connection, objects)
    records.engine.dispose()
    records = restored(backup, home)
    with records.transaction() as connection:
        assert ledger.verify(connection) == 1, "the chain alone cannot tell"
    new_press(records, owner, Industry.PIPELINE)  # a second event again, but another one
    for _ in range(2):
        with records.transaction() as connection:
            note(connection, objects)
            with pytest.raises(LedgerBroken, match="Event 2"):
                check_end(connection, objects)
    with records.transaction() as connection:
        accept_end(connection, objects)
        check_end(connection, objects)
    records.engine.dispose()
    with restored(backup, home).transaction() as connection, pytest.raises(LedgerBroken, match="Event 2"):
        check_end(connection, objects)


def test_a_store_out_of_reach_costs_no_withdrawal(owner: Owner, home: Settings, objects: ObjectStore) -> None:
    owner.press(AUTO)
    with owner.records.transaction() as connection:
        ledger.withdraw_all(connection, owner.refusal(later(1)), later(1))
    folder = Path(home.suppressions_root)
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where the folder was")
    note_soon(owner.records, objects)
    folder.unlink()
    with owner.records.transaction() as connection:
        assert note(connection, objects) == 1, "the next reconcile makes up for it"


class Slow(ObjectStore):
    """While it takes, gives or lists objects, somebody else writes into the records."""

    def __init__(self, objects: ObjectStore, records: Records) -> None:
        super().__init__(objects.storage)
        self._records = records
        self.taken: list[str] = []
        self.given: list[str] = []

    def write(self, key: str, data: bytes) -> None:
        self._let_another_write(key, self.taken)
        super().write(key, data)

    def read(self, key: str) -> bytes:
        self._let_another_write(key, self.given)
        return super().read(key)

    def children(self, prefix: str) -> Children:
        self._let_another_write(prefix, self.given)
        return super().children(prefix)

    def _let_another_write(self, key: str, asked: list[str]) -> None:
        another = Thread(target=self._change, args=(key, asked), daemon=True)
        another.start()
        another.join(20)
        assert asked[-1:] == [key]

    def _change(self, key: str, asked: list[str]) -> None:
        with self._records.transaction():
            asked.append(key)


def test_nobody_waits_for_the_records_while_a_withdrawal_is_noted(
    home: Settings, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = open_parts(home, lambda: later(2))
    owner = new_owner(parts.records)
    slow = Slow(objects, parts.records)
    first, second = owner.press(AUTO, STUDIO)
    with parts.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(1)), AUTO, later(1))
    note_soon(parts.records, slow)
    assert slow.taken == [f"grants/{first.grant_id}.json"]
    with parts.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(1)), STUDIO, later(1))
    monkeypatch.setattr(reconciling, "open_suppressions", lambda _: slow)
    reconciling.reconcile(parts)
    assert slow.taken[1:] == ["ledger.json", f"grants/{second.grant_id}.json"]


def test_nobody_waits_for_the_records_while_the_store_is_asked_what_they_forgot(
    home: Settings, objects: ObjectStore
) -> None:
    records = open_records(home)
    owner = new_owner(records)
    (grant,) = owner.press(AUTO)
    subject = new_batch_id(NOON, Random(1).randbytes)
    backup = backed_up(records, home)
    with records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(1)), AUTO, later(1))
        erase_account(connection, owner.account_id, later(2))
        begin_erasures(connection, Erased.BATCH, {subject: (1, 1)}, later(3))
        finish_erasures(connection, {subject: later(60)}, later(3))
        note(connection, objects)
    records.engine.dispose()
    records = restored(backup, home)
    slow = Slow(objects, records)
    ended = replay(records, slow, later(60))
    assert ended == [grant.model_copy(update={"withdrawn_at": later(1)})]
    asked = {"purges.json", "purges", "grants", f"grants/{grant.grant_id}.json", f"accounts/{owner.account_id}.json"}
    assert asked <= set(slow.given)
    with records.reading() as connection:
        assert find_account_or_closed(connection, owner.account_id).closed_at == later(2)


def test_a_start_with_nothing_to_remember_waits_for_no_writer(owner: Owner, objects: ObjectStore) -> None:
    owner.press(AUTO)
    with owner.records.transaction() as connection:
        note(connection, objects)
        assert replay(owner.records, objects, later(1)) == []


def test_a_grant_that_is_given_while_withdrawals_are_noted_is_live_to_the_reconcile_that_follows(
    home: Settings, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = open_parts(home, lambda: later(2))
    owner = new_owner(parts.records)
    given, known = [], []
    monkeypatch.setattr(reconciling, "open_suppressions", lambda _: objects)
    monkeypatch.setattr(reconciling, "note", lambda *noted: (note(*noted), given.extend(owner.press(AUTO))))
    monkeypatch.setattr(reconciling, "reconcile_lake", lambda lake, records, live, ended, clock: known.extend(live))
    reconciling.reconcile(parts)
    assert known == [each.grant_id for each in given]


def test_suppressions_that_cannot_be_read_keep_nothing_in_the_lake_that_was_withdrawn(
    home: Settings, objects: ObjectStore
) -> None:
    parts = open_parts(home, lambda: later(2))
    owner = new_owner(parts.records)
    withdrawn, kept = owner.press(AUTO, STUDIO)
    with parts.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(later(1)), AUTO, later(1))
    for grant in (withdrawn, kept):
        file = file_key(Place(grant.industry, grant.grant_id), new_batch_id(later(2), Random(1).randbytes), "a" * 64)
        parts.lake.write(file, b"rows")
    objects.write("purges.json", b"no json")
    with pytest.raises(LedgerBroken):
        reconciling.reconcile(parts)
    assert [each.key.split("/")[1] for each in parts.lake.walk("")] == [f"grant={kept.grant_id}"]
    with parts.records.reading() as connection:
        assert [each.subject for each in list_receipts(connection)] == [withdrawn.grant_id]
    parts.records.engine.dispose()


def test_receipts_that_could_not_be_written_are_not_taken_for_written(home: Settings, objects: ObjectStore) -> None:
    records = open_records(home)
    subject = new_batch_id(NOON, Random(1).randbytes)
    with records.transaction() as connection:
        begin_erasures(connection, Erased.BATCH, {subject: (1, 1)}, NOON)
        finish_erasures(connection, {subject: later(60)}, NOON)
    in_its_way = Path(home.suppressions_root) / "purges"
    in_its_way.parent.mkdir()
    in_its_way.write_text("a file where the folder was")
    with records.transaction() as connection, pytest.raises(StoreFault):
        note(connection, objects)
    in_its_way.unlink()
    with records.transaction() as connection:
        assert note(connection, objects) == 1


def test_withdrawals_are_noted_on_both_databases(owner: Owner, objects: ObjectStore) -> None:
    owner.press(AUTO, STUDIO)
    with owner.records.transaction() as connection:
        ledger.withdraw_all(connection, owner.refusal(later(1)), later(1))
        assert note(connection, objects) == 2
    assert replay(owner.records, objects, later(2)) == []
