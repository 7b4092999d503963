"""Where the subject stands in the picture that is delivered: as photographed, cropped to it, or set as its fellows are.

`consistent` sets each photo of a vehicle by one rule, so that all of a folder agree without knowing of each other.
Every view of a car is as high as the others: so the subject is 38 % of the picture's height (seen from its side, a car
is then still inside a 4:3 picture), centred, and stands on one line at 78 % of the height. Nothing is scaled up: the
picture becomes smaller instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from schemas.options import CutoutOptions, Margin

Pixels = npt.NDArray[np.uint8]

_SEEN = 12
"""Alpha from which on a pixel counts as the subject's, of 255."""

_HEIGHT, _WIDTH, _BASELINE = 0.38, 0.92, 0.78
"""Of the picture: the subject's height, the most that its width may be, and the line that it stands on."""


@dataclass(frozen=True)
class Frame:
    """A window on the photo, in its pixels. It may reach over the photo's edges: nothing is there."""

    left: int
    top: int
    width: int
    height: int


def frame_for(alpha: Pixels, options: CutoutOptions) -> Frame:
    """The window that the options want. A photo without a subject is left as it is."""
    height, width = alpha.shape
    whole = Frame(0, 0, width, height)
    if not (options.crop or options.consistent):
        return whole
    left, top, across, down = cv2.boundingRect((alpha >= _SEEN).view(np.uint8))
    if not across:
        return whole
    subject = Frame(left, top, across, down)
    return _set(subject, whole) if options.consistent else _cropped(subject, whole, options.margins)


def through(frame: Frame, pixels: Pixels, width: int, height: int) -> Pixels:
    """What is seen through the frame, scaled down to width × height; 0 outside of the photo."""
    right = min(frame.left + frame.width, pixels.shape[1])
    bottom = min(frame.top + frame.height, pixels.shape[0])
    left, top = max(frame.left, 0), max(frame.top, 0)
    inside = pixels[top:bottom, left:right]
    scale = width / frame.width
    across = min(width, max(1, round((right - left) * scale)))
    down = min(height, max(1, round((bottom - top) * scale)))
    if (across, down) != (right - left, bottom - top):
        inside = np.asarray(cv2.resize(inside, (across, down), interpolation=cv2.INTER_AREA), np.uint8)
    if (across, down) == (width, height):
        return inside
    before, above = min(width - across, round((left - frame.left) * scale)), round((top - frame.top) * scale)
    above = min(height - down, above)
    edges = (above, height - down - above, before, width - across - before)
    return np.asarray(cv2.copyMakeBorder(inside, *edges, cv2.BORDER_CONSTANT, value=0), np.uint8)


def _cropped(subject: Frame, whole: Frame, margins: tuple[Margin, Margin, Margin, Margin]) -> Frame:
    above, right, below, left = (
        margin.pixels(length) for margin, length in zip(margins, (subject.height, subject.width) * 2, strict=True)
    )
    x, y = max(0, subject.left - left), max(0, subject.top - above)
    return Frame(
        x,
        y,
        min(whole.width, subject.left + subject.width + right) - x,
        min(whole.height, subject.top + subject.height + below) - y,
    )


def _set(subject: Frame, whole: Frame) -> Frame:
    shape = whole.width / whole.height
    height = max(subject.height / _HEIGHT, subject.width / _WIDTH / shape)
    width = height * shape
    left = subject.left + subject.width / 2 - width / 2
    top = subject.top + subject.height - height * _BASELINE
    return Frame(round(left), round(top), max(1, round(width)), max(1, round(height)))
