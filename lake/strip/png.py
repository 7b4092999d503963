"""PNG (third edition): chunks are kept if they are needed to show the pixels. Texts, times and unknown ones go."""

from __future__ import annotations

import zlib

from lake.strip.exif import only_orientation, orientation
from lake.strip.icc import strip_profile

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS")
_HOW_TO_SHOW = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"sBIT", b"bKGD", b"pHYs", b"mDCV", b"cLLI")
_LARGEST_PROFILE = 1_000_000  # over 1 MB pillow reads no such PNG, with which most who train open it
_KEPT = frozenset((*_PIXELS, *_HOW_TO_SHOW))


def strip_png(data: bytes) -> bytes:
    """The image with its orientation and colour profile. Raises `ValueError` for a file that ends too early."""
    chunks: list[bytes] = []
    turned = 1
    place = len(_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        length = int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        end = place + 12 + length
        if end > len(data):
            raise ValueError("a chunk leaves the file")
        body = data[place + 8 : end - 4]
        if kind in _KEPT:
            chunks.append(data[place:end])
        elif kind == b"iCCP":
            profile = _inflated(body[body.index(b"\0") + 2 :])  # its name is free text
            chunks.append(_chunk(kind, b"icc\0\0" + zlib.compress(strip_profile(profile))))
        elif kind == b"eXIf":
            turned = orientation(body)
        place = end
    if not chunks or chunks[0][4:8] != b"IHDR":
        raise ValueError("no header")
    exif = [_chunk(b"eXIf", only_orientation(turned))] if turned != 1 else []
    return b"".join((_SIGNATURE, chunks[0], *exif, *chunks[1:]))


def _inflated(profile: bytes) -> bytes:
    """Raises `ValueError` for one that is cut short, damaged, or so large that it may be there to fill the memory."""
    inflating = zlib.decompressobj()
    try:
        whole = inflating.decompress(profile, _LARGEST_PROFILE)
    except zlib.error as error:
        raise ValueError("a damaged colour profile") from error
    if not inflating.eof:
        raise ValueError("a colour profile without an end")
    return whole


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
