"""What tells about people goes; every pixel, the orientation and the colour profile stay."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pillow_heif
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from lake.strip import isobmff, strip_metadata
from tests.lake.conftest import a_photo
from tests.workers.images import corners, png_chunk, saved
from workers.decode import Limits, decode

SECRETS = (b"Jane Doe", b"SN-4711", b"52,5200", b"maker-note-secret", b"com.example.app")
KINDS = ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "HEIF", "AVIF", "JXL"]
STARTS = [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBP", b"II*\0", b"MM\0*", b"\0\0\0\x0cftyp", b"BM"]


def a_screens_profile(more_words: bytes = b"") -> bytes:
    """Wide colours, and what programs that measure screens put beside them: words, and the screen's serial number."""
    plain = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", plain, 128)
    entries = [bytearray(plain[at : at + 12]) for at in range(132, 132 + 12 * count, 12)]
    (red,) = [struct.unpack_from(">I", entry, 4)[0] for entry in entries if entry.startswith(b"rXYZ")]
    struct.pack_into(">3i", plain, red + 8, 33750, 15806, -68)
    words = "Jane Doe".encode("utf-16-be")
    more = {
        b"desc": b"mluc" + struct.pack(">III", 0, 1, 12) + b"enUS" + struct.pack(">II", len(words), 28) + words,
        b"mmod": b"mmod" + bytes(4) + b"SN-4711\0",
        b"meta": b"dict" + bytes(4) + b"Jane Doe" + more_words,
        b"calt": b"dtim" + bytes(4) + b"52,5200\0",
    }
    entries = [entry for entry in entries if not entry.startswith(b"desc")]
    moved = 12 * (len(entries) + len(more) - count)
    for entry in entries:
        struct.pack_into(">I", entry, 4, struct.unpack_from(">I", entry, 4)[0] + moved)
    data = bytes(plain[132 + 12 * count :])
    for tag, value in more.items():
        entries.append(bytearray(tag + struct.pack(">II", 132 + 12 * count + moved + len(data), len(value))))
        data += value
    plain[48:56] = b"Jane Doe"
    body = bytes(plain[4:128]) + struct.pack(">I", len(entries)) + b"".join(entries) + data
    return struct.pack(">I", 4 + len(body)) + body


PROFILE = a_screens_profile()


def colours_by(profile: bytes) -> Sequence[Sequence[int]]:
    """Some colours as this profile wants them seen."""
    image = Image.fromarray(np.arange(0, 768, dtype=np.uint16).astype(np.uint8).reshape(16, 16, 3))
    target = ImageCms.createProfile("sRGB")
    return np.asarray(ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), target)).tolist()


def telling_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x013B] = "Jane Doe"
    exif[0x9C9B] = b"J\0a\0n\0e\0"
    deeper = exif.get_ifd(0x8769)
    deeper[0xA431] = "SN-4711"
    deeper[0x927C] = b"maker-note-secret"
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[29] = "N", (52.0, 31.0, 12.0), "52,5200"
    return exif.tobytes()


def telling(kind: str, orientation: int) -> bytes:
    if kind == "TIFF":
        return telling_tiff(orientation)
    if kind == "BMP":
        return a_photo(1, kind=kind) + b"Jane Doe"
    options: dict[str, object] = {"exif": telling_exif(orientation), "icc_profile": PROFILE}
    if kind == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Author", "Jane Doe")
        texts.add_itxt("XML:com.adobe.xmp", "<x>com.example.app</x>")
        options["pnginfo"] = texts
    else:
        options["xmp"] = b"<x>com.example.app</x>"
    if kind in ("HEIF", "AVIF", "JXL"):
        options["quality"] = 90
    if kind == "JPEG":
        options["comment"] = b"Jane Doe"
    return a_photo(1, kind=kind, **options)


def telling_tiff(orientation: int) -> bytes:
    """With a second page, an EXIF and a GPS directory, texts, and bytes that nothing points to."""
    plain = a_photo(1, kind="TIFF", compression="tiff_lzw", icc_profile=PROFILE, tiffinfo={274: orientation})
    start = int.from_bytes(plain[4:8], "little")
    count = int.from_bytes(plain[start : start + 2], "little")
    entries = plain[start + 2 : start + 2 + 12 * count]

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        return struct.pack("<HHII", tag, kind, count, value)

    artist_at = len(plain)
    exif_at = artist_at + len(b"Jane Doe\0")
    exif = struct.pack("<H", 1) + entry(0x927C, 7, 17, exif_at + 18) + bytes(4) + b"maker-note-secret"
    directory_at = exif_at + len(exif)
    extra = [entry(315, 2, 9, artist_at), entry(34665, 4, 1, exif_at)]
    every = sorted(
        [entries[at : at + 12] for at in range(0, len(entries), 12)] + extra, key=lambda each: each[:2][::-1]
    )
    directory = struct.pack("<H", len(every)) + b"".join(every) + struct.pack("<I", start)
    tail = b"Jane Doe\0" + exif + directory + b"SN-4711"
    return plain[:4] + struct.pack("<I", directory_at) + plain[8:] + tail


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_telling_stays_and_no_pixel_changes(kind: str, orientation: int) -> None:
    before = telling(kind, orientation)
    assert any(secret in before for secret in SECRETS)
    after = strip_metadata(before)
    assert after is not None
    for secret in SECRETS:
        assert secret not in after
    with Image.open(io.BytesIO(before)) as old, Image.open(io.BytesIO(after)) as new:
        assert np.array_equal(np.asarray(old), np.asarray(new))
        if kind not in ("BMP", "JXL"):
            profile = new.info["icc_profile"]
            assert np.array_equal(colours_by(profile), colours_by(PROFILE))
            assert not any(secret in profile for secret in (*SECRETS, "Jane Doe".encode("utf-16-be")))
        if kind in ("JPEG", "PNG", "WEBP"):
            assert dict(new.getexif()) == ({0x0112: orientation} if orientation != 1 else {})
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(old)), np.asarray(ImageOps.exif_transpose(new)))


EXIF = b"Exif\0\0"
XMP = b'<rdf:Description tiff:Orientation="6"/>'


def turning_exif(value: int, kind: int = 3) -> bytes:
    """An orientation, as a number of another type than the standard wants (3)."""
    return b"MM\0*" + struct.pack(">IHHHI", 8, 1, 0x0112, kind, 1) + struct.pack(">H2x" if kind == 3 else ">I", value)


def with_app1(*bodies: bytes) -> bytes:
    jpeg = saved(corners(), "JPEG", quality=95)
    more = [b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in bodies]
    return b"".join((jpeg[:2], *more, jpeg[2:]))


def with_chunk(kind: bytes, body: bytes, place: int = 33) -> bytes:
    png = saved(corners(), "PNG")
    return png[:place] + png_chunk(kind, body) + png[place:]


def in_hex(exif: bytes) -> bytes:
    """As programs wrote it into a PNG before it had a chunk for EXIF."""
    return b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode())


TURNED = {
    "a long number": with_app1(EXIF + turning_exif(6, 4)),
    "a signed number": with_app1(EXIF + turning_exif(6, 9)),
    "a number of one byte": with_app1(EXIF + turning_exif(6 << 24, 6)),
    "a place in the file": with_app1(EXIF + turning_exif(6, 13)),
    "a letter": with_app1(EXIF + turning_exif(6, 1)),
    "no number, upright": with_app1(EXIF + turning_exif(6)[:17] + b"\0" + turning_exif(6)[18:]),
    "cut off, upright": with_app1(EXIF + turning_exif(6)[:20]),
    "begun in the wrong order": with_app1(EXIF + b"MM*\0" + turning_exif(6)[4:]),
    "begun in the wrong order in a PNG": with_chunk(b"eXIf", b"MM*\0" + turning_exif(6)[4:]),
    "behind one that is empty": with_app1(EXIF, EXIF + turning_exif(6)),
    "in two pieces": with_app1(EXIF + turning_exif(6)[:12], EXIF + turning_exif(6)[12:]),
    "the first of two": with_app1(EXIF + turning_exif(8), EXIF + turning_exif(6)),
    "the first, which says upright": with_app1(EXIF + turning_exif(1), EXIF + turning_exif(6)),
    "called EXIF twice": with_app1(EXIF + EXIF + turning_exif(6)),
    "XMP alone": with_app1(b"http://ns.adobe.com/xap/1.0/\0" + XMP),
    "XMP beside an EXIF": with_app1(
        EXIF + b"MM\0*" + struct.pack(">IH4x", 8, 0), b"http://ns.adobe.com/xap/1.0/\0" + XMP
    ),
    "called EXIF in a PNG": with_chunk(b"eXIf", EXIF + turning_exif(6)),
    "XMP in a PNG": with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "XMP behind a PNG's pixels": with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP, -12),
    "in hex in a PNG": with_chunk(b"zTXt", in_hex(EXIF + turning_exif(6))),
    "XMP in a WebP": saved(corners(), "WEBP", quality=95, xmp=XMP),
    "XMP in a TIFF": saved(corners(), "TIFF", tiffinfo={700: XMP}),
    "XMP in an AVIF": saved(corners(), "AVIF", quality=95, xmp=XMP),
}


@pytest.mark.parametrize("how", TURNED)
def test_a_candidate_lies_as_the_photo_did_when_it_was_cut_however_it_says_how_it_is_turned(how: str) -> None:
    """Else its mask would lie over another picture."""
    stripped = strip_metadata(TURNED[how])
    assert stripped is not None
    cut, kept = (decode(file, Limits(1_000_000, 1_000_000)).rgb.astype(int) for file in (TURNED[how], stripped))
    assert cut.shape == kept.shape
    assert np.abs(cut - kept).max() <= 2
    assert (cut.shape[1] == 96) == ("XMP" in how or "hex" in how or "upright" in how or how == "a letter")


def test_what_follows_the_end_of_the_image_goes() -> None:
    photo = a_photo(1)
    assert strip_metadata(photo + b"a motion photo's video" + a_photo(2)) == strip_metadata(photo)


def test_a_progressive_photo_with_restarts_keeps_its_pixels() -> None:
    photo = a_photo(3, (200, 150), progressive=True, restart_marker_blocks=4, exif=telling_exif(6))
    after = strip_metadata(photo)
    assert after is not None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(photo))), np.asarray(Image.open(io.BytesIO(after))))


def test_thumbnails_go() -> None:
    thumbnail = b"\xff\x00\xff" * 16
    photo = a_photo(1)
    assert photo[2:4] == b"\xff\xe0"
    header = photo[4:20]
    with_thumbnail = b"\xff\xd8\xff\xe0" + (16 + 48).to_bytes(2, "big") + header[2:14] + b"\x04\x04" + thumbnail
    after = strip_metadata(with_thumbnail + photo[20:])
    assert after is not None
    assert thumbnail not in after
    assert after == strip_metadata(photo)


def test_a_profile_in_several_segments_is_one() -> None:
    large = a_screens_profile(b"SN-4711" * 20_000)
    before = a_photo(1, icc_profile=large)
    assert before.count(b"ICC_PROFILE\0") == 3
    after = strip_metadata(before)
    assert after is not None
    assert b"SN-4711" not in after
    with Image.open(io.BytesIO(after)) as new:
        assert np.array_equal(colours_by(new.info["icc_profile"]), colours_by(large))


def test_a_png_of_a_profile_that_pillow_does_not_read_is_refused() -> None:
    assert strip_metadata(a_photo(1, kind="PNG", icc_profile=a_screens_profile(bytes(1_500_000)))) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_a_profile_that_is_cut_short_is_refused(kind: str) -> None:
    assert strip_metadata(a_photo(1, kind=kind, icc_profile=PROFILE[:-300])) is None


def a_heif_with_a_thumbnail(mode: str) -> tuple[bytes, bytes]:
    """The file, and the thumbnail's bytes in it."""
    photo = pillow_heif.from_pillow(Image.open(io.BytesIO(a_photo(1, (640, 480)))).convert(mode))
    photo.info["thumbnails"] = [128]
    sink = io.BytesIO()
    photo.save(sink, quality=80)
    data = sink.getvalue()
    (thumbnail,) = [item for kind, item, _ in references_in(data) if kind == b"thmb"]
    return data, content(data, thumbnail)


def boxes_in_meta(data: bytes) -> dict[bytes, isobmff._Box]:
    (meta,) = [box for box in isobmff._boxes(data, 0, len(data)) if box.kind == b"meta"]
    return {box.kind: box for box in isobmff._boxes(data, meta.body + 4, meta.end)}


def references_in(data: bytes) -> list[tuple[bytes, int, list[int]]]:
    return list(isobmff._references(data, boxes_in_meta(data)[b"iref"]))


def content(data: bytes, item: int) -> bytes:
    return b"".join(data[start : start + size] for start, size in isobmff._places(data, boxes_in_meta(data))[item])


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_thumbnails_in_heif_go_and_transparency_stays(mode: str) -> None:
    photo, thumbnail = a_heif_with_a_thumbnail(mode)
    after = strip_metadata(photo)
    assert after is not None
    assert thumbnail not in after
    assert after.count(bytes(len(thumbnail))) == 1
    with Image.open(io.BytesIO(photo)) as old, Image.open(io.BytesIO(after)) as new:
        assert new.mode == mode
        assert np.array_equal(np.asarray(old), np.asarray(new))
    assert strip_metadata(after) == after


@pytest.mark.parametrize("what", [b"urn:mpeg:hevc:2015:auxid:2", b"urn:com:example:gainmap\0\0\0"])
def test_depth_and_gain_maps_go(what: bytes) -> None:
    with_alpha, _ = a_heif_with_a_thumbnail("RGBA")
    photo = with_alpha.replace(b"urn:mpeg:hevc:2015:auxid:1", what)
    assert len(photo) == len(with_alpha)
    (aux,) = [item for kind, item, of in references_in(photo) if kind == b"auxl" and of == [1]]
    after = strip_metadata(photo)
    assert after is not None
    assert not any(content(after, aux))
    with Image.open(io.BytesIO(photo)) as old, Image.open(io.BytesIO(after)) as new:
        assert np.array_equal(np.asarray(old), np.asarray(new))


def test_what_no_item_of_a_heif_points_to_goes() -> None:
    photo = telling("HEIF", 6)
    pixels = [box for box in isobmff._boxes(photo, 0, len(photo)) if box.kind == b"mdat"][-1]
    assert pixels.end == len(photo)
    secret = b"52,5200 of an older edition"
    size = (pixels.end - pixels.start + len(secret)).to_bytes(4, "big")
    before = photo[: pixels.start] + size + photo[pixels.start + 4 :] + secret
    after = strip_metadata(before)
    assert after is not None
    assert secret not in after
    with Image.open(io.BytesIO(before)) as old, Image.open(io.BytesIO(after)) as new:
        assert np.array_equal(np.asarray(old), np.asarray(new))


def test_texts_among_the_properties_of_a_heif_go_and_what_it_is_shown_by_stays() -> None:
    shape = box_of(b"ispe", bytes(4), struct.pack(">II", 64, 48))
    text = box_of(b"udes", bytes(4), b"en\0Jane Doe\0com.example.app\0")
    before = a_heif_of([(b"hvc1", b"one")], [], shown=1, properties=[text, shape])
    after = strip_metadata(before)
    assert after is not None
    assert not any(secret in after for secret in SECRETS)
    assert shape in after, "and it is the second property, as before"
    assert len(after) == len(before)
    must_be_known = a_heif_of([(b"hvc1", b"one")], [], shown=1, properties=[text, shape], must=1)
    assert strip_metadata(must_be_known) is None


def test_an_animation_is_refused() -> None:
    first, *rest = [Image.open(io.BytesIO(a_photo(seed))) for seed in range(3)]
    sink = io.BytesIO()
    first.save(sink, "WEBP", save_all=True, append_images=rest)
    assert strip_metadata(sink.getvalue()) is None


def test_a_tag_of_an_unknown_kind_opens_no_door() -> None:
    photo = bytearray(telling("TIFF", 6))
    start = int.from_bytes(photo[4:8], "little")
    (entry,) = [at for at in range(start + 2, start + 200, 12) if photo[at : at + 2] == (284).to_bytes(2, "little")]
    photo[entry + 2 : entry + 4] = (13).to_bytes(2, "little")
    photo[entry + 8 : entry + 12] = bytes(4)
    assert strip_metadata(bytes(photo)) is None


def test_what_a_photo_is_made_of_and_its_transparency_stay_in_avif() -> None:
    photo = Image.open(io.BytesIO(a_photo(1, (320, 240)))).convert("RGBA")
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    sink = io.BytesIO()
    photo.save(sink, "AVIF", quality=80)
    after = strip_metadata(sink.getvalue())
    assert after is not None
    with Image.open(io.BytesIO(sink.getvalue())) as old, Image.open(io.BytesIO(after)) as new:
        assert new.mode == "RGBA"
        assert np.array_equal(np.asarray(old), np.asarray(new))


def test_tiles_of_the_photo_stay_and_those_of_others_go() -> None:
    """Items 1 and 2 are tiles of 3, which is shown; 4 is a tile of its thumbnail, 5."""
    items = [(b"hvc1", b"one"), (b"hvc1", b"two"), (b"grid", b"3"), (b"hvc1", b"four"), (b"grid", b"5")]
    references = [(b"dimg", 3, [1, 2]), (b"dimg", 5, [4]), (b"thmb", 5, [3])]
    before = a_heif_of(items, references, shown=3)
    after = strip_metadata(before)
    assert after is not None
    assert [content(after, item) for item in range(1, 6)] == [b"one", b"two", b"3", bytes(4), b"5"]


def box_of(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def a_heif_of(
    items: list[tuple[bytes, bytes]],
    references: list[tuple[bytes, int, list[int]]],
    shown: int,
    properties: Sequence[bytes] = (),
    must: int = 0,
) -> bytes:
    """Items of these kinds and contents, numbered from 1. `properties`: of the one shown; `must`: one to be known."""
    box = box_of
    numbers = bytes(number | (128 if number == must else 0) for number in range(1, len(properties) + 1))
    shown_by = struct.pack(">IHB", 1, shown, len(numbers)) + numbers

    none = bytes(4)
    listed = [
        box(b"infe", b"\2\0\0\0", struct.pack(">HH4s", number, 0, kind), b"\0")
        for number, (kind, _) in enumerate(items, start=1)
    ]
    linked = [
        box(kind, struct.pack(f">HH{len(others)}H", item, len(others), *others)) for kind, item, others in references
    ]
    stored, extents = b"", []
    for number, (_, bytes_of) in enumerate(items, start=1):
        extents.append(struct.pack(">HHHHII", number, 1, 0, 1, len(stored), len(bytes_of)))
        stored += bytes_of
    meta = box(
        b"meta",
        none,
        box(b"pitm", none, struct.pack(">H", shown)),
        box(b"iinf", none, struct.pack(">H", len(items)), *listed),
        box(b"iref", none, *linked),
        box(b"iprp", box(b"ipco", *properties), box(b"ipma", none, shown_by)),
        box(b"iloc", b"\1\0\0\0\x44\0", struct.pack(">H", len(items)), *extents),
        box(b"idat", stored),
    )
    return box(b"ftyp", b"heic", none) + meta


def test_stripping_twice_is_stripping_once() -> None:
    for kind in KINDS:
        once = strip_metadata(telling(kind, 6))
        assert once is not None
        assert strip_metadata(once) == once


@given(st.integers(0, 10_000), st.sampled_from([kind for kind in KINDS if kind != "BMP"]))
@example(990, "JXL")  # between two parts of its codestream
def test_a_file_cut_short_is_refused(cut: int, kind: str) -> None:
    whole = strip_metadata(telling(kind, 6))
    assert whole is not None
    whole = whole.rstrip(b"\0")
    assert strip_metadata(whole[: cut % (len(whole) - 1)]) is None


@given(st.binary(max_size=200), st.sampled_from(STARTS))
def test_noise_is_refused_without_an_error(noise: bytes, start: bytes) -> None:
    after = strip_metadata(start + noise)
    assert after is None or after.startswith(start[:4])


def test_an_unknown_format_is_refused() -> None:
    assert strip_metadata(a_photo(1, kind="PPM")) is None
