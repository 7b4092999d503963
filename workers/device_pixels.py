"""Photos on the device: turned, made smaller, and put on a colour there, with the same results as on a CPU.

Everything is torch with the device as it comes, so that the tests run the very code of a GPU on a CPU. A photo is
3 × height × width of 0…255, and several of one size may be stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from workers.png import PAETH, UP
from workers.reduce import bands
from workers.reduce import halving as halving_of
from workers.streams import used_here

_OUTPUTS = 64
"""In a band."""


def _both(photo: Tensor) -> Tensor:
    return (functional.avg_pool2d(photo.float(), (2, 2)) + 0.5).to(torch.uint8)


def _down(photo: Tensor) -> Tensor:
    return (functional.avg_pool2d(photo.float(), (2, 1)) + 0.5).to(torch.uint8)


def _across(photo: Tensor) -> Tensor:
    return (functional.avg_pool2d(photo.float(), (1, 2)) + 0.5).to(torch.uint8)


Halving = Mapping[tuple[int, int], Callable[[Tensor], Tensor]]

HALVING: Halving = {(2, 2): _both, (2, 1): _down, (1, 2): _across}
"""Means of pixels, by how many rows and columns each. A last odd one is dropped."""


def upright(photo: Tensor, orientation: int) -> Tensor:
    """The photo as its EXIF orientation, 1 to 8, wants it seen."""
    if orientation >= 5:
        photo = photo.transpose(-1, -2)
    flips = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}.get(orientation)
    return photo.flip(flips) if flips else photo


def halved(photo: Tensor, side: int, halving: Halving = HALVING) -> Tensor:
    """As `reduce.halved`."""
    while (by := halving_of(photo.shape[-2], photo.shape[-1], side)) != (1, 1):
        photo = halving[by](photo)
    return photo


def in_gray(photo: Tensor) -> Tensor:
    """As OpenCV does it (the luma of ITU-R BT.601): height × width."""
    red, green, blue = photo.float().unbind(-3)
    return (0.299 * red + 0.587 * green + 0.114 * blue + 0.5).to(torch.uint8)


def squeezed(photo: Tensor, side: int) -> Tensor:
    """As `reduce.squeezed`: side × side × 3."""
    across, down = (_bands(size, side, photo.device) for size in (photo.shape[-1], photo.shape[-2]))
    values = photo.float()
    narrow = _rounded(torch.cat([values[..., inputs] @ used_here(weights).T for inputs, weights in across], -1))
    small = _as_bytes(torch.cat([used_here(weights) @ narrow[..., inputs, :] for inputs, weights in down], -2))
    return small.movedim(-3, -1)


def full_alpha(masks: Tensor, height: int, width: int) -> Tensor:
    """Masks, N × side × side of 0…255, spread to N × height × width."""
    large = functional.interpolate(masks.float()[:, None], (height, width), mode="bicubic", align_corners=False)
    return _as_bytes(large[:, 0])


def on_colour(photo: Tensor, alpha: Tensor, behind: Tensor) -> Tensor:
    """On an opaque colour, three bytes. Exact: no product of two bytes over 255 lies in the middle of two numbers."""
    under = behind.float()[:, None, None]
    share = alpha.float()[..., None, :, :] / 255
    return (torch.lerp(under.expand(photo.shape), photo.float(), share.expand(photo.shape)) + 0.5).to(torch.uint8)


def spread_on_colour(photos: Tensor, masks: Tensor, behind: Tensor) -> Tensor:
    """`on_colour` with the `full_alpha` of masks."""
    return on_colour(photos, full_alpha(masks, *photos.shape[-2:]), behind)


def png_rows(photo: Tensor, alpha: Tensor) -> Tensor:
    """Cutouts as the rows of a PNG: N × height × (1 + 4 × width), each photo's by the filter whose rest is smaller.

    That sum of absolute differences is what the PNG standard advises to choose by (12.7).
    """
    colour = torch.where(alpha[:, None] > 0, photo, 0)
    pixels = torch.cat((colour, alpha[:, None]), 1).movedim(1, -1)
    above = functional.pad(pixels[:, :-1], (0, 0, 0, 0, 1, 0)).short()
    left = functional.pad(pixels[:, :, :-1], (0, 0, 1, 0)).short()
    corner = functional.pad(pixels[:, :-1, :-1], (0, 0, 1, 0, 1, 0)).short()
    up, paeth = ((pixels.short() - guess).to(torch.uint8) for guess in (above, _paeth(left, above, corner)))
    is_paeth = _rest(paeth) < _rest(up)
    rows = torch.where(is_paeth[:, None, None, None], paeth, up).flatten(2)
    filters = torch.where(is_paeth, PAETH, UP).to(torch.uint8)
    return torch.cat((filters[:, None, None].expand(-1, rows.shape[1], 1), rows), -1)


def _paeth(left: Tensor, above: Tensor, corner: Tensor) -> Tensor:
    """Of the three neighbours the one nearest to left + above - corner (PNG standard, 9.4)."""
    by_left, by_above = (above - corner).abs(), (left - corner).abs()
    by_corner = (left + above - 2 * corner).abs()
    nearer = torch.where(by_above <= by_corner, above, corner)
    return torch.where((by_left <= by_above) & (by_left <= by_corner), left, nearer)


def _rest(filtered: Tensor) -> Tensor:
    """How far all bytes of each photo are from 0, which 255 is as near to as 1."""
    return filtered.to(torch.int8).float().abs().sum((1, 2, 3))


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).clamp(0, 255).floor()


def _as_bytes(values: Tensor) -> Tensor:
    return (values + 0.5).clamp(0, 255).to(torch.uint8)


@lru_cache(maxsize=512)
def _bands(size: int, target: int, device: torch.device) -> list[tuple[slice, Tensor]]:
    """Which inputs each band of outputs needs, and its weights, outputs × inputs."""
    found = bands(size, target, _OUTPUTS)
    return [
        (slice(first, first + len(weights)), torch.from_numpy(weights).T.contiguous().to(device))
        for first, weights in found
    ]
