"""One item between its steps: what is to be made of it, what it looks like decoded, and what was made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.options import CutoutOptions
from schemas.results import Scores
from workers.alike import Setting
from workers.decode import Picture

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Order:
    """What is to be made of one source.

    `setting`: what the photos of its folder have in common, if they are to be consistent. `mask`: what the network
    made of it, if it was asked before.
    """

    source: bytes
    options: CutoutOptions
    want_mask: bool
    setting: Setting | None = None
    mask: Pixels | None = None


@dataclass(frozen=True)
class Opened:
    """A decoded source. `gray`: the picture as scores are told from it; `squeezed`: as the network is given it.

    `mask`: what the network made of it, side × side, once it was asked. `alpha`: that in the picture's size, if its
    edges were refined on the device; what was done there is not among the options of `order` any more.
    """

    order: Order
    picture: Picture
    gray: Pixels
    squeezed: Pixels
    mask: Pixels | None = None
    alpha: Pixels | None = None


@dataclass(frozen=True)
class Cut:
    """A finished item. `width`, `height`: of the cutout; `mask_png`: 8-bit gray, upright, of the source's full size."""

    file: bytes
    width: int
    height: int
    source_width: int
    source_height: int
    scores: Scores
    flags: tuple[str, ...]
    mask_png: bytes | None
