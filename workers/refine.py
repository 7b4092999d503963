"""The network's mask is small; here its soft edge is worked out anew from the photo's own pixels.

Beside the edge there are pixels that are surely subject and pixels that are surely background. Their colours, spread
inwards (`workers.foreground.spread`), say what each edge pixel could be a mixture of, and the pixel itself says how
much of each. How far that is believed over the coarse mask is a matter of noise: where subject and background look
alike, or vary much, the mask stays as it is (two guesses weighed by their variances, as in Bayesian matting).
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

from workers.foreground import spread

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_FIT_SIDE = 800
"""Longer side of the photo that the colours are gathered on."""

_DOUBT = 0.35
"""Standard deviation of the coarse mask's alpha in the middle of an edge."""

_STEEP = 0.4
"""Range of alpha, in a window of 9 pixels, that is an edge for sure."""

_NOISE = 6.0
"""Standard deviation of a colour that varies least, of 255."""


def refined(rgb: Pixels, alpha: Pixels) -> Pixels:
    """The alpha, of the photo's size, with its soft edges worked out from the photo.

    It stays as it is where no pixel is surely subject, or none surely background.
    """
    soft = ((alpha > 5) & (alpha < 250)).view(np.uint8)
    if not soft.any():
        return alpha
    height, width = alpha.shape
    scale = min(1.0, _FIT_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    guide = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    coarse = np.asarray(cv2.resize(alpha, size, interpolation=cv2.INTER_AREA), np.uint8)
    inner, outer = _within(coarse >= 247), _within(coarse <= 8)
    if not (inner.any() and outer.any()):
        return alpha
    subject, behind = _gathered(guide, inner), _gathered(guide, outer)
    both = np.ascontiguousarray(np.dstack((subject, behind, _steepness(coarse))))
    return cast(Pixels, _worked_out(np.ascontiguousarray(rgb), alpha, both, np.float32(_DOUBT), np.float32(_NOISE**2)))


def _within(sure: npt.NDArray[np.bool_]) -> Floats:
    """1 where all pixels around are sure too."""
    return cv2.erode(sure.view(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)


def _gathered(guide: Pixels, weight: Floats) -> Floats:
    """Height × width × 4: the colour to expect, and its variance."""
    mean = spread(guide, weight)
    distance = ((guide.astype(np.float32) - mean) ** 2).mean(2)
    local = np.asarray(cv2.blur(distance * weight, (15, 15)) / np.maximum(cv2.blur(weight, (15, 15)), 1e-3), np.float32)
    near = np.asarray(cv2.blur(guide.astype(np.float32), (9, 9)), np.float32)
    rough = ((guide.astype(np.float32) - near) ** 2).mean(2) * weight
    variance = cv2.blur(rough, (31, 31)) / np.maximum(cv2.blur(weight, (31, 31)), np.float32(1e-3))
    return np.dstack((mean, np.maximum(local, variance).astype(np.float32)))


def _steepness(coarse: Pixels) -> Floats:
    """How much of an edge there is, 0 to 1: the mask's range in a small window. Within glass there is none."""
    window = np.ones((9, 9), np.uint8)
    span = cv2.dilate(coarse, window).astype(np.float32) - cv2.erode(coarse, window)
    return np.asarray(np.minimum(span / np.float32(255 * _STEEP), np.float32(1)), np.float32)


@njit(cache=True, nogil=True, fastmath=True)
def _worked_out(rgb, alpha, both, doubt, noise):  # type: ignore[no-untyped-def]
    height, width = alpha.shape
    rows, columns = both.shape[0], both.shape[1]
    out = alpha.copy()
    for y in range(height):
        for x in range(width):
            a = np.float32(alpha[y, x]) / np.float32(255)
            if 0.01 < a < 0.99:
                v, u = min(rows - 1, y * rows // height), min(columns - 1, x * columns // width)
                along, length = np.float32(0), np.float32(0)
                for channel in range(3):
                    behind = both[v, u, 4 + channel]
                    step = both[v, u, channel] - behind
                    along += (np.float32(rgb[y, x, channel]) - behind) * step
                    length += step * step
                length = max(length, np.float32(1))
                seen = min(max(along / length, np.float32(0)), np.float32(1))
                rest = np.float32(1) - a
                spreading = noise + a * a * both[v, u, 3] + rest * rest * both[v, u, 7]
                own = spreading * np.float32(3) / length
                prior = doubt * doubt * np.float32(4) * a * rest * both[v, u, 8] * both[v, u, 8] + np.float32(1e-4)
                mixed = a + (seen - a) * prior / (prior + own)
                out[y, x] = np.uint8(mixed * np.float32(255) + np.float32(0.5))
    return out
