"""What is noted of a batch as it comes in, and where."""

from __future__ import annotations

from dataclasses import replace
from threading import Thread

from flows.receive import seal, stamp_batch
from schemas.batch import Item
from schemas.options import CutoutOptions
from store.batches import get_batch
from store.objects import ObjectStore
from store.transient import TransientStore, source_key
from tests.flows.conftest import Place

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


def test_nobody_waits_for_the_records_while_the_store_takes_that_name(place: Place) -> None:
    parts, waited = place.parts, []

    class Slow(ObjectStore):
        def write(self, key: str, data: bytes) -> None:
            def change() -> None:
                with parts.records.transaction():
                    waited.append(key)

            another = Thread(target=change)
            another.start()
            another.join(5)
            assert waited == [key]
            super().write(key, data)

    slow = TransientStore(Slow(parts.transient.objects.storage), parts.clock)
    stamp_batch(replace(parts, transient=slow), place.account_id, None, ON_BRICK)
    assert len(waited) == 1
