"""What a file claims and whether it is whole, read from its bytes, where decoders do not say.

- WebP: pillow makes room for the whole canvas as soon as it opens a file, so the size is read here first.
- PNG: decoders stop at the last row and check no sum; here every chunk's CRC is checked and the last must be IEND.
"""

from __future__ import annotations

import struct
import zlib

from isal import isal_zlib

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def webp_size(source: bytes) -> tuple[int, int] | None:
    """Width and height that a WebP claims; None when it is no WebP, or says so nowhere."""
    if source[:4] != b"RIFF" or source[8:12] != b"WEBP" or len(source) < 30:
        return None
    kind = source[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(source[24:27], "little"), 1 + int.from_bytes(source[27:30], "little")
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", source[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(source[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def is_whole_png(source: bytes) -> bool:
    """Whether every chunk up to IEND is there with the right CRC."""
    view, place = memoryview(source), len(PNG_SIGNATURE)
    while place + 12 <= len(source):
        length, kind = struct.unpack(">I4s", view[place : place + 8])
        end = place + 8 + length
        if end + 4 > len(source):
            return False
        wanted = int.from_bytes(view[end : end + 4], "big")
        if isal_zlib.crc32(view[place + 8 : end], zlib.crc32(kind)) != wanted:
            return False
        if kind == b"IEND":
            return True
        place = end + 4
    return False


def is_whole_webp(source: bytes) -> bool:
    """Whether as many bytes are there as the RIFF header says."""
    return len(source) >= 8 + int.from_bytes(source[4:8], "little")
