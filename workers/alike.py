"""One scale and one line for all photos of a folder: what they have in common is worked out from all their subjects.

All photos of a batch are measured before the first is cut (`workers.measuring`); what a folder's have in common is then
settled, in whatever order photos are cut, and when they are cut again. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median

import cv2
import numpy as np
import numpy.typing as npt

from schemas.record import Record
from workers.scores import CUT_BY_FRAME, cut_off

Pixels = npt.NDArray[np.uint8]

_SEEN = 12
"""Alpha from which on a pixel counts as the subject's, of 255."""

_HEIGHT, _WIDTH = 0.38, 0.92
"""Of the picture: the subject's height, and the most that its width may be."""

_TINY = 0.25
"""A subject less than this share as high as the folder's middle one would make all pictures tiny."""


class Measure(Record):
    """A photo and the box of its subject, in pixels; `across` and `down` are 0 without one. `on_frame`: `cut_off`."""

    width: int
    height: int
    left: int
    top: int
    across: int
    down: int
    on_frame: float


class Setting(Record):
    """What the photos of a folder have in common: the picture's size in pixels, and the subject's height in it."""

    width: int
    height: int
    subject: float


class Alike(Record):
    """The settings of a batch's folders. Item `starts[i]` and those after it, up to the next start, have `which[i]`.

    That is a place in `settings`, or -1 for none. Items are told by number: no folder's name stands here.
    """

    settings: tuple[Setting, ...]
    starts: tuple[int, ...]
    which: tuple[int, ...]

    def of(self, number: int) -> Setting | None:
        """The setting of an item's folder."""
        place = bisect_right(self.starts, number) - 1
        return self.settings[self.which[place]] if place >= 0 and self.which[place] >= 0 else None


def alike(folders: Iterable[tuple[Sequence[int], Setting | None]]) -> Alike:
    """What to keep of the folders' items and settings."""
    settings: list[Setting] = []
    of: dict[int, int] = {}
    for numbers, setting in folders:
        if setting is not None:
            of |= dict.fromkeys(numbers, len(settings))
            settings.append(setting)
    ends = {number + 1: -1 for number in of if number + 1 not in of}
    runs = [(0, -1), *sorted((of | ends).items())]
    kept = [after for before, after in pairwise(runs) if before[1] != after[1]]
    return Alike(settings=tuple(settings), starts=tuple(n for n, _ in kept), which=tuple(w for _, w in kept))


def measured(alpha: Pixels) -> Measure:
    """The measure of a photo by its alpha, which is of its size."""
    height, width = alpha.shape
    left, top, across, down = cv2.boundingRect((alpha >= _SEEN).view(np.uint8))
    return Measure(
        width=width,
        height=height,
        left=left,
        top=top,
        across=across,
        down=down,
        on_frame=cut_off(alpha),
    )


def setting_for(folder: Sequence[Measure]) -> Setting | None:
    """The setting that all whole subjects of a folder can have without being scaled up; None if there is no such one.

    The picture has the proportions that most of the photos have; of several, those in which the subjects are largest.
    """
    whole = [each for each in folder if each.down and each.on_frame <= CUT_BY_FRAME]
    if not whole:
        return None
    middle = median(each.down for each in whole)
    fit = [each for each in whole if each.down >= _TINY * middle]
    broadest = max(each.across / each.down for each in fit)
    counted = Counter(_proportions(each) for each in fit)
    most = max(counted.values())
    shapes = sorted(across / down for (across, down), count in counted.items() if count == most)
    shape = next((each for each in shapes if _WIDTH * each >= _HEIGHT * broadest), shapes[-1])
    subject = min(_HEIGHT, _WIDTH * shape / broadest)
    height = min(each.down for each in fit) / subject
    return Setting(width=round(height * shape), height=round(height), subject=subject)  # larger than the least subject


def fits(photo: Measure, setting: Setting) -> bool:
    """Whether the photo can be set so: its subject is whole, large enough, and not too wide."""
    if not photo.down or photo.on_frame > CUT_BY_FRAME or photo.down < 0.97 * setting.subject * setting.height:
        return False
    return photo.across * setting.subject * setting.height <= 0.97 * photo.down * setting.width


def _proportions(photo: Measure) -> tuple[int, int]:
    """Width to height, to a twelfth of a per cent of the longer side; a pixel more or less makes no other shape."""
    longer = max(photo.width, photo.height)
    return max(1, round(1200 * photo.width / longer)), max(1, round(1200 * photo.height / longer))
