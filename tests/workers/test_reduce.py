"""What a photo goes through before the network, and the exactness of what is put together after it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.workers.photos import PHOTOS
from workers.composite import on_colour
from workers.reduce import halved, squeezed

PHOTO = np.asarray(Image.open(PHOTOS[1]).convert("RGB"))


@pytest.mark.parametrize("size", [(2001, 1999), (2000, 900), (901, 2100), (3840, 1920), (959, 959)])
def test_a_photo_is_halved_to_the_byte_as_opencv_averages(size):
    photo = np.asarray(Image.fromarray(PHOTO).resize(size, Image.Resampling.BICUBIC))
    height, width = size[1], size[0]
    wanted = photo
    while height // 2 >= 960 or width // 2 >= 960:
        down, across = 1 + (height // 2 >= 960), 1 + (width // 2 >= 960)
        height, width = height // down, width // across
        wanted = cv2.resize(wanted[: height * down, : width * across], (width, height), interpolation=cv2.INTER_AREA)
    assert np.array_equal(halved(photo, 320), wanted)


@pytest.mark.parametrize("size", [(1500, 1100), (321, 1000), (320, 320), (200, 90)])
def test_a_photo_is_squeezed_as_pillow_does_it(size):
    photo = np.asarray(Image.fromarray(PHOTO).resize(size, Image.Resampling.BICUBIC))
    theirs = np.asarray(Image.fromarray(photo).resize((320, 320), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(squeezed(photo, 320) - theirs).max() <= 2  # its weights are whole numbers


def test_each_alpha_and_colour_is_mixed_and_rounded_exactly():
    """All pairs of a colour and an alpha, over three colours behind them."""
    front, alpha = (each.astype(np.uint8) for each in np.meshgrid(np.arange(256), np.arange(256)))
    rgb = np.dstack((front, front, front))
    behind = (0, 131, 255)
    wide = alpha.astype(int)[:, :, None]
    wanted = (rgb.astype(int) * wide + np.array(behind) * (255 - wide) + 127) // 255
    assert np.array_equal(on_colour(rgb, alpha, (*behind, 255)), wanted)
