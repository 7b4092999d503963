"""What a file claims and whether it is whole, read from its bytes, where decoders do not say.

- WebP: pillow makes room for the whole canvas as soon as it opens a file, so the size is read here first.
- PNG: decoders stop at the last row and check no sum; here every chunk's CRC is checked, the last must be IEND, and
  the rows must be as many as the header says.
- HEIC and AVIF: pillow tells the size after a crop, and memory is taken for what was before it.
- PNG and AVIF: colours that are named by a number, which pillow does not tell.
- TIFF: a form that is not read here is told from a damaged file.
"""

from __future__ import annotations

import struct
import zlib

from isal import isal_zlib

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*")

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of each colour type of PNG, how many a pixel has."""
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced PNG (PNG standard, 8.2): first column and row, and steps between them."""
_EXTENT = b"ispe\0\0\0\0"
"""Before each size in a HEIC or AVIF: ISO/IEC 23008-12, 6.5.3."""
_FILLED = 63
"""Rows and columns by which an encoder fills a picture up to whole blocks, at most."""
_DEFLATED_AT_ONCE, _INFLATED_AT_ONCE = 1 << 16, 1 << 20


def webp_size(source: bytes) -> tuple[int, int] | None:
    """Width and height that a WebP claims; None when it is no WebP, or says so nowhere."""
    if source[:4] != b"RIFF" or source[8:12] != b"WEBP" or len(source) < 25:
        return None
    kind = source[12:16]
    if kind == b"VP8L":
        bits = int.from_bytes(source[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if len(source) < 30:
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(source[24:27], "little"), 1 + int.from_bytes(source[27:30], "little")
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", source[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def heif_pixels(source: bytes) -> int:
    """The most pixels that a HEIC or AVIF claims of any image in it before it is cropped, less what it may be filled up
    by; 0 for other files.
    """
    most, place = 0, source.find(_EXTENT) if source[4:8] == b"ftyp" else -1
    while 0 <= place <= len(source) - 16:
        width, height = struct.unpack_from(">II", source, place + 8)
        most, place = max(most, max(width - _FILLED, 0) * max(height - _FILLED, 0)), source.find(_EXTENT, place + 16)
    return most


def coded_colours(source: bytes) -> tuple[int, int]:
    """Primaries and transfer of a PNG or AVIF by their numbers in ITU-T H.273; 2 is unsaid."""
    place, form = -1, ">BB"
    if source.startswith(PNG_SIGNATURE):
        place = source.find(b"\0\0\0\4cICP", 0, source.find(b"IDAT"))
    elif source[4:8] == b"ftyp":
        place, form = source.find(b"colrnclx"), ">HH"
    return struct.unpack_from(form, source, place + 8) if place >= 0 else (2, 2)


def is_whole_png(source: bytes) -> bool:
    """Whether every chunk up to IEND is there with the right CRC, and as many bytes of rows as the header says."""
    view, place = memoryview(source), len(PNG_SIGNATURE)
    rows = isal_zlib.decompressobj()
    left = _png_bytes(source)
    while place + 12 <= len(source):
        length, kind = struct.unpack(">I4s", view[place : place + 8])
        end = place + 8 + length
        if end + 4 > len(source):
            return False
        data, wanted = view[place + 8 : end], int.from_bytes(view[end : end + 4], "big")
        if isal_zlib.crc32(data, zlib.crc32(kind)) != wanted:
            return False
        if kind == b"IDAT":
            left -= _inflated(rows, data, left)
        if kind == b"IEND":
            return left <= 0
        place = end + 4
    return False


def _png_bytes(source: bytes) -> int:
    """How many bytes all rows of a PNG have, by its header, before they are deflated."""
    width, height, depth, colour, _, _, is_interlaced = struct.unpack(">IIBBBBB", source[16:29])
    bits = depth * _SAMPLES.get(colour, 1)
    passes = _ADAM7 if is_interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes]
    return sum(high * (1 + -(-wide * bits // 8)) for wide, high in sizes if wide)


def _inflated(rows: isal_zlib.Decompress, data: memoryview, most: int) -> int:
    """How many bytes come out of this piece, or a few more than `most`; only a little of it is held at once."""
    count = 0
    for start in range(0, len(data), _DEFLATED_AT_ONCE):  # what is not taken up yet is copied each time
        pending: bytes | memoryview = data[start : start + _DEFLATED_AT_ONCE]
        while pending and count < most:
            count += len(rows.decompress(pending, _INFLATED_AT_ONCE))
            pending = rows.unconsumed_tail
    return count


def is_whole_tiff_header(source: bytes) -> bool:
    """Whether the header of a TIFF is there: what was then not taken for an image is in a form that is not read."""
    if not source.startswith(TIFF_BEGINNINGS) or len(source) < 8:
        return False
    order = "<" if source.startswith(b"II") else ">"
    (place,) = struct.unpack_from(f"{order}I", source, 4)
    if not 8 <= place <= len(source) - 2:
        return False
    (entries,) = struct.unpack_from(f"{order}H", source, place)
    return bool(place + 2 + 12 * entries <= len(source))
