"""Colour profiles (ICC.1:2022): what the colours mean stays; texts, dates, makers and a screen's serial number go.

A screen's own profile, which screenshots and some editors put into an image, names that screen and who measured it.
What stays does not move, as nothing may in TIFF and HEIF; every other byte becomes zero.
"""

from __future__ import annotations

_HEAD = 128
_KEPT_IN_HEAD = (range(4), range(8, 24), range(36, 40), range(56, 80))
"""Its size; version, class and colour spaces; signature; attributes, intent and white."""
_KEPT = frozenset(
    b"A2B0 A2B1 A2B2 B2A0 B2A1 B2A2 D2B0 D2B1 D2B2 D2B3 B2D0 B2D1 B2D2 B2D3 "
    b"rXYZ gXYZ bXYZ rTRC gTRC bTRC kTRC wtpt bkpt chad lumi gamt cicp".split()
)


def strip_profile(profile: bytes) -> bytes:
    """The same colours in as many bytes. Raises `ValueError` for a profile that is cut short."""
    new = bytearray(len(profile))

    def number(start: int) -> int:
        return int.from_bytes(profile[start : start + 4], "big")

    def keep(start: int, end: int) -> None:
        if end > len(profile):
            raise ValueError("a colour profile is cut short")
        new[start:end] = profile[start:end]

    for part in _KEPT_IN_HEAD:
        keep(part.start, part.stop)
    place, count = _HEAD + 4, 0
    for entry in range(place, place + 12 * number(_HEAD), 12):
        if entry + 12 > len(profile):
            raise ValueError("a colour profile is cut short")
        if profile[entry : entry + 4] in _KEPT:
            keep(number(entry + 4), number(entry + 4) + number(entry + 8))
            new[place : place + 12] = profile[entry : entry + 12]
            place, count = place + 12, count + 1
    new[_HEAD : _HEAD + 4] = count.to_bytes(4, "big")
    return bytes(new)
