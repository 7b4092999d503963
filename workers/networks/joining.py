"""Two steps of a U in one pass over memory: what comes from below, resized, and what lies beside it, put together.

Channels last, in 32 bits, on a CPU. Bilinear as torch's `interpolate` without `align_corners`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor


def joined(below: Tensor, beside: Tensor) -> Tensor:
    """`below` resized to `beside` and put before its channels: N × (channels of both) × height × width."""
    return _each(below, beside, np.float32, _join)


def joined_in_bytes(below: Tensor, beside: Tensor, step: float) -> Tensor:
    """The same in whole steps from 0 to 255."""
    return _each(below, beside, np.uint8, _join_in_bytes, np.float32(1 / step))


def _each(below: Tensor, beside: Tensor, dtype: npt.DTypeLike, join: Callable[..., None], *given: np.float32) -> Tensor:
    under, at_side = (each.permute(0, 2, 3, 1).contiguous().numpy() for each in (below, beside))
    whole = np.empty((*at_side.shape[:3], under.shape[3] + at_side.shape[3]), dtype)
    for place in range(len(whole)):
        join(under[place], at_side[place], whole[place], *given)
    return torch.from_numpy(whole).permute(0, 3, 1, 2)


@njit(cache=True, nogil=True, inline="always")
def _between(place, size, target):  # type: ignore[no-untyped-def]
    """The two inputs that output `place` lies between, and how near it is to the second."""
    at = max(np.float32(0), (np.float32(place) + np.float32(0.5)) * np.float32(size / target) - np.float32(0.5))
    first = int(at)
    return first, min(first + 1, size - 1), at - np.float32(first)


@njit(cache=True, nogil=True, fastmath=True)
def _join(below, beside, whole):  # type: ignore[no-untyped-def]
    height, width, channels = beside.shape
    rows, columns, under = below.shape
    row = np.empty((columns, under), np.float32)
    for y in range(height):
        top, bottom, down = _between(y, rows, height)
        for x in range(columns):
            for channel in range(under):
                high = below[top, x, channel]
                row[x, channel] = high + down * (below[bottom, x, channel] - high)
        for x in range(width):
            left, right, across = _between(x, columns, width)
            for channel in range(under):
                near = row[left, channel]
                whole[y, x, channel] = near + across * (row[right, channel] - near)
            for channel in range(channels):
                whole[y, x, under + channel] = beside[y, x, channel]


@njit(cache=True, nogil=True, fastmath=True)
def _join_in_bytes(below, beside, whole, per_step):  # type: ignore[no-untyped-def]
    height, width, channels = beside.shape
    rows, columns, under = below.shape
    row = np.empty((columns, under), np.float32)
    half, most = np.float32(0.5), np.float32(255)
    for y in range(height):
        top, bottom, down = _between(y, rows, height)
        for x in range(columns):
            for channel in range(under):
                high = below[top, x, channel]
                row[x, channel] = (high + down * (below[bottom, x, channel] - high)) * per_step
        for x in range(width):
            left, right, across = _between(x, columns, width)
            for channel in range(under):
                near = row[left, channel]
                whole[y, x, channel] = np.uint8(min(near + across * (row[right, channel] - near) + half, most))
            for channel in range(channels):
                whole[y, x, under + channel] = np.uint8(min(beside[y, x, channel] * per_step + half, most))
