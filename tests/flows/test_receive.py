"""What is noted of a batch as it comes in, and where."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import Connection

from flows import calling_off, steps
from flows.parts import open_parts
from flows.receive import seal, stamp_batch
from schemas.batch import BatchState, Item, Manifest
from schemas.clock import system_clock
from schemas.errors import BadOptions
from schemas.ids import BatchId
from schemas.options import CutoutOptions
from store.objects.object_store import ObjectStore
from store.records import batches, line
from store.records.batches import get_batch
from store.records.people import create_account
from store.transient.transient_store import TransientStore, batch_prefix, source_key
from tests.consent.postgres import current_database
from tests.flows.conftest import Place
from tests.records import at_home

ON_BRICK = CutoutOptions(bg_image="walls/brick.jpg")


def test_the_name_of_the_photo_behind_the_subjects_is_not_in_the_records_and_is_there_at_the_seal(place: Place) -> None:
    """The records are kept for years, and in backups; a photo's name is not."""
    parts = place.parts
    batch_id = stamp_batch(parts, place.account_id, None, ON_BRICK).batch_id
    items = [Item(number=number, path=path, size=1) for number, path in enumerate(("a.jpg", "walls/brick.jpg"), 1)]
    with parts.records.reading() as connection:
        known = get_batch(connection, batch_id).stamp
    for item in items:
        parts.transient.write(known, source_key(batch_id, item.number), b"x")
    seal(parts, known, items)
    assert parts.transient.manifest(batch_id).stamp.options == ON_BRICK
    records = parts.settings.home.glob("records.db*")
    assert not any(b"brick" in path.read_bytes() for path in records)


def test_a_batch_whose_background_was_named_before_an_upgrade_is_refused_in_words_that_help(place: Place) -> None:
    """Whoever is told to add the photo, which is there, tries in vain until the batch's day is over."""
    parts = place.parts
    batch_id = stamp_batch(parts, place.account_id, None, ON_BRICK).batch_id
    parts.transient.objects.delete([f"{batch_prefix(batch_id)}/backdrop"])
    with parts.records.reading() as connection:
        known = get_batch(connection, batch_id).stamp
    with pytest.raises(BadOptions, match="Open another batch"):
        seal(parts, known, [Item(number=1, path="walls/brick.jpg", size=1)])


def test_who_stood_still_before_the_seal_changes_nothing_of_a_batch_that_another_request_has_sealed(
    place: Place,
) -> None:
    """A request of one Idempotency-Key, asked again after minutes: the customer's place has other photos by then."""
    stamp = stamp_batch(place.parts, place.account_id, None, CutoutOptions())
    by_now = [Item(number=number, path=path, size=1) for number, path in enumerate(("a.jpg", "c.jpg"), 1)]
    seal(place.parts, stamp, by_now)
    by_then = [Item(number=number, path=path, size=1) for number, path in enumerate(("b.jpg", "c.jpg", "d.jpg"), 1)]
    seal(place.parts, stamp, by_then)
    assert place.parts.transient.manifest(stamp.batch_id).paths == ["a.jpg", "c.jpg"]


def test_a_list_whose_write_stands_still_while_another_request_seals_the_batch_counts_for_nothing(
    place: Place,
) -> None:
    """Workers would cut photos of one list by the numbers of another, and each would have a stranger's name."""
    parts, stamp = place.parts, stamp_batch(place.parts, place.account_id, None, CutoutOptions())
    ours, theirs = ([Item(number=1, path=path, size=1)] for path in ("a.jpg", "b.jpg"))

    class StandsStill(ObjectStore):
        stood = False

        def write(self, key: str, data: bytes) -> None:
            if not self.stood:
                self.stood = True
                seal(parts, stamp, theirs)
            super().write(key, data)

    slow = TransientStore(StandsStill(parts.transient.objects.storage), parts.clock)
    seal(replace(parts, transient=slow), stamp, ours)
    assert parts.transient.manifest(stamp.batch_id).paths == ["b.jpg"]


def test_a_batch_whose_sealer_dies_before_the_manifest_is_written_is_worked_on_all_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, stamp = place.parts, stamp_batch(place.parts, place.account_id, None, CutoutOptions())

    def dies(self: TransientStore, manifest: Manifest) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TransientStore, "seal", dies)
    with pytest.raises(KeyboardInterrupt):
        seal(parts, stamp, [Item(number=1, path="a.jpg", size=1)])
    with parts.records.reading() as connection:
        assert [each.batch_id for each in line.in_line(connection, parts.clock())] == [stamp.batch_id]
    assert steps.plan(parts, stamp.batch_id).shards == [(1,)]
    assert parts.transient.manifest(stamp.batch_id).paths == ["a.jpg"]


def test_no_guess_at_the_names_of_photos_can_be_tried_on_the_records(place: Place) -> None:
    """A hash of the list would outlive the photos, also in backups, and tell whether a guess is right."""
    stamp = stamp_batch(place.parts, place.account_id, None, CutoutOptions())
    manifest = Manifest(stamp=stamp, items=(Item(number=1, path="a.jpg", size=1),))
    names = {place.parts.transient.keep_list(manifest) for _ in range(2)}
    assert len(names) == 2


def test_nobody_waits_for_the_records_while_the_store_takes_that_name(place: Place) -> None:
    parts, waited = place.parts, []

    class Slow(ObjectStore):
        def write(self, key: str, data: bytes) -> None:
            def change() -> None:
                with parts.records.transaction():
                    waited.append(key)

            another = Thread(target=change)
            another.start()
            another.join(60)
            assert waited == [key]
            super().write(key, data)

    slow = TransientStore(Slow(parts.transient.objects.storage), parts.clock)
    stamp_batch(replace(parts, transient=slow), place.account_id, None, ON_BRICK)
    assert len(waited) == 1


def test_who_seals_a_batch_and_who_calls_it_off_do_not_wait_for_each_other_in_a_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = open_parts(at_home(tmp_path, records_url=current_database()), system_clock)
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    stamp = stamp_batch(parts, account_id, None, CutoutOptions())
    ended: list[str] = []

    def call_off() -> None:
        with parts.records.transaction() as connection:
            calling_off.call_off(connection, stamp.batch_id, parts.clock())
        ended.append("called off")

    other, sealed = Thread(target=call_off), batches.seal

    def meanwhile(connection: Connection, batch_id: BatchId, items: int, left_out: None) -> bool:
        is_new = sealed(connection, batch_id, items, left_out)
        other.start()
        other.join(0.5)  # it comes as far as it can
        return is_new

    monkeypatch.setattr(batches, "seal", meanwhile)
    seal(parts, stamp, [Item(number=1, path="a.jpg", size=1)])
    other.join(300)
    with parts.records.reading() as connection:
        assert (ended, get_batch(connection, stamp.batch_id).state) == (["called off"], BatchState.CANCELLED)
    parts.records.engine.dispose()
