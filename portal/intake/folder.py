"""A folder of photos: walked, copied into the transient store, sealed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.parts import Parts
from flows.receive import seal
from schemas.batch import Item, Manifest, Stamp
from schemas.errors import NothingToDo, UserError
from schemas.naming import PHOTO_SUFFIXES
from store.transient import source_key


@dataclass(frozen=True)
class Found:
    """A walk through a folder: photos by relative path, and how many files were left out by reason or suffix."""

    photos: dict[str, Path]
    left_out: Counter[str]


def find_photos(folder: Path) -> Found:
    """All photos under `folder`, sorted by relative path. Links are not followed. Raises `NothingToDo`, `UserError`."""
    if not folder.is_dir():
        raise UserError("That is no folder. Give the folder that holds the photos.")
    photos: dict[str, Path] = {}
    left_out: Counter[str] = Counter()
    for path in _files(folder):
        relative = path.relative_to(folder).as_posix()
        if path.is_symlink():
            left_out["links"] += 1
        elif path.name.startswith("."):
            left_out["hidden files"] += 1
        elif path.suffix.lower() not in PHOTO_SUFFIXES:
            left_out[f"{path.suffix.lower() or 'no suffix'}"] += 1
        elif "\\" in relative or not _is_text(relative):
            left_out["names that other systems cannot hold"] += 1
        else:
            photos[relative] = path
    if not photos:
        seen = f" It holds {left_out.total()} other files." if left_out else ""
        raise NothingToDo(f"There is no photo in that folder.{seen} Photos end in {', '.join(sorted(PHOTO_SUFFIXES))}.")
    return Found(photos=dict(sorted(photos.items())), left_out=left_out)


def upload(parts: Parts, stamp: Stamp, photos: dict[str, Path], on_item: Callable[[], None]) -> Manifest:
    """Copy the photos into the transient store and seal the batch. Raises `PastDeadline`, `StoreFault`, `UserError`."""
    items = []
    for number, (relative, path) in enumerate(photos.items(), start=1):
        size = path.stat().st_size
        if size <= parts.settings.max_bytes:  # a larger one gets its own result, without its bytes
            parts.transient.write(stamp, source_key(stamp.batch_id, number), path.read_bytes())
        items.append(Item(number=number, path=relative, size=size))
        on_item()
    return seal(parts, stamp, items)


def _files(folder: Path) -> Iterator[Path]:
    """Files, and folders that are links: these are not walked."""
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*names, *links):
            yield Path(place) / name


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
