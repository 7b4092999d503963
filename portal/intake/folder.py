"""A folder of photos: walked, copied into the transient store, sealed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.receive import seal
from portal.intake.copying import Copying, is_photo_file
from portal.intake.tally import Tally
from schemas.batch import Item, Manifest, can_be_kept
from schemas.errors import NothingToDo, UserError
from schemas.left_out import LeftOut
from schemas.naming import PHOTO_SUFFIXES, has_photo_name
from store.parallel import all_in_parallel


@dataclass(frozen=True)
class Found:
    """A walk through a folder: photos by relative path, and what was left out."""

    photos: dict[str, Path]
    left_out: Tally


def find_photos(folder: Path) -> Found:
    """All photos under `folder`, sorted by relative path. Links are not followed.

    Raises `NothingToDo`, and `OSError` for a folder below that cannot be read: its photos would be missed in silence.
    """
    photos: dict[str, Path] = {}
    left_out = Tally()
    for path in _files(folder):
        relative = path.relative_to(folder).as_posix()
        if os.path.islink(path):
            left_out.leave_out(relative, LeftOut.LINK)
        elif path.name.startswith("."):
            left_out.leave_out(relative, LeftOut.HIDDEN)
        elif not has_photo_name(relative) or not is_photo_file(path):  # a pipe would be read for ever
            left_out.leave_out(relative, LeftOut.NOT_A_PHOTO)
        elif not can_be_kept(relative):
            left_out.leave_out(relative, LeftOut.BAD_NAME)
        else:
            photos[relative] = path
    if not photos:
        raise NothingToDo(f"There is no photo in that folder.{left_out.instead()}")
    return Found(photos=dict(sorted(photos.items())), left_out=left_out)


def one_photo(file: Path) -> Found:
    """A photo that is sent alone. Raises `UserError` for what is no photo by its name, `OSError` if unreadable."""
    if not file.is_file() or not has_photo_name(file.name):
        raise UserError(
            "That is no folder, no zip file, no manifest (.csv, .jsonl, .json), and no photo by its name. "
            f"Photos end in {', '.join(sorted(PHOTO_SUFFIXES))}."
        )
    if not can_be_kept(file.name):
        raise UserError("No cutout can be called as that photo is: its name is in no UTF-8, or too odd. Rename it.")
    file.open("rb").close()
    return Found(photos={file.name: file}, left_out=Tally())


def upload(
    copying: Copying,
    photos: dict[str, Path],
    on_item: Callable[[], None],
    left_out: Mapping[LeftOut, int] | None = None,
) -> Manifest:
    """Copy the photos into the transient store and seal the batch. One that cannot be read gets its own result.

    Raises `PastDeadline`, `StoreFault`, `UserError`, and as `copying` does.
    """

    def copied(numbered: tuple[int, str]) -> Item:
        number, relative = numbered
        size, source = copying.copy(number, relative, photos[relative])
        return Item(number=number, path=relative, size=size, source=source)

    parts, stamp = copying.parts, copying.stamp
    items = all_in_parallel(parts.transient.objects.storage.AT_ONCE, copied, enumerate(photos, start=1), on_item)
    return seal(parts, stamp, items, left_out)


def _files(folder: Path) -> Iterator[Path]:
    """Files, and folders that are links: these are not walked."""
    for place, folders, names in os.walk(folder, onerror=_raise, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "lost+found"]  # root's own
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*names, *links):
            yield Path(place) / name


def _raise(error: OSError) -> None:
    raise error
