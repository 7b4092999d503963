"""Deleting until nothing is left: list, delete in bulk, list again.

A deletion counts when a listing no longer shows the thing. "Absent" is what is asked for, so it does not matter who
deleted what, or which run was killed when.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from schemas.counting import so_many
from schemas.errors import StillThere
from store.objects.storage import Storage, StoredObject
from store.parallel import in_parallel

Pause = Callable[[float], None]
"""Waits so many seconds: `time.sleep` at the entry points, nothing in tests."""

_PAUSES = (0.0, 0.1, 0.4, 1.6, 3.2)
"""Seconds after each try to delete, the first excepted: a store that is busy, or whose listing lags, gets time."""


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
    before: Callable[[Sequence[StoredObject]], None],
    together: Callable[[StoredObject], Hashable],
    done: Erasure,
) -> Erasure:
    """Delete what `look` finds until it finds nothing. What is listed goes while the rest is still being listed.

    `before` is told what was found, a portion at a time, before any of that portion is deleted. A portion is at least
    a request's worth and ends where `together` changes: neighbours for which it is the same are told together.

    Raises `StillThere` when something is listed after the last try; what could be deleted is deleted then. `done` is
    added to as it goes, so it is right after an exception too.
    """
    left: list[StoredObject] = []
    for seconds in _PAUSES:
        found: list[StoredObject] = []
        portions = _portions(look(), storage.MOST_AT_ONCE, together)
        requests = _chunks(_told(portions, before, found), storage.MOST_AT_ONCE)
        for refused in in_parallel(storage.AT_ONCE, storage.remove, requests):
            done.refusals.update(each.code for each in refused)
        _count_gone(done, left, found)
        if not found:
            return done
        if left:
            pause(seconds)
        left = found
    found = list(look())
    _count_gone(done, left, found)
    if not found:
        return done
    codes = ", ".join(sorted(done.refusals)) or "no reason given"
    raise StillThere(
        f"Still listed after {len(_PAUSES)} tries to delete: {so_many(len(found), 'object')} ({codes}). "
        "Check the store's policies and locks; the next cleanup tries again."
    )


def _chunks(objects: Iterable[StoredObject], size: int) -> Iterator[list[StoredObject]]:
    rest = iter(objects)
    while chunk := list(itertools.islice(rest, size)):
        yield chunk


def _portions(
    listed: Iterable[StoredObject], at_least: int, together: Callable[[StoredObject], Hashable]
) -> Iterator[list[StoredObject]]:
    portion: list[StoredObject] = []
    for each in listed:
        if len(portion) >= at_least and together(each) != together(portion[-1]):
            yield portion
            portion = []
        portion.append(each)
    if portion:
        yield portion


def _told(
    portions: Iterable[list[StoredObject]],
    before: Callable[[Sequence[StoredObject]], None],
    found: list[StoredObject],
) -> Iterator[StoredObject]:
    for portion in portions:
        before(portion)
        found.extend(portion)
        yield from portion


def _count_gone(done: Erasure, before: Sequence[StoredObject], now: Sequence[StoredObject]) -> None:
    """What a look showed and the next one does not. A version is one thing, a key with another size another."""
    still = set(now) if before else set()
    for each in before:
        if each not in still:
            done.objects += 1
            done.bytes += each.size
