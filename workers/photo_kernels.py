"""Steps of `device_pixels` written in Triton for a GPU. torch's own, and what its compiler made of them, took two to
four times as long (bench/RESULTS.md), most of it counting where a value lies.

Results are those of `device_pixels` within rounding. With TRITON_INTERPRET=1 they run on a CPU, for tests. See Tillet
et al. 2019, "Triton: an intermediate language and compiler for tiled neural network computations".
"""

# What Triton compiles has no types of Python's.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.reduce import bands, lanczos
from workers.streams import used_here

_COLUMNS = 512
"""Of a row, that one program makes. Rows lie along an axis of the grid that has 65,535 places; no JPEG has more."""

_BAND, _ROWS, _STEP = 64, 64, 64
"""Of a picture made narrow by a matrix product: columns and rows that one program makes, and inputs at a time."""


def squeezed(photo: Tensor, side: int) -> Tensor:
    """As `device_pixels.squeezed`, of a stack: N × 3 × height × width to N × side × side × 3."""
    photo = photo.contiguous()
    many, channels, height, width = photo.shape
    narrow = torch.empty((many, channels, height, side), dtype=torch.uint8, device=photo.device)
    small = torch.empty((many, side, side, channels), dtype=torch.uint8, device=photo.device)
    rows = many * channels * height
    across = _bands(width, side, photo.device)
    _across[(triton.cdiv(rows, _ROWS), len(across.first))](
        photo,
        narrow,
        used_here(across.first),
        used_here(across.weights),
        used_here(across.rest),
        rows,
        width,
        side,
        across.weights.shape[1],
        ROWS=_ROWS,
        BAND=_BAND,
        STEP=_STEP,
    )
    first, weights = map(used_here, _taps(height, side, photo.device))
    _down[(side, many * channels)](
        narrow, small, first, weights, height, side, channels, len(weights), COLUMNS=triton.next_power_of_2(side)
    )
    return small


def full_alpha(masks: Tensor, height: int, width: int) -> Tensor:
    """As `device_pixels.full_alpha`."""
    masks = masks.contiguous()
    alpha = torch.empty((len(masks), height, width), dtype=torch.uint8, device=masks.device)
    grid = (triton.cdiv(width, _COLUMNS), height, len(masks))
    _spread[grid](masks, alpha, height, width, masks.shape[-1], COLUMNS=_COLUMNS)
    return alpha


def spread_on_colour(photos: Tensor, masks: Tensor, behind: Tensor) -> Tensor:
    """As `device_pixels.spread_on_colour`: each pixel is read once and written once, and no alpha is."""
    photos, masks = photos.contiguous(), masks.contiguous()
    many, _, height, width = photos.shape
    made = torch.empty_like(photos)
    grid = (triton.cdiv(width, _COLUMNS), height, many)
    _put_on_colour[grid](photos, masks, behind, made, height, width, masks.shape[-1], COLUMNS=_COLUMNS)
    return made


@lru_cache(maxsize=512)
def _taps(size: int, target: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Those of `reduce.lanczos`: the first input of each output, and taps × outputs of weights."""
    taps = lanczos(size, target)
    return (
        torch.from_numpy(taps.first).int().to(device),
        torch.from_numpy(taps.weights).T.contiguous().to(device),
    )


class _Bands(NamedTuple):
    """Those of `reduce.bands`, filled up to one size: the first input of each, and bands × inputs × outputs of weights.

    `weights` and `rest`, in 16 bits each, are together as exact as 22 bits.
    """

    first: Tensor
    weights: Tensor
    rest: Tensor


@lru_cache(maxsize=512)
def _bands(size: int, target: int, device: torch.device) -> _Bands:
    found = bands(size, target, _BAND)
    inputs = triton.cdiv(max(len(weights) for _, weights in found), _STEP) * _STEP
    exact = torch.zeros(len(found), inputs, _BAND)
    for band, (_, weights) in enumerate(found):
        exact[band, : weights.shape[0], : weights.shape[1]] = torch.from_numpy(weights)
    half = exact.half()
    rest = (exact - half.float()).half()
    first = torch.tensor([first for first, _ in found], dtype=torch.int32)
    return _Bands(first.to(device), half.to(device), rest.to(device))


@triton.jit
def _as_bytes(values):
    return tl.minimum(tl.maximum(values + 0.5, 0.0), 255.0).to(tl.uint8)


@triton.jit(do_not_specialize=["rows", "width", "side", "inputs"])
def _across(
    photo,
    narrow,
    first,
    weights,
    rest,
    rows,
    width,
    side,
    inputs,
    ROWS: tl.constexpr,
    BAND: tl.constexpr,
    STEP: tl.constexpr,
):
    """Some columns of some rows, of whatever photo and channel. A product of a byte and 16 bits is exact in 32."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    band = tl.program_id(1)
    is_row, start = row < rows, tl.load(first + band)
    total = tl.zeros((ROWS, BAND), tl.float32)
    for step in range(0, inputs, STEP):
        place = tl.minimum(start + step + tl.arange(0, STEP), width - 1)[None, :]  # past the end the weight is 0
        value = tl.load(photo + row * width + place, is_row, 0).to(tl.float16)
        at = (band * inputs + step + tl.arange(0, STEP))[:, None] * BAND + tl.arange(0, BAND)[None, :]
        total = tl.dot(value, tl.load(weights + at), total)
        total = tl.dot(value, tl.load(rest + at), total)
    column = (band * BAND + tl.arange(0, BAND))[None, :]
    tl.store(narrow + row * side + column, _as_bytes(total), is_row & (column < side))


@triton.jit(do_not_specialize=["height", "side", "channels", "taps"])
def _down(narrow, small, first, weights, height, side, channels, taps, COLUMNS: tl.constexpr):
    """A row of one channel of one photo, from the rows that it needs."""
    row, plane = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    is_column = column < side
    start = tl.load(first + row)
    total = tl.zeros((COLUMNS,), tl.float32)
    for tap in range(taps):
        place = tl.minimum(start + tap, height - 1)
        weight = tl.load(weights + tap * side + row)
        value = tl.load(narrow + (plane * height + place) * side + column, is_column, 0)
        total += value.to(tl.float32) * weight
    photo, channel = plane // channels, plane % channels
    tl.store(small + ((photo * side + row) * side + column) * channels + channel, _as_bytes(total), is_column)


@triton.jit
def _cubic(distance):
    """Keys' kernel with -0.75, as torch and OpenCV have it, for distances of 0 to 1."""
    return (1.25 * distance - 2.25) * distance * distance + 1.0


@triton.jit
def _cubic_beyond(distance):
    """The same for distances of 1 to 2."""
    return ((-0.75 * distance + 3.75) * distance - 6.0) * distance + 3.0


@triton.jit
def _line(mask, left, share, side):
    """A row of the mask between its columns: four of them, weighed."""
    most = side - 1
    a = tl.load(mask + tl.minimum(tl.maximum(left - 1, 0), most)).to(tl.float32)
    b = tl.load(mask + tl.minimum(tl.maximum(left, 0), most)).to(tl.float32)
    c = tl.load(mask + tl.minimum(left + 1, most)).to(tl.float32)
    d = tl.load(mask + tl.minimum(left + 2, most)).to(tl.float32)
    near = b * _cubic(share) + c * _cubic(1.0 - share)
    return a * _cubic_beyond(1.0 + share) + near + d * _cubic_beyond(2.0 - share)


@triton.jit
def _alpha_of(mask, row, column, height, width, side):
    """The mask's values, spread bicubically, at some columns of a row of the photo."""
    x = (column.to(tl.float32) + 0.5) * (side.to(tl.float32) / width.to(tl.float32)) - 0.5
    y = (row.to(tl.float32) + 0.5) * (side.to(tl.float32) / height.to(tl.float32)) - 0.5
    left, top = tl.floor(x), tl.floor(y)
    across, down = x - left, y - top
    left, top, most = left.to(tl.int32), top.to(tl.int32), side - 1
    a = _line(mask + tl.minimum(tl.maximum(top - 1, 0), most) * side, left, across, side)
    b = _line(mask + tl.minimum(tl.maximum(top, 0), most) * side, left, across, side)
    c = _line(mask + tl.minimum(top + 1, most) * side, left, across, side)
    d = _line(mask + tl.minimum(top + 2, most) * side, left, across, side)
    near = b * _cubic(down) + c * _cubic(1.0 - down)
    return _as_bytes(a * _cubic_beyond(1.0 + down) + near + d * _cubic_beyond(2.0 - down))


@triton.jit(do_not_specialize=["height", "width", "side"])
def _spread(masks, alpha, height, width, side, COLUMNS: tl.constexpr):
    """Some columns of a row of a photo's alpha."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row, photo = tl.program_id(1), tl.program_id(2).to(tl.int64)
    values = _alpha_of(masks + photo * side * side, row, column, height, width, side)
    tl.store(alpha + (photo * height + row) * width + column, values, column < width)


@triton.jit(do_not_specialize=["height", "width", "side"])
def _put_on_colour(photos, masks, behind, made, height, width, side, COLUMNS: tl.constexpr):
    """Some columns of a row of a photo, put on a colour. In whole numbers: there is no rounding but the last."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    row, photo = tl.program_id(1), tl.program_id(2).to(tl.int64)
    alpha = _alpha_of(masks + photo * side * side, row, column, height, width, side).to(tl.int32)
    for channel in range(3):
        place = ((photo * 3 + channel) * height + row) * width + column
        under = tl.load(behind + channel).to(tl.int32)
        over = tl.load(photos + place, column < width, 0).to(tl.int32)
        mixed = (over * alpha + under * (255 - alpha) + 127) // 255
        tl.store(made + place, mixed.to(tl.uint8), column < width)
