"""Objects by key under one root, in a folder or on S3. The one place where storage errors are read.

Habits of file systems and stores that would break the promise are mended below it: an open file that is closed by an
exception publishes half an object (`Storage.put` writes whole ones); listings are cached or hide versions
(`Storage.find` shows all that there is); a delete that failed says nothing (`store.objects.erase` looks again).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from schemas.errors import NotFound, StoreFault
from store.objects.erase import Erasure, Pause, erase
from store.objects.folder import Folder
from store.objects.storage import Children, Storage, StoredObject, error_code
from store.parallel import in_parallel
from store.settings import Settings

_FEW = 3
"""Up to so many keys of one folder are looked up one by one; for more, the folder is listed."""


class ObjectStore:
    """Whole objects by key. Keys use forward slashes and are relative to the root."""

    def __init__(self, storage: Storage, pause: Pause = time.sleep) -> None:
        self.storage = storage
        self._pause = pause

    def write(self, key: str, data: bytes) -> None:
        """Make `data` the object at `key`, whole or not at all; a reader sees the old one or the new one."""
        with _read_faults("write"):
            self.storage.put(_checked(key), data)

    def read(self, key: str) -> bytes:
        """The bytes at `key`. Raises `NotFound`."""
        with _read_faults("read"):
            return self.storage.get(_checked(key))

    def exists(self, key: str) -> bool:
        """Whether there is an object at `key` now."""
        with _read_faults("look up"):
            return self.storage.has(_checked(key))

    def size(self, key: str) -> int:
        """Bytes at `key`, before they are read. Raises `NotFound`, also for a link or a pipe in a folder."""
        with _read_faults("look up"):
            return self.storage.size(_checked(key))

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly under `prefix`, sorted; one that holds an unseen thing alone is among them."""
        return list(self.children(prefix).folders)

    def files(self, prefix: str) -> list[str]:
        """Names of the objects directly under `prefix`, sorted."""
        return list(self.children(prefix).files)

    def children(self, prefix: str) -> Children:
        """Both of these, from one listing."""
        with _read_faults("list"):
            return self.storage.children(prefix)

    def walk(self, prefix: str) -> Iterator[StoredObject]:
        """Everything under `prefix` (or at that very key), at any depth: versions and unfinished writes included."""
        with _read_faults("list"):
            yield from self.storage.find(prefix)

    def walk_among(self, folder: str, names: Collection[str]) -> Iterator[StoredObject]:
        """Everything under these names in `folder`. On S3 that is one listing, which ends after the last of them."""
        with _read_faults("list"):
            yield from self.storage.find_among(folder, names)

    def walk_nameless(self, folder: str) -> Iterator[StoredObject]:
        """What `children` calls nameless. There is hardly ever such a thing, so all of `folder` is listed for it."""
        inside = f"{folder}/" if folder else ""
        for each in self.walk(folder):
            if each.key.startswith(inside) and not each.key.removeprefix(inside).partition("/")[0]:
                yield each

    def walk_all(self, prefixes: Sequence[str]) -> Iterator[StoredObject]:
        """Everything under any of `prefixes`, several listings at once where the store gains by it."""
        if len(prefixes) == 1:
            yield from self.walk(prefixes[0])
            return
        for found in in_parallel(self.storage.AT_ONCE, lambda prefix: list(self.walk(prefix)), prefixes):
            yield from found

    def delete(self, keys: Iterable[str]) -> None:
        """After this, nothing is at `keys`, whether or not there was. Raises `StillThere`, `StoreFault`."""
        wanted = sorted({_checked(key) for key in keys})
        if wanted:
            self.erase(lambda: self._look_up(wanted))

    def delete_folder(self, prefix: str) -> Erasure:
        """After this, nothing lies under `prefix`. On a folder the empty directories go too. Raises `StillThere`."""
        done = self.erase(lambda: self.walk(prefix))
        self.tidy(prefix)
        return done

    def erase(
        self,
        look: Callable[[], Iterable[StoredObject]],
        before: Callable[[Sequence[StoredObject]], None] = lambda found: None,
        together: Callable[[StoredObject], Hashable] = lambda found: found,
        done: Erasure | None = None,
    ) -> Erasure:
        """Delete what `look` finds, to the last: see `store.objects.erase`. Raises `StillThere`, `StoreFault`."""
        with _read_faults("delete"):
            return erase(self.storage, look, self._pause, before, together, done or Erasure())

    def tidy(self, prefix: str) -> None:
        """Remove the empty directories under and at `prefix`."""
        with _read_faults("delete"):
            self.storage.tidy(prefix)

    def now(self) -> datetime:
        """The store's own clock. Raises `StoreFault`."""
        with _read_faults("tell the time"):
            return self.storage.now()

    def link(self, key: str, life: timedelta) -> str | None:
        """An address that hands the object out for `life` (whole seconds, rounded down); None where there are none."""
        with _read_faults("sign a link"):
            return self.storage.link(_checked(key), max(1, int(life.total_seconds())))

    def _look_up(self, wanted: Sequence[str]) -> Iterator[StoredObject]:
        """What there is at these keys. Many keys of one folder are looked up with one listing."""
        by_folder: dict[str, list[str]] = {}
        for key in wanted:
            by_folder.setdefault(key.rpartition("/")[0], []).append(key)
        for folder, keys in by_folder.items():
            listed = list(self.walk(folder)) if folder and len(keys) > _FEW else []
            if listed and listed[0].key != folder:  # else it is a link to a folder, which no listing goes into
                asked = set(keys)
                yield from (found for found in listed if found.key in asked)
            else:
                for key in keys:
                    yield from (found for found in self.walk(key) if found.key == key)


def open_store(url: str, settings: Settings) -> ObjectStore:
    """The store at `url`: a folder (made when absent) or `s3://bucket/prefix`. Safe to call in every process anew."""
    if url.startswith("s3://"):
        from store.objects.s3 import S3  # slow to import: a command on a folder does without

        return ObjectStore(S3(url, settings))
    return ObjectStore(Folder(url.removeprefix("file://")))


def no_such_object() -> NotFound:
    """What is raised where nothing can be read."""
    return NotFound("There is no such object in the store.")


def _checked(key: str) -> str:
    """A key of ours. What is listed is not held to this: on S3 two dots are two dots, and such a stray goes, too."""
    if key and (key.startswith("/") or ".." in PurePosixPath(key).parts):
        raise StoreFault("A key left its store's root. This is a defect of bgbatch; nothing was touched.")
    return key


@contextmanager
def _read_faults(verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        code = error_code(error)
        if isinstance(error, FileNotFoundError) and verb in ("read", "look up") and code != "NoSuchBucket":
            raise no_such_object() from None
        # The system's own message would name the path, and an engine logs causes; the code is enough to act on.
        raise StoreFault(
            f"The object store refused to {verb}: {code}. Check its space, permissions and address."
        ) from None
