from __future__ import annotations

import base64
import contextlib
import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from itertools import product

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from schemas.errors import ItemError
from tests.workers.icc import display_p3, display_p3_with_pipelines, gray_profile, srgb
from tests.workers.images import (
    BLUE,
    GREEN,
    HOSTILE,
    RED,
    WHITE,
    adam7,
    bmp_with_alpha,
    corners,
    in_adobe_rgb,
    noise,
    oriented,
    planar_tiff,
    png_bomb,
    png_chunk,
    png_of,
    saved,
)
from tests.workers.photos import ROOT
from workers.colour import is_srgb
from workers.decode import Limits, decode, open_header, orientation_of

LIMITS = Limits(pixels=50_000_000, bytes=2_000_000)
RGB = Image.fromarray(corners())


def quarters(rgb: np.ndarray) -> list[tuple[int, ...]]:
    """The colours in the middles of the four quarters: above left, above right, below left, below right."""
    height, width = rgb.shape[:2]
    return [tuple(map(int, rgb[y * height // 4, x * width // 4])) for y in (1, 3) for x in (1, 3)]


def assert_upright(data: bytes, tolerance: int = 12) -> None:
    picture = decode(data, LIMITS)
    assert (picture.width, picture.height) == (96, 64)
    assert np.abs(np.array(quarters(picture.rgb)) - np.array([RED, GREEN, BLUE, WHITE])).max() <= tolerance


PHONES = [(format, orientation) for format in ("HEIF", "AVIF") for orientation in (1, 3, 6, 8)]


@pytest.mark.parametrize(("format", "orientation"), [*product(("JPEG", "PNG", "WEBP", "TIFF"), range(1, 9)), *PHONES])
def test_every_orientation_comes_out_upright(format, orientation):
    assert_upright(oriented(corners(), orientation, format), 16)


KINDS = {
    "plain jpeg": saved(RGB, "JPEG", quality=95),
    "progressive jpeg": saved(RGB, "JPEG", quality=95, progressive=True),
    "png": saved(RGB, "PNG"),
    "interlaced-looking palette png": saved(RGB.quantize(16), "PNG"),
    "16-bit rgb png": cv2.imencode(".png", corners()[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes(),
    "webp": saved(RGB, "WEBP", quality=95),
    "lossless webp": saved(RGB, "WEBP", lossless=True),
    "tiff": saved(RGB, "TIFF"),
    "lzw tiff": saved(RGB, "TIFF", compression="tiff_lzw"),
    "jpeg tiff": saved(RGB, "TIFF", compression="jpeg", quality=95),
    "bmp": saved(RGB, "BMP"),
    "heic": saved(RGB, "HEIF", quality=95),
    "avif": saved(RGB, "AVIF", quality=95),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_its_own_colours(kind):
    assert_upright(KINDS[kind])


def test_a_cmyk_jpeg_is_neither_inverted_nor_pale():
    picture = decode(saved(RGB.convert("CMYK"), "JPEG", quality=95), LIMITS)
    expected = np.asarray(RGB.convert("CMYK").convert("RGB"))
    assert np.abs(np.array(quarters(picture.rgb)) - np.array(quarters(expected))).max() < 12


def test_a_cmyk_tiff_is_read():
    assert_upright(saved(RGB.convert("CMYK"), "TIFF"), 3)


GRAY = np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))

GRAYS = {
    "jpeg": saved(GRAY, "JPEG", quality=98),
    "png": saved(GRAY, "PNG"),
    "16-bit png": cv2.imencode(".png", GRAY.astype(np.uint16) * 257)[1].tobytes(),
    "16-bit tiff": saved(Image.fromarray(GRAY.astype(np.uint16) * 257), "TIFF"),
    "floating tiff": saved(Image.fromarray(GRAY.astype(np.float32) / 255), "TIFF"),
}


@pytest.mark.parametrize("kind", GRAYS)
def test_grays_of_any_depth_keep_their_shades(kind):
    rgb = decode(GRAYS[kind], LIMITS).rgb
    assert rgb.shape == (64, 96, 3)
    assert np.abs(rgb[32, :, 1].astype(int) - GRAY[32]).max() <= 2


def test_one_bit_is_black_and_white():
    data = saved(Image.fromarray(GRAY).convert("1", dither=Image.Dither.NONE), "PNG")
    assert set(np.unique(decode(data, LIMITS).rgb)) == {0, 255}


def transparent() -> Image.Image:
    image = RGB.convert("RGBA")
    image.putalpha(Image.fromarray(GRAY))
    return image


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_what_the_source_left_transparent_is_known(format):
    options = {"lossless": True} if format == "WEBP" else {}
    picture = decode(saved(transparent(), format, **options), LIMITS)
    assert np.array_equal(picture.alpha, GRAY)
    assert np.array_equal(picture.rgb[GRAY > 0], corners()[GRAY > 0]), "and so are the colours of what is left"


def test_grays_that_were_multiplied_by_their_alpha_are_divided_by_it():
    data = saved(Image.fromarray(np.dstack((GRAY // 2, np.full_like(GRAY, 128)))), "TIFF")
    picture = decode(data.replace(struct.pack("<HHII", 338, 3, 1, 2), struct.pack("<HHII", 338, 3, 1, 1)), LIMITS)
    assert set(np.unique(picture.alpha)) == {128}
    assert np.abs(picture.rgb[32, :, 1].astype(int) - GRAY[32]).max() <= 2


def test_a_heic_that_was_filled_up_to_whole_blocks_is_as_large_as_what_is_left_of_it():
    tiny = saved(Image.fromarray(corners(8, 8)), "HEIF")
    assert decode(tiny, Limits(pixels=64, bytes=100_000)).rgb.shape == (8, 8, 3)


def test_a_bmp_whose_alpha_nobody_wrote_is_all_there():
    assert np.array_equal(decode(bmp_with_alpha(GRAY), LIMITS).alpha, GRAY)
    empty = decode(bmp_with_alpha(np.zeros_like(GRAY)), LIMITS)
    assert empty.alpha is None
    assert np.array_equal(empty.rgb, corners())


def test_a_palette_with_one_transparent_colour_is_known():
    data = saved(RGB.quantize(4), "PNG", transparency=0)
    alpha = decode(data, LIMITS).alpha
    assert set(np.unique(alpha)) == {0, 255}


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("clear", [0, 1, -1])
def test_a_shade_that_is_transparent_is_known_whatever_its_depth(depth, clear):
    shades = np.arange(16) % 2**depth
    shade = clear % 2**depth
    shades[5] = shade
    bits = "".join(f"{each:0{depth}b}" for each in shades)
    row = b"\0" + int(bits, 2).to_bytes(2 * depth, "big")
    data = png_of(row, 16, 1, depth=depth, between=png_chunk(b"tRNS", shade.to_bytes(2, "big")))
    picture = decode(data, LIMITS)
    assert np.array_equal(picture.alpha[0] == 0, shades == shade)
    assert np.array_equal(picture.rgb[0, :, 0], np.rint(shades * (255 / (2**depth - 1))))


@pytest.mark.parametrize("clear", [(0x1234, 0x5678, 0x9ABC), (0xFF00, 0xFF00, 0xFF00)])
def test_a_colour_of_16_bits_that_is_transparent_is_known(clear):
    row = b"\0" + np.array([(0, 0, 0), clear, (0x4000, 0x5000, 0x6000)], ">u2").tobytes()
    picture = decode(
        png_of(row, 3, 1, depth=16, colour=2, between=png_chunk(b"tRNS", struct.pack(">3H", *clear))), LIMITS
    )
    assert picture.alpha.tolist() == [[255, 0, 255]]
    assert picture.rgb[0, 1].tolist() == [channel >> 8 for channel in clear]


def test_an_opaque_alpha_channel_is_none():
    assert decode(saved(RGB.convert("RGBA"), "PNG"), LIMITS).alpha is None


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_display_p3_becomes_srgb_and_not_dull(format):
    options = {"quality": 95} if format in ("JPEG", "WEBP", "HEIF", "AVIF") else {}
    data = saved(RGB, format, icc_profile=display_p3(), **options)
    red = quarters(decode(data, LIMITS).rgb)[0]
    # By the matrices of both standards: P3 (200, 30, 40) lies outside sRGB, at red 219; green and blue clip to about 0.
    assert red[0] == pytest.approx(219, abs=6)
    assert red[1] <= 8


def in_coded_colours(format: str, primaries: int, transfer: int, **options: object) -> bytes:
    """A picture whose colours are named by their numbers in ITU-T H.273."""
    if format == "HEIF":
        return saved(RGB, format, quality=95, color_primaries=primaries, transfer_characteristics=transfer, **options)
    if format == "AVIF":
        data = saved(RGB, format, quality=95, **options)
        at = data.index(b"colrnclx") + 8
        return data[:at] + bytes((0, primaries, 0, transfer)) + data[at + 4 :]
    data = saved(RGB, format, **options)
    return data[:33] + png_chunk(b"cICP", bytes((primaries, transfer, 0, 1))) + data[33:]


@pytest.mark.parametrize("format", ["PNG", "HEIF", "AVIF"])
def test_colours_that_are_named_by_a_number_are_those_of_their_profile(format):
    options = {} if format == "PNG" else {"quality": 95}
    named = decode(in_coded_colours(format, 12, 13), LIMITS).rgb.astype(int)
    assert np.abs(named - decode(saved(RGB, format, icc_profile=display_p3(), **options), LIMITS).rgb).max() <= 1
    assert_upright(in_coded_colours(format, 1, 13))


@pytest.mark.parametrize("transfer", [16, 18])
@pytest.mark.parametrize("format", ["PNG", "HEIF", "AVIF"])
def test_colours_of_high_dynamic_range_are_refused_and_do_not_come_out_pale(format, transfer):
    with pytest.raises(ItemError, match="8-bit JPEG or PNG"):
        decode(in_coded_colours(format, 9, transfer), LIMITS)


@pytest.mark.parametrize("format", ["PNG", "AVIF"])
def test_of_a_profile_and_a_number_a_png_means_the_number_and_an_avif_the_profile(format):
    red = quarters(decode(in_coded_colours(format, 12, 13, icc_profile=gray_profile(1.0)), LIMITS).rgb)[0]
    assert red[0] == pytest.approx(219 if format == "PNG" else 200, abs=6)


def test_adobe_rgb_that_only_the_camera_names_becomes_srgb_and_not_dull():
    colours = [(200, 30, 40), (120, 180, 90), (128, 128, 128), (60, 60, 160)]
    expected = [(233, 24, 36), (80, 182, 83), (129, 129, 129), (57, 57, 164)]  # by the matrices of both standards
    for colour, wanted in zip(colours, expected, strict=True):
        picture = decode(in_adobe_rgb(Image.new("RGB", (16, 16), colour)), LIMITS)
        assert np.abs(picture.rgb[8, 8].astype(int) - wanted).max() <= 2
    named, whole = in_adobe_rgb(RGB), srgb(b"c2")
    with_profile = saved(RGB, "JPEG", quality=95, exif=Image.open(io.BytesIO(named)).getexif(), icc_profile=whole)
    assert_upright(with_profile)
    assert_upright(named.replace(b"R03\0", b"R98\0"))


def test_srgb_stays_as_it_is():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with_profile = decode(saved(RGB, "PNG", icc_profile=profile), LIMITS)
    assert np.array_equal(with_profile.rgb, corners())


@pytest.mark.parametrize("name", [b"DCI-P3 D65 Gamut with sRGB Transfer", b"Display P3 Gamut with sRGB Transfer"])
def test_a_profile_is_what_its_numbers_say_whatever_it_is_called(name):
    """As phones of Samsung's and Google's call theirs."""
    called = decode(saved(RGB, "PNG", icc_profile=display_p3(name)), LIMITS).rgb
    assert np.array_equal(called, decode(saved(RGB, "PNG", icc_profile=display_p3()), LIMITS).rgb)
    assert not is_srgb(display_p3(name))
    assert np.array_equal(decode(saved(RGB, "PNG", icc_profile=srgb(b"c2")), LIMITS).rgb, corners())


def test_profiles_of_many_megabytes_are_not_kept():
    tracemalloc.start()
    try:
        for number in range(4):
            assert not is_srgb(display_p3(b"%d" % number + bytes(8_000_000)))
        assert tracemalloc.get_traced_memory()[0] < 8_000_000
    finally:
        tracemalloc.stop()


def test_no_program_in_a_profile_is_run_and_what_is_beside_it_counts():
    read = [
        decode(saved(RGB, "PNG", icc_profile=profile), LIMITS).rgb
        for profile in (display_p3_with_pipelines(elements=3), display_p3())
    ]
    assert np.array_equal(*read)


def test_a_broken_profile_is_passed_over():
    assert_upright(saved(RGB, "PNG", icc_profile=b"no profile at all"), 0)


@pytest.mark.parametrize("beside", ["a profile", "a note"])
def test_what_is_packed_beside_the_pixels_of_a_png_may_have_megabytes(beside):
    many = srgb(b"sRGB") + bytes(2_000_000)
    good = saved(RGB, "PNG", icc_profile=many if beside == "a profile" else srgb(b"sRGB"))
    note = png_chunk(b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(bytes(2_000_000)))
    assert np.array_equal(decode(good[:33] + note * (beside == "a note") + good[33:], LIMITS).rgb, corners())


def test_a_film_behind_a_jpeg_is_not_taken_for_scans():
    good = saved(RGB, "JPEG")
    assert np.array_equal(decode(good + b"\xff\xdafilm" * 200, LIMITS).rgb, decode(good, LIMITS).rgb)


def test_bytes_too_many_after_the_last_scan_are_no_damage():
    data = saved(RGB, "JPEG", quality=95)
    assert_upright(data[:-2] + b"\0\0\0" + data[-2:])


ENDINGS = {
    "none": b"",
    "half of one": b"\xff",
    "zeros": bytes(500),
    "zeros around one": bytes(50) + b"\xff\xd9" + bytes(9),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("restarts", [{}, {"restart_marker_rows": 1}], ids=["in one piece", "with restarts"])
def test_a_jpeg_with_all_its_pixels_is_read_however_it_ends_and_none_that_lacks_some(ending, restarts):
    good = saved(noise(), "JPEG", quality=90, **restarts)
    assert np.array_equal(decode(good[:-2] + ENDINGS[ending], LIMITS).rgb, decode(good, LIMITS).rgb)
    for missing in (2, 3, 9, 100, 5000):  # the very last byte may hold no pixels
        with pytest.raises(ItemError, match="damaged"):
            decode(good[: -2 - missing] + ENDINGS[ending], LIMITS)


def test_pixels_whose_last_byte_is_a_zero_or_an_0xff_are_whole_too():
    black = saved(np.zeros((8, 8, 3), np.uint8), "JPEG", quality=50, subsampling=0)
    bright = saved(noise(136, 16), "JPEG", quality=100)
    assert (black[-3:], bright[-4:]) == (b"\0\xff\xd9", b"\xff\0\xff\xd9")
    for good, ending in ((black, b""), (bright, b""), (bright, bytes(500))):
        assert np.array_equal(decode(good[:-2] + ending, LIMITS).rgb, decode(good, LIMITS).rgb)


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (2 + len(body)).to_bytes(2, "big") + body


def in_three_scans() -> bytes:
    """A JPEG whose channels stand one after the other."""
    grays = [saved(np.ascontiguousarray(noise()[..., channel]), "JPEG", quality=90) for channel in range(3)]
    frame, scan = grays[0].index(b"\xff\xc0"), grays[0].index(b"\xff\xda")
    size, tables = grays[0][frame + 4 : frame + 9], grays[0][frame + 13 : scan]
    head = grays[0][:frame] + segment(0xC0, size + b"\3\1\x11\0\2\x11\0\3\x11\0") + tables
    scans = [
        segment(0xDA, bytes((1, place, 0, 0, 63, 0))) + gray[scan + 10 : -2] for place, gray in enumerate(grays, 1)
    ]
    return head + b"".join(scans) + b"\xff\xd9"


ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAYEBQYFBAYGBQYHBwYIChAKCgkJChQODwwQFxQYGBcUFhYaHSUfGhsjHBYWICwgIyYn"
    "KSopGR8tMC0oMCUoKSj/2wBDAQcHBwoIChMKChMoGhYaKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgo"
    "KCgoKCgoKCj/yQARCAAQABADASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/ANLvXzSz9f8AvAA5RHN9s/4djJEJ"
    "Y9GX7N+RQmva/ND/AD0sk1kFC0RFLYBjvmwyjq2jx0D/2Q=="
)
"""A JPEG of 16 × 16 pixels in arithmetic coding, as libjpeg writes it and pillow does not."""


def test_of_a_jpeg_in_arithmetic_coding_without_its_end_nobody_knows_whether_it_has_all_of_its_pixels():
    assert decode(ARITHMETIC, LIMITS).width == 16
    scan = ARITHMETIC.index(b"\xff\xda") + 14
    for cut in range(scan, len(ARITHMETIC) - 1):
        for ending in (b"", bytes(500)):
            with pytest.raises(ItemError, match="damaged"):
                decode(ARITHMETIC[:cut] + ending, LIMITS)


@pytest.mark.parametrize("restarts", [{}, {"restart_marker_blocks": 3}], ids=["in one piece", "with restarts"])
@pytest.mark.parametrize("ending", [b"", b"\xff\xd9"], ids=["no end", "an end"])
def test_pixels_that_were_lost_to_zeros_are_not_made_of_the_zeros(restarts, ending):
    paper = np.full((96, 96, 3), 255, np.uint8)
    paper[20:40, 20:40] = 30
    good = saved(paper, "JPEG", quality=80, **restarts)
    for cut in range(good.index(b"\xff\xda") + 14, len(good) - 3):
        with contextlib.suppress(ItemError):
            mended = decode(good[:cut] + bytes(len(good) - cut + 5) + ending, LIMITS)
            assert np.array_equal(mended.rgb, decode(good, LIMITS).rgb), f"without the last {len(good) - cut} bytes"


def nested(levels: int) -> bytes:
    """A damaged JPEG whose header, read once without its spare bytes, has other spare bytes, and so on."""
    step, good = 65509, saved(noise(64, 64), "JPEG")
    header = bytearray(levels * step)
    for level in range(levels):
        at = level * step
        header[at : at + 8] = b"\xff\xe1\0\0\xff\xe1" + (step - 106).to_bytes(2, "big")
        header[at + step - 100 : at + step - 96] = b"\xff\xe1" + (step - 2).to_bytes(2, "big")
    header[-100:-96] = b"\xff\xe1\0\x62"
    return good[:2] + bytes(header) + good[2:-100]


@pytest.mark.parametrize(
    "hostile",
    [
        nested(20),
        b"\xff\xd8" + b"\xff\xda\0\2" * 300 + saved(noise(), "JPEG")[2:-100],
    ],
    ids=["segments in segments", "scans of nothing"],
)
def test_a_jpeg_is_mended_once_and_not_as_often_as_its_maker_wants(hostile):
    tracemalloc.start()
    with pytest.raises(ItemError, match="damaged"):
        decode(hostile, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(hostile) + 500_000


@pytest.mark.parametrize("ending", ["none", "zeros"])
@pytest.mark.parametrize("good", [saved(noise(), "JPEG", progressive=True), in_three_scans()], ids=["fine", "channels"])
def test_without_its_end_nobody_knows_whether_a_jpeg_has_all_of_its_scans(good, ending):
    assert decode(good, LIMITS).width == 256
    last = good.rindex(b"\xff\xda")
    for place in (len(good) - 2, last):
        with pytest.raises(ItemError, match="damaged"):
            decode(good[:place] + ENDINGS[ending], LIMITS)


@pytest.mark.parametrize("many", [1, 4, 5])
def test_very_few_bytes_too_many_between_the_pixels_are_no_damage_and_more_are(many):
    """Some cameras write those; after many of them the decoder has lost its way."""
    data = saved(RGB, "JPEG", quality=95, restart_marker_blocks=2)
    at = data.index(b"\xff\xd3", data.index(b"\xff\xda"))
    spoiled = data[:at] + bytes(many) + data[at:]
    with pytest.raises(ItemError, match="damaged"):
        decode(spoiled[:-100], LIMITS)
    if many > 4:
        with pytest.raises(ItemError, match="damaged"):
            decode(spoiled, LIMITS)
    else:
        assert np.array_equal(decode(spoiled, LIMITS).rgb, decode(data, LIMITS).rgb)


WEBPS = {
    "lossy": saved(noise(64, 48), "WEBP"),
    "lossless": saved(noise(64, 48), "WEBP", lossless=True),
    "with more behind it": saved(noise(64, 48), "WEBP", exif=b"Exif\0\0x", xmp=b"<x/>"),
    "animated": saved(noise(64, 48), "WEBP", save_all=True, append_images=[Image.fromarray(noise(64, 48)[::-1])]),
}


@pytest.mark.parametrize("kind", WEBPS)
def test_a_webp_that_is_cut_anywhere_is_not_read(kind):
    data = WEBPS[kind]
    assert decode(data, LIMITS).width == 64
    for cut in {*range(1, len(data), max(1, len(data) // 200)), *range(len(data) - 30, len(data))}:
        with pytest.raises(ItemError):
            decode(data[:cut], LIMITS)


def test_colours_in_planes_of_their_own_are_read():
    assert np.array_equal(decode(planar_tiff(8), LIMITS).rgb, corners(8, 8))


def test_a_photo_that_was_packed_is_told_as_that():
    with pytest.raises(ItemError, match="packed"):
        decode(HOSTILE["packed.jpg"][0], LIMITS)


@pytest.mark.parametrize("name", HOSTILE)
def test_each_hostile_file_has_its_own_code(name):
    data, code = HOSTILE[name]
    with pytest.raises(ItemError) as caught:
        decode(data, LIMITS)
    assert caught.value.code == code
    assert str(caught.value).endswith(".")


PLACES = {"the tables": b"\xff\xdb", "the frame": b"\xff\xc0", "the scan": b"\xff\xda"}


def spared(jpeg: bytes, what: bytes, before: bytes) -> bytes:
    """With bytes that nobody needs between two segments of its header."""
    return jpeg[: jpeg.index(before)] + what + jpeg[jpeg.index(before) :]


def stumbled_over(jpeg: bytes) -> dict[str, bytes]:
    """Things beside the pixels that libjpeg or pillow do not like, and every viewer passes over."""
    photoshop = segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04")
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")
    scan = jpeg.index(b"\xff\xda")
    last = scan + 5 + 2 * jpeg[scan + 4] + 1
    spare = {
        f"{many} bytes too many before {name}": spared(jpeg, bytes(many), at)
        for many, (name, at) in product((3, 700), PLACES.items())
    }
    return spare | {
        "bytes too many that look like markers": spared(jpeg, b"\xff\0a\xff\xff\0\xff\xd3\xff\1", b"\xff\xda"),
        "a piece of a profile": jpeg[:2] + segment(0xE2, b"ICC_PROFILE\0\x01\x03" + bytes(10)) + jpeg[2:],
        "another version of JFIF": jpeg.replace(b"JFIF\0\x01", b"JFIF\0\x02"),
        "another version of JFIF, which says how colours are stored": jpeg[:11]
        + b"\x02"
        + jpeg[12:20]
        + adobe
        + jpeg[20:],
        "a way to store colours that Adobe does not know": jpeg[:2] + adobe[:-1] + b"\2" + jpeg[20:],
        "parameters of a scan": jpeg[:last] + b"\0" + jpeg[last + 1 :],
        "half a note of Photoshop's": jpeg[:2] + photoshop + jpeg[2:],
    }


@pytest.mark.parametrize("what", stumbled_over(saved(RGB, "JPEG")))
def test_what_stands_beside_the_pixels_of_a_jpeg_is_no_damage_and_hides_none(what):
    good = saved(noise(), "JPEG", quality=90)
    assert np.array_equal(decode(stumbled_over(good)[what], LIMITS).rgb, decode(good, LIMITS).rgb)
    with pytest.raises(ItemError, match="damaged"):
        decode(stumbled_over(HOSTILE["hole.jpg"][0])[what], LIMITS)


@pytest.mark.parametrize("transform", [1, 3, 255])
def test_four_channels_are_read_as_viewers_do_when_adobe_does_not_know_how_they_are_stored(transform):
    good = saved(Image.fromarray(noise()).convert("CMYK"), "JPEG", quality=90)
    at = good.index(b"Adobe") + 11
    known, unknown = (good[:at] + bytes((value,)) + good[at + 1 :] for value in (2, transform))
    assert np.array_equal(decode(unknown, LIMITS).rgb, decode(known, LIMITS).rgb)
    assert not np.array_equal(decode(known, LIMITS).rgb, decode(good, LIMITS).rgb)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(1, b"\x06\0\0\0"), (2, b"x\0\0\0"), (7, b"\x06\0\0\0"), (11, b"\0\0\xc0\x7f"), (3, b"\x09\0\0\0")],
    ids=["byte", "text", "undefined", "no number", "nine"],
)
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_an_orientation_that_is_none_turns_nothing_and_costs_no_photo(format, kind, value):
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01" + bytes((kind, 0, 1, 0, 0, 0)) + value + bytes(4)
    assert_upright(saved(RGB, format, exif=exif), 12)


def test_an_interlaced_png_is_read():
    data = png_of(adam7(GRAY), 96, 64, interlaced=True)
    assert np.array_equal(decode(data, LIMITS).rgb[:, :, 0], GRAY)


LINEAR = gray_profile(1.0)


@pytest.mark.parametrize("kind", ["gray", "with alpha", "with one transparent shade", "16 bits"])
def test_the_profile_of_a_gray_picture_is_heeded_in_every_form(kind):
    image = Image.fromarray(GRAY)
    if kind == "with alpha":
        image.putalpha(Image.fromarray(GRAY))
    options = {"transparency": 7} if kind == "with one transparent shade" else {}
    if kind == "16 bits":
        image = Image.fromarray(GRAY.astype(np.uint16) * 257)
    rgb = decode(saved(image, "PNG", icc_profile=LINEAR, **options), LIMITS).rgb
    expected = 255 * (1.055 * (GRAY[32] / 255) ** (1 / 2.4) - 0.055)  # as sRGB's standard has it, but for the darkest
    assert np.abs(rgb[32, 8:, 0] - expected[8:]).max() <= 3


def test_a_negative_of_16_bits_comes_out_as_it_is_to_be_seen():
    data = saved(Image.fromarray(65535 - GRAY.astype(np.uint16) * 257), "TIFF", tiffinfo={262: 0})
    assert np.abs(decode(data, LIMITS).rgb[32, :, 0].astype(int) - GRAY[32]).max() <= 1


def test_floats_with_highlights_and_holes_keep_their_shades():
    gray = GRAY.astype(np.float32) / 255
    gray[0, 0], gray[0, 1], gray[0, 2] = 1.8, np.nan, np.inf
    rgb = decode(saved(Image.fromarray(gray), "TIFF"), LIMITS).rgb
    assert tuple(rgb[0, :3, 0]) == (255, 0, 255)
    assert np.abs(rgb[32, :, 0].astype(int) - GRAY[32]).max() <= 1


@pytest.mark.parametrize("white", [1.0, 255.0, 65_535.0])
def test_floats_are_shades_of_one_of_what_eight_or_what_sixteen_bits_hold(white):
    data = saved(Image.fromarray(GRAY.astype(np.float32) / 255 * np.float32(white)), "TIFF")
    assert np.abs(decode(data, LIMITS).rgb[..., 0].astype(int) - GRAY).max() <= 1


def test_a_limit_may_be_higher_than_pillows_own():
    data = png_bomb(20_000, 10_000)
    assert open_header(data, Limits(pixels=200_000_000, bytes=len(data))).width == 20_000


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_limits_are_settable(format):
    data = saved(noise(100, 100), format)
    assert decode(data, Limits(pixels=10_000, bytes=len(data))).width == 100
    with pytest.raises(ItemError, match="megapixels"):
        decode(data, Limits(pixels=9_999, bytes=len(data)))
    with pytest.raises(ItemError, match="MB"):
        decode(data, Limits(pixels=10_000, bytes=len(data) - 1))


BOMBS = ("400-megapixels.png", "268-megapixels.webp", "4-gigapixels.jpg", "text-bomb.png")


def test_a_bomb_takes_no_memory_for_what_it_claims():
    script = (
        "import resource, sys; from tests.workers.images import HOSTILE, corners, saved\n"
        "from schemas.errors import ItemError; from workers.decode import Limits, decode\n"
        "limits = Limits(50_000_000, 2_000_000); decode(saved(corners(), 'PNG'), limits)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name in sys.argv[1:]:\n"
        "    try: decode(HOSTILE[name][0], limits)\n"
        "    except ItemError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, *BOMBS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 40_000, "kilobytes; the smallest of these claims 268 megapixels"


def test_no_decoder_for_programs_is_reached():
    from workers.decode import FORMATS

    assert {"EPS", "PDF", "WMF", "FPX", "MIC"}.isdisjoint(FORMATS)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]), st.floats(0, 1))
def test_whatever_the_bytes_it_ends_with_a_picture_or_an_item_error(junk, format, at):
    good = saved(corners(), format)
    place = int(len(good) * at)
    with contextlib.suppress(ItemError):
        decode(good[:place] + junk + good[place + len(junk) :], LIMITS)


@pytest.mark.parametrize(("said", "means"), [(1, 1), (6, 6), (8, 8), (0, 1), (9, 1), (65_535, 1)])
def test_a_way_up_that_exif_does_not_know_is_upright(said: int, means: int) -> None:
    exif, target = Image.Exif(), io.BytesIO()
    exif[0x0112] = said
    Image.new("RGB", (2, 3)).save(target, "JPEG", exif=exif)
    assert orientation_of(Image.open(target)) == means
