"""Objects in a folder. Links are never followed: a link is deleted, what it points to stays."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import BinaryIO

from store.objects.storage import Children, Refused, StoredObject

_NAMELESS = getattr(os, "O_TMPFILE", 0)
_PARTIAL = ".partial-"
_KEPT = 57
"""Letters of a name that its partial file keeps: our own names whole, which the lake tells a leftover by; and a
customer's longest name, of up to 255 bytes, still has room for the ending."""


class Folder:
    """A `Storage` on a file system. `root` is what other readers (pyarrow) can use.

    Only who writes makes folders: reading a customer's disk while it is away must not put an empty one in its place.
    """

    MOST_AT_ONCE = 1000
    AT_ONCE = 1

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def put(self, key: str, data: bytes) -> None:
        """Write beside the target, then rename: a killed writer's leftovers lie under the same time stamp."""
        path = self._path(key)
        folder, name = os.path.split(path)
        partial = f"{folder}/{partial_name(name)}"
        for last_try in (False, True):
            self._make(folder)
            try:
                write_whole(partial, path, data)
                return
            except FileNotFoundError:  # a cleanup took the empty folder away in between
                if last_try:
                    raise

    def get(self, key: str) -> bytes:
        """The bytes at `key`."""
        with open(self._path(key), "rb") as file:
            return file.read()

    def has(self, key: str) -> bool:
        """Whether there is a file at `key`."""
        return os.path.isfile(self._path(key))

    def size(self, key: str) -> int:
        """Bytes of the file at `key`."""
        status = os.lstat(self._path(key))
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError
        return status.st_size

    def children(self, prefix: str) -> Children:
        """Names of the directories and of all else directly under `prefix`."""
        folders: list[str] = []
        files: list[str] = []
        for entry in self._entries(self._path(prefix)):
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
        return Children(tuple(sorted(folders)), tuple(sorted(files)))

    def find(self, prefix: str) -> Iterator[StoredObject]:
        """Everything that is no directory, partial writes, links and pipes included."""
        path = self._path(prefix)
        if prefix:
            with suppress(FileNotFoundError, NotADirectoryError):  # there is none, or another cleanup took it away
                status = os.lstat(path)
                if not stat.S_ISDIR(status.st_mode):
                    yield StoredObject(prefix, status.st_size)
                    return
        waiting = [(path, prefix)]
        while waiting:
            folder, inside = waiting.pop()
            for entry in self._entries(folder):
                key = f"{inside}/{entry.name}" if inside else entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, key))
                    continue
                with suppress(FileNotFoundError):  # renamed or deleted while we looked
                    yield StoredObject(key, entry.stat(follow_symlinks=False).st_size)

    def find_among(self, folder: str, names: Collection[str]) -> Iterator[StoredObject]:
        """One after the other: here nothing else is looked at."""
        for name in sorted(names):
            yield from self.find(f"{folder}/{name}")

    def remove(self, objects: Sequence[StoredObject]) -> list[Refused]:
        """Unlink each."""
        refused = []
        for found in objects:
            try:
                os.unlink(self._path(found.key))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                refused.append(Refused(found, type(error).__name__))
        return refused

    def tidy(self, prefix: str) -> None:
        """Remove empty directories from the bottom up; one that a writer just filled stays."""
        if not prefix:
            return
        for folder, _, _ in os.walk(self._path(prefix), topdown=False, followlinks=False):
            with suppress(OSError):
                os.rmdir(folder)

    def now(self) -> datetime:
        """What the file system stamps on a new file: on a network share that is another machine's clock."""
        self._make(self.root)
        try:
            return _born_at(os.open(self.root, _NAMELESS | os.O_WRONLY, 0o600))  # nobody lists it
        except OSError:  # a network share has none such
            probe = self._path(f".clock-{secrets.token_hex(8)}")
        try:
            return _born_at(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        finally:
            with suppress(FileNotFoundError):  # a cleanup took it for a stray
                os.unlink(probe)

    def link(self, key: str, seconds: int) -> str | None:
        """A folder has no links to hand out."""
        return None

    def _make(self, folder: str) -> None:
        if not os.path.isdir(folder):
            os.makedirs(self.root, mode=0o700, exist_ok=True)
            os.makedirs(folder, exist_ok=True)

    def _path(self, key: str) -> str:
        if ".." in key.split("/"):
            raise OSError(errno.EINVAL, "a key left its store's root")
        return f"{self.root}/{key}" if key else self.root

    def _entries(self, path: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(path) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []


def _born_at(descriptor: int) -> datetime:
    try:
        return datetime.fromtimestamp(os.fstat(descriptor).st_mtime, UTC)
    finally:
        os.close(descriptor)


def partial_name(name: str) -> str:
    """What a file is called until it is whole."""
    return f"{name[:_KEPT]}{_PARTIAL}{secrets.token_hex(8)}"


def half_written(name: str) -> str | None:
    """The first letters of what a file that a killed writer left was to be called; None for any other file."""
    start, partial, token = name.rpartition(_PARTIAL)
    return start if partial and re.fullmatch(r"[0-9a-f]{16}", token) else None


def write_whole(partial: str, path: str, data: bytes, inside: int | None = None) -> None:
    """Make `data` the file at `path`, by way of `partial` beside it: whole or not at all, also after a power cut.

    `inside`: an open folder, where both are names. The records outlive a power cut, and would else speak of files that
    are empty.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, 0o666, dir_fd=inside)

    try:
        if not _written_nameless(partial, data, inside):
            with open(partial, "xb", opener=opener) as file:
                _write(file, data)
        os.replace(partial, path, src_dir_fd=inside, dst_dir_fd=inside)
    except OSError:
        with suppress(OSError):
            os.unlink(partial, dir_fd=inside)
        raise
    with suppress(FileNotFoundError):  # a purge took it, and the folder with it
        _settle(os.path.dirname(path) or ".", inside)


def _written_nameless(partial: str, data: bytes, inside: int | None) -> bool:
    """Whether the file could be written without a name, and has this one now: who is killed over it leaves nothing.

    Network shares have no such files.
    """
    try:
        descriptor = os.open(os.path.dirname(partial) or ".", _NAMELESS | os.O_WRONLY, 0o666, dir_fd=inside)
    except OSError:
        return False
    with open(descriptor, "wb") as file:
        _write(file, data)
        try:  # with any `src_dir_fd`, for else it is the link in /proc that gets another name
            os.link(f"/proc/self/fd/{descriptor}", partial, src_dir_fd=descriptor, dst_dir_fd=inside)
        except OSError:
            return False
    return True


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _settle(folder: str, inside: int | None) -> None:
    """Have the folder's names reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY, dir_fd=inside)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network shares know no such thing
            raise
    finally:
        os.close(descriptor)
