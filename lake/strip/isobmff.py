"""HEIF and AVIF (ISO 14496-12, 23008-12) and JPEG XL's container (18181-2): files made of boxes.

In HEIF and AVIF the pixels are found by their place in the file, so nothing may move: metadata is overwritten where it
stands, and so is all that the image shown is not made of (thumbnails, depth and gain maps, further photos, texts among
its properties, what no item points to; its transparency stays). An orientation in EXIF stays, although the standards
tell readers not to heed it there: some do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lake.strip.exif import only_orientation, orientation
from lake.strip.icc import strip_profile

_KEPT_BOXES = frozenset((b"ftyp", b"meta", b"mdat"))
_KEPT_IN_META = frozenset((b"hdlr", b"pitm", b"iinf", b"iref", b"iprp", b"iloc", b"idat", b"dinf", b"grpl"))
_KEPT_PROPERTIES = frozenset(
    b"ispe pixi pasp colr irot imir clap auxC clli mdcv cclv amve hvcC lhvC av1C avcC vvcC evcC jpgC j2kH "
    b"a1op a1lx lsel tols oinf rloc uncC cmpd cmpC icef cpat".split()
)
_DERIVED = frozenset((b"grid", b"iden", b"iovl", b"tmap"))
"""Images that hold no pixels, only how others make them."""
_CODED = frozenset((b"hvc1", b"av01", b"jpeg", b"avc1", b"vvc1", b"evc1", b"j2k1", b"unci"))
_MADE_OF = (b"dimg", b"base", b"pred")
_ALPHA = frozenset(
    (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:avc:2015:auxid:1")
)
_JXL_PIXELS = (b"jxlc", b"jxlp")
_JXL_LAST = 1 << 31  # in the number that a part begins with
_JXL_KEPT = (b"JXL ", b"ftyp", b"jxll", *_JXL_PIXELS)


@dataclass(frozen=True)
class _Box:
    kind: bytes
    start: int
    body: int
    end: int


def strip_heif(data: bytes) -> bytes:
    """The same file with all but the image shown overwritten. Raises `ValueError` for what is not understood."""
    new = bytearray(data)
    boxes = list(_boxes(data, 0, len(data)))
    if [box.kind for box in boxes].count(b"meta") != 1:
        raise ValueError("not one image")
    for box in boxes:
        if box.kind == b"moov":
            raise ValueError("a sequence")
        if box.kind not in _KEPT_BOXES:
            _blank(new, box)
    meta = next(box for box in boxes if box.kind == b"meta")
    parts = {box.kind: box for box in _boxes(data, meta.body + 4, meta.end)}
    for box in parts.values():
        if box.kind not in _KEPT_IN_META:
            _blank(new, box)
    for box in boxes + list(parts.values()):
        if box.kind in (b"mdat", b"idat"):
            new[box.body : box.end] = bytes(box.end - box.body)
    if b"hdlr" in parts:
        text = parts[b"hdlr"].body + 24
        new[text : parts[b"hdlr"].end] = bytes(parts[b"hdlr"].end - text)
    if b"iprp" in parts:
        _blank_properties(data, new, parts[b"iprp"])
    places = _places(data, parts)
    shown = _shown(data, parts)
    kept: list[tuple[int, int]] = []
    for item, kind, name in _items(data, parts[b"iinf"]):
        new[name.start : name.stop] = b"_" * len(name)
        if kind in _DERIVED or (kind in _CODED and item in shown):
            kept += places.get(item, ())
            continue
        if item not in places:
            raise ValueError("an item without a place")
        for start, length in places[item]:
            new[start : start + length] = _filler(kind, data[start : start + length])
    for start, length in kept:  # last: items of the same bytes may share one place
        new[start : start + length] = data[start : start + length]
    return bytes(new)


def strip_jxl(data: bytes) -> bytes:
    """The codestream in its container, without the boxes beside it (which could also rebuild an original's EXIF)."""
    boxes = list(_boxes(data, 0, len(data)))
    if not any(box.kind in _JXL_PIXELS for box in boxes):
        raise ValueError("no codestream")
    parts = [_number(data, box.body, 4) for box in boxes if box.kind == b"jxlp"]
    if parts and [each & ~_JXL_LAST for each in parts] != list(range(len(parts))):
        raise ValueError("a part of the codestream is missing")
    if parts and not parts[-1] & _JXL_LAST:
        raise ValueError("the codestream ends too early")
    exif = [_exif(data[box.body : box.end]) for box in boxes if box.kind == b"Exif"]
    exif = [(len(each) + 8).to_bytes(4, "big") + b"Exif" + each for each in exif]
    head, pixels = (
        [data[box.start : box.end] for box in boxes if box.kind in _JXL_KEPT and (box.kind in _JXL_PIXELS) is wanted]
        for wanted in (False, True)
    )
    return b"".join((*head, *exif, *pixels))  # readers look for it before the codestream


def _boxes(data: bytes, place: int, end: int) -> Iterator[_Box]:
    while place < end:
        size, body = _number(data, place, 4), place + 8
        if size == 1:
            size, body = _number(data, place + 8, 8), place + 16
        elif size == 0:
            size = end - place
        if place + size > end or body > place + size:
            raise ValueError("a box leaves its place")
        yield _Box(data[place + 4 : place + 8], place, body, place + size)
        place += size


def _blank(new: bytearray, box: _Box) -> None:
    new[box.start + 4 : box.start + 8] = b"free"
    new[box.body : box.end] = bytes(box.end - box.body)


def _blank_properties(data: bytes, new: bytearray, iprp: _Box) -> None:
    """Blank what no reader needs to show an image: descriptions, times, camera positions. Their numbers stay taken."""
    needed = {number for _, number, is_needed in _properties_of_items(data, iprp) if is_needed}
    for number, box in enumerate(_properties(data, iprp), start=1):
        if box.kind not in _KEPT_PROPERTIES:
            if number in needed:
                raise ValueError("a property that readers must know, and that is not known here")
            _blank(new, box)
        elif box.kind == b"colr" and data[box.body : box.body + 4] in (b"prof", b"rICC"):
            new[box.body + 4 : box.end] = strip_profile(data[box.body + 4 : box.end])


def _filler(kind: bytes, old: bytes) -> bytes:
    """What stands in the place of metadata: as long as that was."""
    if kind == b"mime":
        return b" " * len(old)
    exif = _exif(old) if kind == b"Exif" else b""
    return exif.ljust(len(old), b"\0") if len(exif) <= len(old) else bytes(len(old))


def _exif(old: bytes) -> bytes:
    """Its orientation alone, in the form of both containers: a TIFF file behind the number of bytes before it."""
    has_no_number = old[:4] in (b"II*\0", b"MM\0*")  # written so by a pillow plugin
    tiff = old if has_no_number else old[4 + _number(old, 0, 4) :]
    return bytes(4) + only_orientation(orientation(tiff))


def _items(data: bytes, iinf: _Box) -> Iterator[tuple[int, bytes, range]]:
    """Each item's number and kind, and where its free text stands."""
    first = iinf.body + (6 if data[iinf.body] == 0 else 8)
    for infe in _boxes(data, first, iinf.end):
        version = data[infe.body]
        if infe.kind != b"infe" or version not in (2, 3):
            raise ValueError("an item that is not understood")
        wide = 2 if version == 2 else 4
        kind_at = infe.body + 4 + wide + 2
        kind = data[kind_at : kind_at + 4]
        name_end = data.index(b"\0", kind_at + 4, infe.end)
        yield _number(data, infe.body + 4, wide), kind, range(kind_at + 4, name_end)


def _shown(data: bytes, parts: dict[bytes, _Box]) -> set[int]:
    """The image that readers show, what it is made of, and the transparency of all that."""
    pitm = parts[b"pitm"]
    shown = {_number(data, pitm.body + 4, 2 if data[pitm.body] == 0 else 4)}
    references = list(_references(data, parts[b"iref"])) if b"iref" in parts else []
    alpha = _transparencies(data, parts[b"iprp"]) if b"iprp" in parts else set()
    while True:
        more = {each for kind, item, others in references if kind in _MADE_OF and item in shown for each in others}
        more |= {
            item for kind, item, of in references if kind == b"auxl" and item in alpha and not shown.isdisjoint(of)
        }
        if more <= shown:
            return shown
        shown |= more


def _references(data: bytes, iref: _Box) -> Iterator[tuple[bytes, int, list[int]]]:
    """Kind, item, and the items that it refers to."""
    wide = 2 if data[iref.body] == 0 else 4
    for box in _boxes(data, iref.body + 4, iref.end):
        count, first = _number(data, box.body + wide, 2), box.body + wide + 2
        if first + count * wide > box.end:
            raise ValueError("a list of references ends too early")
        yield box.kind, _number(data, box.body, wide), [_number(data, first + n * wide, wide) for n in range(count)]


def _transparencies(data: bytes, iprp: _Box) -> set[int]:
    """Items with a property that says that they are an alpha plane."""
    alpha = {
        number
        for number, box in enumerate(_properties(data, iprp), start=1)
        if box.kind == b"auxC" and data[box.body + 4 : box.end].partition(b"\0")[0] in _ALPHA
    }
    return {item for item, number, _ in _properties_of_items(data, iprp) if number in alpha}


def _properties(data: bytes, iprp: _Box) -> list[_Box]:
    """All of them; items refer to them by number, from 1."""
    lists = [box for box in _boxes(data, iprp.body, iprp.end) if box.kind == b"ipco"]
    return [each for box in lists for each in _boxes(data, box.body, box.end)]


def _properties_of_items(data: bytes, iprp: _Box) -> Iterator[tuple[int, int, bool]]:
    """Item, property, and whether a reader must know that property to show the item."""
    for box in _boxes(data, iprp.body, iprp.end):
        if box.kind != b"ipma":
            continue
        wide, size = 2 if data[box.body] == 0 else 4, 2 if data[box.body + 3] & 1 else 1
        place = box.body + 8
        for _ in range(_number(data, box.body + 4, 4)):
            item, count = _number(data, place, wide), data[place + wide]
            first, place = place + wide + 1, place + wide + 1 + count * size
            if place > box.end:
                raise ValueError("a list of properties ends too early")
            must = 1 << (8 * size - 1)
            for said in (_number(data, first + n * size, size) for n in range(count)):
                yield item, said & ~must, bool(said & must)


def _places(data: bytes, parts: dict[bytes, _Box]) -> dict[int, list[tuple[int, int]]]:
    """Item -> (start, length) of its parts in the file."""
    iloc = parts[b"iloc"]
    version = data[iloc.body]
    sizes, more = data[iloc.body + 4], data[iloc.body + 5]
    offset_size, length_size, base_size = sizes >> 4, sizes & 15, more >> 4
    index_size = more & 15 if version in (1, 2) else 0
    wide = 4 if version == 2 else 2
    place = iloc.body + 6

    def take(size: int) -> int:
        nonlocal place
        place += size
        if place > iloc.end:
            raise ValueError("the table of places ends too early")
        return _number(data, place - size, size)

    found: dict[int, list[tuple[int, int]]] = {}
    for _ in range(take(wide)):
        item = take(wide)
        method = take(2) & 15 if version in (1, 2) else 0
        take(2)
        base = take(base_size)
        extents = []
        for _ in range(take(2)):
            take(index_size)
            offset, length = take(offset_size), take(length_size)
            start = base + offset + (parts[b"idat"].body if method == 1 else 0)
            if method > 1 or length == 0 or start + length > len(data):
                raise ValueError("a place that is not understood")
            extents.append((start, length))
        found[item] = extents
    return found


def _number(data: bytes, start: int, size: int) -> int:
    return int.from_bytes(data[start : start + size], "big")
