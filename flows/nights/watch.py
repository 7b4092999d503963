"""Looking after all schedules again and again, where a night that takes long keeps no other one waiting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from flows.nights.steps import run_alone
from flows.nights.worker import Worker
from flows.parts import Parts
from store.records import schedules
from store.records.nights import Night
from store.records.schedules import ScheduleId


class NightWatch:
    """`worker` makes one for each look at a schedule; it must leave the cutting to others. Used as a context.

    At most `at_once` schedules are worked on together; at the end those that are begun come to their end first.
    """

    def __init__(self, parts: Parts, worker: Callable[[], Worker], at_once: int) -> None:
        self._parts = parts
        self._worker = worker
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="night")
        self._going: dict[ScheduleId, Future[list[Night]]] = {}

    def __enter__(self) -> NightWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def look(self) -> None:
        """Begin a look at every schedule that none of the looks before still works on; wait for none.

        Raises what ended one of those: the records were away.
        """
        with self._parts.records.reading() as connection:
            known = schedules.list_ids(connection)
        ended = {schedule_id: look for schedule_id, look in self._going.items() if look.done()}
        for schedule_id in ended:
            del self._going[schedule_id]
        for schedule_id in known:
            if schedule_id not in self._going:
                self._going[schedule_id] = self._threads.submit(run_alone, self._parts, schedule_id, self._worker())
        for look in ended.values():
            look.result()
