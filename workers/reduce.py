"""A photo made smaller for the network: halved by averaging while it is large, then Lanczos to the network's side.

Lanczos straight from full size would cost as much as all the rest. Halving first, while at least three times the
target is left, moves the mask by less than saving the photo at JPEG quality 85 does (measured in docs/pixels.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_ENOUGH = 3.0
"""Sides this many times the network's are not halved below it."""

_LOBES = 3


@dataclass(frozen=True)
class Taps:
    """One axis of a resize: output `i` is the sum of `weights[i, k]` × input `first[i] + k`."""

    first: npt.NDArray[np.int64]
    weights: Floats


def halved(photo: Pixels, side: int) -> Pixels:
    """The photo, both sides halved as often as leaves enough for a network of this side. A last odd row is dropped."""
    while True:
        height, width = photo.shape[:2]
        down, across = halving(height, width, side)
        if (down, across) == (1, 1):
            return photo
        photo = _averaged(photo[: height // down * down, : width // across * across], down, across)


def halving(height: int, width: int, side: int) -> tuple[int, int]:
    """By what to divide height and width next, each 1 or 2, for a network of this side."""
    return (2 if height // 2 >= _ENOUGH * side else 1), (2 if width // 2 >= _ENOUGH * side else 1)


def _averaged(photo: Pixels, down: int, across: int) -> Pixels:
    """Means of `down` × `across` pixels, rounded as OpenCV does, which is quick where both are 2 and slow elsewhere."""
    height, width = photo.shape[0] // down, photo.shape[1] // across
    if (down, across) == (2, 2):
        return np.asarray(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    if across == 2:
        return np.asarray(_halved_across(photo), np.uint8)
    return np.asarray(cv2.addWeighted(photo[0::2], 0.5, photo[1::2], 0.5, 0), np.uint8)


def squeezed(photo: Pixels, side: int) -> Pixels:
    """Stretched or squeezed to side × side × 3 by Lanczos: columns first, rounded between, as pillow does it.

    Some photos are so close to the edge of what the network can decide that the rounding shows in their masks.
    """
    height, width = photo.shape[:2]
    if (height, width) == (side, side):
        return photo
    turned = _turned(photo).reshape(width, height * 3)
    narrow = _weighed_rows(turned, lanczos(width, side)).reshape(side, height, 3)
    level = _turned(narrow).reshape(height, side * 3)
    return _weighed_rows(level, lanczos(height, side)).reshape(side, side, 3)


def _turned(photo: Pixels) -> Pixels:
    """Rows for columns; numpy takes five times as long for it."""
    return np.asarray(cv2.transpose(photo), np.uint8)


def _weighed_rows(rows: Pixels, taps: Taps) -> Pixels:
    return np.asarray(_weigh_rows(rows, taps.first, taps.weights), np.uint8)


@lru_cache(maxsize=1024)
def lanczos(size: int, target: int) -> Taps:
    """The taps that take `size` pixels to `target`, widened when it shrinks, so that none is skipped; as in pillow."""
    scale = size / target
    reach = _LOBES * max(scale, 1.0)
    count = math.ceil(reach) * 2 + 1
    first = np.empty(target, np.int64)
    weights = np.zeros((target, count), np.float64)
    for place in range(target):
        centre = (place + 0.5) * scale
        start = max(0, int(centre - reach + 0.5))
        end = min(size, int(centre + reach + 0.5))
        first[place] = start
        x = (np.arange(start, end) + 0.5 - centre) / max(scale, 1.0)
        weights[place, : end - start] = np.where(np.abs(x) < _LOBES, np.sinc(x) * np.sinc(x / _LOBES), 0)
    return Taps(first, (weights / weights.sum(1, keepdims=True)).astype(np.float32))


def bands(size: int, target: int, width: int) -> list[tuple[int, Floats]]:
    """The same for `width` outputs at a time: the first input of each band, and its weights as inputs × outputs.

    One matrix for all outputs would be nearly all zeros.
    """
    taps = lanczos(size, target)
    found = []
    for place in range(0, target, width):
        first, weights = taps.first[place : place + width], taps.weights[place : place + width]
        matrix = np.zeros((int(first[-1] - first[0]) + weights.shape[1], len(first)), np.float32)
        inputs = (first - first[0])[:, None] + np.arange(weights.shape[1])
        matrix[inputs, np.arange(len(first))[:, None]] = weights
        found.append((int(first[0]), matrix[: size - int(first[0])]))
    return found


@njit(cache=True, nogil=True)
def _halved_across(photo):  # type: ignore[no-untyped-def]
    height, width = photo.shape[0], photo.shape[1] // 2
    out = np.empty((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            for channel in range(3):
                both = np.uint16(photo[y, 2 * x, channel]) + np.uint16(photo[y, 2 * x + 1, channel])
                out[y, x, channel] = np.uint8((both >> 1) + (both & (both >> 1) & 1))  # a half: to the even number
    return out


@njit(cache=True, nogil=True, fastmath=True)
def _weigh_rows(rows, first, weights):  # type: ignore[no-untyped-def]
    out = np.empty((len(first), rows.shape[1]), np.uint8)
    sums = np.empty(rows.shape[1], np.float32)
    for place in range(len(first)):
        sums[:] = 0.5
        for tap in range(weights.shape[1]):
            weight = weights[place, tap]
            source = first[place] + tap
            if weight != 0 and source < rows.shape[0]:
                for i in range(rows.shape[1]):
                    sums[i] += rows[source, i] * weight
        for i in range(rows.shape[1]):
            out[place, i] = np.uint8(min(max(sums[i], np.float32(0)), np.float32(255)))
    return out
