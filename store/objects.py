"""Objects by key under one root, in a folder or on S3, through fsspec. The one place where storage errors are read.

Three habits of file systems would break the promise, so they are mended here (all three seen on real servers):
an open file that is closed by an exception publishes half an object; listings are cached; a delete that failed says
nothing.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

import fsspec
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import NotFound, StillThere, StoreFault
from store.settings import Settings

_PARTIAL = ".partial-"


@dataclass(frozen=True)
class StoredObject:
    """A listed object: `key` relative to the root, `size` in bytes."""

    key: str
    size: int


class ObjectStore:
    """Whole objects by key. Keys use forward slashes and are relative to the root."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, root: str) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/")

    def write(self, key: str, data: bytes) -> None:
        """Make `data` the object at `key`, whole or not at all; a reader sees the old one or the new one."""
        path = self.path(key)
        with _read_faults("write"):
            if isinstance(self.filesystem, LocalFileSystem):
                # Beside the target, under the same time stamp: a killed writer's leftovers are purged with the rest.
                partial = f"{path}{_PARTIAL}{secrets.token_hex(8)}"
                self.filesystem.makedirs(os.path.dirname(path), exist_ok=True)
                self.filesystem.pipe_file(partial, data)
                os.replace(partial, path)
            else:
                self.filesystem.pipe_file(path, data)

    def read(self, key: str) -> bytes:
        """The bytes at `key`. Raises `NotFound`."""
        with _read_faults("read"):
            data: bytes = self.filesystem.cat_file(self.path(key))
            return data

    def exists(self, key: str) -> bool:
        """Whether there is an object at `key` now."""
        with _read_faults("look up"):
            return bool(self.filesystem.isfile(self.path(key)))

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly under `prefix`, sorted."""
        return self._children(prefix, "directory")

    def files(self, prefix: str) -> list[str]:
        """Names of the objects directly under `prefix`, sorted."""
        return self._children(prefix, "file")

    def walk(self, prefix: str) -> Iterator[StoredObject]:
        """Every object under `prefix`, at any depth, unfinished writes included."""
        with _read_faults("list"):
            found = self.filesystem.find(self.path(prefix), detail=True)
        for path, info in found.items():
            yield StoredObject(key=path.removeprefix(self._stripped_root()).lstrip("/"), size=int(info["size"] or 0))

    def delete(self, keys: Iterable[str]) -> None:
        """After this, no object is at `keys`, whether or not there was one. Raises `StillThere`, `StoreFault`."""
        for key in keys:
            with _read_faults("delete"), suppress(FileNotFoundError):  # absent is what was asked for
                self.filesystem.rm_file(self.path(key))
            if self.exists(key):
                raise StillThere(
                    "An object is still there after its deletion. Check the store's policies and versioning."
                )

    def delete_folder(self, prefix: str) -> None:
        """After this, nothing lies under `prefix`. On a folder the empty directories go too. Raises `StillThere`."""
        self.delete(found.key for found in list(self.walk(prefix)))
        if isinstance(self.filesystem, LocalFileSystem) and self.filesystem.isdir(self.path(prefix)):
            with _read_faults("delete"):
                self.filesystem.rm(self.path(prefix), recursive=True)
        if next(self.walk(prefix), None) is not None:
            raise StillThere("Objects came back under a deleted prefix. The next cleanup sweeps it again.")

    def path(self, key: str) -> str:
        """The file system's own path of `key`."""
        if key and (key.startswith("/") or ".." in PurePosixPath(key).parts):
            raise StoreFault("A key left its store's root. This is a defect of bgbatch; nothing was touched.")
        return f"{self.root}/{key}" if key else self.root

    def _children(self, prefix: str, kind: str) -> list[str]:
        with _read_faults("list"):
            try:
                found = self.filesystem.ls(self.path(prefix), detail=True)
            except FileNotFoundError:
                return []
        return sorted(PurePosixPath(info["name"]).name for info in found if info["type"] == kind)

    def _stripped_root(self) -> str:
        return str(self.filesystem._strip_protocol(self.root))


def open_store(url: str, settings: Settings) -> ObjectStore:
    """The store at `url`: a folder (made when absent) or `s3://bucket/prefix`. Safe to call in every process anew."""
    if url.startswith("s3://"):
        # Built from the settings in each process: a pickled filesystem would carry the secret into Ray's object store.
        filesystem = fsspec.filesystem(
            "s3",
            key=settings.s3_key or None,
            secret=settings.s3_secret.get_secret_value() or None,
            endpoint_url=settings.s3_endpoint or None,
            use_listings_cache=False,
            skip_instance_cache=True,
            config_kwargs={"retries": {"max_attempts": 3}, "connect_timeout": 5, "read_timeout": 60},
        )
        return ObjectStore(filesystem, url)
    root = os.path.abspath(url.removeprefix("file://"))
    os.makedirs(root, mode=0o700, exist_ok=True)
    return ObjectStore(LocalFileSystem(use_listings_cache=False, skip_instance_cache=True), root)


@contextmanager
def _read_faults(verb: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFound("There is no such object in the store.") from None
    except OSError as error:
        # The system's own message would name the path; the class and number are enough to act on.
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise StoreFault(
            f"The object store refused to {verb}: {reason}. Check its space, permissions and address."
        ) from error
