"""A soft shadow on the ground below the subject, as if a large lamp hung above it.

The subject's outline is laid flat on the line that it stands on, and blurred: wide and faint, and narrow and
dark where it touches the ground.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

Pixels = npt.NDArray[np.uint8]

_DEPTH = 0.10
"""How deep the flat outline reaches, of the subject's height."""

_WIDE, _NARROW = 0.030, 0.010
"""Blur of the faint and of the dark part, of the subject's width."""

_FAINT, _DARK = 0.30, 0.35
"""Their greatest opacity."""


def with_shadow(rgb: Pixels, alpha: Pixels) -> tuple[Pixels, Pixels]:
    """The subject with a black shadow under it: straight colour, and alpha. Without a subject nothing is added."""
    left, top, across, down = cv2.boundingRect((alpha > 127).view(np.uint8))
    if not across:
        return rgb, alpha
    shade = _ground(alpha, left, top, across, down)
    return cast(tuple[Pixels, Pixels], _under(np.ascontiguousarray(rgb), np.ascontiguousarray(alpha), shade))


def _ground(alpha: Pixels, left: int, top: int, across: int, down: int) -> npt.NDArray[np.float32]:
    height, width = alpha.shape
    depth = max(2, round(down * _DEPTH))
    flat = cv2.resize(alpha[top : top + down, left : left + across], (across, depth), interpolation=cv2.INTER_AREA)
    shade = np.zeros((height, width), np.float32)
    for line, blur, opacity in ((0.55, _WIDE, _FAINT), (0.75, _NARROW, _DARK)):
        layer = np.zeros((height, width), np.float32)
        first = top + down - round(depth * line)
        rows = min(depth, height - first)
        layer[first : first + rows, left : left + across] = flat[:rows].astype(np.float32) / 255
        sigma = max(1.0, across * blur)
        # Wider than high, as the ground is seen at a flat angle.
        shade += opacity * cv2.GaussianBlur(layer, (0, 0), sigmaX=sigma, sigmaY=max(0.5, sigma / 3))
    return shade


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
