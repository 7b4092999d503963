"""What a cutout is called on delivery: the item's relative path with the cutout's suffix, each name once.

`VIN1/1.jpg` and `VIN2/1.jpg` both live. `a.jpg` and `a.heic` in one folder would both become `a.png`, so both keep
their whole name: `a.jpg.png`, `a.heic.png`. Names that differ only in case or Unicode form are told apart too, because
the customer's disk may not do so.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from schemas.batch import Item

PHOTO_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".bmp")
)
"""What files are taken for by name when a place is looked through; what they are is found out when they are decoded."""


def shown(name: str, most: int = 60) -> str:
    """A name for its owner's eyes: what moves a cursor or turns a line round is spelled out, a long one cut short."""
    cut = name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2) :]}"
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in cut)


def delivery_paths(items: Sequence[Item], suffix: str) -> dict[int, str]:
    """Item number -> relative path of its cutout, unique on any disk. `suffix` has its dot; an item's own wins."""
    suffixes = {item.number: item.options.format.suffix if item.options else suffix for item in items}
    short = {item.number: str(PurePosixPath(item.path).with_suffix(suffixes[item.number])) for item in items}
    long = {item.number: f"{item.path}{suffixes[item.number]}" for item in items}
    folders = {_on_any_disk(str(folder)) for item in items for folder in PurePosixPath(item.path).parents}
    short_uses = Counter(map(_on_any_disk, short.values()))
    long_uses = Counter(map(_on_any_disk, long.values()))
    taken = folders | {name for name, uses in short_uses.items() if uses == 1}
    chosen: dict[int, str] = {}
    for item in items:
        path = short[item.number]
        if short_uses[_on_any_disk(path)] == 1 and _on_any_disk(path) not in folders:
            chosen[item.number] = path
            continue
        path = long[item.number]
        if long_uses[_on_any_disk(path)] > 1 or _on_any_disk(path) in taken:
            path = _numbered(item, suffixes[item.number], taken)
        taken.add(_on_any_disk(path))
        chosen[item.number] = path
    return chosen


def _numbered(item: Item, suffix: str, taken: set[str]) -> str:
    path = f"{item.path}.{item.number}{suffix}"
    while _on_any_disk(path) in taken:
        path = f"{path.removesuffix(suffix)}.{item.number}{suffix}"
    return path


def _on_any_disk(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
