"""The records database: opened, brought to the current schema, and used in transactions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text

from store.settings import Settings

_MIGRATIONS = Path(__file__).parent / "migrations"
_UPGRADE_LOCK = 0x6267_6261  # any fixed number: one upgrade at a time on PostgreSQL


class Records:
    """A handle on the database. SQLite writes are serialised by BEGIN IMMEDIATE, PostgreSQL's by the callers' locks."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All or nothing: committed at the end, rolled back on any exception."""
        with self.engine.begin() as connection:
            yield connection


def open_records(settings: Settings) -> Records:
    """The database that the settings name, upgraded to the current schema."""
    records = unopened_records(settings)
    _upgrade(records.engine)
    return records


def unopened_records(settings: Settings) -> Records:
    """The same without a look at it: for a cleanup, which purges even while the database is down."""
    url = make_url(settings.records_address)
    if url.get_backend_name() == "sqlite":
        if url.database and url.database != ":memory:":
            os.makedirs(os.path.dirname(os.path.abspath(url.database)), mode=0o700, exist_ok=True)
        engine = create_engine(url)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_immediately)
    else:
        engine = create_engine(url, pool_pre_ping=True)
    return Records(engine)


def serialise_appends(connection: Connection, chain: str) -> None:
    """Until this transaction ends, nobody else appends to the named hash chain. SQLite's transactions do so already."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:chain))"), {"chain": f"bgbatch:{chain}"})


def _set_up_sqlite(connection, _record) -> None:  # type: ignore[no-untyped-def]
    connection.isolation_level = None  # the driver's own BEGIN comes too late for a read that a write depends on
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "busy_timeout=30000", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediately(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _upgrade(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
