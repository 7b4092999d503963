"""Small pictures for pages: of every format that a cutout can have, upright, transparent where the cutout is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from schemas.errors import ImageTooLarge, ItemError
from schemas.options import CutoutOptions, Format
from workers.decode import Limits
from workers.encode import encode, write_zip
from workers.preview import LONGEST, of_cutout, of_photo

LIMITS = Limits(pixels=10_000_000, bytes=30_000_000)


def photo(width: int = 1_600, height: int = 1_200) -> np.ndarray:
    """The left half red, the right half blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    return pixels


def jpeg(pixels: np.ndarray, orientation: int = 1) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


def opened(webp: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(webp))
    assert image.format == "WEBP"
    return image


def test_a_photo_is_small_and_upright() -> None:
    assert opened(of_photo(jpeg(photo()), LIMITS)).size == (LONGEST, LONGEST * 3 // 4)
    assert opened(of_photo(jpeg(photo(), orientation=6), LIMITS)).size == (LONGEST * 3 // 4, LONGEST)
    assert opened(of_photo(jpeg(photo(40, 30)), LIMITS)).size == (40, 30), "never scaled up"


@pytest.mark.parametrize("format", list(Format))
def test_a_cutout_of_any_format_shows_what_is_left(format: Format) -> None:
    pixels = photo()
    alpha = np.zeros(pixels.shape[:2], np.uint8)
    alpha[:, :800] = 255
    file = (
        write_zip(jpeg(pixels), alpha) if format is Format.ZIP else encode(pixels, alpha, CutoutOptions(format=format))
    )
    small = opened(of_cutout(file, format, LIMITS)).convert("RGBA")
    assert small.size == (LONGEST, LONGEST * 3 // 4)
    red, green, blue, opacity = small.getpixel((100, 100))
    assert red > 240
    assert max(green, blue) < 15
    assert opacity == 255
    assert small.getpixel((600, 100))[3] == (255 if format is Format.JPG else 0)


def test_what_cannot_be_decoded_gives_no_picture() -> None:
    with pytest.raises(ItemError):
        of_photo(b"no photo", LIMITS)
    with pytest.raises(ImageTooLarge):
        of_photo(jpeg(photo()), Limits(pixels=1_000, bytes=30_000_000))
