"""Where the subject stands in the picture that is delivered: as photographed, cropped to it, or set as its fellows are.

`consistent` sets the photos of a folder alike (`workers.alike`): each subject has the same height in pictures of the
same size, is centred, and stands on one line at 78 % of the height. Nothing is scaled up: the pictures become smaller
instead. A photo that cannot be set so is left as it was taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from schemas.options import CutoutOptions
from workers.alike import Measure, Setting, fits, measured
from workers.shadow import reach

Pixels = npt.NDArray[np.uint8]
Deep = TypeVar("Deep", np.uint8, np.uint16)

_BASELINE = 0.78
"""The line that subjects stand on, of the picture's height."""


@dataclass(frozen=True)
class Frame:
    """A window on the photo, in its pixels. It may reach over the photo's edges: nothing is there.

    `is_set`: as its folder's are, so that what is seen through it comes out in the size of the setting.
    """

    left: int
    top: int
    width: int
    height: int
    is_set: bool = False


def frame_for(alpha: Pixels, options: CutoutOptions, setting: Setting | None = None) -> Frame:
    """The window that the options want; `setting`: what a folder's photos have in common.

    A photo without a subject, or that the setting does not fit, is left as it is.
    """
    height, width = alpha.shape
    whole = Frame(0, 0, width, height)
    if not (options.crop or options.consistent):
        return whole
    seen = measured(alpha)
    if not seen.across:
        return whole
    if not options.consistent:
        return _cropped(Frame(seen.left, seen.top, seen.across, seen.down), whole, options)
    return _set(seen, setting) if setting is not None and fits(seen, setting) else whole


def through(frame: Frame, pixels: npt.NDArray[Deep], width: int, height: int) -> npt.NDArray[Deep]:
    """What is seen through the frame, scaled down to width × height; 0 outside of the photo."""
    right = min(frame.left + frame.width, pixels.shape[1])
    bottom = min(frame.top + frame.height, pixels.shape[0])
    left, top = max(frame.left, 0), max(frame.top, 0)
    inside = pixels[top:bottom, left:right]
    scale_x, scale_y = width / frame.width, height / frame.height  # not quite the same: both sides are whole pixels
    across = min(width, max(1, round((right - left) * scale_x)))
    down = min(height, max(1, round((bottom - top) * scale_y)))
    if (across, down) != (right - left, bottom - top):
        inside = np.asarray(cv2.resize(inside, (across, down), interpolation=cv2.INTER_AREA), pixels.dtype)
    if (across, down) == (width, height):
        return inside
    before = min(width - across, round((left - frame.left) * scale_x))
    above = min(height - down, round((top - frame.top) * scale_y))
    edges = (above, height - down - above, before, width - across - before)
    return np.asarray(cv2.copyMakeBorder(inside, *edges, cv2.BORDER_CONSTANT, value=0), pixels.dtype)


def colours_through(frame: Frame, rgb: Pixels, clear: Pixels | None, width: int, height: int) -> Pixels:
    """`through` for the colours of a photo with an alpha of its own, `clear`.

    Scaled down, they are weighed by it: what is hidden where the photo is transparent, mostly black, has no say.
    """
    if clear is None or (frame.width, frame.height) == (width, height):
        return through(frame, rgb, width, height)
    sums = through(frame, np.multiply(rgb, clear[:, :, None], dtype=np.uint16), width, height).astype(np.uint32)
    weights = np.maximum(through(frame, np.multiply(clear, 255, dtype=np.uint16), width, height), 1)[:, :, None]
    return np.asarray(np.minimum((sums * 255 + weights // 2) // weights, 255), np.uint8)


def _cropped(subject: Frame, whole: Frame, options: CutoutOptions) -> Frame:
    """The margins lie around the subject; where its shadow reaches beyond them, there is room for that."""
    beside, under = reach(subject.width, subject.height) if options.shadow else (0, 0)
    above, right, below, left = (
        max(margin.pixels(length), least)
        for margin, length, least in zip(
            options.margins, (subject.height, subject.width) * 2, (0, beside, under, beside), strict=True
        )
    )
    x, y = max(0, subject.left - left), max(0, subject.top - above)
    return Frame(
        x,
        y,
        min(whole.width, subject.left + subject.width + right) - x,
        min(whole.height, subject.top + subject.height + below) - y,
    )


def _set(seen: Measure, setting: Setting) -> Frame:
    """For a subject that the setting fits: it takes up pixels of both sides."""
    height = seen.down / setting.subject
    width = height * setting.width / setting.height
    left = seen.left + seen.across / 2 - width / 2
    top = seen.top + seen.down - height * _BASELINE
    return Frame(round(left), round(top), round(width), round(height), is_set=True)
