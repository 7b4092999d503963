"""TIFF 6.0: what the kept tags of the first image point to stays where it is; every other byte becomes zero.

So EXIF, GPS, maker notes, XMP, Photoshop blocks, further pages and whatever nobody points to are gone, and the
compressed pixels have not moved.
"""

from __future__ import annotations

from typing import Literal

from lake.strip.icc import strip_profile

_STRIP_OFFSETS, _STRIP_SIZES, _TILE_OFFSETS, _TILE_SIZES, _COMPRESSION = 273, 279, 324, 325, 259
_SHAPE = (254, 256, 257, 258, _COMPRESSION, 262, 266, 274, 277, 282, 283, 284, 296, 317, 338, 339)
_PIXELS = (_STRIP_OFFSETS, 278, _STRIP_SIZES, 322, 323, _TILE_OFFSETS, _TILE_SIZES, 347)
_PROFILE = 34675
_COLOURS = (301, 318, 319, 320, 529, 530, 531, 532, _PROFILE)
_KEPT = frozenset((*_SHAPE, *_PIXELS, *_COLOURS))
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_OLD_JPEG = 6


def strip_tiff(data: bytes) -> bytes:
    """The first image with its orientation and colour profile. Raises `ValueError` for what is not understood."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    new = bytearray(len(data))

    def number(start: int, size: int) -> int:
        if start + size > len(data):
            raise ValueError("a place outside the file")
        return int.from_bytes(data[start : start + size], order)

    def keep(start: int, length: int) -> None:
        if start + length > len(data):
            raise ValueError("a place outside the file")
        new[start : start + length] = data[start : start + length]

    directory = number(4, 4)
    entries = [directory + 2 + 12 * place for place in range(number(directory, 2))]
    tags: dict[int, list[int]] = {}
    kept: list[int] = []
    for entry in entries:
        tag, kind, count = number(entry, 2), number(entry + 2, 2), number(entry + 4, 4)
        if tag not in _KEPT:
            continue
        size = _SIZES[kind] * count
        start = entry + 8 if size <= 4 else number(entry + 8, 4)
        if size > 4:
            keep(start, size)
        if tag == _PROFILE:
            new[start : start + size] = strip_profile(data[start : start + size])
        if kind in (3, 4):
            tags[tag] = [number(start + _SIZES[kind] * place, _SIZES[kind]) for place in range(count)]
        kept.append(entry)
    if tags.get(_COMPRESSION) == [_OLD_JPEG]:
        raise ValueError("JPEG of the old kind points everywhere")
    pixels = list(zip(tags.get(_STRIP_OFFSETS, []), tags.get(_STRIP_SIZES, []), strict=True))
    pixels += zip(tags.get(_TILE_OFFSETS, []), tags.get(_TILE_SIZES, []), strict=True)
    if not pixels:
        raise ValueError("no pixels")
    for start, length in pixels:
        keep(start, length)
    keep(0, 8)
    new[directory : directory + 2] = len(kept).to_bytes(2, order)
    for place, entry in enumerate(kept):
        at = directory + 2 + 12 * place
        new[at : at + 12] = data[entry : entry + 12]
    end = directory + 2 + 12 * len(kept)
    new[end : end + 4] = bytes(4)  # no further page
    return bytes(new)


def strip_bmp(data: bytes) -> bytes:
    """The image without what follows it. Raises `ValueError` when it ends too early, or has a profile or names one."""
    size = int.from_bytes(data[2:6], "little")
    if not 26 <= size <= len(data) or data[70:74] in (b"KNIL", b"DEBM"):
        raise ValueError("not a whole bitmap")
    return data[:6] + bytes(4) + data[10:size]
