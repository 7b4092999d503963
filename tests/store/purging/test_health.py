from __future__ import annotations

import re
from datetime import datetime, timedelta
from errno import EIO
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import create_engine, select

import store.records.database
from schemas.clock import Clock
from schemas.errors import IntakeStopped
from store.objects.folder import Folder
from store.objects.object_store import ObjectStore
from store.objects.storage import Children
from store.purging.cleanup import Machine, admit_intake, clean_up
from store.purging.health import Health, measure_skew, metrics_text, oldest_byte, read_health, why_stop
from store.purging.purge import Due, PurgeReport, batch_is_due, is_due
from store.records.database import Records
from store.records.tables import accounts, cleanups
from store.settings import Settings
from store.transient.transient_store import hour_name, source_key
from tests.store.conftest import NOON, batch_at, deny, later, open_store, s3_of
from tests.store.purging.test_purge import put_batch, record

EMPTY = Health(None, 0, None, 0, timedelta(), 0)
SCHEDULED = Settings(cleanup_expected=True)


def machine(objects: ObjectStore, records: Records, now: datetime, real: Clock | None = None) -> Machine:
    return Machine(
        objects, records, timedelta(hours=23), lambda: now, real or objects.now, Random(now.ctime()).randbytes
    )


def clean(objects: ObjectStore, records: Records, now: datetime) -> PurgeReport:
    return clean_up(machine(objects, records, now))


@pytest.mark.parametrize(
    ("oldest", "last_good", "is_expected", "stops"),
    [
        (None, None, False, False),
        (None, None, True, True),
        (None, later(hours=-1), True, False),
        (None, later(hours=-1, minutes=-1), True, True),
        (None, later(hours=-99), False, False),
        (later(hours=-23, minutes=-29), NOON, True, False),
        (later(hours=-23, minutes=-30), NOON, True, True),
        (later(hours=-23, minutes=-30), NOON, False, True),
    ],
)
def test_intake_stops_when_what_comes_in_might_not_be_gone_in_time(
    oldest: datetime | None, last_good: datetime | None, is_expected: bool, stops: bool
) -> None:
    health = Health(oldest, 0, last_good, 0, timedelta(), 0)
    assert (why_stop(health, NOON, is_expected) is not None) is stops


def test_the_oldest_byte_is_read_off_its_path(objects: ObjectStore) -> None:
    assert oldest_byte(objects) is None
    for minutes in (50, 10, 70):
        put_batch(objects, batch_at(later(minutes=minutes)), 1)
    assert oldest_byte(objects) == later(minutes=10)
    objects.write("2026-11-25T12/stray", b"x")
    assert oldest_byte(objects) == NOON


def test_a_byte_without_a_name_is_one_all_the_same(versioned: ObjectStore) -> None:
    s3_of(versioned).call("put_object", Key=f"transient/{hour_name(NOON)}//stray", Body=b"x")
    assert oldest_byte(versioned) == NOON
    put_batch(versioned, batch_at(later(minutes=50)), 1)
    assert oldest_byte(versioned) == NOON


def test_each_cleanup_says_in_the_records_how_it_ended(objects: ObjectStore, records: Records) -> None:
    put_batch(objects, batch_at(NOON))
    report = clean(objects, records, later(hours=23))
    assert (report.objects, report.faults, report.oldest_at) == (3, [], None)
    with records.transaction() as connection:
        row = connection.execute(select(cleanups)).one()
        assert (row.finished_at, row.faults) == (later(hours=23), 0)
    health = read_health(objects, records, later(hours=23))
    assert health == Health(None, 0, later(hours=23), 0, timedelta(), 0)


def test_a_store_that_hangs_takes_no_connection_to_the_records(tmp_path: Path, records: Records) -> None:
    """Each opening of a batch asks both; a few that wait for the store would keep withdrawals from being recorded."""
    engine = create_engine(records.engine.url, pool_size=1, max_overflow=0, pool_timeout=0.5)
    only_one, seen = Records(engine), []

    class Hangs(ObjectStore):
        def children(self, prefix: str) -> Children:
            with only_one.reading() as connection:
                seen.append(connection.execute(select(accounts)).all())
            return super().children(prefix)

    slow = Hangs(Folder(str(tmp_path / "transient")))
    admit_intake(machine(slow, only_one, NOON), Settings())
    assert seen
    engine.dispose()


def test_a_cleanup_of_a_clock_that_was_ahead_hides_no_silence(objects: ObjectStore, records: Records) -> None:
    clean(objects, records, NOON)
    clean(objects, records, later(hours=24 * 30))
    health = read_health(objects, records, later(hours=2))
    assert health.last_good_at == NOON
    with pytest.raises(IntakeStopped, match="No cleanup came to a good end in the last hour"):
        admit_intake(machine(objects, records, later(hours=2)), SCHEDULED)


def test_a_cleanup_with_faults_is_no_good_cleanup(versioned: ObjectStore, records: Records) -> None:
    batch_id = batch_at(NOON)
    put_batch(versioned, batch_id)
    clean(versioned, records, later(hours=22, minutes=30))
    deny(versioned, f"arn:aws:s3:::{s3_of(versioned).bucket}/transient/{source_key(batch_id, 1)}")
    clean(versioned, records, later(hours=23))
    health = read_health(versioned, records, later(hours=23))
    assert health.last_good_at == later(hours=22, minutes=30)
    assert health.faults > 0
    assert health.oldest_at == NOON
    admit_intake(machine(versioned, records, later(hours=23)), SCHEDULED)
    for settings in (SCHEDULED, Settings()):
        with pytest.raises(IntakeStopped, match="bgbatch cleanup"):
            admit_intake(machine(versioned, records, later(hours=23, minutes=31)), settings)
    s3_of(versioned).call("delete_bucket_policy")
    clean(versioned, records, later(hours=23, minutes=40))
    admit_intake(machine(versioned, records, later(hours=23, minutes=41)), SCHEDULED)


def test_a_cleanup_whose_store_is_out_of_reach_says_so(
    objects: ObjectStore, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(EIO, "a bad disk")

    with monkeypatch.context() as broken:
        for name in ("now", "children", "find", "put"):
            broken.setattr(objects.storage, name, fail)
        report = clean_up(machine(objects, records, NOON, real=lambda: NOON))
    assert report.faults == ["store_fault"] * 3, "its clock, what is due and what is left could not be asked for"
    with records.transaction() as connection:
        assert connection.execute(select(cleanups.c.faults)).scalars().all() == [3]


def test_intake_cleans_up_what_the_records_forgot_where_nothing_else_does(
    objects: ObjectStore, records: Records
) -> None:
    put_batch(objects, batch_at(NOON))
    admit_intake(machine(objects, records, later(hours=22)), Settings())
    with records.transaction() as connection:
        assert connection.execute(select(cleanups)).first() is None, "nothing was due"
    admit_intake(machine(objects, records, later(hours=24)), Settings())
    assert oldest_byte(objects) is None


def test_intake_leaves_what_is_due_to_the_cleanups_that_are_expected(objects: ObjectStore, records: Records) -> None:
    put_batch(objects, batch_at(NOON))
    clean(objects, records, later(hours=22, minutes=30))
    admit_intake(machine(objects, records, later(hours=23, minutes=10)), SCHEDULED)
    assert oldest_byte(objects) == NOON


def test_the_records_say_for_90_days_what_each_cleanup_did(objects: ObjectStore, records: Records) -> None:
    for days in (0, 1, 90, 91):
        clean(objects, records, later(hours=24 * days))
    with records.transaction() as connection:
        told_of = set(connection.execute(select(cleanups.c.finished_at)).scalars())
    assert told_of == {later(hours=24 * days) for days in (1, 90, 91)}


def test_where_cleanups_are_expected_their_silence_stops_intake(objects: ObjectStore, records: Records) -> None:
    with pytest.raises(IntakeStopped):
        admit_intake(machine(objects, records, NOON), SCHEDULED)
    clean(objects, records, NOON)
    admit_intake(machine(objects, records, later(hours=1)), SCHEDULED)
    with pytest.raises(IntakeStopped):
        admit_intake(machine(objects, records, later(hours=1, minutes=1)), SCHEDULED)


def test_a_cleanup_that_fails_is_told_though_another_beside_it_does_well(
    objects: ObjectStore, records: Records
) -> None:
    """`upkeep` cleans up beside the one that needs nothing else: the alert waits for 20 minutes without a break."""
    truth = objects.now
    for minutes in range(0, 40, 10):
        clean_up(machine(objects, records, later(minutes=minutes), lambda: truth() - timedelta(minutes=6)), ["x"])
        clean(objects, records, later(minutes=minutes + 1))
        health = read_health(objects, records, later(minutes=minutes + 9))
        assert (health.faults, health.skew > timedelta(minutes=5)) == (1, True)
        assert health.last_good_at == later(minutes=minutes + 1)
    clean(objects, records, later(minutes=46))
    assert read_health(objects, records, later(minutes=46)).faults == 0


def test_what_falls_due_between_two_cleanups_is_not_overdue(objects: ObjectStore, records: Records) -> None:
    """Where batches come in all the time some always are, and the alert would ring without end."""
    for minutes in range(0, 30, 5):
        record(records, batch_at(later(minutes=minutes)), timedelta(hours=23))
    clean(objects, records, later(hours=23, minutes=10))
    health = read_health(objects, records, later(hours=23, minutes=25))
    assert health.overdue == 0, "of three that are due the oldest waits for ten minutes"
    assert read_health(objects, records, later(hours=23, minutes=35)).overdue == 1, "the cleanup did not come"


def test_where_nobody_runs_cleanups_intake_cleans_up_first(objects: ObjectStore, records: Records) -> None:
    batch_id = batch_at(NOON)
    put_batch(objects, batch_id)
    record(records, batch_id)
    admit_intake(machine(objects, records, later(hours=22)), Settings())
    assert objects.files(f"2026-11-25T12/{batch_id}/source") != []
    admit_intake(machine(objects, records, later(hours=40)), Settings())
    assert list(objects.walk("")) == []


def test_intake_deletes_first_what_a_customer_wants_gone_before_its_day(objects: ObjectStore, records: Records) -> None:
    batch_id = batch_at(NOON)
    put_batch(objects, batch_id)
    record(records, batch_id, timedelta(hours=2))
    admit_intake(machine(objects, records, later(hours=2)), Settings())
    assert list(objects.walk("")) == []


def test_a_clock_that_is_ahead_stops_intake_as_its_batches_would_live_for_too_long(
    objects: ObjectStore, records: Records
) -> None:
    truth, life, sent = objects.now, timedelta(hours=23), later(minutes=115)  # by a portal, at noon
    assert is_due(hour_name(sent), NOON, life) is Due.NO
    assert not batch_is_due(hour_name(sent), batch_at(sent), later(hours=24, minutes=50), life), "kept for over a day"
    with pytest.raises(IntakeStopped, match="clock"):
        admit_intake(machine(objects, records, NOON, lambda: truth() + timedelta(minutes=6)), Settings())
    admit_intake(machine(objects, records, NOON, lambda: truth() + timedelta(minutes=4)), Settings())
    admit_intake(machine(objects, records, NOON, lambda: truth() - timedelta(minutes=9)), Settings())


def test_skew_is_measured_against_the_real_clock(objects: ObjectStore) -> None:
    truth = objects.now

    assert abs(measure_skew(objects, truth)) < timedelta(minutes=1)
    slow = measure_skew(objects, lambda: truth() - timedelta(minutes=10))
    assert timedelta(minutes=9) < slow < timedelta(minutes=11)


def test_a_large_skew_is_told_and_hastens_the_purge(objects: ObjectStore, records: Records) -> None:
    put_batch(objects, batch_at(NOON))
    truth = objects.now
    report = clean_up(machine(objects, records, later(hours=22, minutes=55), lambda: truth() - timedelta(minutes=10)))
    assert report.skew > timedelta(minutes=9)
    assert report.objects == 3


def test_metrics_tell_ages_counts_and_times_as_prometheus_reads_them() -> None:
    health = Health(later(hours=-2), 3, later(minutes=-10), 1, timedelta(seconds=4), 0)
    text = metrics_text(health, NOON)
    assert "bgbatch_transient_oldest_age_seconds 7200.0\n" in text
    assert "bgbatch_purge_overdue_batches 3\n" in text
    assert f"bgbatch_cleanup_last_success_timestamp_seconds {later(minutes=-10).timestamp()}\n" in text
    names = set(re.findall(r"^# TYPE (\w+) gauge$", text, re.MULTILINE))
    assert len(names) == 6
    assert all(re.fullmatch(r"\w+ -?[0-9.e+]+", line) for line in text.splitlines() if not line.startswith("#"))
    assert "bgbatch_transient_oldest_age_seconds 0.0\n" in metrics_text(EMPTY, NOON)


def test_a_cleanup_takes_what_was_deleted_out_of_the_databases_own_files(
    tmp_path: Path, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.records.database, "_LOG_WAIT_SECONDS", 0)
    objects = open_store(str(tmp_path / "transient"), Settings(home=tmp_path))

    def is_on_disk() -> bool:
        return any(b"Smith & Sons" in file.read_bytes() for file in tmp_path.glob("records.db*"))

    name = {"account_id": "a" + "1" * 32, "name": "Smith & Sons", "created_at": NOON}
    with records.transaction() as connection:
        connection.execute(accounts.insert().values(name))
    with records.transaction() as connection:
        connection.execute(accounts.delete())
    assert is_on_disk(), "in the write-ahead log"
    with records.reading() as connection:
        connection.execute(select(accounts)).all()
        assert clean(objects, records, NOON).faults == []
    assert is_on_disk(), "somebody read: the next cleanup does it"
    assert clean(objects, records, later(minutes=10)).faults == []
    assert not is_on_disk()
