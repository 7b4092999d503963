"""Soft edges on the device, of all photos of a size together: what `refine` and `foreground` make, in torch.

Photos are N × 3 × height × width of 0…255, alphas N × height × width. The steps that see every pixel of a photo,
`worked_out` and `corrected`, are to be compiled; the rest is about small pictures.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from workers import foreground, refine

WorkedOut = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Corrected = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def worked_out(
    photos: Tensor, alphas: Tensor, subject: Tensor, behind: Tensor, steepness: Tensor, down: Tensor, across: Tensor
) -> Tensor:
    """Each soft pixel's alpha. `down`, `across`: where in the smaller pictures a row and a column of the photo lie."""
    over, under = (each[..., down[:, None], across] for each in (subject, behind))
    alpha = alphas.float() / 255
    rest = 1 - alpha
    step = over[:, :3] - under[:, :3]
    length = (step * step).sum(1).clamp(min=1)
    seen = (((photos.float() - under[:, :3]) * step).sum(1) / length).clamp(0, 1)
    spreading = refine.NOISE**2 + alpha * alpha * over[:, 3] + rest * rest * under[:, 3]
    own = spreading * 3 / length
    steep = steepness[..., down[:, None], across]
    prior = refine.DOUBT**2 * 4 * alpha * rest * steep * steep + 1e-4
    mixed = alpha + (seen - alpha) * prior / (prior + own)
    return torch.where((alpha > 0.01) & (alpha < 0.99), (mixed * 255 + 0.5).to(torch.uint8), alphas)


def corrected(photos: Tensor, alphas: Tensor, subject: Tensor, behind: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Each soft pixel's own colour. `down`, `across`: 3 × height and 3 × width, of `_between`."""
    guess, under = _blended(subject, down, across), _blended(behind, down, across)
    alpha = (alphas.float() / 255)[:, None]
    shown = alpha * guess + (1 - alpha) * under
    better = guess + alpha * (photos.float() - shown)
    is_soft = ((alphas > 0) & (alphas < 255))[:, None]
    return torch.where(is_soft, (better + 0.5).clamp(0, 255).to(torch.uint8), photos)


def refined(photos: Tensor, alphas: Tensor, worked_out: WorkedOut = worked_out) -> Tensor:
    """As `refine.refined`."""
    height, width = alphas.shape[-2:]
    by = refine.pixels_to_one(height, width)
    guide, coarse = _smaller(photos, by), _smaller(alphas[:, None], by)[:, 0]
    inner, outer = _within(coarse >= refine.SUBJECT), _within(coarse <= refine.BEHIND)
    beside = _mean(guide, refine.BESIDE)
    subject, behind = _expected(guide, beside, inner), _expected(guide, beside, outer)
    down, across = (torch.arange(size, device=photos.device) // by for size in (height, width))
    made = worked_out(photos, alphas, subject, behind, _steepness(coarse), down, across)
    return torch.where(_has_both(inner, outer)[:, None, None], made, alphas)


def despilled(photos: Tensor, alphas: Tensor, corrected: Corrected = corrected) -> Tensor:
    """As `foreground.despilled`."""
    height, width = alphas.shape[-2:]
    by = foreground.pixels_to_one(height, width)
    inner, outer = (alphas >= foreground.SUBJECT).float(), (alphas <= foreground.BEHIND).float()
    sums = [_gathered(photos * each[:, None], by) for each in (inner, outer)]
    weights = [_gathered(each[:, None], by)[:, 0] for each in (inner, outer)]
    subject, behind = (_spread(*each) for each in zip(sums, weights, strict=True))
    places = (_between(size, by, photos.device) for size in (height, width))
    made = corrected(photos, alphas, subject, behind, *places)
    return torch.where(_has_both(*weights)[:, None, None, None], made, photos)


def _has_both(inner: Tensor, outer: Tensor) -> Tensor:
    """Of each photo, whether something is surely subject, and something surely not."""
    return (inner > 0).flatten(1).any(1) & (outer > 0).flatten(1).any(1)


def _smaller(pictures: Tensor, by: int) -> Tensor:
    """As `refine._smaller`, still as numbers from 0 to 255 without fractions."""
    height, width = pictures.shape[-2:]
    down, across = min(by, height), min(by, width)
    padded = functional.pad(pictures.float(), (0, -width % across, 0, -height % down), mode="replicate")
    return torch.floor(functional.avg_pool2d(padded, (down, across)) + 0.5)


def _gathered(pictures: Tensor, by: int) -> Tensor:
    """Sums of `by` × `by` pixels over how many they could be."""
    height, width = pictures.shape[-2:]
    return functional.avg_pool2d(functional.pad(pictures, (0, -width % by, 0, -height % by)), by)


def _within(sure: Tensor) -> Tensor:
    """1 where all pixels around are sure too."""
    return 1 - functional.max_pool2d(1 - sure.float()[:, None], 3, stride=1, padding=1)[:, 0]


def _mean(pictures: Tensor, side: int) -> Tensor:
    """Of the window around each pixel; outside lies what lies at the edge."""
    half = side // 2
    padded = functional.pad(pictures, (half, half, half, half), mode="replicate")
    return functional.avg_pool2d(functional.avg_pool2d(padded, (side, 1), 1), (1, side), 1)


def _steepness(coarse: Tensor) -> Tensor:
    """How much of an edge there is, 0 to 1: the mask's range in a small window. Within glass there is none."""
    side = refine.BESIDE
    most, least = (functional.max_pool2d(each[:, None], side, 1, side // 2)[:, 0] for each in (coarse, -coarse))
    return ((most + least) / (255 * refine.STEEP)).clamp(max=1)


def _expected(guide: Tensor, beside: Tensor, sure: Tensor) -> Tensor:
    """N × 4 × height × width: the colour to expect, and its variance."""
    mean = _spread(guide * sure[:, None], sure)
    variances = []
    for other, side in ((mean, refine.NEAR), (beside, refine.FAR)):
        off = ((guide - other) ** 2).mean(1) * sure
        around, share = _mean(torch.stack((off, sure), 1), side).unbind(1)
        variances.append(around / share.clamp(min=1e-3))
    return torch.cat((mean, torch.maximum(*variances)[:, None]), 1)


def _spread(sums: Tensor, weights: Tensor) -> Tensor:
    """As `foreground._spread`: N × 3 × height × width, and N × height × width. Not a number where nothing weighs."""
    levels = [(sums, weights[:, None])]
    while max(levels[-1][1].shape[-2:]) > 1:
        sums, shares = (_gathered(each, 2) for each in levels[-1])
        levels.append((sums, shares))
    filled = levels[-1][0] / levels[-1][1]
    for sums, shares in reversed(levels[:-1]):
        coarse = functional.interpolate(filled, scale_factor=2, mode="bilinear", align_corners=False)
        coarse = coarse[..., : shares.shape[-2], : shares.shape[-1]]
        own = (shares * 4).clamp(max=1)
        filled = torch.where(shares > 0, torch.lerp(coarse, sums / shares, own), coarse)
    return filled


def _between(size: int, by: int, device: torch.device) -> Tensor:
    """As `foreground._between`: of each row or column the two that it lies between, and how near the second is."""
    small = -(-size // by)
    at = ((torch.arange(size, device=device) + 0.5) / by - 0.5).clamp(min=0)
    first = at.floor().clamp(max=small - 1)
    return torch.stack((first, (first + 1).clamp(max=small - 1), at - first))


def _blended(small: Tensor, down: Tensor, across: Tensor) -> Tensor:
    top, bottom, left, right = (each.long() for each in (*down[:2], *across[:2]))
    high, low = (
        torch.lerp(small[..., row[:, None], left], small[..., row[:, None], right], across[2]) for row in (top, bottom)
    )
    return torch.lerp(high, low, down[2][:, None])
