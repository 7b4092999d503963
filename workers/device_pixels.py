"""Photos on the device: turned, made smaller, and put on a colour there, with the same results as on a CPU.

Everything is torch with the device as it comes, so that the tests run the very code of a GPU on a CPU. A photo is
3 × height × width of 0…255.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from schemas.options import Rgba
from workers.reduce import halving, lanczos


def upright(photo: Tensor, orientation: int) -> Tensor:
    """The photo as its EXIF orientation, 1 to 8, wants it seen."""
    if orientation >= 5:
        photo = photo.transpose(-1, -2)
    flips = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}.get(orientation)
    return photo.flip(flips) if flips else photo


def halved(photo: Tensor, side: int) -> Tensor:
    """As `reduce.halved`."""
    while (by := halving(photo.shape[-2], photo.shape[-1], side)) != (1, 1):
        photo = (functional.avg_pool2d(photo.float(), by) + 0.5).to(torch.uint8)
    return photo


def squeezed(photo: Tensor, side: int) -> Tensor:
    """As `reduce.squeezed`: side × side × 3."""
    across, down = (_weights(size, side, photo.device) for size in (photo.shape[-1], photo.shape[-2]))
    narrow = _rounded(photo.float() @ across.T)
    return _rounded(down @ narrow).to(torch.uint8).permute(1, 2, 0)


def full_alpha(mask: Tensor, height: int, width: int) -> Tensor:
    """The mask, side × side of 0…255, spread to height × width."""
    large = functional.interpolate(mask.float()[None, None], (height, width), mode="bicubic", align_corners=False)
    return (large[0, 0] + 0.5).clamp(0, 255).to(torch.uint8)


def on_colour(photo: Tensor, alpha: Tensor, colour: Rgba) -> Tensor:
    """On an opaque colour. Exact: no product of two bytes over 255 lies in the middle between two numbers."""
    behind = torch.tensor(colour[:3], dtype=torch.float32, device=photo.device)[:, None, None]
    share = alpha.float() / 255
    return (torch.lerp(behind.expand(photo.shape), photo.float(), share.expand(photo.shape)) + 0.5).to(torch.uint8)


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).clamp(0, 255).floor()


@lru_cache(maxsize=64)
def _weights(size: int, target: int, device: torch.device) -> Tensor:
    """The taps of `reduce.lanczos` as a matrix, target × size."""
    taps = lanczos(size, target)
    rows = torch.zeros(target, size + taps.weights.shape[1])
    places = torch.from_numpy(taps.first)[:, None] + torch.arange(taps.weights.shape[1])
    rows.scatter_(1, places, torch.from_numpy(taps.weights))
    return rows[:, :size].contiguous().to(device)
