"""What can be told of a mask without knowing the truth, and the flags that a person should look at before delivery.

A score is a measurement, a flag is a verdict over it. A flagged item is delivered all the same: a flag says "look".
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
from numba import njit

from schemas.results import Scores
from workers.reduce import halved

Pixels = npt.NDArray[np.uint8]

_SPECK = 0.005
"""A part smaller than this share of the subject is no piece."""

SCORED_SIDE = 214
"""Photos are halved for this side, to 642 to 1,283 pixels, whatever the network was given."""

CUT_BY_FRAME = 0.2
"""Share of its breadth on one side of the photo from which on a subject goes on beyond it."""

_SUBJECT, _SOLID = 13, 243
"""Alphas from 5 % are of the subject, those from 95 % are solid."""

_MARGIN = 2
"""Pixels of the gray picture along the outline."""

_DETAIL = 300.0
"""Laplacian variance (of 0…255 grays) that scores half. Photos in focus have 300 to 3,000, out of focus 5 to 50."""


def in_gray(photo: Pixels) -> Pixels:
    """A photo, sRGB, as scores are told from it: gray, and about as small as they can do with."""
    return np.asarray(cv2.cvtColor(halved(photo, SCORED_SIDE), cv2.COLOR_RGB2GRAY), np.uint8)


def score(mask: Pixels, gray: Pixels) -> Scores:
    """Scores of a mask of 0…255 and its photo in gray (`in_gray`). Both may have any size."""
    levels = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()
    sharpness, exposure = _sharpness_and_exposure(gray, mask)
    return Scores(
        coverage=float(levels @ np.arange(256) / (255 * mask.size)),
        edge_uncertainty=float(levels[_SUBJECT:_SOLID].sum() / max(levels[_SUBJECT:].sum(), 1)),
        pieces=_pieces(mask),
        cut_by_frame=_on_the_frame(mask),
        sharpness=sharpness,
        exposure=exposure,
    )


def flags(scores: Scores, cut_off: float) -> tuple[str, ...]:
    """Why a person should look at it, in a fixed order; mostly nothing. `cut_off`: what the function says of its mask.

    An empty mask is only called empty: nothing else can be told of it.
    """
    if scores.coverage < 0.002:
        return ("empty_mask",)
    verdicts = (
        ("full_mask", scores.coverage > 0.97),
        ("cut_by_frame", cut_off > CUT_BY_FRAME),
        ("many_pieces", scores.pieces > 4),
        ("uncertain_edge", scores.edge_uncertainty > 0.25),
        ("blurred", scores.sharpness < 0.05),
        ("dark", scores.exposure < 0.06),
        ("overexposed", scores.exposure > 0.96),
    )
    return tuple(name for name, holds in verdicts if holds)


def _pieces(mask: Pixels) -> int:
    _, solid = cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)
    kind = cv2.CV_16U if mask.size < 4 * 2**16 else cv2.CV_32S  # no two pieces share four neighbouring pixels
    count, _, statistics, _ = cv2.connectedComponentsWithStats(solid, connectivity=8, ltype=kind)
    areas = statistics[1:count, cv2.CC_STAT_AREA]
    return int((areas >= max(1.0, _SPECK * float(areas.sum()))).sum())


def cut_off(mask: Pixels) -> float:
    """Of a mask of 0…255: on the side of the photo where most of the subject's breadth lies on it, how much; 0 to 1."""
    solid = (mask > 127).view(np.uint8)
    _, _, across, down = cv2.boundingRect(solid)
    if not across:
        return 0.0
    above_and_below, beside = solid[[0, -1]].sum(1).max(), solid[:, [0, -1]].sum(0).max()
    return float(max(above_and_below / across, beside / down))


def _on_the_frame(mask: Pixels) -> float:
    outline = np.concatenate((mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]))
    return float((outline > 127).mean())


def _sharpness_and_exposure(gray: Pixels, mask: Pixels) -> tuple[float, float]:
    count, total, squares, light, weight = _sums(gray, mask, _core(mask, gray))
    variance = squares / count - (total / count) ** 2 if count else 0.0
    return variance / (variance + _DETAIL), light / (255 * weight) if weight else 0.0


def _core(mask: Pixels, gray: Pixels) -> Pixels:
    """1 on the subject without its outline: the step to the background is sharp behind any blurred subject."""
    _, inside = cv2.threshold(mask, 127, 1, cv2.THRESH_BINARY)
    down, across = (2 * math.ceil(_MARGIN * of / to) + 1 for of, to in zip(mask.shape, gray.shape, strict=True))
    core = np.asarray(cv2.erode(inside, np.ones((down, across), np.uint8)), np.uint8)
    return core if core.any() else np.asarray(inside, np.uint8)


@njit(cache=True, nogil=True)
def _sums(gray, mask, core):  # type: ignore[no-untyped-def]
    """In the core, how many pixels, and the sums of their Laplacians and the squares of those; light and its weight.

    Row by row in 32 bits, so that the processor does many pixels at once. The picture's own edge has no Laplacian.
    """
    height, width = gray.shape
    across = np.arange(width) * mask.shape[1] // width
    weights, inside = np.empty(width, np.int32), np.empty(width, np.int32)
    count = total = squares = light = weight = np.int64(0)
    last = -1
    for y in range(height):
        row = y * mask.shape[0] // height
        if row != last:
            for x in range(width):
                weights[x], inside[x] = mask[row, across[x]], core[row, across[x]]
            last = row
        row_light, row_weight = np.int32(0), np.int32(0)
        for x in range(width):
            row_light += np.int32(gray[y, x]) * weights[x]
            row_weight += weights[x]
        light, weight = light + row_light, weight + row_weight
        if y == 0 or y == height - 1:
            continue
        row_count, row_total, row_squares = np.int32(0), np.int32(0), np.int32(0)
        for x in range(1, width - 1):
            beside = np.int32(gray[y, x - 1]) + np.int32(gray[y, x + 1])
            edge = (beside + np.int32(gray[y - 1, x]) + np.int32(gray[y + 1, x]) - 4 * np.int32(gray[y, x])) * inside[x]
            row_count += inside[x]
            row_total += edge
            row_squares += edge * edge
        count, total, squares = count + row_count, total + row_total, squares + row_squares
    return count, total, squares, light, weight
