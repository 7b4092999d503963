"""What the object store needs of what holds bytes: a folder (`store.objects.folder`) or S3 (`store.objects.s3`).

A place tells all that it holds, seen or unseen: versions, delete markers and unfinished uploads are objects too.
It deletes many at once and says which it did not; it never says "done" for the rest.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol


class Kind(Enum):
    """What a listed thing is. All of them are deleted; only the first can be read by its key."""

    OBJECT = "object"
    VERSION = "version"
    MARKER = "marker"
    UPLOAD = "upload"


@dataclass(frozen=True)
class StoredObject:
    """A listed thing: `key` relative to the root, `size` in bytes, `version` (or an upload's id) where there is one."""

    key: str
    size: int
    version: str = ""
    kind: Kind = Kind.OBJECT


@dataclass(frozen=True)
class Refused:
    """A deletion that did not happen, with the store's own code for why."""

    found: StoredObject
    code: str


@dataclass(frozen=True)
class Children:
    """Names directly under a prefix, each sorted: `folders` have something below them.

    `nameless`: whether something lies there that no name leads to, as a prefix without a name would mean everything.
    """

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    nameless: bool = False


def error_code(error: OSError) -> str:
    """The store's own code for what went wrong, or the name of the fault."""
    reply = getattr(error.__cause__, "response", None)
    if isinstance(reply, dict):
        return str(reply.get("Error", {}).get("Code") or "unknown")
    if error.__cause__ is not None and not isinstance(error.__cause__, OSError):
        return type(error.__cause__).__name__  # such as NoCredentialsError: it tells more than its errno
    return os.strerror(error.errno) if error.errno else type(error).__name__


class Storage(Protocol):
    """A place that holds bytes by key, relative to its root. Faults are `OSError`, absence is `FileNotFoundError`."""

    MOST_AT_ONCE: int
    """How many objects one call of `remove` may be given."""
    AT_ONCE: int
    """How many calls are worth having in flight."""

    def put(self, key: str, data: bytes) -> None:
        """Make `data` the object at `key`, whole or not at all."""

    def get(self, key: str) -> bytes:
        """The bytes at `key`."""

    def has(self, key: str) -> bool:
        """Whether an object can be read at `key`."""

    def size(self, key: str) -> int:
        """Bytes at `key`, before they are read. A link or a pipe is no object here."""

    def children(self, prefix: str) -> Children:
        """What lies directly under `prefix` ("" or "a/b"), unseen things included."""

    def find(self, prefix: str) -> Iterator[StoredObject]:
        """Everything under `prefix`, or at exactly that key, at any depth, unseen things included.

        What lies in one folder comes in one piece, so that a batch can be noted whole while the rest is being listed.
        """

    def find_among(self, folder: str, names: Collection[str]) -> Iterator[StoredObject]:
        """The same for these names in `folder`, at the least cost that the place has for it."""

    def remove(self, objects: Sequence[StoredObject]) -> list[Refused]:
        """Delete these. What was absent already counts as deleted."""

    def tidy(self, prefix: str) -> None:
        """Remove what is left of an empty prefix (a folder's empty directories)."""

    def now(self) -> datetime:
        """The place's own clock, in UTC; whole seconds are enough."""

    def link(self, key: str, seconds: int) -> str | None:
        """An address that gives the object to whoever has it, for so long; None where there is no such thing."""
