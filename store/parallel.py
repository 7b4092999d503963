"""Several calls to a store at once: it answers after 10 to 50 ms, whatever it is asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def in_parallel(at_once: int, work: Callable[[_In], _Out], items: Iterable[_In]) -> Generator[_Out]:
    """`map`, with so many calls in flight, and as many answers at most that were not asked for yet.

    The order is that of `items`, each of which is taken when its call may begin. An exception is raised after the calls
    in flight have ended; no other begins then, nor when nobody asks for more.
    """
    if at_once <= 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(at_once, thread_name_prefix="store") as pool:
        ahead: deque[Future[_Out]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) == 2 * at_once:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for call in ahead:
                call.cancel()


def all_in_parallel(
    at_once: int, work: Callable[[_In], _Out], items: Iterable[_In], on_each: Callable[[], None]
) -> list[_Out]:
    """The answers of all. `on_each` is called at each; whatever it raises, no call is in flight any more thereafter."""
    found = []
    with closing(in_parallel(at_once, work, items)) as answers:
        for answer in answers:
            found.append(answer)
            on_each()
    return found
