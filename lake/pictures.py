"""Where the lake turns a candidate's files into pixels: for training, for how it looks alike, for people to look at.

Pixels are upright, and what is transparent lies on white, as the network saw it. A JPEG, by far the most frequent,
goes a fast way.
"""

from __future__ import annotations

import io
import math
from contextlib import suppress
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
import pillow_heif
import pillow_jxl  # noqa: F401 - teaches pillow to read JPEG XL
import simplejpeg
from PIL import Image, ImageOps

Pixels = npt.NDArray[np.uint8]

pillow_heif.register_heif_opener()

_SIDE, _KEPT = 32, 8
_WITH_ALPHA = ("LA", "PA", "RGBA", "P")
"""Modes of pillow in which pixels of several colours can be transparent."""
_EXTRA_SAMPLES, _MULTIPLIED = 338, 1
"""A TIFF's colours are multiplied by alpha: pillow gives black where that is 0, whatever lies there."""
_FROM_EXIF = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[:, ::-1],
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: image.transpose(1, 0, 2)[::-1],
}


def rgb(image: bytes | memoryview, at_least: tuple[int, int] = (0, 0)) -> Pixels:
    """The upright pixels of a candidate's image: height x width x 3.

    `at_least`: (height, width) that suffice; a JPEG is then decoded at a half, a quarter or an eighth if it can.
    Raises `ValueError` for what does not decode.
    """
    image = memoryview(image).cast("B")  # Arrow's buffers are of signed bytes, which simplejpeg refuses
    if bytes(image[:2]) == b"\xff\xd8":
        with suppress(ValueError):  # CMYK and other rare kinds: pillow knows them
            pixels = simplejpeg.decode_jpeg(image, min_height=at_least[0], min_width=at_least[1], min_factor=1)
            turn = _FROM_EXIF.get(_orientation(image))
            return pixels if turn is None else np.ascontiguousarray(turn(pixels))
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return np.asarray(_on_white(_upright(opened)).convert("RGB"))
    except Exception as error:  # each decoder has errors of its own, and all of them mean this
        raise ValueError("the image does not decode") from error


def gray(mask_png: bytes | memoryview) -> Pixels:
    """The pixels of a candidate's mask: height x width. Raises `ValueError`."""
    pixels = cv2.imdecode(np.frombuffer(mask_png, np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise ValueError("the mask does not decode")
    return np.asarray(pixels, np.uint8)


def perceptual_hash(image: bytes) -> str | None:
    """64 bits in hex: which of the image's slowest waves are stronger than their median. None if it does not decode.

    Scaling, recompression and small changes of light alter few of the bits.
    """
    try:
        with Image.open(io.BytesIO(image)) as opened:
            opened.draft("L", (2 * _SIDE, 2 * _SIDE))  # a JPEG is decoded small
            upright = _on_white(_upright(opened)).convert("L")
    except Exception:  # noqa: BLE001 - each decoder has errors of its own; a candidate without a hash is one all the same
        return None
    small = np.asarray(upright.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)
    waves = _cosines() @ small @ _cosines().T
    slow = waves[:_KEPT, :_KEPT].flatten()
    bits = slow > np.median(slow[1:])  # the first is the mean light, which says nothing
    bits[0] = False
    return np.packbits(bits).tobytes().hex()


def hides_colours(image: bytes) -> bool:
    """Whether there is more than one colour where the image is wholly transparent, or that cannot be told.

    Programs leave colours under what somebody erased: nobody who looks at the image sees them.
    """
    try:
        with Image.open(io.BytesIO(image)) as opened:
            if not _may_be_clear(opened):
                return False
            pixels = opened.convert("RGBA")
            is_kept_back = _MULTIPLIED in getattr(opened, "tag_v2", {}).get(_EXTRA_SAMPLES, ())
    except Exception:  # noqa: BLE001 - each decoder has errors of its own; any doubt is a yes
        return True
    is_erased = pixels.getchannel("A").point([255] + 255 * [0])
    if is_kept_back:
        return is_erased.getbbox() is not None
    shades = np.reshape(pixels.histogram(is_erased), (4, 256))
    return bool((np.count_nonzero(shades, axis=1) > 1).any())


def _orientation(jpeg: bytes | memoryview) -> int:
    """Read where `lake.strip` puts it: in the first or second segment. No other metadata is in the lake."""
    place = bytes(jpeg[:64]).find(b"Exif\0\0II*\0")
    return int(jpeg[place + 24]) if place >= 0 else 1


def _may_be_clear(image: Image.Image) -> bool:
    return image.mode in _WITH_ALPHA and image.has_transparency_data


def _on_white(image: Image.Image) -> Image.Image:
    if not _may_be_clear(image):
        return image
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white


def _upright(image: Image.Image) -> Image.Image:
    """With grays of 16 bits or floating point as 0…255, as they were when the mask was made; pillow would clip them.

    Floats up to 4 are fractions, with highlights over 1; NaN is 0.
    """
    upright = ImageOps.exif_transpose(image)
    if not upright.mode.startswith("I;16") and upright.mode != "F":
        return upright
    values = np.asarray(upright).astype(np.float32)
    peak, top = float(values[np.isfinite(values)].max(initial=0)), 65535.0
    if upright.mode == "F":
        top = next((each for reach, each in ((4.0, 1.0), (255.0, 255.0)) if peak <= reach), top)
    values = np.nan_to_num(values, posinf=peak)
    return Image.fromarray(np.clip(values * (255.0 / top) + 0.5, 0, 255).astype(np.uint8))


@cache
def _cosines() -> npt.NDArray[np.float64]:
    """The matrix of the discrete cosine transform (type II), up to its scale."""
    places = np.arange(_SIDE)
    return np.cos(math.pi / _SIDE * np.outer(places, places + 0.5))
