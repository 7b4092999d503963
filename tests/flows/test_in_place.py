"""Photos that stay in their owner's place, from a live grant to the lake: only what was cut may be a candidate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import event, select

from consent import ledger
from flows import steps
from flows.parts import Parts, open_parts
from flows.receive import seal, stamp_batch
from lake.write import write_candidates
from portal.api.shapes import NewItem
from portal.intake import place
from portal.intake.addresses import items_of_addresses
from portal.intake.place import items_in_place
from schemas.batch import BatchState
from schemas.industries import Industry
from schemas.options import CutoutOptions
from schemas.results import Done, ShardReport
from store.outside import allowed
from store.outside.listing import OutsideFile, list_place
from store.records.batches import get_batch
from store.records.tables import admissions
from store.settings import Settings
from store.transient.transient_store import TransientStore, batch_prefix, open_transient
from tests.consent.conftest import NOON, Owner, new_owner
from tests.lake.conftest import a_photo
from tests.promise.world import StandInCutter
from tests.records import at_home
from workers.shard import process_shard

AUTO = Industry.AUTOMOTIVE


@dataclass(frozen=True)
class Dealer:
    """An owner whose photos lie in a folder of their own."""

    parts: Parts
    owner: Owner
    folder: Path

    def send(self, options: CutoutOptions | None = None) -> str:
        parts, account_id = self.parts, self.owner.account_id
        items, _ = items_in_place(parts, account_id, f"file://{self.folder}")
        stamp = stamp_batch(parts, account_id, AUTO, options or CutoutOptions())
        seal(parts, stamp, items)
        return stamp.batch_id

    def cut(self, batch_id: str, transient: TransientStore | None = None) -> None:
        parts = self.parts

        def run(batch_id, shards, clock, keep, stop) -> Iterator[ShardReport]:  # type: ignore[no-untyped-def]
            for shard in shards:
                here = transient or open_transient(parts.settings, clock)  # of each call, as in an actor
                yield process_shard(here, StandInCutter(), here.manifest(batch_id), shard, clock)  # type: ignore[arg-type]

        steps.cut(parts, steps.plan(parts, batch_id), run)

    def admit(self, batch_id: str) -> dict[int, bytes]:
        """What the lake holds of the batch afterwards: its images by item."""
        parts = self.parts

        def write(portions, admitted_at):  # type: ignore[no-untyped-def]
            for portion in portions:
                yield write_candidates(parts.lake, parts.transient, portion, admitted_at)

        steps.admit(parts, batch_id, write)
        with parts.records.reading() as connection:
            keys = connection.execute(select(admissions.c.key).where(admissions.c.batch_id == batch_id)).scalars().all()
        rows = [row for key in keys for row in pq.read_table(pa.BufferReader(parts.lake.read(key))).to_pylist()]
        return {row["item"]: row["image"] for row in rows}


@pytest.fixture
def dealer(tmp_path: Path) -> Iterator[Dealer]:
    folder = tmp_path / "catalog"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"{number}.jpg").write_bytes(photo(number))
    parts = open_parts(at_home(tmp_path / "home", shard_items=1), lambda: NOON)
    owner = new_owner(parts.records)
    owner.press(AUTO)
    with parts.records.transaction() as connection:
        allowed.allow(connection, owner.account_id, f"file://{folder}", NOON)
    yield Dealer(parts, owner, folder)
    parts.records.engine.dispose()


def photo(seed: int) -> bytes:
    """Each of the same size in bytes."""
    return a_photo(seed, (16, 16)).ljust(4096, b"\0")


def test_no_turn_begins_that_would_read_in_a_place_that_was_taken_back(dealer: Dealer) -> None:
    batch_id, parts = dealer.send(), dealer.parts
    with parts.records.transaction() as connection:
        assert allowed.disallow(connection, dealer.owner.account_id, f"file://{dealer.folder}")
    assert steps.plan(parts, batch_id).shards == []
    steps.finish(parts, batch_id)
    with parts.records.reading() as connection:
        assert get_batch(connection, batch_id).state is BatchState.CANCELLED
    with parts.records.transaction() as connection:
        allowed.allow(connection, dealer.owner.account_id, f"file://{dealer.folder}", NOON)
    assert steps.plan(parts, batch_id).shards == [(1,), (2,)], "run once more, it is as any other"


def test_a_photo_that_was_replaced_by_one_of_its_size_after_it_was_cut_does_not_get_into_the_lake(
    dealer: Dealer,
) -> None:
    batch_id = dealer.send()
    dealer.cut(batch_id)
    (dealer.folder / "1.jpg").write_bytes(photo(3))
    assert list(dealer.admit(batch_id)) == [2], "the first one's mask is of another photo"


def test_a_photo_that_was_replaced_before_it_was_cut_is_a_candidate_as_it_was_cut(dealer: Dealer) -> None:
    batch_id = dealer.send()
    (dealer.folder / "1.jpg").write_bytes(photo(3) + b"longer")
    dealer.cut(batch_id)
    assert list(dealer.admit(batch_id)) == [1, 2]


def test_a_report_without_hashes_is_read_and_puts_nothing_in_place_into_the_lake(dealer: Dealer) -> None:
    """Written by the version before: what it says of cutouts holds, what was cut nobody knows."""
    batch_id = dealer.send()
    dealer.cut(batch_id)
    objects = dealer.parts.transient.objects
    folder = f"{batch_prefix(batch_id)}/report"
    for name in objects.files(folder):
        report = json.loads(objects.read(f"{folder}/{name}"))
        assert len(report["results"][0].pop("source_sha256")) == 64
        objects.write(f"{folder}/{name}", json.dumps(report).encode())
    reports = dealer.parts.transient.reports(batch_id)
    assert all(isinstance(each, Done) for report in reports for each in report.results)
    assert dealer.admit(batch_id) == {}


def test_without_a_grant_no_hash_is_told_and_the_report_is_as_it_ever_was(dealer: Dealer) -> None:
    with dealer.parts.records.transaction() as connection:
        ledger.withdraw(connection, dealer.owner.refusal(), AUTO, NOON)
    batch_id = dealer.send()
    dealer.cut(batch_id)
    folder = f"{batch_prefix(batch_id)}/report"
    objects = dealer.parts.transient.objects
    assert all(b"source_sha256" not in objects.read(f"{folder}/{name}") for name in objects.files(folder))


def test_the_records_are_asked_as_often_for_many_photos_by_their_addresses_as_for_one(dealer: Dealer) -> None:
    asked: list[str] = []
    engine = dealer.parts.records.engine
    event.listen(engine, "before_cursor_execute", lambda *execute: asked.append(execute[2]), named=False)
    counts = []
    for many in (1, 20):
        asked.clear()
        wanted = [NewItem(url=f"file://{dealer.folder}/{number}.jpg", path=f"{number}.jpg") for number in range(many)]
        items = items_of_addresses(dealer.parts, dealer.owner.account_id, wanted)
        assert [item.source for item in items] == [each.url for each in wanted]
        counts.append(len(asked))
    assert counts[0] == counts[1]


def test_a_photo_in_a_folder_that_has_an_address_alone_is_called_by_its_path(dealer: Dealer) -> None:
    wanted = [NewItem(url=f"file://{dealer.folder}/1.jpg")]
    (item,) = items_of_addresses(dealer.parts, dealer.owner.account_id, wanted)
    assert f"/{item.path}" == f"{dealer.folder}/1.jpg"


def test_a_photo_that_a_server_lists_twice_is_one_photo(dealer: Dealer, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(url: str, settings: Settings) -> Iterator[OutsideFile]:
        for each in list_place(url, settings):
            yield from (each, each)

    monkeypatch.setattr(place, "list_place", twice)
    batch_id = dealer.send()
    assert [each.path for each in dealer.parts.transient.manifest(batch_id).items] == ["1.jpg", "2.jpg"]
