"""Places and addresses that are not ours, opened: what a customer named is read where it lies, or delivered there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress

from schemas.errors import FetchFailed, FileTooLarge
from store.objects.folder import Folder, partial_name, write_whole
from store.objects.no_links import open_file, open_folder
from store.objects.object_store import ObjectStore, no_such_object, open_store
from store.objects.storage import error_code
from store.outside.fetch import Fetcher, FetchLimits
from store.settings import Settings

ReadOutside = Callable[[str], bytes]
"""The bytes at an address. Raises an `ItemError`, or `NotFound`."""

FETCHED = ("http://", "https://")
_REFUSED = "The photo's own place refused to give it. Check that it may be read."


def open_to_deliver(place: str, settings: Settings, is_known: bool = False) -> ObjectStore:
    """The store at a `real_place`. Nothing is written there through a link: that is a `StoreFault`.

    `is_known`: it took something before. Where its folder is not there any more, its disk is away: a `StoreFault`, too.
    """
    if place.startswith("s3://"):
        return open_store(place, settings)
    return ObjectStore(WithoutLinks(place.removeprefix("file://"), is_known))


class WithoutLinks(Folder):
    """A folder that nothing is written into but by a path in which nothing is a link. It is made only at the first."""

    def __init__(self, root: str, is_known: bool = False) -> None:
        super().__init__(root)
        self._made_with = None if is_known else 0o700

    def put(self, key: str, data: bytes) -> None:
        """As in any folder, each one on the way opened inside the one before."""
        folder, _, name = key.rpartition("/")
        for _ in range(2):  # its owner may take the folder away in between
            with suppress(FileNotFoundError), ExitStack() as opened:
                root = open_folder(opened, self.root, made_with=self._made_with)
                here = open_folder(opened, folder, root, made_with=0o777)
                write_whole(partial_name(name), name, data, here)
                self._made_with = None
                return
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def open_outside(settings: Settings) -> ReadOutside:
    """Read objects of places and fetch addresses, within the settings' limits."""
    most = settings.max_bytes
    fetcher = Fetcher(FetchLimits(bytes=most))

    def read(url: str) -> bytes:
        if url.startswith(FETCHED):
            return fetcher.get(url)
        if url.startswith("file://"):
            return _read_file(url.removeprefix("file://"), most)
        return _read_object(url, settings)

    return read


def _read_object(url: str, settings: Settings) -> bytes:
    """An object on S3. Raises `NotFound`, `FetchFailed` with the server's own code."""
    from store.objects.s3 import S3  # slow to import

    bucket, _, key = url.removeprefix("s3://").partition("/")
    try:
        data = S3(f"s3://{bucket}", settings).get_start(key, settings.max_bytes + 1)
    except OSError as error:
        code = error_code(error)
        if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
            raise no_such_object() from None
        raise FetchFailed(
            f"The photo's own place did not give it: {code}. Check that it may be read, or try again later."
        ) from None
    if len(data) > settings.max_bytes:
        raise _too_large(settings.max_bytes)
    return data


def _read_file(path: str, most: int) -> bytes:
    """A file, found without following any link. Raises `NotFound` for a link, a pipe and what is not there."""
    folder, _, name = path.rpartition("/")
    try:
        with ExitStack() as opened:
            file = open_file(opened, name, open_folder(opened, folder))
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise no_such_object()
            with open(file, "rb", closefd=False) as reader:
                data = reader.read(most + 1)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise no_such_object() from None
        raise FetchFailed(_REFUSED) from None
    if len(data) > most:
        raise _too_large(most)
    return data


def _too_large(most: int) -> FileTooLarge:
    return FileTooLarge(f"The file has more than {most / 1e6:g} MB. Send a smaller one.")
