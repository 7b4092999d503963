"""The one thing that is kept of EXIF: how to turn the image upright."""

from __future__ import annotations

_ORIENTATION = 0x0112
_SHORT = 3


def orientation(tiff: bytes) -> int:
    """The orientation, 1 to 8, in an EXIF block (which is a small TIFF file); 1 when it says none."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(tiff[:4])
    if order is None:
        return 1

    def number(start: int, size: int) -> int:
        return int.from_bytes(tiff[start : start + size], order)  # type: ignore[arg-type]

    directory = number(4, 4)
    for place in range(number(directory, 2)):
        entry = directory + 2 + 12 * place
        if number(entry, 2) == _ORIENTATION and number(entry + 2, 2) == _SHORT:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1


def only_orientation(value: int) -> bytes:
    """An EXIF block that says the orientation and nothing else."""
    entry = _ORIENTATION.to_bytes(2, "little") + _SHORT.to_bytes(2, "little")
    entry += (1).to_bytes(4, "little") + value.to_bytes(4, "little")
    return b"II*\0" + (8).to_bytes(4, "little") + (1).to_bytes(2, "little") + entry + bytes(4)
