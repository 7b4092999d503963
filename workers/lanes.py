"""Fetching, decoding, calculating, encoding and keeping at the same time, in order, with few photos open.

Threads at both ends wait for the store; between them threads decode before the middle step, which holds the device, and
encode after it. Everything is pulled by the last step, so nobody runs further ahead than a few batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

In = TypeVar("In")
Bytes = TypeVar("Bytes")
Middle = TypeVar("Middle")
Files = TypeVar("Files")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Pace:
    """Threads before (`readers`), at (`drivers`) and after (`writers`) the network, which takes `batch` items at once.

    `carriers`: threads that wait for the store, as many at each end. Where there are none, the caller's own thread
    makes the step when it is asked for.
    """

    readers: int
    writers: int
    batch: int
    drivers: int = 0
    weight: int = 0
    """A batch is whole, however few items it has, once they weigh so much; 0: whatever they weigh."""
    carriers: int = 0


ONE_BY_ONE = Pace(readers=0, writers=0, batch=1)


class Lane:
    """A few threads, whose answers are taken in the order of what was asked."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads) if threads else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Wait for what is under way; what was not begun is dropped."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def answers(self, call: Callable[[In], Out], items: Iterable[In], ahead: int) -> Iterator[Out]:
        """`call` of each item, in order; at most `ahead` are begun before they are asked for."""
        if self._pool is None:
            yield from map(call, items)
            return
        under_way: deque[Future[Out]] = deque()
        for item in items:
            under_way.append(self._pool.submit(call, item))
            if len(under_way) > ahead:
                yield under_way.popleft().result()
        yield from _results(under_way)

    def answers_by_group(self, call: Callable[[In], Out], groups: Iterable[Sequence[In]]) -> Iterator[Out]:
        """`call` of each item of each group, in order. A group is begun whole before the one before it is asked for."""
        if self._pool is None:
            for group in groups:
                yield from map(call, group)
            return
        last: deque[Future[Out]] = deque()
        for group in groups:
            begun = deque(self._pool.submit(call, item) for item in group)
            yield from _results(last)
            last = begun
        yield from _results(last)


def overlapped(
    items: Iterable[In],
    fetch: Callable[[In], Bytes],
    before: Callable[[Bytes], Middle],
    together: Callable[[list[Middle]], list[Middle]],
    after: Callable[[Middle], Files],
    keep: Callable[[Files], Out],
    pace: Pace,
    weigh: Callable[[Middle], int] = lambda _: 0,
) -> list[Out]:
    """`keep(after(together(before(fetch(item)))))` of each item, in order; `together` gets `pace.batch` of them at a
    time, or fewer that `weigh` enough.

    What one of the five raises ends all.
    """
    with (
        Lane(pace.carriers) as fetchers,
        Lane(pace.readers) as readers,
        Lane(pace.drivers) as drivers,
        Lane(pace.writers) as writers,
        Lane(pace.carriers) as keepers,
    ):
        fetched = fetchers.answers(fetch, items, pace.carriers)
        read = readers.answers(before, fetched, min(pace.batch, 4 * pace.readers))
        done = drivers.answers(together, _groups(read, pace, weigh), max(0, pace.drivers - 1))
        return list(keepers.answers(keep, writers.answers_by_group(after, done), pace.carriers))


def _results(under_way: deque[Future[Out]]) -> Iterator[Out]:
    while under_way:
        yield under_way.popleft().result()


def _groups(items: Iterator[In], pace: Pace, weigh: Callable[[In], int]) -> Iterator[list[In]]:
    group: list[In] = []
    weight = 0
    for item in items:
        group.append(item)
        weight += weigh(item)
        if len(group) == pace.batch or 0 < pace.weight <= weight:
            yield group
            group, weight = [], 0
    if group:
        yield group
