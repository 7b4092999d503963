"""The network's mask is small; here its soft edge is worked out anew from the photo's own pixels.

Beside the edge there are pixels that are surely subject and pixels that are surely background. Their colours, spread
inwards (`workers.foreground.spread`), say what each edge pixel could be a mixture of, and the pixel itself says how
much of each. How far that is believed over the coarse mask is a matter of noise: where subject and background look
alike, or vary much, the mask stays as it is (two guesses weighed by their variances, as in Bayesian matting).
"""

from __future__ import annotations

import math
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

from workers.foreground import spread

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SUBJECT, BEHIND = 247, 8
"""Alpha from which, and up to which, a pixel is surely one or the other."""

DOUBT = 0.35
"""Standard deviation of the coarse mask's alpha in the middle of an edge."""

STEEP = 0.4
"""Range of alpha, in a window of `BESIDE`, that is an edge for sure."""

NOISE = 6.0
"""Standard deviation of a colour that varies least, of 255."""

BESIDE, NEAR, FAR = 9, 15, 31
"""Sides of the windows that means are taken of, in pixels of the smaller picture."""

_SIDE = 1000
"""Longer side, at most, of the picture that the colours are gathered on."""


def pixels_to_one(height: int, width: int) -> int:
    """Rows, and as many columns, of a photo that make one of the picture that its colours are gathered on."""
    return max(1, math.ceil(max(height, width) / _SIDE))


def refined(rgb: Pixels, alpha: Pixels) -> Pixels:
    """The alpha, of the photo's size, with its soft edges worked out from the photo.

    It stays as it is where no pixel is surely subject, or none surely background.
    """
    if not ((alpha > 5) & (alpha < 250)).any():
        return alpha
    by = pixels_to_one(*alpha.shape)
    guide, coarse = _smaller(rgb, by), _smaller(alpha, by)
    inner, outer = _within(coarse >= SUBJECT), _within(coarse <= BEHIND)
    if not (inner.any() and outer.any()):
        return alpha
    beside = _mean(guide, BESIDE)
    subject, behind = _gathered(guide, beside, inner), _gathered(guide, beside, outer)
    return cast(Pixels, _worked_out(np.ascontiguousarray(rgb), alpha, subject, behind, _steepness(coarse), by))


def _smaller(picture: Pixels, by: int) -> Pixels:
    """Means of `by` × `by` pixels. The last row and column count for those that are missing.

    A side shorter than that is taken whole: filled up, a line of a million pixels would be a thousand as long.
    """
    height, width = picture.shape[:2]
    down, across = min(by, height), min(by, width)
    rows, columns = -(-height // down), -(-width // across)
    if (rows * down, columns * across) != (height, width):
        edge = (rows * down - height, 0, columns * across - width)
        picture = np.asarray(cv2.copyMakeBorder(picture, 0, *edge, cv2.BORDER_REPLICATE), np.uint8)
    return np.asarray(cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def _within(sure: npt.NDArray[np.bool_]) -> Pixels:
    """1 where all pixels around are sure too."""
    return np.asarray(cv2.erode(sure.view(np.uint8), np.ones((3, 3), np.uint8)), np.uint8)


def _mean(picture: Pixels | Floats, side: int) -> Floats:
    """Of the window around each pixel."""
    return np.asarray(cv2.boxFilter(picture, cv2.CV_32F, (side, side), borderType=cv2.BORDER_REPLICATE), np.float32)


def _gathered(guide: Pixels, beside: Floats, sure: Pixels) -> Floats:
    """Height × width × 4: the colour to expect, and its variance. `beside`: the mean of the pixels around each."""
    mean = spread(guide, sure.astype(np.float32))
    off, rough = _squares(guide, mean, beside, sure)
    near, far = _mean(sure, NEAR), _mean(sure, FAR)
    return cast(Floats, _with_variance(mean, _mean(off, NEAR), near, _mean(rough, FAR), far))


@njit(cache=True, nogil=True, fastmath=True)
def _squares(guide, mean, beside, sure):  # type: ignore[no-untyped-def]
    """How far each sure pixel is from the colour to expect, and from those around it: squares, means of channels."""
    off, rough = np.zeros(sure.shape, np.float32), np.zeros(sure.shape, np.float32)
    for y in range(sure.shape[0]):
        for x in range(sure.shape[1]):
            if sure[y, x]:
                for channel in range(3):
                    colour = np.float32(guide[y, x, channel])
                    off[y, x] += (colour - mean[y, x, channel]) ** 2 / np.float32(3)
                    rough[y, x] += (colour - beside[y, x, channel]) ** 2 / np.float32(3)
    return off, rough


@njit(cache=True, nogil=True, fastmath=True)
def _with_variance(mean, off, near, rough, far):  # type: ignore[no-untyped-def]
    """The larger of both variances beside the colour, 0 where nothing sure is near. All are means around each pixel."""
    height, width = off.shape
    out = np.empty((height, width, 4), np.float32)
    for y in range(height):
        for x in range(width):
            out[y, x, :3] = mean[y, x]
            out[y, x, 3] = max(
                off[y, x] / max(near[y, x], np.float32(1e-3)),
                rough[y, x] / max(far[y, x], np.float32(1e-3)),
            )
    return out


def _steepness(coarse: Pixels) -> Floats:
    """How much of an edge there is, 0 to 1: the mask's range in a small window. Within glass there is none."""
    window = np.ones((BESIDE, BESIDE), np.uint8)
    span = cv2.dilate(coarse, window).astype(np.float32) - cv2.erode(coarse, window)
    return np.asarray(np.minimum(span / np.float32(255 * STEEP), np.float32(1)), np.float32)


@njit(cache=True, nogil=True, fastmath=True)
def _worked_out(rgb, alpha, subject, behind, steepness, by):  # type: ignore[no-untyped-def]
    height, width = alpha.shape
    doubt, noise = np.float32(DOUBT**2), np.float32(NOISE**2)
    out = alpha.copy()
    for y in range(height):
        for x in range(width):
            a = np.float32(alpha[y, x]) / np.float32(255)
            if 0.01 < a < 0.99:
                v, u = y // by, x // by
                along, length = np.float32(0), np.float32(0)
                for channel in range(3):
                    start = behind[v, u, channel]
                    step = subject[v, u, channel] - start
                    along += (np.float32(rgb[y, x, channel]) - start) * step
                    length += step * step
                length = max(length, np.float32(1))
                seen = min(max(along / length, np.float32(0)), np.float32(1))
                rest = np.float32(1) - a
                spreading = noise + a * a * subject[v, u, 3] + rest * rest * behind[v, u, 3]
                own = spreading * np.float32(3) / length
                prior = doubt * np.float32(4) * a * rest * steepness[v, u] * steepness[v, u] + np.float32(1e-4)
                mixed = a + (seen - a) * prior / (prior + own)
                out[y, x] = np.uint8(mixed * np.float32(255) + np.float32(0.5))
    return out
