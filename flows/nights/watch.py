"""Looking after all schedules again and again, where a night that takes long keeps no other one waiting.

One account may not hold all of the threads with nights that take long: one thread is left for the others'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from flows.nights.steps import run_alone
from flows.nights.worker import Worker
from flows.parts import Parts
from schemas.ids import AccountId
from store.records import schedules
from store.records.schedules import ScheduleId


class NightWatch:
    """`worker` makes one for each look at a schedule; it must leave the cutting to others. Used as a context.

    At most `at_once` schedules are worked on together; at the end those that are begun come to their end first.
    """

    def __init__(self, parts: Parts, worker: Callable[[], Worker], at_once: int) -> None:
        self._parts = parts
        self._worker = worker
        self._at_once = at_once
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="night")
        self._rounds: list[Future[None]] = []
        self._lock = Lock()
        self._waiting: dict[ScheduleId, AccountId] = {}
        self._going: dict[ScheduleId, AccountId] = {}

    def __enter__(self) -> NightWatch:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._waiting.clear()
        self._threads.shutdown(cancel_futures=True)

    def look(self) -> None:
        """Begin a look at every schedule that none of the looks before still works on; wait for none.

        Raises what ended one of those: the records were away.
        """
        with self._parts.records.reading() as connection:
            known = schedules.list_ids(connection)
        with self._lock:  # one that waits keeps its place
            self._waiting |= {each: account for each, account in known.items() if each not in self._going}
        ended = [each for each in self._rounds if each.done()]
        self._rounds = [each for each in self._rounds if each not in ended]
        self._rounds += [self._threads.submit(self._go_round) for _ in range(self._at_once - len(self._rounds))]
        for each in ended:
            each.result()

    def _go_round(self) -> None:
        while (chosen := self._choose()) is not None:
            try:
                run_alone(self._parts, chosen, self._worker())
            finally:
                with self._lock:
                    del self._going[chosen]

    def _choose(self) -> ScheduleId | None:
        """The first that waits, but of an account that would then hold all threads."""
        with self._lock:
            held = Counter(self._going.values())
            for schedule_id, account_id in self._waiting.items():
                if held[account_id] < max(1, self._at_once - 1):
                    self._going[schedule_id] = self._waiting.pop(schedule_id)
                    return schedule_id
            return None
