"""A soft shadow on the ground below the subject, as if a large lamp hung above it.

The subject's outline is laid flat on the line that it stands on, and blurred: wide and faint, and narrow and
dark where it touches the ground.
"""

from __future__ import annotations

import math
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_DEPTH = 0.10
"""How deep the flat outline reaches, of the subject's height."""

_WIDE, _NARROW = 0.030, 0.010
"""Blur of the faint and of the dark part, of the subject's width."""

_FAINT, _DARK = 0.30, 0.35
"""Their greatest opacity."""

_FRONT, _UNDER = 0.55, 0.75
"""How much of them lies above the line that the subject stands on, of their depth."""

_SEEN = 2.5
"""Sigmas beyond its edge at which nothing is to be seen of either."""

_ENOUGH = 8.0
"""Pixels of sigma, down, that a blur needs to be smooth."""


def with_shadow(rgb: Pixels, alpha: Pixels) -> tuple[Pixels, Pixels]:
    """The subject with a black shadow under it: straight colour, and alpha. Without a subject nothing is added."""
    left, top, across, down = cv2.boundingRect((alpha > 127).view(np.uint8))
    if not across:
        return rgb, alpha
    shade = _ground(alpha, left, top, across, down)
    return cast(tuple[Pixels, Pixels], _under(np.ascontiguousarray(rgb), np.ascontiguousarray(alpha), shade))


def reach(across: int, down: int) -> tuple[int, int]:
    """How far the shadow of a subject of this size is to be seen beside it, on either side, and below it; in pixels."""
    wide, high = _sigmas(across, _WIDE)
    below = (1 - _FRONT) * _depth(down) + _SEEN * high
    return math.ceil(_SEEN * wide) + 1, math.ceil(below) + 1  # the blur mirrors what is nearer to an edge


def _depth(down: int) -> int:
    return max(2, round(down * _DEPTH))


def _sigmas(across: int, blur: float) -> tuple[float, float]:
    """Along and down: the ground is seen at a flat angle."""
    wide = max(1.0, across * blur)
    return wide, max(0.5, wide / 3)


def _ground(alpha: Pixels, left: int, top: int, across: int, down: int) -> Floats:
    height, width = alpha.shape
    depth = _depth(down)
    flat = cv2.resize(alpha[top : top + down, left : left + across], (across, depth), interpolation=cv2.INTER_AREA)
    shade = np.zeros((height, width), np.float32)
    for line, blur, opacity in ((_FRONT, _WIDE, _FAINT), (_UNDER, _NARROW, _DARK)):
        first = max(0, top + down - round(depth * line))
        rows = min(depth, height - first)
        wide, high = _sigmas(across, blur)
        above, below = max(0, first - _reached(high)), min(height, first + rows + _reached(high))
        layer = np.zeros((below - above, width), np.float32)
        layer[first - above : first - above + rows, left : left + across] = flat[:rows].astype(np.float32) / 255
        shade[above:below] += opacity * _blurred(layer, wide, high)
    return shade


def _blurred(layer: Floats, wide: float, high: float) -> Floats:
    """By sigmas along and down. A wide one is done on a smaller layer, which differs by a tenth of a level of 255."""
    by = max(1, int(high / _ENOUGH))
    size = (-(-layer.shape[1] // by), -(-layer.shape[0] // by))
    small = cv2.resize(layer, size, interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), sigmaX=wide / by, sigmaY=high / by)
    return np.asarray(cv2.resize(soft, layer.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _reached(sigma: float) -> int:
    """Pixels beyond which OpenCV's blur of floats changes nothing: the rows farther off need none."""
    return int(4 * sigma) + 2


@njit(cache=True, nogil=True)
def _under(rgb, alpha, shade):  # type: ignore[no-untyped-def]
    colours, out = rgb.copy(), alpha.copy()
    for y in range(alpha.shape[0]):
        for x in range(alpha.shape[1]):
            a = np.float32(alpha[y, x]) / np.float32(255)
            whole = a + (np.float32(1) - a) * shade[y, x]
            out[y, x] = np.uint8(min(whole * np.float32(255) + np.float32(0.5), np.float32(255)))
            if a < 1 and whole > 0:
                for channel in range(3):
                    colours[y, x, channel] = np.uint8(rgb[y, x, channel] * a / whole + np.float32(0.5))
    return colours, out
