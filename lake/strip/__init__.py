"""Takes what tells about people off an image file, without touching a pixel: GPS, serial numbers, maker notes, texts.

Only what is known to be harmless stays: the pixels, how to show them (orientation, colour profile, gamma) and nothing
else, so that a kind of metadata nobody thought of goes, too. The compressed pixels are copied byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable

from lake.strip.isobmff import strip_heif, strip_jxl
from lake.strip.jpeg import strip_jpeg
from lake.strip.png import strip_png
from lake.strip.tiff import strip_bmp, strip_tiff
from lake.strip.webp import strip_webp

_STRIPPERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], bytes]], ...] = (
    (lambda data: data.startswith(b"\xff\xd8"), strip_jpeg),
    (lambda data: data.startswith(b"\x89PNG\r\n\x1a\n"), strip_png),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", strip_webp),
    (lambda data: data[:4] in (b"II*\0", b"MM\0*"), strip_tiff),
    (lambda data: data[4:8] == b"ftyp", strip_heif),
    (lambda data: data[4:12] == b"JXL \r\n\x87\n", strip_jxl),
    (lambda data: data[:2] == b"\xff\x0a", bytes),  # a bare JPEG XL codestream has no place for metadata
    (lambda data: data[:2] == b"BM", strip_bmp),
)


def strip_metadata(image: bytes) -> bytes | None:
    """The same image without what tells about people; None for a file whose format or structure is not known here.

    Any doubt is a no: such a file must not become a candidate.
    """
    for fits, strip in _STRIPPERS:
        if fits(image):
            try:
                return strip(image)
            except (ValueError, IndexError, KeyError):
                return None
    return None
