"""What a cutout is called on delivery: the item's relative path with the cutout's suffix, each name once.

`VIN1/1.jpg` and `VIN2/1.jpg` both live. `a.jpg` and `a.heic` in one folder would both become `a.png`, so both keep
their whole name: `a.jpg.png`, `a.heic.png`. Names that differ only in case, Unicode form or what Windows does not
take are told apart too, because the customer's disk may not do so. One that would be longer than a disk holds is cut
short. Whom all that does not tell apart has its number besides, in a place that is looked at again a hash.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from schemas.batch import LONGEST_NAME, Item, Manifest, SealedItems

PHOTO_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".bmp")
)
"""What files are taken for by name when a place is looked through; what they are is found out when they are decoded."""

_Which = TypeVar("_Which", int, str)
"""A photo, by its number or by its path."""
_REPLACED = re.compile(r'[:<>|"?*]')
_WINDOWS_CHANGES = re.compile(r'[:<>|"?*]|[. ](?:/|$)')
"""What is unpacked on Windows gets `_` for some characters, and loses dots and spaces at a folder's end."""


def shown(name: str, most: int = 60) -> str:
    """A name for its owner's eyes: what moves a cursor or turns a line round is spelled out, a long one cut short."""
    cut = name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2) :]}"
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in cut)


def has_photo_name(path: str) -> bool:
    """Whether a file is taken for a photo."""
    return path.removeprefix(_without_suffix(path)).lower() in PHOTO_SUFFIXES


def delivery_paths(items: Sequence[Item], suffix: str) -> dict[int, str]:
    """Item number -> relative path of its cutout, unique on any disk. `suffix` has its dot; an item's own wins."""
    own = {item.number: item.options.format.suffix for item in items if item.options}
    return _named({item.number: item.path for item in items}, own, suffix)


def lasting_paths(paths: Iterable[str], suffix: str) -> dict[str, str]:
    """The same by path, for a place whose photos come and go: numbers would change whenever those before do."""
    return _named({path: path for path in paths}, {}, suffix, _hash)


def names_of(manifest: Manifest) -> dict[int, str]:
    """As `delivery_paths`, of a sealed batch: its items are read one by one only if some have options of their own."""
    if not isinstance(manifest.items, SealedItems) or manifest.items.hold(b'"options":{'):
        return delivery_paths(tuple(manifest.items), manifest.stamp.options.format.suffix)
    return _named(dict(enumerate(manifest.paths, start=1)), {}, manifest.stamp.options.format.suffix)


def renamed(manifest: Manifest, names: Mapping[int, str]) -> bytes:
    """By number less 1: 1 where a cutout is not called like its photo, but for the suffix.

    The others are called so among any photos of the batch, and alone.
    """
    called = zip(manifest.paths, names.values(), strict=True)
    return bytes(_without_suffix(path) != _without_suffix(name) for path, name in called)


def _named(
    paths: Mapping[_Which, str], own: Mapping[_Which, str], suffix: str, mark: Callable[[_Which], str] = str
) -> dict[_Which, str]:
    """`mark`: what tells a photo from others where its whole name does not."""
    short = {which: f"{_without_suffix(path)}{own.get(which, suffix)}" for which, path in paths.items()}
    folders = {_on_any_disk(folder) for inside in {_folder(path) for path in paths.values()} for folder in _up(inside)}
    folded = {which: _on_any_disk(path) for which, path in short.items()}
    uses = Counter(folded.values())
    clashing = [n for n, path in folded.items() if uses[path] > 1 or path in folders or _is_too_long(short[n])]
    if not clashing:
        return short
    long = {which: f"{paths[which]}{own.get(which, suffix)}" for which in clashing}
    long_uses = Counter(map(_on_any_disk, long.values()))  # who has the same long name has the same short one, too
    taken = folders | {name for name, count in uses.items() if count == 1}
    for which in clashing:
        path = long[which]
        if long_uses[_on_any_disk(path)] > 1 or _on_any_disk(path) in taken or _is_too_long(path):
            path = _marked(paths[which], mark(which), own.get(which, suffix), taken)
        taken.add(_on_any_disk(path))
        short[which] = path
    return short


def _hash(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:8]


def _without_suffix(path: str) -> str:
    """As `PurePosixPath` has it: a dot at the start or at the end of a name begins no suffix."""
    start, dot = path.rfind("/") + 1, path.rfind(".")
    return path[:dot] if start < dot < len(path) - 1 else path


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _up(folder: str) -> Iterator[str]:
    """A folder, and those that it lies in."""
    while folder:
        yield folder
        folder = _folder(folder)


def _marked(own_path: str, mark: str, suffix: str, taken: set[str]) -> str:
    ending = f".{mark}{suffix}"
    while _on_any_disk(path := _cut_short(own_path, ending)) in taken:
        ending = f".{mark}{ending}"
    return path


def _is_too_long(path: str) -> bool:
    return len(path.rpartition("/")[2].encode()) > LONGEST_NAME


def _cut_short(path: str, ending: str) -> str:
    folder, slash, name = path.rpartition("/")
    kept = name.encode()[: LONGEST_NAME - len(ending.encode())].decode(errors="ignore")
    return f"{folder}{slash}{kept}{ending}"


def _on_any_disk(path: str) -> str:
    if _WINDOWS_CHANGES.search(path):
        path = "/".join(filter(None, (name.rstrip(". ") for name in _REPLACED.sub("_", path).split("/"))))
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
