"""What a worker that was taken over by a photo writes and says puts nobody's photo into the lake."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import pytest
from sqlalchemy import select, update

from consent import ledger
from flows import reconciling, steps
from flows.admission import Write, admit_outputs
from flows.candidates import lake_of
from flows.cleaning import purge
from flows.lease import LeaseLost
from flows.parts import Parts, open_parts
from lake.audit import audit
from lake.layout import Place
from lake.strip import strip_metadata
from lake.write import LakeFile, write_candidates
from schemas.errors import NotFound, StoreFault
from schemas.ids import BatchId
from schemas.industries import Industry
from schemas.results import ShardReport
from store.objects.object_store import ObjectStore
from store.records import line
from store.records.batches import get_batch
from store.records.line import LEASE_LIFE
from store.records.tables import admissions, batches, consent_events, submissions
from store.transient.transient_store import manifest_key, source_key
from tests.batches import done, lay_out, send_folder
from tests.consent.conftest import NOON, Owner, new_owner
from tests.consent.postgres import current_database
from tests.consent.test_ledger import tampered
from tests.lake.conftest import a_photo
from tests.promise.world import StandInCutter
from tests.records import at_home
from workers.shard import process_shard

AUTO, STUDIO = Industry.AUTOMOTIVE, Industry.STUDIO


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = open_parts(at_home(tmp_path / "home"), lambda: NOON)
    yield parts
    parts.records.engine.dispose()


def send(parts: Parts, owner: Owner, folder: Path) -> BatchId:
    photos = lay_out(folder, {"1.jpg": a_photo(1, (16, 16)), "2.jpg": a_photo(2, (16, 16))})
    return send_folder(parts, owner.account_id, photos, AUTO).batch_id


def process(parts: Parts, batch_id: BatchId, said: Callable[[LakeFile], LakeFile] = lambda file: file) -> list[str]:
    """The reasons why nothing went into the lake. `said`: what the worker says of a file that it wrote."""
    cut(parts, batch_id)
    return sorted(steps.admit(parts, batch_id, writer(parts, said)).refusals)


def cut(parts: Parts, batch_id: BatchId) -> None:
    def run(batch_id, shards, clock, keep, stop) -> Iterator[ShardReport]:  # type: ignore[no-untyped-def]
        manifest = parts.transient.manifest(batch_id)
        for shard in shards:
            yield process_shard(parts.transient, StandInCutter(), manifest, shard, clock)  # type: ignore[arg-type]

    steps.cut(parts, steps.plan(parts, batch_id), run)


def writer(parts: Parts, said: Callable[[LakeFile], LakeFile] = lambda file: file) -> Write:
    def write(portions, admitted_at) -> Iterator[LakeFile]:  # type: ignore[no-untyped-def]
        for portion in portions:
            yield said(write_candidates(parts.lake, parts.transient, portion, admitted_at))

    return write


def admitted(parts: Parts) -> list[tuple[str, str]]:
    with parts.records.reading() as connection:
        return [tuple(row) for row in connection.execute(select(admissions.c.batch_id, admissions.c.grant_id))]  # type: ignore[misc]


def test_a_manifest_that_names_anothers_permission_puts_nothing_into_the_lake(parts: Parts, tmp_path: Path) -> None:
    generous, private = new_owner(parts.records), new_owner(parts.records, "Private")
    (grant,) = generous.press(AUTO)
    batch_id = send(parts, private, tmp_path / "photos")
    manifest = parts.transient.manifest(batch_id)
    forged = manifest.stamp.model_copy(update={"grant_id": grant.grant_id})
    text = manifest.model_copy(update={"stamp": forged, "items": tuple(manifest.items)}).model_dump_json()
    parts.transient.objects.write(manifest_key(batch_id), text.encode())
    assert process(parts, batch_id) == ["no_grant"]
    assert admitted(parts) == []
    assert list(parts.lake.walk("")) == []


def test_a_permission_of_another_account_is_none(parts: Parts, tmp_path: Path) -> None:
    generous, private = new_owner(parts.records), new_owner(parts.records, "Private")
    (grant,) = generous.press(AUTO)
    private.press(AUTO)
    batch_id = send(parts, private, tmp_path / "photos")
    with parts.records.transaction() as connection:
        connection.execute(update(batches).values(grant_id=grant.grant_id))
    assert process(parts, batch_id) == ["unknown_grant"]
    assert admitted(parts) == []


def test_a_withdrawal_while_a_file_is_being_written_keeps_it_out_of_the_lake(parts: Parts, tmp_path: Path) -> None:
    owner = new_owner(parts.records)
    owner.press(AUTO)
    batch_id = send(parts, owner, tmp_path / "photos")

    def taken_back_meanwhile(file: LakeFile) -> LakeFile:
        with parts.records.transaction() as connection:
            ledger.withdraw(connection, owner.refusal(), AUTO, NOON)
        return file

    assert process(parts, batch_id, taken_back_meanwhile) == ["withdrawn"]
    assert admitted(parts) == []
    assert list(parts.lake.walk("")) == []
    with parts.records.reading() as connection:
        assert get_batch(connection, batch_id).refusals == {"withdrawn": 2}


def test_a_damaged_ledger_puts_nothing_into_the_lake(parts: Parts, tmp_path: Path) -> None:
    owner = new_owner(parts.records)
    owner.press(AUTO)
    batch_id = send(parts, owner, tmp_path / "photos")
    with tampered(parts.records) as connection:
        connection.execute(update(consent_events).values(reason="x"))
    assert process(parts, batch_id) == ["ledger_unreadable"]
    assert admitted(parts) == []


def test_what_is_done_later_of_a_batch_follows_what_is_in_the_lake(parts: Parts, tmp_path: Path) -> None:
    owner = new_owner(parts.records)
    owner.press(AUTO)
    batch_id = send(parts, owner, tmp_path / "photos")
    cut(parts, batch_id)
    for offered, rows in (({1}, 1), ({1, 2}, 1), ({1, 2}, 0)):
        assert admit_outputs(parts, batch_id, offered, writer(parts)).rows == rows
    assert audit(lake_of(parts)).rows == 2


def test_many_cutouts_that_may_not_train_do_not_fill_the_memory(parts: Parts, tmp_path: Path) -> None:
    batch_id = send(parts, new_owner(parts.records), tmp_path / "photos")
    stamp = parts.transient.manifest(batch_id).stamp
    for first in range(1, 20_001, 100):
        results = tuple(done(number, NOON) for number in range(first, first + 100))
        parts.transient.write_report(stamp, ShardReport(first=first, last=first + 99, results=results))
    tracemalloc.start()
    try:
        refusals = steps.admit(parts, batch_id, writer(parts)).refusals
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusals == {"no_grant": 20_000}
    assert most < 20e6, "a kilobyte a photo"


def test_a_batch_that_is_purged_while_it_is_offered_is_said_to_be_gone(parts: Parts, tmp_path: Path) -> None:
    owner = new_owner(parts.records)
    owner.press(AUTO)
    batch_id = send(parts, owner, tmp_path / "photos")
    cut(parts, batch_id)

    def slow() -> datetime:
        purge(replace(parts, clock=lambda: NOON + timedelta(hours=24)))
        return NOON

    with pytest.raises(NotFound, match="purged"):
        steps.admit(replace(parts, clock=slow), batch_id, writer(parts))
    assert admitted(parts) == []


@pytest.mark.parametrize("wrong", ["grant", "industry", "key", "batch"])
def test_a_file_that_a_worker_wrote_for_another_permission_is_not_admitted(
    parts: Parts, tmp_path: Path, wrong: str
) -> None:
    owner, other = new_owner(parts.records), new_owner(parts.records, "Other")
    (grant,), (theirs,) = owner.press(AUTO), other.press(AUTO)
    batch_id, another = (send(parts, owner, tmp_path / name) for name in ("one", "two"))
    name = "x" * 12

    def said(file: LakeFile) -> LakeFile:
        place = {
            "grant": Place(AUTO, theirs.grant_id),
            "industry": Place(STUDIO, grant.grant_id),
            "key": Place(AUTO, grant.grant_id),
            "batch": Place(AUTO, grant.grant_id),
        }[wrong]
        moved = replace(file, industry=place.industry, grant_id=place.grant_id, key=f"{place.prefix}/{name}.parquet")
        if wrong == "key":
            moved = replace(moved, key=f"{Place(AUTO, theirs.grant_id).prefix}/{name}.parquet")
        if wrong == "batch":
            moved = replace(moved, batch_id=another)
        parts.lake.write(moved.key, parts.lake.read(file.key))
        return moved

    with pytest.raises(StoreFault, match="another permission"):
        process(parts, batch_id, said)
    assert admitted(parts) == []


class LateStore(ObjectStore):
    """A lake whose writer stands still before its bytes come."""

    def __init__(self, lake: ObjectStore) -> None:
        super().__init__(lake.storage)
        self.reached, self.go_on = Event(), Event()

    def write(self, key: str, data: bytes) -> None:
        self.reached.set()
        assert self.go_on.wait(300)
        super().write(key, data)


@pytest.mark.parametrize("stands_still", ["before its bytes come", "before it offers them"])
@pytest.mark.parametrize("records_on", ["sqlite", "postgresql"])
def test_a_worker_that_was_taken_over_while_it_wrote_changes_nothing_in_the_lake(
    tmp_path: Path, records_on: str, stands_still: str
) -> None:
    """Two workers at once on one batch, whose first photo is another by the time that the second reads it."""
    url = "" if records_on == "sqlite" else current_database()
    now = [NOON]
    parts = open_parts(at_home(tmp_path / "home", records_url=url), lambda: now[0])
    owner = new_owner(parts.records)
    owner.press(AUTO)
    batch_id = send(parts, owner, tmp_path / "photos")
    late = LateStore(parts.lake)
    first = replace(parts, holder="first", lake=late if stands_still == "before its bytes come" else parts.lake)
    second = replace(parts, holder="second")
    claim(parts, batch_id, "first")
    outcome: list[Exception] = []

    def offered(file: LakeFile) -> LakeFile:
        if stands_still == "before it offers them":
            late.reached.set()
            assert late.go_on.wait(300)
        return file

    def work() -> None:
        try:
            process(first, batch_id, offered)
        except LeaseLost as lost:
            outcome.append(lost)

    working = Thread(target=work)
    working.start()
    assert late.reached.wait(300)
    now[0] += LEASE_LIFE
    claim(parts, batch_id, "second")
    parts.transient.objects.write(source_key(batch_id, 1), a_photo(3, (16, 16)))
    assert process(second, batch_id) == []
    late.go_on.set()
    working.join(300)
    assert [type(each) for each in outcome] == [LeaseLost]
    lake = lake_of(parts)
    assert audit(lake).faults == []
    hashes = {each["item"]: each["image_sha256"] for each in lake.labels(AUTO, ("item", "image_sha256")).to_pylist()}
    expected = strip_metadata(a_photo(3, (16, 16)))
    assert expected is not None
    assert hashes[1] == hashlib.sha256(expected).hexdigest(), "what the second read"
    (admitted_key,) = [each.key for each in lake.snapshot(AUTO).files]
    assert len(list(parts.lake.walk(""))) == 2, "what the first wrote lies beside it, and is no candidate"
    now[0] += timedelta(hours=23)
    reconciling.reconcile(parts)
    assert [each.key for each in parts.lake.walk("")] == [admitted_key]
    parts.records.engine.dispose()


def test_who_was_taken_over_before_it_has_a_file_admits_none_and_says_nothing_of_refusals(
    parts: Parts, tmp_path: Path
) -> None:
    owner = new_owner(parts.records)
    owner.press(AUTO)
    batch_id = send(parts, owner, tmp_path / "photos")
    claim(parts, batch_id, "first")
    first = replace(parts, holder="first")

    def taken_over(file: LakeFile) -> LakeFile:
        with parts.records.transaction() as connection:
            connection.execute(update(submissions).values(lease_holder="second"))
        return file

    with pytest.raises(LeaseLost):
        process(first, batch_id, taken_over)
    assert admitted(parts) == []
    with parts.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(), AUTO, NOON)
    assert process(replace(parts, holder="second"), batch_id) == ["withdrawn"]
    with pytest.raises(LeaseLost):
        admit_outputs(first, batch_id, set(), lambda portions, admitted_at: iter(()))
    with parts.records.reading() as connection:
        assert get_batch(connection, batch_id).refusals == {"withdrawn": 2}


def claim(parts: Parts, batch_id: BatchId, holder: str) -> None:
    with parts.records.transaction() as connection:
        assert line.claim(connection, batch_id, holder, parts.clock())
