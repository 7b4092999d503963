"""The photos of a manifest on this machine: files beside it are copied, addresses are left to the workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from flows.parts import Parts
from flows.receive import seal
from portal.intake.manifest import Listed
from schemas.batch import Item, Manifest, Stamp
from store.parallel import all_in_parallel
from store.transient import source_key


def upload_manifest(
    parts: Parts, stamp: Stamp, listed: Sequence[Listed], beside: Path, on_item: Callable[[], None]
) -> Manifest:
    """Copy the files, seal the batch. A file that is not there gets its own result; links are not followed.

    Raises `PastDeadline`.
    """
    beside = beside.resolve()

    def copied(numbered: tuple[int, Listed]) -> Item:
        number, each = numbered
        size = 0
        path = beside / each.file if each.file is not None else None
        if path is not None and path.is_file() and path.resolve() == path:
            size = path.stat().st_size
            if size <= parts.settings.max_bytes:
                parts.transient.write(stamp, source_key(stamp.batch_id, number), path.read_bytes())
        return Item(number=number, path=each.path, size=size, source=each.url, options=each.options)

    items = all_in_parallel(parts.transient.objects.storage.AT_ONCE, copied, enumerate(listed, start=1), on_item)
    return seal(parts, stamp, items)
