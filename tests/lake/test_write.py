"""A candidate file: one grant, one batch, the same bytes each time, and nobody's name in it."""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lake.write import write_candidates
from schemas.batch import Item, Manifest
from schemas.candidate import CANDIDATE, LICENCE
from schemas.errors import NotFound, StoreFault
from schemas.industries import Industry
from schemas.results import Scores
from store.transient.transient_store import TransientStore, mask_key, source_key
from tests.lake.conftest import World, a_photo, stamp_of
from tests.lake.test_strip import telling


def test_a_candidate_holds_what_is_known_of_it(world: World) -> None:
    grant = world.grant()
    facts = world.batch(grant, [a_photo(1), telling("JPEG", 6)])
    world.pass_time(minutes=5)
    file = world.write(facts)
    assert file.key == f"industry=automotive/grant={grant.grant_id}/{facts[0].batch_id}-{file.sha256[:12]}.parquet"
    data = world.lake.read(file.key)
    assert (file.rows, file.bytes, file.sha256) == (2, len(data), hashlib.sha256(data).hexdigest())
    table = pq.read_table(pa.BufferReader(data))
    assert table.column_names == CANDIDATE.names
    first, second = table.to_pylist()
    assert first["candidate_id"] == f"{facts[0].batch_id}-000001"
    assert (first["received_at"], first["admitted_at"]) == (facts[0].received_at, world.now)
    assert (first["width"], first["height"]) == (48, 32)
    assert (first["network"], first["device"], first["licence"]) == ("u2netp", "cpu", LICENCE)
    assert {name: first[name] for name in Scores.model_fields} == pytest.approx(facts[0].scores.model_dump())
    assert first["mask_png"] == world.transient.read(mask_key(facts[0].batch_id, 1))
    assert first["image_sha256"] == hashlib.sha256(first["image"]).hexdigest()
    assert b"Jane Doe" not in second["image"]


def test_writing_twice_is_writing_once(world: World) -> None:
    facts = world.batch(world.grant(), [a_photo(1), a_photo(2)])
    once = world.write(facts)
    before = world.lake.read(once.key)
    twice = write_candidates(world.lake, world.transient, facts[::-1], world.now)
    assert twice == once
    assert world.lake.read(once.key) == before
    assert world.keys() == [once.key]


def test_a_file_of_two_grants_or_two_batches_is_refused(world: World) -> None:
    grant = world.grant()
    facts = world.batch(grant, [a_photo(1)])
    for other in (
        replace(facts[0], grant_id=world.grant().grant_id),
        replace(facts[0], industry=Industry.STUDIO),
        world.batch(grant, [a_photo(2)])[0],
    ):
        with pytest.raises(ValueError, match="one batch, one grant"):
            world.write([*facts, other])
    assert world.keys() == []


def test_an_image_that_cannot_be_made_anonymous_is_left_out(world: World) -> None:
    facts = world.batch(world.grant(), [a_photo(1, kind="PPM"), a_photo(2)])
    file = world.write(facts)
    assert (file.rows, file.items) == (1, (1, 2))
    table = pq.read_table(pa.BufferReader(world.lake.read(file.key)))
    assert table["item"].to_pylist() == [2]


def erased(kind: str, left: str, mode: str = "RGBA", **options: object) -> bytes:
    """A photo whose upper half somebody erased. `left`: the colours that their program left there."""
    photo = Image.open(io.BytesIO(a_photo(1))).convert("L" if mode == "LA" else "RGB")
    upper = (0, 0, photo.width, photo.height // 2)
    if left == "one":
        photo.paste("green" if mode == "RGBA" else 0, upper)
    seen = Image.new("L", photo.size, 255)
    seen.paste(0, upper)
    photo.putalpha(seen)
    sink = io.BytesIO()
    photo.save(sink, kind, **options)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [("PNG", "RGBA", {}), ("PNG", "LA", {}), ("TIFF", "RGBA", {}), ("WEBP", "RGBA", {"lossless": True, "exact": True})],
)
def test_a_photo_with_colours_left_where_it_was_erased_is_left_out(
    world: World, kind: str, mode: str, options: dict[str, object]
) -> None:
    hiding, hides_nothing = (erased(kind, left, mode, **options) for left in ("many", "one"))
    file = world.write(world.batch(world.grant(), [hiding, hides_nothing, a_photo(2)]))
    assert pq.read_table(pa.BufferReader(world.lake.read(file.key)))["item"].to_pylist() == [2, 3]


def multiplied(tiff: bytes) -> bytes:
    """The same bytes, with colours that are said to be multiplied by alpha."""
    says = struct.pack("<HHIH", 338, 3, 1, 2)
    assert tiff.count(says) == 1
    return tiff.replace(says, says[:-2] + b"\1\0")


def test_a_tiff_whose_readers_pass_over_what_lies_under_the_transparent_is_left_out(world: World) -> None:
    whole = io.BytesIO()
    Image.open(io.BytesIO(a_photo(2))).convert("RGBA").save(whole, "TIFF")
    photos = [multiplied(each) for each in (erased("TIFF", "many"), whole.getvalue())]
    file = world.write(world.batch(world.grant(), photos))
    assert pq.read_table(pa.BufferReader(world.lake.read(file.key)))["item"].to_pylist() == [2]


def test_a_photo_that_its_owner_replaced_since_it_was_cut_is_left_out(world: World) -> None:
    grant = world.grant()
    facts = world.batch(grant, [a_photo(1), a_photo(2)])
    batch_id = facts[0].batch_id
    there = {"file:///1": a_photo(1), "file:///2": a_photo(2)}
    facts = [
        replace(each, source_sha256=hashlib.sha256(photo).hexdigest())
        for each, photo in zip(facts, there.values(), strict=True)
    ]
    items = tuple(
        Item(number=number, path=url[8:], size=len(there[url]), source=url) for number, url in enumerate(there, start=1)
    )
    world.transient.seal(Manifest(stamp=stamp_of(batch_id, world.now, grant), items=items))
    world.transient.objects.delete([source_key(batch_id, 1), source_key(batch_id, 2)])
    in_place = TransientStore(world.transient.objects, world.clock, there.__getitem__)
    assert write_candidates(world.lake, in_place, facts, world.now).rows == 2
    for other in (a_photo(3, (480, 320)), there["file:///1"][:-1] + b"\xd8"):  # of another size, and of the same
        there["file:///1"] = other
        file = write_candidates(world.lake, in_place, facts, world.now)
        table = pq.read_table(pa.BufferReader(world.lake.read(file.key)))
        assert table["item"].to_pylist() == [2], "its mask is of another photo"
    untold = [replace(each, source_sha256=None) for each in facts]
    assert write_candidates(world.lake, in_place, untold, world.now).rows == 0, "nobody knows which photo was cut"


def test_with_nothing_to_write_there_is_no_object(world: World) -> None:
    file = world.write(world.batch(world.grant(), [a_photo(1, kind="PPM")]))
    assert file.rows == 0
    assert world.keys() == []
    world.admit(file)


def test_a_mask_that_was_damaged_stops_the_writing(world: World) -> None:
    facts = world.batch(world.grant(), [a_photo(1)])
    world.transient.objects.write(mask_key(facts[0].batch_id, 1), b"")
    with pytest.raises(StoreFault, match="Run the batch again"):
        world.write(facts)
    assert world.keys() == []


def test_a_source_that_was_purged_stops_the_writing(world: World) -> None:
    facts = world.batch(world.grant(), [a_photo(1)])
    world.transient.objects.delete_folder("")
    with pytest.raises(NotFound):
        world.write(facts)
    assert world.keys() == []
