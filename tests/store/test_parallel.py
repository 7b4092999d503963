"""Several calls at once: none waits for another's answer, and no more are begun than somebody wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from store.parallel import all_in_parallel, in_parallel


def test_so_many_calls_are_in_flight_at_once() -> None:
    together = threading.Barrier(4)

    def work(number: int) -> int:
        together.wait(30)
        return number * number

    assert list(in_parallel(4, work, range(12))) == [number * number for number in range(12)]


def test_answers_that_nobody_asked_for_yet_are_few() -> None:
    begun: list[int] = []
    answers = in_parallel(4, lambda number: begun.append(number) or number, range(1000))
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    answers.close()
    assert len(begun) <= 3 + 2 * 4


def test_once_nobody_asks_for_more_only_what_is_in_flight_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    is_closed = threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            is_closed.set()
            super().shutdown(wait, cancel_futures=cancel_futures)

    def work(number: int) -> None:
        begun.append(number)
        assert not number or is_closed.wait(60)

    monkeypatch.setattr("store.parallel.ThreadPoolExecutor", Pool)
    answers = in_parallel(4, work, range(1000))
    next(answers)
    answers.close()
    assert len(begun) <= 1 + 4


@pytest.mark.parametrize("at_once", [1, 4])
def test_who_is_interrupted_between_two_answers_leaves_no_call_in_flight(at_once: int) -> None:
    """What came in later would lie in a batch that was called off."""
    begun: list[int] = []
    ended: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        threading.Event().wait(0.05)
        ended.append(number)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:  # kept, as by whoever tells what happened
        all_in_parallel(at_once, work, range(1000), interrupted)
    assert sorted(begun) == sorted(ended)
    assert len(begun) <= 1 + 2 * at_once
    assert stopped.traceback


def test_one_call_at_a_time_is_made_in_the_callers_own_thread_when_its_answer_is_asked_for() -> None:
    begun: list[tuple[int, int]] = []

    def work(number: int) -> int:
        begun.append((number, threading.get_ident()))
        return number * number

    answers = in_parallel(1, work, range(3))
    assert (next(answers), begun) == (0, [(0, threading.get_ident())])
    assert list(answers) == [1, 4]


def test_an_item_is_taken_when_its_call_may_begin() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    answers = in_parallel(2, lambda number: number, items())
    assert next(answers) == 0
    assert len(taken) == 4


@pytest.mark.parametrize("at_once", [1, 4])
def test_after_a_failure_no_other_call_begins(at_once: int) -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 5:
            raise OSError("full")
        return number

    answers = in_parallel(at_once, work, range(1000))
    heard = []
    with pytest.raises(OSError, match="full"):
        heard.extend(answers)
    assert heard == [0, 1, 2, 3, 4]
    assert len(begun) <= 6 + 2 * at_once


@pytest.mark.parametrize("at_once", [1, 4])
def test_all_answers_come_in_order_and_each_is_told(at_once: int) -> None:
    told: list[None] = []
    answers = all_in_parallel(at_once, lambda number: number * number, range(12), lambda: told.append(None))
    assert answers == [number * number for number in range(12)]
    assert len(told) == 12
