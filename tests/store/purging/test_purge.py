from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from errno import EIO
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from schemas.batch import BatchState, Stamp
from schemas.clock import Clock
from schemas.ids import AccountId, BatchId, received_at
from schemas.options import CutoutOptions
from schemas.receipt import Erased
from store.objects.object_store import ObjectStore
from store.objects.storage import Children, StoredObject
from store.purging.purge import Due, Purge, PurgeReport, batch_is_due, is_due, present
from store.purging.receipts import begin_erasures, list_receipts, verify_receipts
from store.records.batches import get_batch, hasten, open_batch
from store.records.database import Records
from store.records.tables import accounts, batches, erasures
from store.settings import Settings
from store.transient.transient_store import batch_prefix, hour_name, source_key
from tests.store.conftest import NOON, batch_at, begin_upload, deny, later, open_store, s3_of

DAY = timedelta(hours=23)
ACCOUNT = AccountId("a" + "0" * 32)


def at(moment: datetime) -> Clock:
    return lambda: moment


def purge(objects: ObjectStore, records: Records, now: datetime, skew: timedelta = timedelta()) -> PurgeReport:
    return Purge(objects, records, DAY, at(now), skew).run()


def put_batch(objects: ObjectStore, batch_id: BatchId, items: int = 3) -> None:
    for number in range(1, items + 1):
        objects.write(source_key(batch_id, number), b"12345")


def stamp_of(batch_id: BatchId, purge_after: timedelta = DAY) -> Stamp:
    moment = received_at(batch_id)
    return Stamp(
        batch_id=batch_id,
        received_at=moment,
        purge_at=moment + purge_after,
        industry=None,
        grant_id=None,
        options=CutoutOptions(),
    )


def record(records: Records, batch_id: BatchId, purge_after: timedelta = DAY) -> None:
    stamp = stamp_of(batch_id, purge_after)
    with records.transaction() as connection:
        if connection.execute(select(accounts)).first() is None:
            connection.execute(accounts.insert().values(account_id=ACCOUNT, name="Acme", created_at=NOON))
        open_batch(connection, stamp, ACCOUNT)


def keys(objects: ObjectStore) -> list[str]:
    return sorted(found.key for found in objects.walk(""))


@pytest.mark.parametrize(
    ("name", "now", "expected"),
    [
        ("2026-11-25T12", later(hours=22, minutes=59), Due.NO),
        ("2026-11-25T12", later(hours=23), Due.PARTLY),
        ("2026-11-25T12", later(hours=23, minutes=59), Due.PARTLY),
        ("2026-11-25T12", later(hours=24), Due.WHOLLY),
        ("2020-01-01T00", NOON, Due.WHOLLY),
        ("2026-11-25T13", NOON, Due.NO),
        ("2026-11-25T14", NOON, Due.WHOLLY),
        ("9999-12-31T23", NOON, Due.WHOLLY),
        ("2026-11-25", NOON, Due.WHOLLY),
        ("2026-11-25T12 ", NOON, Due.WHOLLY),
        ("lost+found", NOON, Due.WHOLLY),
    ],
)
def test_an_hour_is_due_by_its_name_alone(name: str, now: datetime, expected: Due) -> None:
    assert is_due(name, now, DAY) is expected


def test_a_batch_in_an_hour_that_is_partly_due_goes_by_its_own_age() -> None:
    early, late = batch_at(later(minutes=10)), batch_at(later(minutes=50))
    now = later(hours=23, minutes=30)
    assert batch_is_due("2026-11-25T12", early, now, DAY)
    assert not batch_is_due("2026-11-25T12", late, now, DAY)
    assert batch_is_due("2026-11-25T12", "not-a-batch", now, DAY)
    assert batch_is_due("2026-11-25T12", batch_at(later(hours=5)), now, DAY), "it lies in another hour than its own"


def test_a_wrong_clock_only_shortens_a_life() -> None:
    assert present(NOON, timedelta(minutes=10)) == later(minutes=10)
    assert present(NOON, timedelta(minutes=-10)) == NOON


def test_what_is_due_goes_and_what_lives_stays(objects: ObjectStore, records: Records) -> None:
    old, older, young = batch_at(later(minutes=10)), batch_at(later(hours=-3)), batch_at(later(minutes=50))
    for batch_id in (old, older, young):
        put_batch(objects, batch_id)
        record(records, batch_id)
    report = purge(objects, records, later(hours=23, minutes=30))
    assert {receipt.subject for receipt in report.receipts} == {old, older}
    assert all((receipt.objects, receipt.bytes, receipt.remaining) == (3, 15, 0) for receipt in report.receipts)
    assert (report.objects, report.bytes, report.strays, report.faults) == (6, 30, 0, [])
    assert {key.split("/")[1] for key in keys(objects)} == {young}
    with records.transaction() as connection:
        states = [get_batch(connection, batch_id).state for batch_id in (old, older, young)]
        assert states == [BatchState.PURGED, BatchState.PURGED, BatchState.OPEN]
        assert verify_receipts(list_receipts(connection)) == 2


def test_a_batch_of_more_objects_than_one_request_deletes_is_counted_whole(
    objects: ObjectStore, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects.storage, "MOST_AT_ONCE", 2)
    two = [batch_at(NOON), batch_at(later(minutes=1))]
    for batch_id in two:
        put_batch(objects, batch_id)
    report = purge(objects, records, later(hours=23, minutes=30))
    assert [(receipt.subject, receipt.objects, receipt.bytes) for receipt in report.receipts] == [
        (batch_id, 3, 15) for batch_id in two
    ]


def test_margin_is_counted_to_the_promised_24_hours(objects: ObjectStore, records: Records) -> None:
    batch_id = batch_at(NOON)
    put_batch(objects, batch_id)
    report = purge(objects, records, later(hours=23, minutes=15))
    assert report.receipts[0].margin_seconds == 45 * 60


def test_strays_go_at_once(objects: ObjectStore, records: Records) -> None:
    batch_id = batch_at(NOON)
    put_batch(objects, batch_id)
    for key in ("file", "tmp/deep/er/file", "2026-11-25T13/x", f"{hour_name(NOON)}/stray.txt", f"wrong/{batch_id}/1"):
        objects.write(key, b"x")
    report = purge(objects, records, later(minutes=1))
    assert {key.split("/")[0] for key in keys(objects)} == {"2026-11-25T12", "2026-11-25T13"}
    assert report.strays == 3
    purge(objects, records, later(hours=23))
    assert keys(objects) == ["2026-11-25T13/x"]
    report = purge(objects, records, later(hours=24))
    assert keys(objects) == []
    assert report.receipts == []


def test_a_consoles_mark_of_a_folder_goes_and_takes_nothing_with_it(versioned: ObjectStore, records: Records) -> None:
    """ "Create folder" writes an empty object at `folder/`; a slash too many makes a folder without a name."""
    hour = hour_name(NOON)
    due, living = batch_at(NOON), batch_at(later(minutes=50))

    def put_marks() -> None:
        for key in ("", "/", "/stray", f"/{hour}/{living}/stray", f"{hour}/", f"{hour}//stray"):
            s3_of(versioned).call("put_object", Key=f"transient/{key}", Body=b"x")
        begin_upload(versioned, "/half", b"x")

    put_batch(versioned, due)
    put_batch(versioned, living)
    put_marks()
    report = purge(versioned, records, later(minutes=55))
    assert (report.strays, report.faults, report.receipts) == (5, [], [])
    assert {key.split("/")[1] for key in keys(versioned)} == {due, living, ""}, "a living hour is not looked into"
    put_marks()
    report = purge(versioned, records, later(hours=23, minutes=30))
    assert {key.split("/")[1] for key in keys(versioned)} == {living}
    assert ([each.subject for each in report.receipts], report.faults) == ([due], [])


def test_a_purge_needs_no_records(objects: ObjectStore, records: Records) -> None:
    batch_id = batch_at(NOON)
    put_batch(objects, batch_id)
    record(records, batch_id)
    records.engine.dispose()
    broken = Records(_unreachable())
    report = purge(objects, broken, later(hours=23))
    assert keys(objects) == []
    assert report.objects == 3
    assert set(report.faults) == {"records_fault"}
    report = purge(objects, records, later(hours=23, minutes=10))
    assert [receipt.subject for receipt in report.receipts] == [batch_id], "the next run leaves the receipt"


def test_records_that_do_not_answer_are_not_waited_for_at_each_thousand_objects(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By ten seconds each, the photos of a large night were still there after their day."""
    monkeypatch.setattr(objects.storage, "MOST_AT_ONCE", 1)
    for minute in range(10):
        put_batch(objects, batch_at(later(minutes=minute)), items=1)
    report = purge(objects, Records(_unreachable()), later(hours=24))
    assert (keys(objects), report.objects) == ([], 10)
    at_notes, at_the_early_and_the_receipts = 3, 2
    assert report.faults == ["records_fault"] * (at_notes + at_the_early_and_the_receipts)


def test_a_batch_that_the_records_forgot_is_purged_with_a_receipt(objects: ObjectStore, records: Records) -> None:
    batch_id = batch_at(NOON)
    put_batch(objects, batch_id)
    report = purge(objects, records, later(hours=23))
    assert [(receipt.subject, receipt.objects) for receipt in report.receipts] == [(batch_id, 3)]


def test_an_empty_batch_gets_a_receipt_too(objects: ObjectStore, records: Records) -> None:
    batch_id = batch_at(NOON)
    record(records, batch_id)
    report = purge(objects, records, later(hours=23))
    assert [(receipt.subject, receipt.objects) for receipt in report.receipts] == [(batch_id, 0)]
    assert purge(objects, records, later(hours=23, minutes=10)).receipts == []


def test_a_late_write_is_swept_by_the_next_run(objects: ObjectStore, records: Records) -> None:
    batch_id = batch_at(NOON)
    put_batch(objects, batch_id)
    record(records, batch_id)
    purge(objects, records, later(hours=23))
    objects.write(source_key(batch_id, 9), b"late")
    report = purge(objects, records, later(hours=23, minutes=10))
    assert keys(objects) == []
    assert [(receipt.subject, receipt.objects) for receipt in report.receipts] == [(batch_id, 1)]


def test_a_run_that_was_killed_is_finished_by_the_next(objects: ObjectStore, records: Records) -> None:
    """Between noting and deleting, after half of the deletions, and after all of them but before the receipt."""
    batch_id = batch_at(NOON)
    record(records, batch_id)
    for left in (3, 1, 0):
        put_batch(objects, batch_id, left)
        with records.transaction() as connection:
            begin_erasures(connection, Erased.BATCH, {batch_id: (3, 15)}, later(hours=23))
        report = purge(objects, records, later(hours=23, minutes=10))
        assert [(receipt.objects, receipt.bytes) for receipt in report.receipts] == [(3, 15)]
        assert report.receipts[0].first_deletion == later(hours=23)
        assert keys(objects) == []


def test_two_cleanups_at_once_leave_one_receipt(objects: ObjectStore, records: Records) -> None:
    batch_id = batch_at(NOON)
    put_batch(objects, batch_id)
    record(records, batch_id)
    now = later(hours=23)
    receipts: list[int] = []
    walk_among = objects.walk_among

    def walk_then_be_overtaken(folder: str, names: list[str]):  # type: ignore[no-untyped-def]
        found = list(walk_among(folder, names))
        objects.walk_among = walk_among  # type: ignore[method-assign]
        receipts.append(len(purge(objects, records, now).receipts))
        return found

    objects.walk_among = walk_then_be_overtaken  # type: ignore[assignment,method-assign]
    receipts.append(len(purge(objects, records, now).receipts))
    assert receipts == [1, 0]
    with records.transaction() as connection:
        assert len(list_receipts(connection, batch_id)) == 1
        assert connection.execute(select(erasures)).first() is None


def test_a_batch_may_be_purged_early_and_is_watched_for_an_hour(objects: ObjectStore, records: Records) -> None:
    hasty, calm = batch_at(NOON), batch_at(NOON, seed=2)
    for batch_id in (hasty, calm):
        put_batch(objects, batch_id)
        record(records, batch_id)
    with records.transaction() as connection:
        hasten(connection, hasty, later(hours=1))
    report = purge(objects, records, later(hours=1))
    assert [receipt.subject for receipt in report.receipts] == [hasty]
    assert {key.split("/")[1] for key in keys(objects)} == {calm}
    objects.write(source_key(hasty, 1), b"late")
    purge(objects, records, later(hours=1, minutes=59))
    assert {key.split("/")[1] for key in keys(objects)} == {calm}


def test_a_batch_goes_early_from_an_hour_of_which_others_are_due(objects: ObjectStore, records: Records) -> None:
    batch_id = batch_at(later(minutes=50))
    put_batch(objects, batch_id)
    record(records, batch_id)
    now = later(hours=23, minutes=10)
    assert purge(objects, records, now).receipts == []
    with records.transaction() as connection:
        hasten(connection, batch_id, now)
    assert [receipt.subject for receipt in purge(objects, records, now).receipts] == [batch_id]
    assert keys(objects) == []


def test_a_listing_that_lags_makes_no_receipt(
    objects: ObjectStore, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A young batch of which a listing shows nothing yet: it goes, and gets its receipt, once it is listed."""
    batch_id = batch_at(NOON)
    put_batch(objects, batch_id)
    record(records, batch_id)
    with records.transaction() as connection:
        hasten(connection, batch_id, later(minutes=5))
    with monkeypatch.context() as lagging:
        lagging.setattr(objects.storage, "find", lambda prefix: iter(()))
        assert purge(objects, records, later(minutes=59)).receipts == []
    assert keys(objects) != []
    assert [receipt.subject for receipt in purge(objects, records, later(minutes=60)).receipts] == [batch_id]
    assert keys(objects) == []


def test_an_earlier_purge_time_counts_and_a_later_one_does_not(objects: ObjectStore, records: Records) -> None:
    early, late = batch_at(NOON), batch_at(NOON, seed=2)
    put_batch(objects, early)
    put_batch(objects, late)
    record(records, early, purge_after=timedelta(hours=2))
    record(records, late)
    with records.transaction() as connection:
        connection.execute(batches.update().where(batches.c.batch_id == late).values(purge_at=later(hours=99)))
    purge(objects, records, later(hours=2))
    assert {key.split("/")[1] for key in keys(objects)} == {late}
    purge(objects, records, later(hours=23))
    assert keys(objects) == [], "no record can make a batch live longer"


def test_a_store_ahead_of_this_machine_hastens_the_purge(objects: ObjectStore, records: Records) -> None:
    batch_id = batch_at(NOON)
    put_batch(objects, batch_id)
    now = later(hours=22, minutes=55)
    assert purge(objects, records, now).objects == 0
    assert purge(objects, records, now, skew=timedelta(minutes=-30)).objects == 0
    assert purge(objects, records, now, skew=timedelta(minutes=10)).objects == 3


def test_versions_markers_and_uploads_of_an_expired_hour_go(versioned: ObjectStore, records: Records) -> None:
    batch_id = batch_at(NOON)
    put_batch(versioned, batch_id)
    put_batch(versioned, batch_id)
    s3_of(versioned).call("delete_object", Key=f"transient/{source_key(batch_id, 1)}")
    gone = batch_at(later(minutes=1))
    begin_upload(versioned, source_key(gone, 1), b"12345")
    report = purge(versioned, records, later(hours=24))
    assert list(versioned.walk("")) == []
    assert {each.subject: (each.objects, each.bytes) for each in report.receipts} == {batch_id: (7, 30), gone: (1, 5)}


def test_a_denied_deletion_is_a_fault_without_a_receipt(
    versioned: ObjectStore, records: Records, caplog: pytest.LogCaptureFixture
) -> None:
    denied, other = batch_at(NOON), batch_at(later(minutes=1))
    put_batch(versioned, denied)
    put_batch(versioned, other)
    record(records, denied)
    deny(versioned, f"arn:aws:s3:::{s3_of(versioned).bucket}/transient/{source_key(denied, 2)}")
    report = purge(versioned, records, later(hours=24))
    assert keys(versioned) == [source_key(denied, 2)]
    assert "still_there" in report.faults
    (said,) = caplog.messages
    assert "1 object (AccessDenied)" in said, "the code alone tells nobody what to mend"
    assert report.refusals > 1, "it was tried again"
    assert (report.objects, report.bytes) == (5, 25), "what is still there counts for nothing"
    assert [receipt.subject for receipt in report.receipts] == [other]
    s3_of(versioned).call("delete_bucket_policy")
    report = purge(versioned, records, later(hours=24, minutes=10))
    assert [(receipt.subject, receipt.objects) for receipt in report.receipts] == [(denied, 3)]


def test_what_cannot_be_listed_keeps_nothing_else(
    objects: ObjectStore, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other, older = batch_at(NOON), batch_at(later(minutes=1)), batch_at(later(hours=-2))
    for batch_id in (stuck, other, older):
        put_batch(objects, batch_id)
        record(records, batch_id)

    def failing(look: Callable[..., Iterable[StoredObject]]) -> Callable[..., Iterator[StoredObject]]:
        def look_and_fail(*asked: object) -> Iterator[StoredObject]:
            for found in look(*asked):
                if found.key.startswith(batch_prefix(stuck)):
                    raise OSError(EIO, "a bad sector")
                yield found

        return look_and_fail

    with monkeypatch.context() as broken:
        for name in ("find", "find_among"):
            broken.setattr(objects.storage, name, failing(getattr(objects.storage, name)))
        report = purge(objects, records, later(hours=23, minutes=10))
    assert {receipt.subject for receipt in report.receipts} == {other, older}
    assert set(report.faults) == {"store_fault"}
    assert {key.split("/")[1] for key in keys(objects)} == {stuck}


def test_a_store_that_cannot_be_listed_at_all_is_a_fault_of_this_run(
    objects: ObjectStore, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(prefix: str) -> Children:
        raise OSError(EIO, "a bad disk")

    put_batch(objects, batch_at(NOON))
    with monkeypatch.context() as broken:
        broken.setattr(objects.storage, "children", fail)
        assert purge(objects, records, later(hours=23)).faults == ["store_fault"]
    assert purge(objects, records, later(hours=23, minutes=10)).faults == []
    assert keys(objects) == []


def test_living_hours_are_not_looked_into(objects: ObjectStore, records: Records) -> None:
    for hour in range(20):
        put_batch(objects, batch_at(later(hours=hour)), 1)
    looked: list[str] = []
    spied = {name: getattr(objects.storage, name) for name in ("children", "find")}

    def spy(name: str) -> Callable[[str], object]:
        return lambda prefix: (looked.append(prefix), spied[name](prefix))[1]

    for name in spied:
        setattr(objects.storage, name, spy(name))
    purge(objects, records, later(hours=22))
    assert looked == [""]


@pytest.mark.parametrize("batch_count", [2, 8])
def test_an_hour_that_is_partly_due_costs_no_request_per_batch(
    versioned: ObjectStore, records: Records, batch_count: int
) -> None:
    due = [batch_at(later(minutes=minute)) for minute in range(batch_count)]
    living = batch_at(later(minutes=50))
    for batch_id in (*due, living):
        put_batch(versioned, batch_id, 2)
        record(records, batch_id)
    s3, requests = s3_of(versioned), []
    call = s3.call
    s3.call = lambda method, **how: (requests.append(method), call(method, **how))[1]  # type: ignore[method-assign]
    report = purge(versioned, records, later(hours=23, minutes=30))
    s3.call = call  # type: ignore[method-assign]
    assert len(report.receipts) == batch_count
    assert {key.split("/")[1] for key in keys(versioned)} == {living}
    assert requests.count("delete_objects") == 1
    assert len(requests) == 1 + 2 * 5, "the top, the hour before, the hour and what is in it, the hour after"


def test_what_an_older_backup_brings_back_is_purged_again(tmp_path: Path, records: Records) -> None:
    """Somebody restores yesterday's bytes, and yesterday's records, in which the batch was never purged."""
    objects = open_store(str(tmp_path / "transient"), Settings(home=tmp_path))
    batch_id = batch_at(NOON)
    put_batch(objects, batch_id)
    record(records, batch_id)
    backup = sqlite3.connect(tmp_path / "backup.db")
    with closing(sqlite3.connect(tmp_path / "records.db")) as source:
        source.backup(backup)
    shutil.copytree(tmp_path / "transient", tmp_path / "bytes")
    assert [each.subject for each in purge(objects, records, later(hours=23)).receipts] == [batch_id]
    shutil.copytree(tmp_path / "bytes", tmp_path / "transient", dirs_exist_ok=True)
    report = purge(objects, records, later(hours=30))
    assert keys(objects) == []
    assert [(each.subject, each.objects) for each in report.receipts] == [(batch_id, 3)], "a second receipt says so"

    records.engine.dispose()
    for file in ("records.db-wal", "records.db-shm"):
        (tmp_path / file).unlink(missing_ok=True)
    with closing(backup), closing(sqlite3.connect(tmp_path / "records.db")) as target:
        backup.backup(target)
    shutil.copytree(tmp_path / "bytes", tmp_path / "transient", dirs_exist_ok=True)
    report = purge(objects, records, later(hours=40))
    assert keys(objects) == []
    assert [(each.subject, each.objects) for each in report.receipts] == [(batch_id, 3)]
    with records.transaction() as connection:
        assert get_batch(connection, batch_id).state is BatchState.PURGED
        assert verify_receipts(list_receipts(connection)) == 1, "of the restored chain"


def test_losing_the_begun_erasure_costs_the_count_alone(objects: ObjectStore, records: Records) -> None:
    batch_id = batch_at(NOON)
    put_batch(objects, batch_id)
    record(records, batch_id)
    with records.transaction() as connection:
        begin_erasures(connection, Erased.BATCH, {batch_id: (3, 15)}, later(hours=23))
        connection.execute(delete(erasures))
    objects.delete_folder(batch_prefix(batch_id))
    report = purge(objects, records, later(hours=23))
    assert [(receipt.subject, receipt.objects) for receipt in report.receipts] == [(batch_id, 0)]


def _unreachable():  # type: ignore[no-untyped-def]
    from sqlalchemy import create_engine

    return create_engine("postgresql+psycopg://nobody@127.0.0.1:9/none", connect_args={"connect_timeout": 1})


def test_a_key_that_would_lead_out_of_a_folder_goes_like_any_other(versioned: ObjectStore, records: Records) -> None:
    """On S3 two dots are two dots."""
    hour, due = hour_name(NOON), batch_at(NOON)
    put_batch(versioned, due)
    for key in ("../x", "..", "tmp/../../x", f"{hour}/../x", f"{hour}/{due}/../x"):
        s3_of(versioned).call("put_object", Key=f"transient/{key}", Body=b"x")
    report = purge(versioned, records, later(hours=24))
    assert keys(versioned) == []
    assert ([each.subject for each in report.receipts], report.faults) == ([due], [])
