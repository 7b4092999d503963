"""A bucket in memory with all that makes S3 dangerous: versions, delete markers, unfinished uploads, and bad days.

It implements `store.objects.storage.Storage`. Each thing in it knows when it was born, in true time, so that a test can
ask for the age of the oldest byte however it came to be there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from store.objects.storage import Children, Kind, Refused, StoredObject
from tests.promise.trouble import Trouble


@dataclass(frozen=True)
class Thing:
    """One version, marker or unfinished upload."""

    found: StoredObject
    data: bytes
    born: datetime
    is_latest: bool = True


class Bucket:
    """`is_versioned`: keeps every version. `true_now`: the one true clock."""

    MOST_AT_ONCE = 3
    AT_ONCE = 1

    def __init__(self, is_versioned: bool, true_now: Callable[[], datetime], trouble: Trouble) -> None:
        self.is_versioned = is_versioned
        self.things: list[Thing] = []
        self.denied: set[str] = set()
        self._shown: list[Thing] = []
        self._true_now = true_now
        self._trouble = trouble
        self._numbers = itertools.count(1)

    def put(self, key: str, data: bytes) -> None:
        """Fails before, between (an unfinished upload stays), or after the object is there."""
        self._trouble.step("before put")
        if self._trouble.leaves_upload():
            self._add(StoredObject(key, len(data), self._name("upload"), Kind.UPLOAD), data)
        self._trouble.step("while put")
        if not self.is_versioned:
            self.things = [each for each in self.things if each.found.key != key or each.found.kind is Kind.UPLOAD]
        self._add(StoredObject(key, len(data), self._version(), Kind.VERSION), data)
        self._trouble.step("after put")

    def get(self, key: str) -> bytes:
        self._trouble.step("get")
        for thing in self.things:
            if thing.found.key == key and thing.is_latest and thing.found.kind is Kind.VERSION:
                return thing.data
        raise FileNotFoundError

    def has(self, key: str) -> bool:
        self._trouble.step("has")
        return any(each.found.key == key and each.is_latest and each.found.kind is Kind.VERSION for each in self.things)

    def size(self, key: str) -> int:
        return len(self.get(key))

    def children(self, prefix: str) -> Children:
        inside = f"{prefix}/" if prefix else ""
        names = [each.key.removeprefix(inside) for each in self._listing() if each.key.startswith(inside)]
        folders = {name.partition("/")[0] for name in names if "/" in name}
        files = {name for name in names if "/" not in name}
        return Children(tuple(sorted(folders - {""})), tuple(sorted(files - {""})), "" in folders | files)

    def find(self, prefix: str) -> Iterator[StoredObject]:
        for each in self._listing():
            if not prefix or each.key == prefix or each.key.startswith(f"{prefix}/"):
                yield each

    def find_among(self, folder: str, names: Collection[str]) -> Iterator[StoredObject]:
        return (each for each in self.find(folder) if each.key.split("/")[1] in names)

    def remove(self, objects: Sequence[StoredObject]) -> list[Refused]:
        """Bulk: the whole request may fail, or some keys of it, or the reply may get lost."""
        try:
            self._trouble.step("before remove")
        except OSError as error:
            return [Refused(each, str(error)) for each in objects]
        refused = []
        for each in objects:
            if each.key in self.denied or self._trouble.refuses_one():
                refused.append(Refused(each, "InternalError"))
            elif not self._trouble.lies_about_one():
                self._drop(each)
        self._trouble.step("after remove")
        return refused

    def tidy(self, prefix: str) -> None:
        return

    def now(self) -> datetime:
        self._trouble.step("now")
        return self._true_now()

    def link(self, key: str, seconds: int) -> str | None:
        return None

    def settle(self) -> None:
        """From now on a lagging listing shows what is there at this moment."""
        self._shown = list(self.things)

    def _listing(self) -> list[StoredObject]:
        self._trouble.step("list")
        shown = self._shown if self._trouble.lags() else self.things
        return sorted((each.found for each in shown), key=lambda found: (found.key, found.version))

    def _add(self, found: StoredObject, data: bytes) -> None:
        if found.kind is not Kind.UPLOAD:
            self.things = [
                replace(each, is_latest=False)
                if each.found.key == found.key and each.found.kind is not Kind.UPLOAD
                else each
                for each in self.things
            ]
        self.things.append(Thing(found, data, self._true_now()))

    def _drop(self, found: StoredObject) -> None:
        """As S3 does: a version named goes; with none named, a marker hides the object and every byte stays."""
        if found.version or not self.is_versioned:
            gone = [each for each in self.things if _is(each.found, found)]
            self.things = [each for each in self.things if each not in gone]
            rest = [each for each in self.things if each.found.key == found.key and each.found.kind is not Kind.UPLOAD]
            if rest and not any(each.is_latest for each in rest):
                self.things[self.things.index(rest[-1])] = replace(rest[-1], is_latest=True)
        else:
            self._add(StoredObject(found.key, 0, self._version(), Kind.MARKER), b"")

    def _version(self) -> str:
        return self._name("version") if self.is_versioned else "null"

    def _name(self, kind: str) -> str:
        return f"{kind}{next(self._numbers):06d}"


def _is(one: StoredObject, asked: StoredObject) -> bool:
    if one.key != asked.key:
        return False
    return one.version == asked.version if asked.version else one.kind is not Kind.UPLOAD
