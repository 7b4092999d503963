"""PNG files, written here: one IHDR, one IDAT, one IEND, deflated by ISA-L.

All rows of a cutout have the same filter, "up" (each byte minus the one above) or Paeth's, whichever makes a few sample
bands smaller. ISA-L at level 1 then is some 25 times cheaper than pillow's default, for about a seventh more bytes.

Where a small picture is mostly empty, ISA-L's one table of codes fits neither the emptiness nor the subject, and the
file comes out a fifth larger; zlib that looks for runs only makes it smaller than pillow's, and there is little to do.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from numba import njit

from workers.headers import PNG_SIGNATURE

Pixels = npt.NDArray[np.uint8]

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
"""PNG's colour type by number of channels: gray, RGB, RGBA."""

_LEVEL = 1

_FEW_PIXELS, _MOSTLY_EMPTY = 4_000_000, 0.2
"""A picture of at most so many pixels, of which less than this share shows anything, is left to zlib."""

UP, PAETH = 2, 4
"""Numbers of the filters in the PNG standard."""

_SAMPLES, _SAMPLE_ROWS = 12, 3

_BAND = 250_000
"""Bytes of rows that are filtered and deflated at a time: they stay in a core's cache."""


def write_png(pixels: Pixels) -> bytes:
    """A PNG of 8-bit pixels: height × width (gray), or × 3 (RGB), or × 4 (RGBA, straight)."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    rows = np.ascontiguousarray(pixels).reshape(height, width * channels)
    return _file(width, height, channels, isal_zlib.compress(_filtered(rows), _LEVEL))


def write_cutout(rgb: Pixels, alpha: Pixels) -> bytes:
    """The PNG of `composite.cut_out(rgb, alpha)`, byte for byte the same rows, without ever holding them all.

    Put together, filtered and deflated in bands that stay in the processor's cache.
    """
    height, width = alpha.shape
    rgb = np.ascontiguousarray(rgb)
    band = np.empty((max(1, _BAND // (4 * width)), 4 * width + 1), np.uint8)
    filter = _cheapest_filter(rgb, alpha, band)
    compressor = _compressor(alpha.size, cv2.countNonZero(alpha) / alpha.size)
    body: list[bytes] = []
    for top in range(0, height, len(band)):
        rows = min(len(band), height - top)
        _filtered_cutout(rgb, alpha, top, rows, band, filter)
        body.append(compressor.compress(band[:rows]))
    body.append(compressor.flush())
    return _file(width, height, 4, b"".join(body))


def write_rows(rows: Pixels, shown: float) -> bytes:
    """The PNG of RGBA rows that are filtered: height × (1 + 4 × width). `shown`: the share that is not transparent."""
    height, width = len(rows), (rows.shape[1] - 1) // 4
    compressor = _compressor(width * height, shown)
    step = max(1, _BAND // rows.shape[1])
    body = [compressor.compress(rows[top : top + step]) for top in range(0, height, step)]
    return _file(width, height, 4, b"".join([*body, compressor.flush()]))


def _compressor(pixels: int, shown: float) -> Any:
    if pixels <= _FEW_PIXELS and shown < _MOSTLY_EMPTY:
        return zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return isal_zlib.compressobj(_LEVEL)


def _cheapest_filter(rgb: Pixels, alpha: Pixels, band: Pixels) -> int:
    """The filter that deflates a few rows, spread over the image, into fewer bytes."""
    sizes = {UP: 0, PAETH: 0}
    step = max(1, len(alpha) // _SAMPLES)
    for top in range(step // 2, len(alpha), step):
        rows = min(_SAMPLE_ROWS, len(band), len(alpha) - top)
        for filter in sizes:
            _filtered_cutout(rgb, alpha, top, rows, band, filter)
            sizes[filter] += len(isal_zlib.compress(band[:rows], _LEVEL))
    return min(sizes, key=lambda filter: sizes[filter])


def _file(width: int, height: int, channels: int, body: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    return b"".join((PNG_SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", body), *_chunk(b"IEND", b"")))


def _chunk(kind: bytes, body: bytes) -> tuple[bytes, ...]:
    return struct.pack(">I", len(body)), kind, body, struct.pack(">I", isal_zlib.crc32(body, zlib.crc32(kind)))


@njit(cache=True, nogil=True)
def _filtered(rows):  # type: ignore[no-untyped-def]
    height, length = rows.shape
    out = np.empty((height, length + 1), np.uint8)
    out[0, 0] = 0
    for x in range(length):
        out[0, x + 1] = rows[0, x]
    for y in range(1, height):
        out[y, 0] = UP
        for x in range(length):
            out[y, x + 1] = rows[y, x] - rows[y - 1, x]
    return out


@njit(cache=True, nogil=True)
def _filtered_cutout(rgb, alpha, top, rows, band, filter):  # type: ignore[no-untyped-def]
    length = 4 * alpha.shape[1]
    # Four bytes of nothing lie before each row, for the first pixel's left neighbour.
    above, here = np.zeros(length + 4, np.uint8), np.zeros(length + 4, np.uint8)
    if top:
        _cutout_row(rgb[top - 1], alpha[top - 1], above[4:])
    for row in range(rows):
        _cutout_row(rgb[top + row], alpha[top + row], here[4:])
        band[row, 0] = filter
        if filter == UP:
            for i in range(length):
                band[row, i + 1] = here[i + 4] - above[i + 4]
        else:
            for i in range(length):
                band[row, i + 1] = here[i + 4] - _paeth(here[i], above[i + 4], above[i])
        above, here = here, above


@njit(cache=True, nogil=True)
def _paeth(left, above, corner):  # type: ignore[no-untyped-def]
    """Of the three neighbours the one nearest to left + above - corner (PNG standard, 9.4)."""
    by_left = abs(np.int16(above) - np.int16(corner))
    by_above = abs(np.int16(left) - np.int16(corner))
    by_corner = abs(np.int16(left) + np.int16(above) - np.int16(2) * np.int16(corner))
    nearer = above if by_above <= by_corner else corner
    return left if by_left <= by_above and by_left <= by_corner else nearer


@njit(cache=True, nogil=True)
def _cutout_row(rgb, alpha, out):  # type: ignore[no-untyped-def]
    for x in range(len(alpha)):
        a = alpha[x]
        if a:
            out[4 * x] = rgb[x, 0]
            out[4 * x + 1] = rgb[x, 1]
            out[4 * x + 2] = rgb[x, 2]
        else:
            out[4 * x] = 0
            out[4 * x + 1] = 0
            out[4 * x + 2] = 0
        out[4 * x + 3] = a
