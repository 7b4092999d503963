"""The real records on SQLite in memory: copied from an empty one in a millisecond, and lost in one."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from threading import RLock

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from store.records import database as store_records
from store.records.batches import overdue
from store.records.database import Records, open_records
from store.settings import Settings
from tests.promise.trouble import Trouble


class TroubledRecords(Records):
    """Records whose transactions can fail at their edges."""

    trouble: Trouble
    one_at_a_time: RLock
    """All threads share the one connection that a database in memory has."""

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        self._edge("before a transaction")
        with self._counted(), super().transaction() as connection:
            yield connection
            self._edge("before a commit")
        self._edge("after a commit")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._counted(), super().reading() as connection:
            yield connection

    def forget_deleted(self) -> None:
        """A database in memory has no log."""

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self.one_at_a_time:
            self.trouble.open_transactions += 1
            try:
                yield
            finally:
                self.trouble.open_transactions -= 1

    def _edge(self, where: str) -> None:
        try:
            self.trouble.step(where)
        except OSError as error:
            raise OperationalError(where, None, error) from error


class Database:
    """`records` to work with; `calm` reads them whatever is armed."""

    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble
        self.lose()

    def lose(self) -> None:
        """Start over with an empty database."""
        memory = sqlite3.connect(":memory:", check_same_thread=False)
        _empty().backup(memory)
        engine = create_engine("sqlite://", creator=lambda: memory, poolclass=StaticPool)
        event.listen(engine, "connect", store_records._set_up_sqlite)
        event.listen(engine, "begin", store_records._begin_sqlite)
        self.records = TroubledRecords(engine)
        self.records.trouble = self._trouble
        self.records.one_at_a_time = RLock()

    @contextmanager
    def calm(self) -> Iterator[Connection]:
        with self.records.one_at_a_time, Records(self.records.engine).transaction() as connection:
            yield connection

    def has_overdue(self, now: datetime) -> bool:
        with self.calm() as connection:
            return bool(overdue(connection, now))


@cache
def _empty() -> sqlite3.Connection:
    with tempfile.TemporaryDirectory() as home:
        open_records(Settings(home=Path(home))).engine.dispose()
        memory = sqlite3.connect(":memory:", check_same_thread=False)
        file = sqlite3.connect(Path(home, "records.db"))
        file.backup(memory)
        file.close()
    return memory
