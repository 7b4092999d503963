"""What lies in a customer's own place: photos by key, each with a version that changes when the photo does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import StoreFault
from store.settings import Settings
from store.storage import error_code


@dataclass(frozen=True)
class OutsideFile:
    """An object of a place. `version`: ETag on S3, time of change in a folder."""

    path: str
    size: int
    version: str


def list_place(place: str, settings: Settings) -> Iterator[OutsideFile]:
    """All objects under `place`; what is hidden by a leading dot, or is a link, is left out. Raises `StoreFault`.

    A folder below that cannot be read is a fault too: what lies in it would else pass for deleted.
    """
    try:
        yield from _on_s3(place, settings) if place.startswith("s3://") else _in_folder(place)
    except OSError as error:
        raise StoreFault(f"The place could not be listed: {error_code(error)}. Check that it may be read.") from None


def _on_s3(place: str, settings: Settings) -> Iterator[OutsideFile]:
    from store.s3 import S3

    s3 = S3(place, settings)
    prefix = s3.root.removeprefix("s3://").partition("/")[2]
    start = f"{prefix}/" if prefix else ""
    more: dict[str, object] = {}
    while True:
        page = s3.call("list_objects_v2", Prefix=start, **more)
        for each in page.get("Contents", ()):
            path = each["Key"].removeprefix(start)
            if path and not path.endswith("/") and not any(map(_is_hidden, path.split("/"))):
                yield OutsideFile(path, each["Size"], str(each.get("ETag", "")) or each["LastModified"].isoformat())
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _in_folder(place: str) -> Iterator[OutsideFile]:
    root = Path(place.removeprefix("file://"))
    if not root.is_dir():
        raise FileNotFoundError(2, "no such folder")
    for folder, folders, names in os.walk(root, onerror=_raise, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "lost+found"]
        for name in names:
            path = Path(folder) / name
            if name.startswith(".") or path.is_symlink():
                continue
            try:
                status = path.stat()
            except FileNotFoundError:  # deleted since its folder was read
                continue
            yield OutsideFile(
                path.relative_to(root).as_posix(), status.st_size, f"{status.st_mtime_ns}-{status.st_size}"
            )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") and name not in (".", "..")  # of these a key is no path, which is to be told


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # deleted since its parent was read
        raise error
