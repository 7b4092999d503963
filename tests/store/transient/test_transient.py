"""A photo is read where it lies: the batch's own, fetched once, and in place the very one that was cut."""

from __future__ import annotations

from hashlib import sha256

import pytest

from schemas.batch import DAMAGED_IN_ZIP, UNREAD, Item, Manifest, Stamp
from schemas.errors import BatchNotSealed, DamagedInZip, NotFound, SourceMissing, StoreFault, Unreadable
from store.objects.object_store import ObjectStore
from store.transient.transient_store import TransientStore, is_in_place, manifest_key, source_key, uploaded_key
from tests.store.conftest import NOON, batch_at, stamp

pytestmark = pytest.mark.parametrize("objects", ["folder"], indirect=True)


class Outside:
    """What lies elsewhere, by address, and what was asked for."""

    def __init__(self, **lying: bytes) -> None:
        self.lying = {f"file:///{name}": data for name, data in lying.items()}
        self.asked: list[str] = []

    def __call__(self, source: str) -> bytes:
        self.asked.append(source)
        if source not in self.lying:
            raise NotFound("There is no such object.")
        return self.lying[source]


def sealed(transient: TransientStore, seed: int, *sources: str) -> Manifest:
    items = tuple(Item(number=n, path=f"{n}.jpg", size=1, source=source) for n, source in enumerate(sources, start=1))
    own: Stamp = stamp().model_copy(update={"batch_id": batch_at(NOON, seed)})
    manifest = Manifest(stamp=own, items=items)
    transient.seal(manifest)
    return manifest


def test_a_photo_that_has_an_address_is_fetched_once_and_only_to_be_cut(objects: ObjectStore) -> None:
    outside, address = Outside(), "https://photos.example/1.jpg"
    outside.lying[address] = b"pixels"
    transient = TransientStore(objects, lambda: NOON, outside)
    manifest = sealed(transient, 1, address)
    with pytest.raises(NotFound):
        transient.source_of(manifest.stamp.batch_id, 1, None)
    assert outside.asked == []
    assert [transient.source(manifest.stamp, manifest.items[0]) for _ in range(2)] == [b"pixels"] * 2
    assert transient.source_of(manifest.stamp.batch_id, 1, None) == b"pixels"
    assert outside.asked == [address]


def test_a_photo_in_place_stays_there_and_is_the_one_that_was_cut(objects: ObjectStore) -> None:
    transient = TransientStore(objects, lambda: NOON, Outside(one=b"one", other=b"other"))
    batches = [sealed(transient, 1, "file:///one").stamp.batch_id, sealed(transient, 2, "file:///other").stamp.batch_id]
    for _ in range(2):
        for batch_id, data in zip(batches, (b"one", b"other"), strict=True):
            assert transient.source_of(batch_id, 1, sha256(data).hexdigest()) == data
    for of_another in (sha256(b"other").hexdigest(), None):
        with pytest.raises(SourceMissing):
            transient.source_of(batches[0], 1, of_another)
    assert {found.key for found in objects.walk("")} == {manifest_key(each) for each in batches}


@pytest.mark.parametrize("source", ["upload:token", ""])
def test_what_a_request_that_was_slower_than_the_seal_put_in_a_photos_place_is_not_what_was_cut(
    objects: ObjectStore, source: str
) -> None:
    """Else the lake would hold one photo with the mask of another."""
    transient = TransientStore(objects, lambda: NOON)
    manifest = sealed(transient, 1, source)
    batch_id = manifest.stamp.batch_id
    key = uploaded_key(batch_id, "token") if source else source_key(batch_id, 1)
    transient.write(manifest.stamp, key, b"as it was cut")
    cut = sha256(transient.source(manifest.stamp, manifest.items[0])).hexdigest()
    assert transient.source_of(batch_id, 1, cut) == b"as it was cut"
    transient.write(manifest.stamp, key, b"by a slow request")
    with pytest.raises(SourceMissing):
        transient.source_of(batch_id, 1, cut)


def test_what_is_nowhere_is_told_by_what_became_of_it(objects: ObjectStore) -> None:
    outside = Outside()
    transient = TransientStore(objects, lambda: NOON, outside)
    manifest = sealed(transient, 1, "", "file:///gone", "upload:token", DAMAGED_IN_ZIP, UNREAD)
    told = (SourceMissing, SourceMissing, SourceMissing, DamagedInZip, Unreadable)
    for item, error in zip(manifest.items, told, strict=True):
        with pytest.raises(error):
            transient.source(manifest.stamp, item)
    with pytest.raises(NotFound):
        transient.source_of(manifest.stamp.batch_id, 1, None)
    transient.write(manifest.stamp, uploaded_key(manifest.stamp.batch_id, "token"), b"pixels")
    assert transient.source(manifest.stamp, manifest.items[2]) == b"pixels"
    assert transient.source_of(manifest.stamp.batch_id, 3, None) == b"pixels", "of a report that tells no hash"
    transient.write(manifest.stamp, source_key(manifest.stamp.batch_id, 1), b"others")
    assert transient.source(manifest.stamp, manifest.items[0]) == b"others"
    assert set(outside.asked) == {"file:///gone"}
    assert [is_in_place(item) for item in manifest.items] == [False, True, False, False, False]


def test_a_batch_without_its_manifest_was_not_sealed_and_a_damaged_one_is_a_fault(objects: ObjectStore) -> None:
    transient = TransientStore(objects, lambda: NOON)
    with pytest.raises(BatchNotSealed):
        transient.manifest(stamp().batch_id)
    with pytest.raises(NotFound):
        transient.source_of(stamp().batch_id, 1, None)
    for damaged in (b"", b'{"stamp":', b'{"stamp":{},"items":[{}]}'):
        transient.write(stamp(), manifest_key(stamp().batch_id), damaged)
        with pytest.raises(StoreFault, match="damaged"):
            transient.manifest(stamp().batch_id)
