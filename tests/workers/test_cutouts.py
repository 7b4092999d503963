from __future__ import annotations

import io
import tracemalloc
import zipfile
from itertools import product

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from isal import isal_zlib
from PIL import Image

from schemas.errors import ImageTooLarge
from schemas.options import WHITE, Format, Size, parse_options
from tests.workers.photos import PHOTOS
from tests.workers.test_decode import stumbled_over
from workers.alike import measured, setting_for
from workers.composite import cut_out, on_colour, on_image
from workers.cutter import Cutter
from workers.decode import Picture
from workers.encode import as_the_format_can, covering, encode
from workers.foreground import despilled, spread
from workers.framing import Frame, colours_through, frame_for, through
from workers.order import Opened, Order
from workers.png import write_cutout, write_png, write_rows
from workers.scores import in_gray
from workers.shadow import with_shadow
from workers.sizes import fitted

PHOTO = PHOTOS[2].read_bytes()
RNG = np.random.default_rng(4)


def opened(file: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(file))
    image.load()
    return image


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(opened(file))


def cut(cutter: Cutter, **options: object):
    return cutter.cut(PHOTO, parse_options(options), want_mask=True)


def disk(blur: float = 3) -> np.ndarray:
    mask = cv2.circle(np.zeros((160, 200), np.uint8), (100, 80), 50, 255, -1)
    return cv2.GaussianBlur(mask, (0, 0), blur)


NOISE = RNG.integers(0, 255, (160, 200, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("format", "kind", "mode"),
    [("png", "PNG", "RGBA"), ("jpg", "JPEG", "RGB"), ("webp", "WEBP", "RGBA"), ("jxl", "JXL", "RGBA")],
)
def test_each_format_is_what_it_says(cutter, format, kind, mode):
    image = opened(cut(cutter, format=format).file)
    assert (image.format, image.mode, image.size) == (kind, mode, (600, 400))


@pytest.mark.parametrize("format", ["png", "jpg", "webp", "jxl"])
def test_the_mask_alone_is_gray(cutter, format):
    image = opened(cut(cutter, format=format, channels="alpha").file)
    assert np.asarray(image.convert("L")).shape == (400, 600)
    if format != "webp":  # which has no gray
        assert image.mode == "L"


@pytest.mark.parametrize("format", ["png", "jxl"])
def test_lossless_formats_keep_the_photos_own_colour_even_where_it_is_half_transparent(format):
    file = encode(NOISE, disk(), parse_options({"format": format}))
    rgba = pixels(file)
    seen = disk() > 0
    assert np.array_equal(rgba[seen][:, :3], NOISE[seen]), "premultiplied colour would be darker here"
    assert np.array_equal(rgba[:, :, 3], disk())
    assert not rgba[~seen].any(), "what is cut away is gone, not hidden"


@pytest.mark.parametrize(("format", "most"), [("webp", 16_383), ("jpg", 65_500)])
@pytest.mark.parametrize("channels", ["rgba", "alpha"])
def test_a_side_that_a_format_cannot_hold_is_refused_with_what_to_choose(format, most, channels):
    options = parse_options({"format": format, "channels": channels})

    def size(width: int) -> tuple[int, int]:
        return opened(encode(np.zeros((2, width, 3), np.uint8), np.zeros((2, width), np.uint8), options)).size

    assert size(most) == (most, 2)
    with pytest.raises(ImageTooLarge, match=rf"^A {format} file has at most {most} pixels a side\. Choose png or jxl"):
        size(most + 1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 1), (50, 70), (700, 130), (2, 63_000)])
@pytest.mark.parametrize("smooth", [True, False])
def test_a_png_has_the_pixels_that_it_was_made_of_whatever_its_shape(shape, smooth):
    rgb = RNG.integers(0, 255, (*shape, 3), dtype=np.uint8)
    rgb = cv2.GaussianBlur(rgb, (0, 0), 9) if smooth else rgb
    alpha = RNG.integers(0, 255, shape, dtype=np.uint8) * RNG.integers(0, 2, shape, dtype=np.uint8)
    rgba = cut_out(rgb, alpha)
    rows = np.pad(rgba.reshape(len(rgba), -1), ((0, 0), (1, 0)))  # each begins with its filter's number: none
    assert np.array_equal(pixels(write_cutout(rgb, alpha)), rgba)
    assert np.array_equal(pixels(write_rows(rows, shown=0.5)), rgba)
    assert np.array_equal(pixels(write_png(rgb)), rgb)
    assert np.array_equal(pixels(write_png(alpha)), alpha)


@pytest.mark.parametrize("colour", ["white", "000", "81d4fa", "rgb(12, 34, 56)"])
def test_a_colour_behind_is_blended_in_by_alpha(colour):
    options = parse_options({"bg_color": colour})
    rgb = pixels(encode(NOISE, disk(), options))
    share = disk()[:, :, None] / 255
    expected = NOISE * share + np.array(options.background[:3]) * (1 - share)
    assert np.abs(rgb - expected).max() <= 0.501


@pytest.mark.parametrize("radius", [60, 120, 330])
def test_a_png_has_at_most_a_fifth_more_bytes_than_pillows(radius):
    """However much of it is empty."""
    rgb = np.asarray(Image.open(PHOTOS[0]).convert("RGB").resize((1000, 750), Image.Resampling.LANCZOS))
    alpha = cv2.circle(np.zeros((750, 1000), np.uint8), (500, 375), radius, 255, -1)
    usual = io.BytesIO()
    Image.fromarray(cut_out(rgb, alpha)).save(usual, "PNG")
    file = write_cutout(rgb, alpha)
    assert len(file) <= 1.2 * len(usual.getvalue())
    assert np.array_equal(pixels(file), cut_out(rgb, alpha)), "and none of them is another colour for it"


@pytest.mark.parametrize(
    ("side", "radius", "left"), [(100, 20, True), (100, 40, False), (102, 20, False)], ids=["both", "full", "large"]
)
def test_only_a_small_picture_that_is_mostly_empty_is_left_to_zlib_which_is_slow(monkeypatch, side, radius, left):
    asked, compressor = [], isal_zlib.compressobj
    monkeypatch.setattr("workers.png._FEW_PIXELS", 100 * 100)
    monkeypatch.setattr(isal_zlib, "compressobj", lambda level: asked.append(level) or compressor(level))
    alpha = cv2.circle(np.zeros((side, side), np.uint8), (50, 50), radius, 255, -1)
    write_cutout(np.zeros((side, side, 3), np.uint8), alpha)
    assert bool(asked) != left


def test_a_translucent_colour_stays_so_in_png_and_lies_on_white_in_jpeg():
    rgba = pixels(encode(NOISE, np.zeros((160, 200), np.uint8), parse_options({"bg_color": "ff000080"})))
    assert tuple(rgba[5, 5]) == (255, 0, 0, 128)
    file = encode(NOISE, np.zeros((160, 200), np.uint8), parse_options({"bg_color": "ff000080", "format": "jpg"}))
    assert np.abs(pixels(file)[80, 100].astype(int) - (255, 127, 127)).max() <= 3
    for colour, on_white in (
        ((255, 0, 0, 128), (255, 127, 127)),
        ((10, 20, 30, 0), WHITE[:3]),
        ((1, 2, 3, 255), (1, 2, 3)),
    ):
        assert as_the_format_can(colour, Format.JPG) == (*on_white, 255)


SOFT = RNG.integers(0, 256, NOISE.shape[:2], dtype=np.uint8)
SHARE = SOFT[:, :, None] / 255


def test_a_photo_behind_shows_through_by_what_alpha_leaves_of_it_and_stays_as_it_was():
    wall = NOISE[::-1].copy()
    made = on_image(NOISE, SOFT, wall)
    assert np.abs(made - (NOISE * SHARE + wall * (1 - SHARE))).max() <= 0.501
    assert np.array_equal(wall, NOISE[::-1])


@pytest.mark.parametrize("opacity", [0, 1, 100, 254])
def test_a_translucent_colour_shows_through_by_what_alpha_leaves_of_it(opacity):
    colour = (10, 200, 30)
    rgba = on_colour(NOISE, SOFT, (*colour, opacity))
    behind = (1 - SHARE) * opacity / 255
    whole = SHARE + behind
    seen = whole[:, :, 0] > 0
    mixed = (NOISE * SHARE + np.array(colour) * behind)[seen] / whole[seen]
    assert np.abs(rgba[:, :, :3][seen] - mixed).max() <= 0.501
    assert np.abs(rgba[:, :, 3] - 255 * whole[:, :, 0]).max() <= 0.501
    assert not rgba[~seen].any()


@pytest.mark.parametrize(("size", "limit"), [("preview", 250_000), ("medium", 1_500_000), ("hd", 4_000_000)])
def test_sizes_are_caps_and_never_scale_up(cutter, size, limit):
    done = cut(cutter, size=size)
    assert opened(done.file).size == (done.width, done.height)
    assert done.width * done.height <= min(limit, 240_000)
    assert (done.source_width, done.source_height) == (600, 400)


def test_a_large_photo_is_scaled_in_proportion():
    assert fitted(4000, 3000, 1_500_000) == (1414, 1060)
    assert fitted(100_000, 10, 250_000) == (50_000, 5)
    assert fitted(500, 500, 250_000) == (500, 500)


@given(st.integers(1, 50_000_000), st.integers(1, 50_000_000), st.sampled_from([size.max_pixels for size in Size]))
@example(1, 300_000, 250_000)
@example(1, 50_000_000, 1_500_000)
@example(50_000_000, 1, 1_500_000)
def test_a_photo_of_any_proportions_fits_its_cap(width, height, limit):
    across, down = fitted(width, height, limit)
    assert 1 <= across <= width
    assert 1 <= down <= height
    assert across * down <= limit
    if min(across, down) > 1:
        assert abs(across * height / width - down) <= max(1, height / width)


@pytest.mark.parametrize("shape", [(4032, 3024), (2556, 1179), (3000, 1000), (4000, 500), (1000, 3000)])
@pytest.mark.parametrize("size", ["preview", "medium"])
def test_a_photo_that_is_scaled_down_reaches_to_its_last_row_and_column(shape, size):
    height, width = shape
    to = fitted(width, height, Size(size).max_pixels)
    seen = through(Frame(0, 0, width, height), np.full(shape, 255, np.uint8), *to)
    assert seen.shape == to[::-1]
    assert seen.min() == 255


@pytest.mark.parametrize("over", [(4, 0, 0, 0), (0, 8, 0, 0), (0, 0, 4, 0), (0, 0, 0, 8), (4, 8, 12, 16)])
@pytest.mark.parametrize("by", [1, 2, 4])
def test_what_a_frame_reaches_over_a_photos_edges_is_empty_and_the_photo_stays_in_its_place(over, by):
    above, below, before, after = over
    photo = NOISE | 1
    frame = Frame(-before, -above, 200 + before + after, 160 + above + below)
    seen = through(frame, photo, frame.width // by, frame.height // by)
    padded = np.pad(photo, ((above, below), (before, after), (0, 0))).astype(float)
    expected = padded.reshape(frame.height // by, by, frame.width // by, by, 3).mean((1, 3))
    assert np.abs(seen - expected).max() <= 0.5


@pytest.mark.parametrize("by", [2, 3, 4])
def test_a_photo_in_a_frame_over_its_edges_is_no_more_than_a_pixel_from_its_place_wherever_those_lie(by):
    for before, size in product(range(-5, 10), range(6, 15)):  # before 0 the frame begins inside of the photo
        for whole in range(-(-(before + size) // by) * by, 30, by):
            frame = Frame(-before, -before, whole, whole)
            seen = through(frame, np.full((size, size), 255, np.uint8), whole // by, whole // by)
            assert seen.shape == (whole // by, whole // by)
            for places in (np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))):
                assert abs(places[0] - max(before, 0) / by) <= 0.5
                assert abs(places[-1] + 1 - (before + size) / by) <= 1


def clear_around(subject: tuple[int, int, int]) -> bytes:
    """A PNG of a disk, transparent around it, where its pixels are black."""
    alpha = cv2.circle(np.zeros((800, 800), np.uint8), (400, 400), 266, 255, -1)
    rgba = np.dstack((np.where(alpha[:, :, None] > 0, np.array(subject, np.uint8), np.uint8(0)), alpha))
    return write_png(rgba)


def test_what_is_hidden_where_a_photo_is_transparent_does_not_darken_its_edges(cutter):
    done = cutter.cut(clear_around((240, 200, 40)), parse_options({"size": "preview"}), False)
    rgba = pixels(done.file)
    soft = (rgba[:, :, 3] > 0) & (rgba[:, :, 3] < 250)
    assert np.count_nonzero(soft) > 500
    assert np.abs(rgba[soft][:, :3].astype(int) - (240, 200, 40)).max() <= 1


def test_colours_are_weighed_by_the_photos_own_alpha_when_they_are_scaled_down():
    rgb = RNG.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    alpha = RNG.integers(0, 256, (90, 120), dtype=np.uint8)
    seen = colours_through(Frame(0, 0, 120, 90), rgb, alpha, 40, 30)
    weight = alpha.reshape(30, 3, 40, 3, 1).astype(float)
    expected = (rgb.reshape(30, 3, 40, 3, 3) * weight).sum((1, 3)) / weight.sum((1, 3))
    assert np.abs(seen - expected).max() <= 0.52
    assert np.array_equal(colours_through(Frame(0, 0, 120, 90), rgb, alpha, 120, 90), rgb)
    solid, empty = np.full_like(alpha, 255), np.zeros_like(alpha)
    plain = through(Frame(0, 0, 120, 90), rgb, 40, 30).astype(int)
    assert np.abs(colours_through(Frame(0, 0, 120, 90), rgb, solid, 40, 30) - plain).max() <= 1
    assert not colours_through(Frame(0, 0, 120, 90), rgb, empty, 40, 30).any()
    white = colours_through(Frame(0, 0, 120, 90), np.full_like(rgb, 255), alpha, 40, 30)
    assert (white == 255).all(), "white stays white, whatever weighs it"


def test_a_photo_that_is_wholly_transparent_itself_has_an_empty_mask(cutter):
    rgba = np.dstack((np.asarray(opened(PHOTO)), np.zeros((400, 600), np.uint8)))
    done = cutter.cut(write_png(rgba), parse_options({}), False)
    assert done.flags == ("empty_mask",)
    assert done.scores.coverage == 0


def test_the_mask_for_the_lake_is_whole_whatever_the_customer_gets(cutter):
    done = cut(cutter, size="preview", crop=True, format="jpg")
    assert pixels(done.mask_png).shape == (400, 600)


def test_a_crop_keeps_the_subject_and_its_margin():
    mask = np.zeros((100, 200), np.uint8)
    mask[40:60, 50:90] = 255
    assert frame_for(mask, parse_options({"crop": True})) == Frame(50, 40, 40, 20)
    assert frame_for(mask, parse_options({"crop": True, "crop_margin": "5px"})) == Frame(45, 35, 50, 30)
    assert frame_for(mask, parse_options({"crop": True, "crop_margin": "50% 10%"})) == Frame(46, 30, 48, 40)
    assert frame_for(mask, parse_options({"crop": True, "crop_margin": "1px 2px 3px 4px"})) == Frame(46, 39, 46, 24)
    assert frame_for(mask, parse_options({"crop": True, "crop_margin": "500px"})) == Frame(0, 0, 200, 100)


@pytest.mark.parametrize(
    "box", [(300, 700, 300, 700), (400, 500, 100, 900), (100, 800, 480, 500), (500, 506, 500, 506)]
)
def test_a_crop_keeps_the_shadow_and_no_more(box):
    mask = mask_with(box, (1000, 1000))
    frame = frame_for(mask, parse_options({"crop": True, "shadow": True}))
    inside = through(frame, mask, frame.width, frame.height)
    _, whole = with_shadow(np.zeros((1000, 1000, 3), np.uint8), mask)
    _, cropped = with_shadow(np.zeros((*inside.shape, 3), np.uint8), inside)
    put_back = np.zeros_like(whole)
    put_back[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width] = cropped
    assert np.abs(put_back.astype(int) - whole).max() <= 2
    assert frame.top == box[0]
    assert cropped[-3:].any()


def test_room_that_is_asked_for_is_room_for_the_shadow_too():
    mask = mask_with((300, 700, 300, 700), (1000, 1000))
    asked = {"crop": True, "crop_margin": "100px"}
    assert frame_for(mask, parse_options(asked | {"shadow": True})) == frame_for(mask, parse_options(asked))


def test_a_photo_without_a_subject_is_not_cropped_to_nothing():
    assert frame_for(np.zeros((10, 20), np.uint8), parse_options({"crop": True})) == Frame(0, 0, 20, 10)


def test_a_cropped_file_has_the_size_that_its_result_says(cutter):
    done = cut(cutter, crop=True, crop_margin="3%")
    assert opened(done.file).size == (done.width, done.height)
    assert done.width < 600


BOXES = [(20, 180, 40, 260), (300, 390, 100, 300), (40, 300, 30, 500), (150, 250, 100, 400)]


def mask_with(box: tuple[int, int, int, int], shape: tuple[int, int] = (400, 600)) -> np.ndarray:
    top, bottom, left, right = box
    mask = np.zeros(shape, np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def test_consistent_photos_have_the_same_size_height_and_line():
    masks = [mask_with(box) for box in BOXES]
    setting = setting_for([measured(mask) for mask in masks])
    heights, lines = set(), set()
    for mask in masks:
        frame = frame_for(mask, parse_options({"consistent": True}), setting)
        seen = through(frame, mask, setting.width, setting.height) > 127
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        heights.add(rows[-1] - rows[0] + 1)
        lines.add(rows[-1])
        assert (columns[0] + columns[-1]) / 2 / setting.width == pytest.approx(0.5, abs=0.02)
        assert columns[-1] - columns[0] <= 0.93 * setting.width
    assert max(heights) - min(heights) <= 2
    assert max(lines) - min(lines) <= 2
    assert max(lines) / setting.height == pytest.approx(0.78, abs=0.02)
    assert setting.width / setting.height == pytest.approx(1.5, abs=0.02)
    assert max(heights) <= 91  # the least of them: nothing is scaled up


def test_a_consistent_photo_is_set_to_the_pixel_so_that_a_row_of_them_does_not_jump():
    setting = setting_for([measured(mask_with(box)) for box in BOXES])
    for across, down in product(range(60, 70), range(101, 190, 8)):
        mask = mask_with((200, 200 + down, 100, 100 + across))
        frame = frame_for(mask, parse_options({"consistent": True}), setting)
        height = down / setting.subject
        assert abs(frame.height - height) <= 0.5
        assert abs(frame.width - height * setting.width / setting.height) <= 0.5
        assert abs(frame.left + frame.width / 2 - (100 + across / 2)) <= 0.75
        assert abs(frame.top + 0.78 * height - (200 + down)) <= 0.5


def test_the_widest_subject_makes_all_of_its_folder_smaller():
    flat = mask_with((150, 200, 50, 550))
    alone, together = (setting_for([measured(mask_with(box)) for box in boxes] + more) for boxes, more in
                       ((BOXES, []), (BOXES, [measured(flat)])))  # fmt: skip
    assert alone.subject == pytest.approx(0.38)
    assert together.subject < 0.2


@pytest.mark.parametrize("box", [(0, 400, 0, 300), (390, 396, 10, 20), (0, 0, 0, 0)], ids=["cut off", "tiny", "none"])
def test_a_subject_that_cannot_be_set_as_its_fellows_are_is_left_as_it_was_taken(box):
    odd = mask_with(box)
    usual = [measured(mask_with(each)) for each in BOXES]
    setting = setting_for([*usual, measured(odd)])
    assert setting == setting_for(usual)
    assert frame_for(odd, parse_options({"consistent": True}), setting) == Frame(0, 0, 600, 400)


def test_photos_that_stand_as_their_folder_is_to_stand_have_one_size_and_no_flag(cutter):
    alphas = [mask_with((160, 312, 225, 375)), mask_with((320, 624, 450, 750), (800, 1200))]
    setting = setting_for([measured(alpha) for alpha in alphas])
    for alpha in alphas:
        rgb = np.full((*alpha.shape, 3), 90, np.uint8)
        order = Order(b"", parse_options({"consistent": True}), want_mask=False, setting=setting)
        done = cutter.finish(Opened(order, Picture(rgb, None), in_gray(rgb), rgb, mask=alpha, alpha=alpha))
        assert (done.width, done.height, "not_consistent" in done.flags) == (600, 400, False)


def test_a_folder_without_a_whole_subject_has_no_setting():
    assert setting_for([measured(mask_with((0, 400, 0, 600)))]) is None


def test_nothing_huge_is_made_of_a_consistent_photo(cutter):
    done = cut(cutter, consistent=True, size="preview")
    assert opened(done.file).size == (done.width, done.height)
    assert done.width * done.height <= 250_000


def test_a_photo_of_the_batch_lies_behind_the_subject(cutter):
    wall = io.BytesIO()
    Image.new("RGB", (90, 300), (10, 200, 30)).save(wall, "PNG")
    done = cutter.cut(PHOTO, parse_options({"bg_image": "wall.png"}), False, background=wall.getvalue())
    image = pixels(done.file)
    assert image.shape == (400, 600, 3)
    assert tuple(image[2, 2]) == pytest.approx((10, 200, 30), abs=2)


@pytest.mark.parametrize(
    ("behind", "photo"),
    [((1, 1), (400, 200)), ((1000, 1000), (10_000, 3)), ((20, 20), (1, 100)), ((10_000, 3), (90, 90))],
)
def test_a_backdrop_of_any_proportions_covers_a_photo_of_any(behind, photo):
    wall = np.full((*behind[::-1], 3), (10, 200, 30), np.uint8)
    assert (covering(wall, *photo) == np.full((*photo[::-1], 3), (10, 200, 30))).all()


@pytest.mark.parametrize(
    ("wall", "photo", "middle"),
    [
        (NOISE[:60, :100], (60, 60), np.s_[:, 20:80]),
        (NOISE[:100, :60], (60, 60), np.s_[20:80]),
        (NOISE[:60, :100], (30, 30), np.s_[:, 20:80]),
        (NOISE[:60, :100], (50, 10), np.s_[20:40]),
    ],
)
def test_the_middle_of_a_backdrop_is_to_be_seen_and_all_of_it_that_fits(wall, photo, middle):
    width, height = photo
    by = wall[middle].shape[0] // height
    expected = wall[middle].reshape(height, by, width, by, 3).mean((1, 3))
    assert np.abs(covering(wall, width, height) - expected).max() <= 0.51


def test_a_backdrop_that_is_transparent_itself_lies_on_white(cutter):
    wall = io.BytesIO()
    Image.new("RGBA", (90, 60), (255, 0, 0, 0)).save(wall, "PNG")
    done = cutter.cut(PHOTO, parse_options({"bg_image": "wall.png"}), False, background=wall.getvalue())
    assert tuple(pixels(done.file)[2, 2]) == pytest.approx((255, 255, 255), abs=2), "the red below is not to be seen"


@pytest.mark.parametrize("above", [0, 92])
@pytest.mark.parametrize("beside", [0, 72])
@pytest.mark.parametrize("gathered_side", [1200, 60, 25])
def test_despill_takes_the_old_background_out_of_soft_pixels(monkeypatch, gathered_side, above, beside):
    """Wherever the subject lies, also where it begins just before the grid's next line."""
    monkeypatch.setattr("workers.foreground._GATHERED_SIDE", gathered_side)  # as if the photo were large
    alpha = np.pad(disk(blur=6), ((above, 0), (beside, 0)))
    share = alpha[:, :, None].astype(np.float32) / 255
    subject, behind = np.array((200, 40, 60), np.float32), np.array((20, 220, 30), np.float32)
    photo = (subject * share + behind * (1 - share) + 0.5).astype(np.uint8)
    soft = (alpha > 60) & (alpha < 250)
    before = np.abs(photo[soft] - subject).mean()
    after = np.abs(despilled(photo, alpha)[soft] - subject).mean()
    assert before > 30
    assert after < 6


def test_despill_gives_back_the_very_colours_where_subject_and_background_have_one_each():
    """Also where alpha is 0 right beside what is soft."""
    alpha = np.repeat(np.repeat(np.array([[0, 0, 40, 128, 200, 255, 255, 128, 0]], np.uint8), 16, 1), 60, 0)
    share = alpha[:, :, None].astype(np.float32) / 255
    subject, behind = np.array((200, 40, 60), np.float32), np.array((20, 220, 30), np.float32)
    photo = (subject * share + behind * (1 - share) + 0.5).astype(np.uint8)
    off = (despilled(photo, alpha) - subject)[alpha > 0]
    assert np.abs(off).max() <= 1
    assert np.abs(off.mean(0)).max() <= 0.5


def test_despill_leaves_alpha_and_solid_pixels_alone():
    out = despilled(NOISE, disk())
    assert np.array_equal(out[disk() == 255], NOISE[disk() == 255])


@pytest.mark.parametrize("shape", [(300, 3000), (3000, 60), (1, 500), (500, 500)])
@pytest.mark.parametrize("sure", [1, 50])
def test_a_colour_is_spread_however_far_and_into_any_shape(shape, sure):
    weight = np.zeros(shape, np.float32)
    weight[:sure, :sure] = 1
    assert np.abs(spread(np.full((*shape, 3), 200, np.uint8), weight) - 200).max() < 0.1


@pytest.mark.parametrize("shape", [(9, 4), (45, 32), (33, 60), (1, 90)])
def test_a_sure_colour_stays_and_those_between_are_mixed_of_the_sure_ones_alike_along_and_down(shape):
    random = np.random.default_rng(3)
    colours = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    weight = (random.random(shape) < 0.1).astype(np.float32)
    made, sure = spread(colours, weight), weight == 1
    assert sure.any()
    assert np.abs(made - colours)[sure].max() < 0.1
    assert (made > colours[sure].min(0) - 0.1).all()
    assert (made < colours[sure].max(0) + 0.1).all()
    turned = spread(np.ascontiguousarray(colours.transpose(1, 0, 2)), np.ascontiguousarray(weight.T))
    assert np.abs(made - turned.transpose(1, 0, 2)).max() < 0.1


@pytest.mark.parametrize("gathered_side", [10_000, 1200, 70])
def test_despill_of_a_long_subject_keeps_its_colour_to_the_end(monkeypatch, gathered_side):
    monkeypatch.setattr("workers.foreground._GATHERED_SIDE", gathered_side)
    photo, alpha = np.full((61, 3001, 3), 100, np.uint8), np.zeros((61, 3001), np.uint8)
    alpha[10:50] = 128
    alpha[10:50, :100] = 255
    assert np.abs(despilled(photo, alpha)[alpha > 0].astype(int) - 100).max() <= 1


@pytest.mark.parametrize("around", [0, 255])
def test_despill_leaves_a_photo_as_it_is_where_subject_or_background_is_nowhere_to_be_seen(around):
    """Glass alone, or a subject that fills its photo: there is nothing to tell its colours from."""
    alpha = np.full((160, 200), around, np.uint8)
    alpha[40:120, 50:150] = 128
    assert np.array_equal(despilled(NOISE, alpha), NOISE)


def test_despill_of_a_mask_without_soft_pixels_is_the_photo():
    assert np.array_equal(despilled(NOISE, np.full((160, 200), 255, np.uint8)), NOISE)


def test_a_shadow_lies_under_the_subject_and_not_on_it():
    rgb, alpha = with_shadow(NOISE, disk(blur=1))
    assert np.array_equal(rgb[disk() == 255], NOISE[disk() == 255])
    below, above = alpha[131:140, 80:120].mean(), alpha[20:28, 80:120].mean()
    assert below > 25 > 5 > above
    only_shadow = (disk(blur=1) == 0) & (alpha > 10)
    assert only_shadow.any()
    assert not rgb[only_shadow].any()


def test_what_is_less_than_half_there_throws_no_shadow():
    faint = mask_with((20, 60, 20, 60), (100, 100)) // 255 * np.uint8(127)
    rgb, alpha = with_shadow(NOISE[:100, :100], faint)
    assert np.array_equal(rgb, NOISE[:100, :100])
    assert np.array_equal(alpha, faint)
    _, shaded = with_shadow(NOISE[:100, :100], faint + np.uint8(1) * (faint > 0))
    assert shaded[60:62, 30:50].all()


def test_a_shadow_lies_behind_what_is_half_there_and_leaves_the_photo_itself_alone():
    photo, subject = np.full((100, 100, 3), (200, 100, 40), np.uint8), mask_with((20, 60, 20, 60), (100, 100))
    soft = subject.copy()
    soft[60:63, 30:50] = 100  # outside of the subject's box, where the ground is darkest
    given = photo.copy(), soft.copy()
    shade = with_shadow(photo, subject)[1][60:63, 30:50] / 255
    rgb, alpha = with_shadow(photo, soft)
    whole = 100 / 255 + (1 - 100 / 255) * shade
    assert np.abs(alpha[60:63, 30:50] - 255 * whole).max() <= 1
    assert np.abs(rgb[60:63, 30:50] - photo[60:63, 30:50] * (100 / 255 / whole)[..., None]).max() <= 1
    assert np.array_equal(photo, given[0])
    assert np.array_equal(soft, given[1])


def on_two_feet(left: int, right: int) -> np.ndarray:
    """A body of 400 by 100 on two feet that end at these rows."""
    mask = mask_with((100, 200, 100, 500), (400, 600))
    mask[200:left, 120:150] = mask[200:right, 450:480] = 255
    return mask


@pytest.mark.parametrize(("left", "right"), [(300, 300), (300, 260), (250, 300)])
def test_a_shadow_touches_both_feet_of_what_is_seen_at_an_angle(left, right):
    _, alpha = with_shadow(np.zeros((400, 600, 3), np.uint8), on_two_feet(left, right))
    under_left, under_right = alpha[left : left + 4, 130:140], alpha[right : right + 4, 460:470]
    assert under_left.min() > 40
    assert under_right.min() > 40
    assert not alpha[max(left, right) + 25 :].any()


@pytest.mark.parametrize(("left", "right"), [(270, 290), (250, 290), (270, 180)])
def test_a_shadow_touches_the_wheel_beside_a_stand_and_every_visible_leg_of_a_table(left, right):
    """The left one is beside the line that it rests on; then steep lines are, as of what is seen at its corner."""
    mask = mask_with((100, 150, 100, 500), (400, 600))
    mask[150:left, 120:150] = mask[150:300, 220:250] = mask[150:right, 450:480] = 255
    _, alpha = with_shadow(np.zeros((400, 600, 3), np.uint8), mask)
    for foot, bottom in ((130, left), (230, 300), (460, right)):
        assert alpha[bottom : bottom + 2, foot : foot + 5].min() > 40


@pytest.mark.parametrize("splay", [10, 30])
def test_a_shadow_touches_all_legs_that_are_splayed(splay):
    """Their tips have next to nothing above them."""
    table = mask_with((130, 150, 100, 500), (400, 600))
    for tip, top, bottom in ((120, 120 + splay, 250), (300, 300, 300), (480, 480 - splay, 250)):
        leg = [(top - 8, 150), (top + 8, 150), (tip + 8, bottom), (tip - 8, bottom)]
        cv2.fillPoly(table, [np.array(leg)], 255)
    _, alpha = with_shadow(np.zeros((400, 600, 3), np.uint8), table)
    for foot, bottom in ((120, 250), (300, 300), (480, 250)):
        assert alpha[bottom + 1 : bottom + 3, foot].min() > 40


def test_a_mere_line_has_no_shadow():
    line = mask_with((50, 52, 100, 400), (100, 500))
    _, alpha = with_shadow(np.zeros((100, 500, 3), np.uint8), line)
    assert np.array_equal(alpha, line)


def test_a_speck_beside_the_subject_does_not_tilt_the_ground():
    mask = mask_with((100, 300, 200, 500), (400, 600))
    mask[240:260, 110:130] = 255
    _, alpha = with_shadow(np.zeros((400, 600, 3), np.uint8), mask)
    assert alpha[296:300, 110:130].min() > alpha[260:264, 110:130].max()


@pytest.mark.parametrize("lower", [0, 6])
def test_a_bumper_hangs_over_the_ground_that_the_wheels_stand_on(lower):
    """And so does a coupling right beside it, which reaches lower."""
    car = mask_with((100, 200, 100, 500), (400, 600))
    car[190 : 200 + lower, 94:100] = 255
    car[180:224, 150:200] = car[180:224, 400:450] = 255
    _, alpha = with_shadow(np.zeros((400, 600, 3), np.uint8), car)
    assert not alpha[200:205, 100:120].any()
    assert alpha[222:226, 105:120].min() > 20


@pytest.mark.parametrize(("left", "right"), [(380, 210), (201, 380)])
def test_what_only_hangs_beside_a_foot_does_not_tilt_the_ground(left, right):
    subject = on_two_feet(left, right)
    _, alpha = with_shadow(np.zeros((400, 600, 3), np.uint8), subject)
    assert not alpha[220:340][subject[220:340] == 0].any()


@pytest.mark.parametrize("room", [0, 1, 3, 8])
def test_a_shadow_ends_softly_where_the_photo_does(room):
    car = on_two_feet(300, 300)[: 300 + room, 100 - room : 500 + room]
    _, alpha = with_shadow(np.zeros((*car.shape, 3), np.uint8), car)
    shade = np.where(car == 0, alpha, 0)
    assert max(shade[:, 0].max(), shade[:, -1].max(), shade[-1].max()) <= 4
    assert shade.max() > 40


def test_what_goes_on_below_the_photo_has_no_shadow_and_what_touches_its_edge_has():
    soft = mask_with((100, 400, 100, 500), (400, 600))
    soft[380:, 200:300] = 200  # where a shadow would darken it
    rgb, alpha = with_shadow(NOISE[:1, :1].repeat(400, 0).repeat(600, 1), soft)
    assert np.array_equal(alpha, soft)
    assert (rgb == NOISE[0, 0]).all()
    wheels = on_two_feet(400, 400)
    assert with_shadow(np.zeros((400, 600, 3), np.uint8), wheels)[1][380:398, 200:400].max() > 40


@pytest.mark.parametrize("shape", [(1, 100), (1, 1), (100, 1), (2, 3)])
def test_a_subject_of_any_size_may_have_a_shadow(shape):
    _, alpha = with_shadow(np.zeros((*shape, 3), np.uint8), np.full(shape, 255, np.uint8))
    assert (alpha == 255).all()


def test_a_shadow_costs_by_the_ground_that_it_lies_on_and_not_by_the_photo(monkeypatch):
    """The whole of a photo of 50 megapixels took longer than a worker may be silent."""
    blur, pixels_blurred = cv2.GaussianBlur, []

    def counted(layer, *args, **named):
        pixels_blurred.append(layer.size)
        return blur(layer, *args, **named)

    monkeypatch.setattr(cv2, "GaussianBlur", counted)
    with_shadow(np.zeros((2000, 3000, 3), np.uint8), mask_with((500, 1500, 300, 2700), (2000, 3000)))
    assert 0 < sum(pixels_blurred) < 2000 * 3000 / 5


@pytest.mark.parametrize("shape", [(1, 1_000_000), (40, 25_000), (10, 100_000), (300, 3300)])
def test_a_shadow_takes_no_more_memory_for_a_long_photo_than_for_another_of_as_many_pixels(shape):
    """One of 30 by 600,000 pixels, which is a file of a few KB, would have taken 107 GiB."""
    height, width = shape
    subject = np.zeros(shape, np.uint8)
    subject[: height - height // 3, width // 10 : -width // 10 : 2] = 255
    photo = np.zeros((*shape, 3), np.uint8)
    tracemalloc.start()
    with_shadow(photo, subject)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 60 * subject.size


@pytest.mark.parametrize("width", [300, 1200, 2200])
def test_a_shadow_is_the_same_as_if_the_whole_photo_were_blurred(width):
    """Only the rows near the ground are, and wide blurs on a smaller picture."""
    height, half = width * 2 // 3, width * 3 // 8
    subject = cv2.ellipse(
        np.zeros((height, width), np.uint8), (width // 2, height // 2), (half, half // 2), 0, 0, 360, 255, -1
    )
    _, alpha = with_shadow(np.zeros((height, width, 3), np.uint8), subject)
    _, top, across, down = cv2.boundingRect(subject)
    depth = round(down * 0.10)
    flat = cv2.resize(subject[top : top + down], (width, depth), interpolation=cv2.INTER_AREA)
    shade = np.zeros((height, width), np.float32)
    for line, blur, opacity in ((0.55, 0.030, 0.30), (0.75, 0.010, 0.35)):
        layer = np.zeros((height, width), np.float32)
        first = top + down - round(depth * line)
        layer[first : first + depth] = flat / np.float32(255)
        shade += opacity * cv2.GaussianBlur(layer, (0, 0), sigmaX=across * blur, sigmaY=across * blur / 3)
    expected = np.where(subject == 255, 255, 255 * shade)
    assert np.abs(alpha - expected).max() <= 1


def test_a_zip_is_made_of_every_jpeg_that_is_read_whatever_stands_beside_its_pixels(cutter):
    source = stumbled_over(PHOTO)["half a note of Photoshop's"]
    with zipfile.ZipFile(io.BytesIO(cutter.cut(source, parse_options({"format": "zip"}), False).file)) as archive:
        assert archive.read("photo.jpg") == source


def test_a_zip_holds_the_photos_own_bytes_and_its_mask(cutter):
    done = cut(cutter, format="zip")
    with zipfile.ZipFile(io.BytesIO(done.file)) as archive:
        assert archive.namelist() == ["photo.jpg", "mask.png"]
        assert archive.read("photo.jpg") == PHOTO
        assert archive.read("mask.png") == done.mask_png


def test_the_same_photo_gives_the_same_bytes(cutter):
    for format in ("png", "jpg", "webp", "jxl", "zip"):
        assert cut(cutter, format=format).file == cut(cutter, format=format).file
