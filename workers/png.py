"""PNG files, written here: one IHDR, one IDAT, one IEND, deflated by ISA-L.

Every row but the first is filtered with "up" (each byte minus the one above), which costs one subtraction and finds
empty rows and smooth ground. ISA-L at level 1 then is some 25 times cheaper than pillow's default, for about
a tenth more bytes (FINDINGS: 16 against 482 CPU-ms at 2 MP).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from numba import njit

Pixels = npt.NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
"""PNG's colour type by number of channels: gray, RGB, RGBA."""

_LEVEL = 1


def write_png(pixels: Pixels) -> bytes:
    """A PNG of 8-bit pixels: height × width (gray), or × 3 (RGB), or × 4 (RGBA, straight)."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    rows = np.ascontiguousarray(pixels).reshape(height, width * channels)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    body = isal_zlib.compress(_filtered(rows), _LEVEL)
    return b"".join((_SIGNATURE, *_chunk(b"IHDR", header), *_chunk(b"IDAT", body), *_chunk(b"IEND", b"")))


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
        out[y, 0] = 2
        for x in range(length):
            out[y, x + 1] = rows[y, x] - rows[y - 1, x]
    return out
