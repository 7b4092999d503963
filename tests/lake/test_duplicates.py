"""The same image twice is marked, not lost; and so is one that only looks the same."""

from __future__ import annotations

import io
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from lake import duplicates
from lake.duplicates import NEAR_BITS, _nearest_first, mark_duplicates
from lake.pictures import perceptual_hash, rgb
from lake.strip import strip_metadata
from tests.lake.conftest import NOON, a_photo
from tests.lake.test_strip import KINDS, telling
from workers.decode import Limits, decode


def bits(one: str | None, other: str | None) -> int:
    assert one is not None
    assert other is not None
    return (int(one, 16) ^ int(other, 16)).bit_count()


def changed(photo: bytes, scale: float = 1.0, light: float = 1.0, quality: int = 90) -> bytes:
    with Image.open(io.BytesIO(photo)) as opened:
        size = (int(opened.width * scale), int(opened.height * scale))
        picture = ImageEnhance.Brightness(opened.resize(size)).enhance(light)
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def test_scaled_recompressed_and_lighter_copies_look_the_same() -> None:
    photo = a_photo(1, (640, 480))
    for copy in (changed(photo, 0.4), changed(photo, quality=40), changed(photo, light=1.1)):
        assert bits(perceptual_hash(photo), perceptual_hash(copy)) <= NEAR_BITS


def test_other_photos_do_not_look_the_same() -> None:
    hashes = [perceptual_hash(a_photo(seed, (640, 480))) for seed in range(40)]
    nearest = min(bits(one, other) for place, one in enumerate(hashes) for other in hashes[:place])
    assert nearest > 2 * NEAR_BITS


def test_the_hash_is_of_the_upright_image() -> None:
    upright = a_photo(1)
    for kind in ("PNG", "WEBP"):
        turned = perceptual_hash(telling(kind, 3))
        with Image.open(io.BytesIO(upright)) as opened:
            sink = io.BytesIO()
            opened.rotate(180).save(sink, "PNG")
        assert bits(turned, perceptual_hash(sink.getvalue())) <= NEAR_BITS
        assert bits(turned, perceptual_hash(upright)) > NEAR_BITS


def test_every_kind_of_image_decodes_upright() -> None:
    for kind in KINDS:
        image = strip_metadata(telling(kind, 6))
        assert image is not None
        pixels = rgb(image)
        expected = (32, 48, 3) if kind == "BMP" else (48, 32, 3)
        assert pixels.shape == expected, kind
    assert perceptual_hash(b"no image") is None


def sixteen_bits(seed: int, kind: str, scale: float = 65535) -> bytes:
    with Image.open(io.BytesIO(a_photo(seed))) as opened:
        grays = np.asarray(opened.convert("L")) * (scale / 255)
    sink = io.BytesIO()
    Image.fromarray(grays.astype(np.uint16 if scale == 65535 else np.float32)).save(sink, kind)
    return sink.getvalue()


@pytest.mark.parametrize(("kind", "scale"), [("PNG", 65535), ("TIFF", 65535), ("TIFF", 1.0), ("TIFF", 255.0)])
def test_photos_of_more_than_eight_bits_are_seen_as_they_were_when_their_masks_were_made(
    kind: str, scale: float
) -> None:
    one, other = (sixteen_bits(seed, kind, scale) for seed in (1, 2))
    image = strip_metadata(one)
    assert image is not None
    assert np.array_equal(rgb(image), decode(one, Limits(10**6, 10**6)).rgb)
    assert bits(perceptual_hash(one), perceptual_hash(other)) > NEAR_BITS


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_wrong_with_an_image_one_error_says_so(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = strip_metadata(telling(kind, 6))
    assert image is not None
    with pytest.raises(ValueError, match="decode"):
        rgb(image[: len(image) // 2])
    if kind != "JPEG":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(ValueError, match="decode"):
            rgb(image)


def labels(*rows: tuple[str, int, str, str | None]) -> pa.Table:
    """Each row: grant, minute of receipt, image hash, perceptual hash; the candidate's id is its place."""
    return pa.table(
        {
            "candidate_id": [f"c{place}" for place in range(len(rows))],
            "grant_id": [row[0] for row in rows],
            "received_at": pa.array([NOON + timedelta(minutes=row[1]) for row in rows], pa.timestamp("us", "UTC")),
            "image_sha256": [row[2] for row in rows],
            "phash": pa.array([row[3] for row in rows], pa.string()),
        }
    )


def test_the_first_received_is_the_original() -> None:
    marked = mark_duplicates(
        labels(
            ("g1", 5, "same", "00" * 8),
            ("g1", 1, "same", "00" * 8),
            ("g1", 2, "else", "00" * 7 + "07"),
            ("g1", 3, "far", "ff" * 8),
            ("g2", 9, "same", "00" * 8),
            ("g2", 8, "old", None),
        )
    )
    assert marked["duplicate_of"].to_pylist() == ["c1", None, None, None, None, None]
    assert marked["near_duplicate_of"].to_pylist() == ["c1", None, "c1", None, None, None]
    assert marked["candidate_id"].to_pylist() == [f"c{place}" for place in range(6)]


def test_nothing_has_no_duplicates() -> None:
    assert mark_duplicates(labels()).num_rows == 0


@given(st.lists(st.tuples(st.sampled_from(["g1", "g2"]), st.integers(0, 2**64 - 1), st.integers(0, 63)), max_size=60))
def test_near_means_at_most_so_many_bits(drawn: list[tuple[str, int, int]]) -> None:
    """The bands find exactly what comparing all with all finds; every drawn hash comes with a neighbour of it."""
    rows = []
    for grant, value, flips in drawn:
        neighbour = value
        for step in range(flips % 7):
            neighbour ^= 1 << (flips * step % 64)
        rows.append((grant, len(rows), f"s{len(rows)}", f"{value:016x}"))
        rows.append((grant, 99, f"t{len(rows)}", f"{neighbour:016x}"))
    marked = mark_duplicates(labels(*rows))
    order = sorted(range(len(rows)), key=lambda place: (rows[place][1], f"c{place}"))
    for position, place in enumerate(order):
        near = [
            f"c{earlier}"
            for earlier in order[:position]
            if rows[earlier][0] == rows[place][0] and bits(rows[earlier][3], rows[place][3]) <= NEAR_BITS
        ]
        expected = near[0] if near else None
        assert marked["near_duplicate_of"][place].as_py() == expected


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0, 0x0F0F, 0xFF00FF, 0xFFFF00000000FFFF, 2**64 - 1]))
def test_many_that_look_alike_are_searched_as_exactly(seed: int, varying: int) -> None:
    """Hashes that agree in most bits, as photos on white do: no band of fixed bits would tell them apart."""
    random = np.random.default_rng(seed)
    unique = np.unique(random.integers(0, 2**64, 600, np.uint64) & np.uint64(varying) | np.uint64(1 << 63))
    first = random.permutation(len(unique)).astype(np.int64)
    near = np.bitwise_count(unique[:, None] ^ unique[None, :]) <= NEAR_BITS
    expected = np.where(near, first[None, :], len(unique)).min(axis=1)
    assert _nearest_first(unique, first).tolist() == expected.tolist()


def test_many_rows_are_marked_without_comparing_all_with_all() -> None:
    random = np.random.default_rng(1)
    hashes = random.integers(0, 2**63, 20_000, dtype=np.uint64)
    rows = [("g", place, f"s{place}", f"{int(each):016x}") for place, each in enumerate([*hashes, *hashes[:100]])]
    marked = mark_duplicates(labels(*rows))
    assert marked["near_duplicate_of"].to_pylist()[20_000:] == [f"c{place}" for place in range(100)]


@pytest.mark.parametrize("varying", [0xFFFF, 0x00FF_FFFF, 2**64 - 1], ids=["16 bits", "24 bits", "all"])
def test_hashes_that_are_crafted_to_be_all_alike_cost_no_more_than_their_number(
    monkeypatch: pytest.MonkeyPatch, varying: int
) -> None:
    compare, compared = duplicates._compare, []

    def counted(unique, first, best, some, others) -> None:  # type: ignore[no-untyped-def]
        compared.append(len(some) * len(others))
        compare(unique, first, best, some, others)

    monkeypatch.setattr(duplicates, "_MOST", 512)
    monkeypatch.setattr(duplicates, "_compare", counted)
    random = np.random.default_rng(3)
    unique = np.unique(random.integers(0, 2**64, 8000, np.uint64) & np.uint64(varying))
    first = random.permutation(len(unique)).astype(np.int64)
    best = _nearest_first(unique, first)
    assert sum(compared) <= 512 * len(unique)

    near = np.bitwise_count(unique[:, None] ^ unique[None, :]) <= NEAR_BITS
    exact = np.where(near, first[None, :], len(unique)).min(axis=1)
    place_of = np.argsort(first)
    assert (np.bitwise_count(unique[place_of[best]] ^ unique) <= NEAR_BITS).all(), "nothing is called near that is not"
    assert (best == exact)[exact < 512].all(), "of what is near one of the first, the very first is told"
