"""A soft shadow on the ground below the subject, as if a large lamp hung above it.

The subject's outline is laid flat on the line that it stands on, and blurred: wide and faint, and narrow and
dark where it touches the ground. Of what is seen at an angle this line goes from wheel to wheel, or leg to leg.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Point = tuple[int, int]

_DEPTH = 0.10
"""How deep the flat outline reaches, of the subject's height."""

_WIDE, _NARROW = 0.030, 0.010
"""Blur of the faint and of the dark part, of the subject's width."""

_LONG, _LONGEST = 10, 100
"""Times its height from which on a subject's width counts as no more, and from which on it has no shadow: memory is
taken for the ground by both."""

_FAINT, _DARK = 0.30, 0.35
"""Their greatest opacity."""

_FRONT, _UNDER = 0.55, 0.75
"""How much of them lies above the line that the subject stands on, of their depth."""

_CUT_OFF = 0.3
"""Share of the subject's width on the photo's last row from which on what it stands on is not to be seen."""

_SEEN = 2.5
"""Sigmas beyond its edge at which nothing is to be seen of either."""

_FLAT, _STEEPEST = 0.35, 1.0
"""Of the line that a subject stands on. A steeper one than the first mostly joins what stands with what hangs beside
it; one that is steeper than the second always does."""

_ROOM = 0.1
"""Under the subject beside the higher of two feet, of how much higher it is. Beside what hangs, a bumper, is none."""

_WEIGHT = 0.15
"""Of the subject's height, that there is above a foot. Above a strap's end, or a speck that is none of it, is less."""

_BREADTH = 0.03
"""Of a foot, of the subject's width."""

_ENOUGH = 8.0
"""Pixels of sigma, down, that a blur needs to be smooth."""


def with_shadow(rgb: Pixels, alpha: Pixels) -> tuple[Pixels, Pixels]:
    """The subject with a black shadow under it: straight colour, and alpha.

    Without a subject, or where it goes on below the photo or is a mere line, nothing is added.
    """
    subject = (alpha > 127).view(np.uint8)
    left, top, across, down = cv2.boundingRect(subject)
    if not across or across > _LONGEST * down or subject[-1].sum() > _CUT_OFF * across:
        return rgb, alpha
    height, width = alpha.shape
    strip, first = _ground(alpha, left, top, across, down)
    risen = _risen(subject[top : top + down, left : left + across])
    rows = np.pad(risen, (left, width - left - across), "edge") - np.float32(top + down + first)
    beside, below = reach(across, down)
    strip *= _fading(width, beside - left) * _fading(width, beside - (width - left - across))[::-1]
    fading = _fading(height, below - (height - top - down))[::-1]
    under = _under(np.ascontiguousarray(rgb), np.ascontiguousarray(alpha), strip, rows, fading)
    return cast(tuple[Pixels, Pixels], under)


def _fading(length: int, lacking: int) -> Floats:
    """What is left of the shadow, from an edge inwards, when so many pixels of it are cut off there: no line."""
    inwards = np.arange(length, dtype=np.float32) + np.float32(0.5)
    return np.asarray(np.minimum(inwards / np.float32(max(lacking, 0.5)), 1), np.float32)


def reach(across: int, down: int) -> tuple[int, int]:
    """How far the shadow of a subject of this size is to be seen beside it, on either side, and below it; in pixels."""
    wide, high = _sigmas(across, down, _WIDE)
    below = (1 - _FRONT) * _depth(down) + _SEEN * high
    return math.ceil(_SEEN * wide) + 1, math.ceil(below) + 1  # the blur mirrors what is nearer to an edge


def _depth(down: int) -> int:
    return max(2, round(down * _DEPTH))


def _sigmas(across: int, down: int, blur: float) -> tuple[float, float]:
    """Along and down: the ground is seen at a flat angle."""
    wide = max(1.0, min(across, _LONG * down) * blur)
    return wide, max(0.5, wide / 3)


def _ground(alpha: Pixels, left: int, top: int, across: int, down: int) -> tuple[Floats, int]:
    """The shade around a level line, as wide as the photo, and which row is its first, counted from the line."""
    depth = _depth(down)
    flat = cv2.resize(alpha[top : top + down, left : left + across], (across, depth), interpolation=cv2.INTER_AREA)
    first = -depth - _reached(_sigmas(across, down, _WIDE)[1])
    strip = np.zeros((2 * -first, alpha.shape[1]), np.float32)
    for line, blur, opacity in ((_FRONT, _WIDE, _FAINT), (_UNDER, _NARROW, _DARK)):
        wide, high = _sigmas(across, down, blur)
        start = -first - round(depth * line)
        above, below = start - _reached(high), start + depth + _reached(high)
        layer = np.zeros((below - above, alpha.shape[1]), np.float32)
        layer[start - above : start - above + depth, left : left + across] = flat.astype(np.float32) / 255
        strip[above:below] += opacity * _blurred(layer, wide, high)
    return strip, first


def _risen(subject: Pixels) -> Floats:
    """How far the ground rises above the lowest row, in each column: along the edge of the hull below its middle.

    On that edge it would rest, from foot to foot or from wheel to wheel; beside it the ground goes on to further feet
    that stand there, and then level.
    """
    across = subject.shape[1]
    low = subject[-max(1, round(across * _STEEPEST)) :]  # what is higher is on no edge that is flat enough
    columns = np.flatnonzero(low.any(0))
    outline = np.full(across, len(low))
    outline[columns] = low[::-1, columns].argmax(0)
    above = [(columns[0], len(low)), (columns[-1], len(low))]  # so that the hull has one edge over the rest of it
    points = np.concatenate([np.stack([columns, outline[columns]], 1), above]).astype(np.int32)
    chain = sorted((int(x), int(y)) for ((x, y),) in cv2.convexHull(points) if y < len(low))
    moments = cv2.moments(subject, binaryImage=True)
    middle = moments["m10"] / moments["m00"]
    edges = [*pairwise(chain)]
    resting = next((n for n, (start, end) in enumerate(edges) if start[0] <= middle < end[0]), None)
    if resting is None or not (_is_flat(*edges[resting]) or _joins_feet(outline, *edges[resting])):
        return np.zeros(across, np.float32)
    heavy = cv2.reduce(subject, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0] >= _WEIGHT * len(subject)
    bearing = [all(_bears(outline, heavy, *foot) for foot in edge) for edge in edges]
    feet = [n for n, edge in enumerate(edges) if n == resting or (bearing[n] and _joins_feet(outline, *edge))]
    ground = np.array(chain[feet[0] : feet[-1] + 2], np.float32)
    return np.interp(np.arange(across), ground[:, 0], ground[:, 1]).astype(np.float32)


def _is_flat(start: Point, end: Point, most: float = _FLAT) -> bool:
    return abs(end[1] - start[1]) <= most * (end[0] - start[0])


def _bears(outline: npt.NDArray[np.int_], heavy: npt.NDArray[np.bool_], x: int, y: int) -> bool:
    """Whether something stands on a foot: above it, or, as legs are splayed, a foot's breadth beside its tip."""
    near = round(_BREADTH * len(outline))
    around = slice(max(0, x - near), x + near + 1)
    return bool((heavy[around] & (outline[around] <= y + 0.01 * len(outline))).any())


def _joins_feet(outline: npt.NDArray[np.int_], start: Point, end: Point) -> bool:
    """Whether both ends stand on the ground: beside the higher one, too, there is room under the subject."""
    halfway = (start[0] + end[0]) // 2
    beside = slice(start[0], halfway + 1) if start[1] > end[1] else slice(halfway, end[0])
    room = outline[beside].max() - max(start[1], end[1])
    enough = max(_ROOM * abs(end[1] - start[1]), 0.01 * len(outline))
    return _is_flat(start, end, _STEEPEST) and bool(room >= enough)


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
def _under(rgb, alpha, strip, rows, fading):  # type: ignore[no-untyped-def]
    """`rows`: in each column, the strip's row at the photo's first one, with a fraction. `fading`: of each row."""
    colours, out = rgb.copy(), alpha.copy()
    last = strip.shape[0] - 1
    for y in range(alpha.shape[0]):
        for x in range(alpha.shape[1]):
            row = y + rows[x]
            if alpha[y, x] == 255 or row < 0 or row >= last:
                continue
            above = int(row)
            part = np.float32(row - above)
            shade = (strip[above, x] * (np.float32(1) - part) + strip[above + 1, x] * part) * fading[y]
            a = np.float32(alpha[y, x]) / np.float32(255)
            whole = a + (np.float32(1) - a) * shade
            out[y, x] = np.uint8(min(whole * np.float32(255) + np.float32(0.5), np.float32(255)))
            if whole > 0:
                for channel in range(3):
                    colours[y, x, channel] = np.uint8(rgb[y, x, channel] * a / whole + np.float32(0.5))
    return colours, out
