"""What colour the subject has where it is half transparent: the old background is taken out of it ("despill").

A soft pixel is `alpha × subject + (1 - alpha) × background`. Subject and background near it are guessed from the
pixels around that are surely one or the other, spread inwards over a pyramid of halved images
(push and pull); the guess for the subject is then corrected by what the pixel really
shows (as in Forte, "Approximate Fast Foreground Colour Estimation", 2021). Alpha itself is not
touched: glass stays glass. Of large photos the sure colours are gathered on a smaller picture, for a quarter of the
time and the same errors.
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

_SURE = 0.97
_MARGIN = 24
"""Pixels around the soft region that are looked at for sure colours."""

_GRID = 64
"""What is looked at begins at a multiple of so many pixels of the smaller picture, and is halved as that is."""

_GATHERED_SIDE = 500
"""Longer side, less than twice this, of the picture that sure colours are gathered on."""

SUBJECT, BEHIND = math.ceil(255 * _SURE), math.floor(255 * (1 - _SURE))
"""Alpha from which, and up to which, a pixel is surely one or the other."""


def pixels_to_one(height: int, width: int) -> int:
    """Rows, and as many columns, of a photo that make one of the picture that its sure colours are gathered on."""
    return max(1, max(height, width) // _GATHERED_SIDE)


def despilled(rgb: Pixels, alpha: Pixels) -> Pixels:
    """The photo with the subject's own colour in each pixel that is soft; as it is where that is nowhere to be seen."""
    soft = ((alpha > 0) & (alpha < 255)).view(np.uint8)
    left, top, across, down = cv2.boundingRect(soft)
    if not across:
        return rgb
    by = pixels_to_one(*alpha.shape)
    grid = _GRID * by
    rows = slice(max(0, top - _MARGIN) // grid * grid, top + down + _MARGIN)
    columns = slice(max(0, left - _MARGIN) // grid * grid, left + across + _MARGIN)
    colours, share = np.ascontiguousarray(rgb[rows, columns]), np.ascontiguousarray(alpha[rows, columns])
    inner = _gathered(colours, share, SUBJECT, 255, by)
    outer = _gathered(colours, share, 0, BEHIND, by)
    if not (inner[1].any() and outer[1].any()):
        return rgb
    out = np.array(rgb)
    out[rows, columns] = _corrected(colours, share, _spread(*inner), _spread(*outer), by)
    return out


def spread(colours: Pixels, weight: Floats) -> Floats:
    """The colours where `weight` is 1, and elsewhere those of the nearest such pixels, blended smoothly.

    `weight` is 1 somewhere.
    """
    return _spread(colours.astype(np.float32) * weight[:, :, None], weight)


def _spread(coloured: Floats, weight: Floats) -> Floats:
    """The same of colours that are weighed already, with weights from 0 to 1."""
    sums, weights = [coloured], [weight]
    while max(weights[-1].shape) > 1:
        sums.append(_halved(sums[-1]))
        weights.append(_halved(weights[-1]))
    filled = sums[-1] / weights[-1]
    for level in reversed(range(len(sums) - 1)):
        rows, columns = weights[level].shape
        coarse = cv2.resize(filled, (filled.shape[1] * 2, filled.shape[0] * 2), interpolation=cv2.INTER_LINEAR)
        coarse = np.ascontiguousarray(coarse[:rows, :columns], np.float32)
        filled = cast(Floats, _blended(sums[level], weights[level], coarse))
    return filled


def _halved(picture: Floats) -> Floats:
    """Means of 2 × 2 pixels. Beside a last odd one there is nothing, which weighs nothing."""
    rows, columns = picture.shape[:2]
    if rows % 2 or columns % 2:
        picture = np.asarray(cv2.copyMakeBorder(picture, 0, rows % 2, 0, columns % 2, cv2.BORDER_CONSTANT), np.float32)
    size = (-(-columns // 2), -(-rows // 2))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32)


@njit(cache=True, nogil=True)
def _blended(sums, weights, coarse):  # type: ignore[no-untyped-def]
    """Own colour as far as there is one (a quarter of a pixel is enough to be sure), else the coarser level's."""
    for y in range(weights.shape[0]):
        for x in range(weights.shape[1]):
            weight = weights[y, x]
            if weight > 0:
                own = min(np.float32(1), weight * np.float32(4))
                for channel in range(3):
                    coarse[y, x, channel] += own * (sums[y, x, channel] / weight - coarse[y, x, channel])
    return coarse


@njit(cache=True, nogil=True)
def _gathered(colours, share, least, most, by):  # type: ignore[no-untyped-def]
    """Of each `by` × `by` pixels the mean of those whose share lies between, times how many they are; and how many."""
    height, width = share.shape
    rows, columns = -(-height // by), -(-width // by)
    sums, weights = np.zeros((rows, columns, 3), np.float32), np.zeros((rows, columns), np.float32)
    part = np.float32(1 / by**2)
    for y in range(height):
        for u in range(columns):
            for x in range(u * by, min(width, (u + 1) * by)):
                if least <= share[y, x] <= most:
                    weights[y // by, u] += part
                    for channel in range(3):
                        sums[y // by, u, channel] += np.float32(colours[y, x, channel]) * part
    return sums, weights


@njit(cache=True, nogil=True, inline="always")
def _between(place, by, size):  # type: ignore[no-untyped-def]
    """The two of the smaller picture that a pixel lies between, and how near it is to the second."""
    at = max(np.float32(0), (np.float32(place) + np.float32(0.5)) / np.float32(by) - np.float32(0.5))
    first = min(int(at), size - 1)
    return first, min(first + 1, size - 1), at - np.float32(first)


@njit(cache=True, nogil=True)
def _corrected(colours, share, subject, behind, by):  # type: ignore[no-untyped-def]
    out = colours.copy()
    for y in range(share.shape[0]):
        top, bottom, down = _between(y, by, subject.shape[0])
        for x in range(share.shape[1]):
            if 0 < share[y, x] < 255:
                left, right, across = _between(x, by, subject.shape[1])
                alpha = np.float32(share[y, x]) / np.float32(255)
                for channel in range(3):
                    guess = _blend(subject, top, bottom, down, left, right, across, channel)
                    under = _blend(behind, top, bottom, down, left, right, across, channel)
                    shown = alpha * guess + (np.float32(1) - alpha) * under
                    better = guess + alpha * (np.float32(colours[y, x, channel]) - shown)
                    out[y, x, channel] = np.uint8(min(max(better + np.float32(0.5), np.float32(0)), np.float32(255)))
    return out


@njit(cache=True, nogil=True, inline="always")
def _blend(picture, top, bottom, down, left, right, across, channel):  # type: ignore[no-untyped-def]
    high = picture[top, left, channel] + across * (picture[top, right, channel] - picture[top, left, channel])
    low = picture[bottom, left, channel] + across * (picture[bottom, right, channel] - picture[bottom, left, channel])
    return high + down * (low - high)
