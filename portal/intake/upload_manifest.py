"""The photos of a manifest on this machine: files beside it are copied, addresses are left to the workers."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from flows.receive import seal
from portal.intake.copying import Copying, is_photo_file
from portal.intake.manifest import Listed
from schemas.batch import Item, Manifest
from store.parallel import all_in_parallel


def upload_manifest(copying: Copying, listed: Sequence[Listed], beside: Path, on_item: Callable[[], None]) -> Manifest:
    """Copy the files, seal the batch. One that is not there, or cannot be read, gets its own result.

    Links are not followed. Raises `PastDeadline`, and as `copying` does.
    """
    beside = beside.resolve()

    def copied(numbered: tuple[int, Listed]) -> Item:
        number, each = numbered
        size, source = 0, each.url
        file = _file_of(each.file, beside) if each.file is not None else None
        if file is not None and os.path.realpath(file) == str(file):
            size, source = copying.copy(number, each.path, file)
        return Item(number=number, path=each.path, size=size, source=source, options=each.options)

    parts, stamp = copying.parts, copying.stamp
    items = all_in_parallel(parts.transient.objects.storage.AT_ONCE, copied, enumerate(listed, start=1), on_item)
    return seal(parts, stamp, items)


def _file_of(path: str, beside: Path) -> Path | None:
    """The file that a line names; letters with marks may be written otherwise on the disk, as a Mac's are."""
    forms = (path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path))
    return next((file for form in forms if is_photo_file(file := beside / form)), None)
