"""What can be told of a mask without knowing the truth, and the flags that a person should look at before delivery.

A score is a measurement, a flag is a verdict over it. A flagged item is delivered all the same: a flag says "look".
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from schemas.results import Scores
from workers.reduce import halved

Pixels = npt.NDArray[np.uint8]

_SPECK = 0.005
"""A part smaller than this share of the subject is no piece."""

SCORED_SIDE = 214
"""Photos are halved for this side, to 642 to 1,283 pixels, whatever the network was given."""

_DETAIL = 300.0
"""Laplacian variance (of 0…255 grays) that scores half. Photos in focus have 300 to 3,000, out of focus 5 to 50."""


def score(mask: Pixels, photo: Pixels) -> Scores:
    """Scores of a mask of 0…255 and its photo, sRGB. Both may have any size."""
    alpha = mask.astype(np.float32) / 255
    subject = alpha > 0.05
    soft = subject & (alpha < 0.95)
    photo = halved(photo, SCORED_SIDE)
    gray = np.asarray(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), np.uint8)
    weight = np.asarray(cv2.resize(mask, gray.shape[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    return Scores(
        coverage=float(alpha.mean()),
        edge_uncertainty=float(soft.sum() / max(int(subject.sum()), 1)),
        pieces=_pieces(mask),
        cut_by_frame=_on_the_frame(mask),
        sharpness=_sharpness(gray, weight),
        exposure=_exposure(gray, weight),
    )


def flags(scores: Scores) -> tuple[str, ...]:
    """Why a person should look at it, in a fixed order; mostly nothing.

    An empty mask is only called empty: nothing else can be told of it.
    """
    if scores.coverage < 0.002:
        return ("empty_mask",)
    verdicts = (
        ("full_mask", scores.coverage > 0.97),
        ("cut_by_frame", scores.cut_by_frame > 0.08),
        ("many_pieces", scores.pieces > 4),
        ("uncertain_edge", scores.edge_uncertainty > 0.5),
        ("blurred", scores.sharpness < 0.05),
        ("dark", scores.exposure < 0.06),
        ("overexposed", scores.exposure > 0.96),
    )
    return tuple(name for name, holds in verdicts if holds)


def _pieces(mask: Pixels) -> int:
    count, _, statistics, _ = cv2.connectedComponentsWithStats((mask > 127).astype(np.uint8), connectivity=8)
    areas = statistics[1:count, cv2.CC_STAT_AREA]
    return int((areas >= max(1.0, _SPECK * float(areas.sum()))).sum())


def _on_the_frame(mask: Pixels) -> float:
    outline = np.concatenate((mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]))
    return float((outline > 127).mean())


def _sharpness(gray: Pixels, weight: Pixels) -> float:
    inside = (weight > 127).view(np.uint8)
    if not inside.any():
        return 0.0
    # The mask's own outline is left out: the step from subject to background is sharp behind any blurred subject.
    core = np.asarray(cv2.erode(inside, np.ones((5, 5), np.uint8)), np.uint8)
    if not core.any():
        core = inside
    _, deviation = cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_16S), mask=core)
    variance = float(deviation[0, 0]) ** 2
    return variance / (variance + _DETAIL)


def _exposure(gray: Pixels, weight: Pixels) -> float:
    if not weight.any():
        return 0.0
    light, whole = (each.ravel().astype(np.float32) for each in (gray, weight))
    return float(light @ whole / (255 * float(whole.sum(dtype=np.float64))))
