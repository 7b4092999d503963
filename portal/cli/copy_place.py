"""Where a copy of candidates may lie, and where other copies lie: in a folder, or on S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows.parts import Parts
from lake.pulls import list_pulls
from portal.cli.place import require_known
from schemas.errors import CopyInTheWay, UserError
from store.objects.object_store import ObjectStore, open_store
from store.outside.allowed import normal_place
from store.settings import Settings


def whole(url: str) -> str:
    """The place as it is called wherever one stands, and whatever links lead to it."""
    return url.rstrip("/") if url.startswith("s3://") else str(Path(url.removeprefix("file://")).resolve())


def open_place(url: str, settings: Settings, must_exist: bool = False) -> ObjectStore:
    """A copy's place. It lies outside the lake and the transient store, which are swept. Raises `UserError`."""
    require_known(url)
    if url.startswith("s3://"):
        normal_place(url)  # of one that names no bucket, a folder `s3:` would be made here
    asked = whole(url)
    if not asked.startswith("s3://") and not Path(asked).is_dir():
        if must_exist:
            raise UserError("There is no such folder.")
        if Path(asked).exists():
            raise UserError("A copy goes into a folder, and this is none. Choose another place.")
    for root in (settings.lake_root, settings.transient_root):
        if f"{asked}/".startswith(f"{whole(root)}/"):
            raise UserError("A copy cannot lie inside the lake or the transient store. Choose another place.")
    return open_store(asked, settings)


def require_in_no_copy(place: str, settings: Settings) -> None:
    """Raises `CopyInTheWay` for a place that lies inside another copy."""
    from lake.copies.stored import is_copy

    if any(is_copy(open_store(above, settings)) for above in _above(place)):
        raise CopyInTheWay("This place lies inside another copy of candidates. Choose one outside of it.")


def places_of_copy(parts: Parts, pull_id: str) -> list[str]:
    """Where the copy of that pull lies, as the records know and it can be seen from here."""
    from lake.copies.stored import is_copy

    with parts.records.reading() as connection:
        known = [each.place for each in list_pulls(connection) if each.pull_id == pull_id]
    return [each for each in known if is_copy(open_store(each, parts.settings), pull_id)]


def _above(place: str) -> Iterator[str]:
    """The places that one lies in, up to the bucket or the root of the disk."""
    if place.startswith("s3://"):
        inside = place.removeprefix("s3://")
        while "/" in inside:
            inside = inside.rpartition("/")[0]
            yield f"s3://{inside}"
    else:
        yield from map(str, Path(place).parents)
