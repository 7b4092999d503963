"""Deleting until nothing is left: list, delete in bulk, list again.

A deletion counts when a listing no longer shows the thing. "Absent" is what is asked for, so it does not matter who
deleted what, or which run was killed when.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from schemas.errors import StillThere
from store.storage import Refused, Storage, StoredObject

_In = TypeVar("_In")
_Out = TypeVar("_Out")

Pause = Callable[[float], None]
"""Waits so many seconds: `time.sleep` at the entry points, nothing in tests."""

_PAUSES = (0.0, 0.1, 0.4, 1.6, 3.2)
"""Seconds before each look after the first: a store that is busy, or whose listing lags, gets time."""


@dataclass
class Erasure:
    """What was deleted. `refusals`: the store's code -> how often it said so; those were tried again."""

    objects: int = 0
    bytes: int = 0
    refusals: Counter[str] = field(default_factory=Counter)


def erase(
    storage: Storage,
    look: Callable[[], Iterable[StoredObject]],
    pause: Pause,
    before: Callable[[Sequence[StoredObject]], None] = lambda found: None,
    done: Erasure | None = None,
) -> Erasure:
    """Delete what `look` finds until it finds nothing. `before` is told what was found, before any of it is deleted.

    Raises `StillThere` when something is listed after the last try; what could be deleted is deleted then. `done` is
    added to as it goes, so it is right after an exception too.
    """
    done = Erasure() if done is None else done
    left: list[StoredObject] = []
    for seconds in (*_PAUSES, None):
        found = list(look())
        gone = _missing_from(left, found)
        done.objects += len(gone)
        done.bytes += sum(each.size for each in gone)
        if not found:
            return done
        if seconds is None:
            break
        if left:
            pause(seconds)
        before(found)
        for refusal in _delete(storage, found):
            done.refusals[refusal.code] += 1
        left = found
    codes = ", ".join(sorted(done.refusals)) or "no reason given"
    raise StillThere(
        f"{len(found)} objects are still listed after {len(_PAUSES)} tries to delete them ({codes}). "
        "Check the store's policies and locks; the next cleanup tries again."
    )


def _delete(storage: Storage, objects: Sequence[StoredObject]) -> Iterator[Refused]:
    chunks = list(_chunks(objects, storage.MOST_AT_ONCE))
    for refused in in_parallel(storage.AT_ONCE, storage.remove, chunks):
        yield from refused


def in_parallel(at_once: int, work: Callable[[_In], _Out], items: Sequence[_In]) -> Iterator[_Out]:
    """`map`, with so many calls in flight, in the order of `items`. An exception is raised after all have ended."""
    if min(at_once, len(items)) <= 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(min(at_once, len(items)), thread_name_prefix="store") as pool:
        yield from pool.map(work, items)


def _chunks(objects: Sequence[StoredObject], size: int) -> Iterator[list[StoredObject]]:
    rest = iter(objects)
    while chunk := list(itertools.islice(rest, size)):
        yield chunk


def _missing_from(before: Sequence[StoredObject], now: Sequence[StoredObject]) -> list[StoredObject]:
    """What a look showed and the next one does not. A version is one thing, a key with another size another."""
    if not before:
        return []
    still = set(now)
    return [each for each in before if each not in still]
