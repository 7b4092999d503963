"""Putting a subject on what lies behind it. One pass over the pixels each, compiled, and without Python's lock.

Transparent output keeps the photo's own colour beside its alpha (straight, not premultiplied): multiplying first
and saving the product as straight colour is what darkens soft edges. Where alpha is 0 the colour is 0 too: nobody
sees it, it gives the background away, and it costs bytes.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
from numba import njit

from schemas.options import Rgba

Pixels = npt.NDArray[np.uint8]


def cut_out(rgb: Pixels, alpha: Pixels) -> Pixels:
    """Height × width × 4, straight colour."""
    return cast(Pixels, _cut_out(np.ascontiguousarray(rgb), alpha))


def on_colour(rgb: Pixels, alpha: Pixels, colour: Rgba) -> Pixels:
    """Height × width × 3 on an opaque colour, or × 4 on one that is not."""
    red, green, blue, opacity = colour
    if opacity == 255:
        return cast(Pixels, _on_opaque(np.ascontiguousarray(rgb), alpha, red, green, blue))
    return cast(Pixels, _on_translucent(np.ascontiguousarray(rgb), alpha, red, green, blue, opacity))


def on_image(rgb: Pixels, alpha: Pixels, behind: Pixels) -> Pixels:
    """Height × width × 3, on another image of the same size."""
    return cast(Pixels, _on_image(np.ascontiguousarray(rgb), alpha, np.ascontiguousarray(behind)))


@njit(cache=True, nogil=True)
def _cut_out(rgb, alpha):  # type: ignore[no-untyped-def]
    height, width = alpha.shape
    out = np.empty((height, width, 4), np.uint8)
    for y in range(height):
        for x in range(width):
            a = alpha[y, x]
            if a:
                out[y, x, 0] = rgb[y, x, 0]
                out[y, x, 1] = rgb[y, x, 1]
                out[y, x, 2] = rgb[y, x, 2]
                out[y, x, 3] = a
            else:
                out[y, x, 0] = 0
                out[y, x, 1] = 0
                out[y, x, 2] = 0
                out[y, x, 3] = 0
    return out


@njit(cache=True, nogil=True)
def _over_255(value):  # type: ignore[no-untyped-def]
    """`value / 255`, rounded, for 0 ≤ value ≤ 255². Exact."""
    value += 128
    return (value + (value >> 8)) >> 8


@njit(cache=True, nogil=True)
def _on_opaque(rgb, alpha, red, green, blue):  # type: ignore[no-untyped-def]
    """Without a branch, row by row in 16 bits, so that the processor does many bytes at once."""
    height, width = alpha.shape
    out = np.empty((height, width, 3), np.uint8)
    behind, share = np.empty(3 * width, np.uint16), np.empty(3 * width, np.uint16)
    for x in range(width):
        behind[3 * x], behind[3 * x + 1], behind[3 * x + 2] = red, green, blue
    for y in range(height):
        for x in range(width):
            share[3 * x] = share[3 * x + 1] = share[3 * x + 2] = alpha[y, x]
        front, made = rgb[y].reshape(3 * width), out[y].reshape(3 * width)
        for i in range(3 * width):
            mixed = np.uint16(front[i] * share[i] + behind[i] * np.uint16(255 - share[i]) + np.uint16(128))
            made[i] = np.uint8(np.uint16(mixed + (mixed >> np.uint16(8))) >> np.uint16(8))  # as `_over_255`
    return out


@njit(cache=True, nogil=True)
def _on_translucent(rgb, alpha, red, green, blue, opacity):  # type: ignore[no-untyped-def]
    height, width = alpha.shape
    out = np.zeros((height, width, 4), np.uint8)
    colour = (red, green, blue)
    for y in range(height):
        for x in range(width):
            front = alpha[y, x] * 255
            behind = (255 - alpha[y, x]) * opacity
            whole = front + behind
            if whole:
                for channel in range(3):
                    mixed = rgb[y, x, channel] * front + colour[channel] * behind
                    out[y, x, channel] = (mixed + whole // 2) // whole
                out[y, x, 3] = (whole + 127) // 255
    return out


@njit(cache=True, nogil=True)
def _on_image(rgb, alpha, behind):  # type: ignore[no-untyped-def]
    out = behind.copy()
    for y in range(alpha.shape[0]):
        for x in range(alpha.shape[1]):
            a = np.uint32(alpha[y, x])
            if a:
                rest = np.uint32(255) - a
                for channel in range(3):
                    mixed = np.uint32(rgb[y, x, channel]) * a + np.uint32(behind[y, x, channel]) * rest
                    out[y, x, channel] = _over_255(mixed)
    return out
