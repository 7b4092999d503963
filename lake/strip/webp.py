"""WebP (RFC 9649): chunks are kept if they are needed to show the pixels. XMP and unknown ones go."""

from __future__ import annotations

from lake.strip.exif import only_orientation, orientation
from lake.strip.icc import strip_profile

_KEPT = frozenset((b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP"))
_HAS_XMP, _HAS_EXIF = 0x04, 0x08


def strip_webp(data: bytes) -> bytes:
    """The image with its orientation and colour profile. Raises `ValueError` for a sequence, or a file cut short."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise ValueError("the file ends too early")
    chunks: list[tuple[bytes, bytes]] = []
    turned = 1
    place = 12
    while place + 8 <= end:
        kind = data[place : place + 4]
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        if place + 8 + length > end:
            raise ValueError("a chunk leaves the file")
        if kind == b"ANMF":
            raise ValueError("a sequence")
        body = data[place + 8 : place + 8 + length]
        if kind in _KEPT:
            chunks.append((kind, strip_profile(body) if kind == b"ICCP" else body))
        elif kind == b"EXIF":
            turned = orientation(body)
        place += 8 + length + length % 2
    chunks = [(kind, _flagged(body, turned) if kind == b"VP8X" else body) for kind, body in chunks]
    if turned != 1:
        chunks.append((b"EXIF", only_orientation(turned)))
    whole = b"WEBP" + b"".join(
        kind + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2) for kind, body in chunks
    )
    return b"RIFF" + len(whole).to_bytes(4, "little") + whole


def _flagged(header: bytes, turned: int) -> bytes:
    flags = header[0] & ~(_HAS_XMP | _HAS_EXIF)
    return bytes((flags | (_HAS_EXIF if turned != 1 else 0),)) + header[1:]
