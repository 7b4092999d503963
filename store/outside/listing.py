"""What lies in a customer's own place: photos by key, each with a version that changes when the photo does."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from schemas.errors import StoreFault
from store.objects.no_links import open_folder, open_listed
from store.objects.storage import error_code
from store.settings import Settings

_LONGEST_PATH = 4096  # that a system takes
_REPLACED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Of a folder that was deleted, or made something else, since the one around it was read."""


@dataclass(frozen=True)
class OutsideFile:
    """An object of a place. `version`: ETag on S3, time of change in a folder."""

    path: str
    size: int
    version: str


def list_place(place: str, settings: Settings) -> Iterator[OutsideFile]:
    """All objects under a `real_place`; what is hidden by a leading dot, or is a link, is left out.

    Raises `StoreFault`. A folder below that cannot be read is a fault too: what lies in it would else pass for deleted.
    """
    try:
        yield from _on_s3(place, settings) if place.startswith("s3://") else _in_folder(place)
    except OSError as error:
        keys = ", with bgbatch's own keys (BGBATCH_S3_KEY, BGBATCH_S3_SECRET) at BGBATCH_S3_ENDPOINT"
        how = f"Check that it may be read{keys if place.startswith('s3://') else ''}."
        raise StoreFault(f"The place could not be listed: {error_code(error)}. {how}") from None


def _on_s3(place: str, settings: Settings) -> Iterator[OutsideFile]:
    from store.objects.s3 import S3, after_object

    s3 = S3(place, settings)
    prefix = s3.root.removeprefix("s3://").partition("/")[2]
    start = f"{prefix}/" if prefix else ""
    for page in s3.pages("list_objects_v2", after_object, Prefix=start):
        for each in page.get("Contents", ()):
            path = each["Key"].removeprefix(start)
            if path and not path.endswith("/") and not any(map(_is_hidden, path.split("/"))):
                yield OutsideFile(path, each["Size"], str(each.get("ETag", "")) or each["LastModified"].isoformat())


def _in_folder(place: str) -> Iterator[OutsideFile]:
    with ExitStack() as opened:
        root = open_folder(opened, place.removeprefix("file://"))
        folders = [""]
        while folders:
            folder = folders.pop()
            for path, status in _seen(folder, root):
                if stat.S_ISDIR(status.st_mode):
                    if not path.endswith("/lost+found"):
                        folders.append(path)
                elif not stat.S_ISLNK(status.st_mode):
                    yield OutsideFile(path.removeprefix("/"), status.st_size, f"{status.st_mtime_ns}-{status.st_size}")


def _seen(folder: str, root: int) -> Iterator[tuple[str, os.stat_result]]:
    """What lies in a folder, by a path from the root that begins with a slash. What is hidden or gone is left out."""
    if len(os.fsencode(folder)) > _LONGEST_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    with ExitStack() as opened:
        try:
            here = open_listed(opened, open_folder(opened, folder, root))
        except OSError as error:
            if folder and error.errno in _REPLACED:
                return
            raise
        for name in os.listdir(here):
            if not name.startswith("."):
                with suppress(FileNotFoundError):
                    yield f"{folder}/{name}", os.lstat(name, dir_fd=here)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") and name not in (".", "..")  # of these a key is no path, which is to be told
