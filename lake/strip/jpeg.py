"""JPEG (ITU-T T.81): segments are kept if they are needed to show the pixels; what follows the image's end goes.

Behind the end lie other images and videos (motion photos, MPF previews), which nobody meant to give.
"""

from __future__ import annotations

import re

from lake.strip.exif import only_orientation, orientation
from lake.strip.icc import strip_profile

_EXIF, _ICC = b"Exif\0\0", b"ICC_PROFILE\0"
_EOI, _SOS, _APP0, _APP1, _APP2, _APP14 = 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # all other markers; restarts and stuffed bytes are pixels


def strip_jpeg(data: bytes) -> bytes:
    """The first image of the file with its orientation and colour profile. Raises `ValueError` for a broken one."""
    kept: list[bytes] = []
    profile: list[tuple[int, int]] = []
    exif: list[bytes] = []
    place = 2
    while True:
        marker, place = _next_marker(data, place)
        if marker == _EOI:
            break
        length = int.from_bytes(data[place : place + 2], "big")
        end = place + length
        if length < 2 or end > len(data):
            raise ValueError("a segment leaves the file")
        body = data[place + 2 : end]
        if marker == _APP1 and body.startswith(_EXIF):
            exif.append(body if not exif else body.removeprefix(_EXIF))  # what does not fit into one is in several
        elif marker == _APP0 and body.startswith(b"JFIF\0") and len(body) >= 14:
            kept.append(_segment(marker, body[:12] + b"\0\0"))  # its thumbnail goes
        elif marker == _APP2 and body.startswith(_ICC):
            profile.append((body[len(_ICC)], len(kept)))
            kept.append(_segment(marker, body))
        elif _is_kept(marker, body):
            kept.append(_segment(marker, body))
        place = end
        if marker == _SOS:
            found = _END_OF_SCAN.search(data, place)
            if found is None:
                raise ValueError("the image has no end")
            kept.append(data[place : found.start()])
            place = found.start()
    _strip_profile(kept, [at for _, at in sorted(profile)])
    turned = orientation(b"".join(exif))
    turning = [_segment(_APP1, _EXIF + only_orientation(turned))] if turned > 1 else []
    # JFIF wants to be first; EXIF comes right behind it.
    at = 1 if kept and kept[0][1] == _APP0 else 0
    return b"".join((b"\xff\xd8", *kept[:at], *turning, *kept[at:], b"\xff\xd9"))


def _is_kept(marker: int, body: bytes) -> bool:
    if marker == _APP14:
        return body.startswith(b"Adobe")  # says how the colours are coded
    return marker < _APP0  # from there on stand what programs add, extensions and comments


def _strip_profile(kept: list[bytes], segments: list[int]) -> None:
    """Of the profile that lies in these segments, one part in each."""
    if not segments:
        return
    head = 4 + len(_ICC) + 2  # marker and length, then the part's number and how many there are
    stripped = strip_profile(b"".join(kept[at][head:] for at in segments))
    for at in segments:
        length = len(kept[at]) - head
        kept[at], stripped = kept[at][:head] + stripped[:length], stripped[length:]


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def _next_marker(data: bytes, place: int) -> tuple[int, int]:
    if data[place] != 0xFF:
        raise ValueError("no marker where one must be")
    while data[place] == 0xFF:
        place += 1
    return data[place], place + 1
