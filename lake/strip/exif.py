"""The one thing that is kept of EXIF: how to turn the image upright."""

from __future__ import annotations

_ORIENTATION = 0x0112
_SHORT = 3
_SIZES = {_SHORT: 2, 4: 4, 6: 1, 8: 2, 9: 4, 13: 4}
"""Bytes of a whole number, by its type. The standard wants the first; workers heed the others, too."""
_ORDERS = {b"II*\0": "little", b"MM\0*": "big", b"II\0*": "little", b"MM*\0": "big", b"MM\0+": "big"}
"""By how it begins. The last three are in no standard, and workers heed them, too."""


def orientation(tiff: bytes) -> int:
    """The orientation, 1 to 8, in an EXIF block (which is a small TIFF file); 1 when it says none.

    Before it may stand what it is called, even twice.
    """
    tiff = tiff.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")
    order = _ORDERS.get(tiff[:4])
    if order is None:
        return 1

    def number(start: int, size: int) -> int:
        return int.from_bytes(tiff[start : start + size], order)  # type: ignore[arg-type]

    directory = number(4, 4)
    for place in range(number(directory, 2)):
        entry = directory + 2 + 12 * place
        if entry + 12 > len(tiff):
            break
        if number(entry, 2) == _ORIENTATION and number(entry + 4, 4):
            value = number(entry + 8, _SIZES.get(number(entry + 2, 2), 0))
            return value if 1 <= value <= 8 else 1
    return 1


def only_orientation(value: int) -> bytes:
    """An EXIF block that says the orientation and nothing else."""
    entry = _ORIENTATION.to_bytes(2, "little") + _SHORT.to_bytes(2, "little")
    entry += (1).to_bytes(4, "little") + value.to_bytes(4, "little")
    return b"II*\0" + (8).to_bytes(4, "little") + (1).to_bytes(2, "little") + entry + bytes(4)
