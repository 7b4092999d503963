"""What a network does between its convolutions, written in Triton for a GPU: each value is read and written once.

Tensors are N × channels × height × width with the channels last in memory. With TRITON_INTERPRET=1 they may lie on a
CPU, for tests. See Tillet et al. 2019, "Triton: an intermediate language and compiler for tiled neural network
computations".
"""

# What Triton compiles has no types of Python's.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_VALUES = 2048
"""That one program makes: some neighbouring pixels with all their channels."""

_LAST = torch.channels_last


def halved(x: Tensor) -> Tensor:
    """Max-pooled by two, the last odd row and column kept."""
    x = x.contiguous(memory_format=_LAST)
    many, channels, height, width = x.shape
    down, across = (height + 1) // 2, (width + 1) // 2
    half = torch.empty((many, channels, down, across), dtype=x.dtype, device=x.device, memory_format=_LAST)
    block = triton.next_power_of_2(channels)
    pixels = max(1, _VALUES // block)
    _halve[(triton.cdiv(across, pixels), down, many)](
        x, half, height, width, CHANNELS=channels, BLOCK=block, PIXELS=pixels
    )
    return half


def joined(below: Tensor, x: Tensor) -> Tensor:
    """`below`, resized bilinearly to the height and width of `x`, and behind its channels those of `x`."""
    below, x = (each.contiguous(memory_format=_LAST) for each in (below, x))
    many, channels, height, width = x.shape
    first, low, narrow = below.shape[1:]
    both = torch.empty((many, first + channels, height, width), dtype=x.dtype, device=x.device, memory_format=_LAST)
    blocks = triton.next_power_of_2(first), triton.next_power_of_2(channels)
    pixels = max(1, _VALUES // max(blocks))
    _join[(triton.cdiv(width, pixels), height, many)](
        below,
        x,
        both,
        low,
        narrow,
        height,
        width,
        FIRST=first,
        SECOND=channels,
        FIRST_BLOCK=blocks[0],
        SECOND_BLOCK=blocks[1],
        PIXELS=pixels,
    )
    return both


@triton.jit(do_not_specialize=["height", "width"])
def _halve(x, half, height, width, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PIXELS: tl.constexpr):
    """Some pixels of a row of one image."""
    column = (tl.program_id(0) * PIXELS + tl.arange(0, PIXELS))[:, None]
    row, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    channel = tl.arange(0, BLOCK)[None, :]
    is_channel = channel < CHANNELS
    across, down = (width + 1) // 2, (height + 1) // 2
    x += image * height * width * CHANNELS
    top, bottom = 2 * row, tl.minimum(2 * row + 1, height - 1)
    left, right = tl.minimum(2 * column, width - 1), tl.minimum(2 * column + 1, width - 1)
    a = tl.load(x + (top * width + left) * CHANNELS + channel, is_channel)
    b = tl.load(x + (top * width + right) * CHANNELS + channel, is_channel)
    c = tl.load(x + (bottom * width + left) * CHANNELS + channel, is_channel)
    d = tl.load(x + (bottom * width + right) * CHANNELS + channel, is_channel)
    most = tl.maximum(tl.maximum(a, b), tl.maximum(c, d))
    half += image * down * across * CHANNELS
    tl.store(half + (row * across + column) * CHANNELS + channel, most, is_channel & (column < across))


@triton.jit
def _between(place, size, target):
    """Of an axis resized from `size` to `target`: the two that lie beside a place, and how far it is from the first."""
    source = tl.maximum((place.to(tl.float32) + 0.5) * (size.to(tl.float32) / target.to(tl.float32)) - 0.5, 0.0)
    first = tl.minimum(source.to(tl.int32), size - 1)
    return first, tl.minimum(first + 1, size - 1), source - first.to(tl.float32)


@triton.jit(do_not_specialize=["low", "narrow", "height", "width"])
def _join(
    below,
    x,
    both,
    low,
    narrow,
    height,
    width,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    FIRST_BLOCK: tl.constexpr,
    SECOND_BLOCK: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Some pixels of a row of one image. `low` × `narrow`: the size of `below`."""
    column = (tl.program_id(0) * PIXELS + tl.arange(0, PIXELS))[:, None]
    row, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    is_pixel = column < width
    top, bottom, down = _between(row, low, height)
    left, right, across = _between(column, narrow, width)
    below += image * low * narrow * FIRST
    both += image * height * width * (FIRST + SECOND)
    place = (row * width + column) * (FIRST + SECOND)
    channel = tl.arange(0, FIRST_BLOCK)[None, :]
    is_channel = channel < FIRST
    a = tl.load(below + (top * narrow + left) * FIRST + channel, is_channel).to(tl.float32)
    b = tl.load(below + (top * narrow + right) * FIRST + channel, is_channel).to(tl.float32)
    c = tl.load(below + (bottom * narrow + left) * FIRST + channel, is_channel).to(tl.float32)
    d = tl.load(below + (bottom * narrow + right) * FIRST + channel, is_channel).to(tl.float32)
    over = a * (1.0 - across) + b * across
    under = c * (1.0 - across) + d * across
    resized = over * (1.0 - down) + under * down
    tl.store(both + place + channel, resized.to(both.dtype.element_ty), is_channel & is_pixel)
    channel = tl.arange(0, SECOND_BLOCK)[None, :]
    is_there = (channel < SECOND) & is_pixel
    x += image * height * width * SECOND
    value = tl.load(x + (row * width + column) * SECOND + channel, is_there)
    tl.store(both + place + FIRST + channel, value, is_there)
