"""JPEG files (ITU-T T.81): where one ends, what forms it may have, and the same without what libjpeg stumbles over."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import islice

JPEG_BEGINNING = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"

_APP0, _APP1, _APP2, _APP14, _START_OF_SCAN = 0xE0, 0xE1, 0xE2, 0xEE, 0xDA
_TRANSFORMS = {3: (0, 1), 4: (0, 2)}
"""By the number of channels, how Adobe's marker may say that colours are stored; of another number libjpeg takes the
last."""
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""What begins a segment before the first scan. Other bytes there are spare, and the markers left out stand alone."""
_MOST_SEGMENTS = 10_000
"""A profile has up to 255 pieces, and what 30 MB of notes are cut into are some 500."""
_MOST_EXIF = 100
"""What does not fit into one segment is cut into pieces; with a preview for a screen it has some ten."""
_SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
"""What begins a scan of one to four channels. In a film behind a photo its first two bytes come by chance."""
_MOST_SCANS = 100
"""Encoders write some ten, mozjpeg twice as many."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""Markers that begin a JPEG's frame, with JPEG-LS's."""
_HUFFMAN = frozenset((0xC0, 0xC1))
"""Sequential frames of which libjpeg tells that pixels are missing."""
_READ_FRAMES, _SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA)), frozenset((0xC0, 0xC1, 0xC9))


def has_a_scan(source: bytes) -> bool:
    """Whether a JPEG's header is whole: pixels follow."""
    return any(marker == _START_OF_SCAN for marker, _, _ in _segments(source))


def has_too_many_scans(source: bytes) -> bool:
    """Whether a JPEG was made to keep its decoder busy: a scan takes 50 bytes, and goes through all of the pixels."""
    return len([*islice(_SCAN.finditer(source), _MOST_SCANS + 1)]) > _MOST_SCANS


def has_too_much_exif(source: bytes) -> bool:
    """Whether a JPEG was made to keep its reader busy: for each piece of EXIF pillow copies all before it."""
    segments = list(islice(_each_segment(source), _MOST_SEGMENTS + 1))
    pieces = [1 for marker, start, _ in segments if marker == _APP1 and source.startswith(b"Exif\0\0", start + 4)]
    return len(segments) > _MOST_SEGMENTS or len(pieces) > _MOST_EXIF


def up_to_its_end(source: bytes) -> bytes | None:
    """A JPEG without what a phone hangs behind it, such as a film or notes; None when its end is not there."""
    if source.endswith(JPEG_END):
        return source
    scan = next((end for marker, _, end in _segments(source) if marker == _START_OF_SCAN), len(source))
    end = source.find(JPEG_END, scan)  # within a scan these two bytes cannot stand side by side
    return source[: end + len(JPEG_END)] if end >= 0 else None


def with_its_end(source: bytes) -> bytes:
    """A JPEG with an end, which some cameras leave out, and without zeros between its pixels and its end.

    Whether all pixels are there is for the decoder to say: of zeros it would make pixels. Of several scans it cannot
    say it, as a later one would be missing in silence, nor of arithmetic coding: such a file stays as it is.
    """
    segments = {marker: start for marker, start, _ in _segments(source)}
    frame = next((start for marker, start in segments.items() if marker in _HUFFMAN), None)
    scan = segments.get(_START_OF_SCAN)
    if frame is None or scan is None or source[frame + 9] != source[scan + 4]:
        return source
    data = (up_to_its_end(source) or source).removesuffix(JPEG_END)
    pixels = data.rstrip(b"\0")
    if len(data) - len(pixels) == 1:  # one may be of the pixels
        pixels = data
    return pixels + (b"\0" if pixels.endswith(b"\xff") else b"") + JPEG_END  # an 0xFF of the pixels has a 0 behind it


def without_its_last(source: bytes, spare: int) -> bytes:
    """A JPEG without so many bytes before its end; it has one."""
    data = (up_to_its_end(source) or source).removesuffix(JPEG_END).rstrip(b"\xff")
    return data[: len(data) - spare] + JPEG_END


def is_of_a_kind_not_read(source: bytes) -> bool:
    """Whether it is a JPEG in a form that no decoder here reads. So is one that tells its height behind its pixels."""
    frames = [(marker, source[start + 4 : start + 7]) for marker, start, _ in _segments(source) if marker in _FRAMES]
    is_other = any(marker not in _READ_FRAMES or head[0] != 8 or head[1:] == b"\0\0" for marker, head in frames)
    return is_other and source.startswith(JPEG_BEGINNING)


def plain_jpeg(source: bytes) -> bytes:
    """The same pixels without what libjpeg may stumble over beside them.

    That is spare bytes between segments, JFIF's version, pieces of a profile, how Adobe's marker says that colours are
    stored where it says no such thing, and parameters of a scan that mean nothing when it is sequential.
    """
    segments = _segments(source)
    channels = next((source[start + 9] for marker, start, _ in segments if marker in _FRAMES), 0)
    transforms = _TRANSFORMS.get(channels)
    is_sequential = bool(_SEQUENTIAL & {marker for marker, _, _ in segments})
    plain = bytearray(source)
    for marker, start, end in segments:
        if marker == _APP0 and source[start + 4 : start + 9] == b"JFIF\0" and end - start >= 16:
            plain[start + 9] = 1  # not left out: that there is a JFIF says that the channels are luma and colour
        if marker == _APP14 and transforms and end - start >= 16 and source[start + 15] not in transforms:
            plain[start + 15] = transforms[-1]
        if marker == _START_OF_SCAN and is_sequential and end - start >= 8:
            plain[end - 3 : end] = b"\0\x3f\0"
    return without_segments(bytes(plain), (_APP2,))


def without_segments(source: bytes, markers: Collection[int]) -> bytes:
    """A JPEG without its segments of these kinds, and without spare bytes between the others."""
    kept, place = [source[:2]], 2
    for marker, start, end in _segments(source):
        place = end
        if marker not in markers:
            kept.append(source[start:end])
    return b"".join((*kept, source[place:]))


def _segments(source: bytes) -> list[tuple[int, int, int]]:
    """Marker, start and end of each whole segment of a JPEG, up to the one that begins the first scan.

    Spare bytes between them are stepped over, however many, as libjpeg does. Of a file with more segments than any
    camera writes none are told: one could be made of millions.
    """
    found = [*islice(_each_segment(source), _MOST_SEGMENTS + 1)]
    return found if len(found) <= _MOST_SEGMENTS else []


def _each_segment(source: bytes) -> Iterator[tuple[int, int, int]]:
    end = 2
    while (found := _MARKER.search(source, end)) is not None and found.end() + 2 < len(source):
        start, marker = found.start(), source[found.end() - 1]
        end = start + 2 + max(2, int.from_bytes(source[start + 2 : start + 4], "big"))  # it counts its own two bytes
        if end > len(source):
            return
        yield marker, start, end
        if marker == _START_OF_SCAN:
            return
