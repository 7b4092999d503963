"""The records database: opened, brought to the current schema, and used in transactions.

On SQLite there is one writer at a time and any number of readers. Whoever only reads says so (`reading`) and waits for
nobody; the threads of a process take turns at writing here, because SQLite itself lets the unlucky wait without end.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import InternalError, NotSupportedError, OperationalError

from schemas.errors import RecordsNewer
from store.records.tables import metadata
from store.settings import Settings
from store.uninterrupted import uninterrupted

_MIGRATIONS = Path(__file__).parent / "migrations"
_UPGRADE_LOCK = 0x6267_6261  # any fixed number: one upgrade at a time on PostgreSQL


_HOLD_MILLISECONDS = 300  # less than after which PostgreSQL looks for circles, and ends somebody's transaction
_TRIES_TO_HOLD = 200
_BUSY_SECONDS = 30
_STILL_SECONDS = 60
"""Of PostgreSQL: a transaction whose process stands still for longer is ended. Others wait for what it holds: all
withdrawals for one of them that waits for an admission."""
_STANDBY = ("25006", "0A000")
"""What PostgreSQL answers to a write while another server takes over: here only reading is allowed. The second one
where the connection read before."""
_LOG_WAIT_SECONDS = 2  # writers wait while it waits for readers
_READS = "bgbatch_reads"
_THREADS = 40  # of the portal, which may all have a connection at once
_CACHE_KILOBYTES = 500  # of each connection
_PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Of PostgreSQL's client. By itself it waits two hours for the answer of a server whose machine is gone."""


class Records:
    """A handle on the database. SQLite writes are serialised by BEGIN IMMEDIATE, PostgreSQL's by the callers' locks."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._readers = engine.execution_options(**{_READS: True}, postgresql_readonly=True)
        self._turn = threading.Lock() if engine.dialect.name == "sqlite" else None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All or nothing: committed at the end, rolled back on any exception. Ctrl-C waits for its end."""
        with uninterrupted():
            is_ours = self._turn is not None and self._turn.acquire(timeout=_BUSY_SECONDS)  # else SQLite says: busy
            try:
                with self.engine.begin() as connection:
                    if connection.dialect.name == "postgresql":  # of the transaction: a pooler's session is others' too
                        connection.exec_driver_sql(
                            f"SET LOCAL idle_in_transaction_session_timeout = '{_STILL_SECONDS}s'"
                        )
                    yield connection
            except (InternalError, NotSupportedError) as ended:
                if not ended.connection_invalidated and getattr(ended.orig, "sqlstate", None) not in _STANDBY:
                    raise
                # As while the records are away: whoever waits for them then goes on now, too.
                raise OperationalError(ended.statement, ended.params, ended, hide_parameters=True) from None
            finally:
                if self._turn is not None and is_ours:
                    self._turn.release()

    def wait_briefly(self) -> None:
        """Wait no longer for what others hold than for a connection: whoever has more to do can do without the records.

        A table may be held for hours, by an upgrade, a restore or somebody's own session. SQLite waits so by itself.
        """
        if self.engine.dialect.name == "postgresql":
            event.listen(self.engine, "begin", _wait_briefly)

    def forget_deleted(self) -> None:
        """Empty SQLite's write-ahead log, which still holds what was deleted; if somebody reads, the next call does.

        Raises `SQLAlchemyError` or `sqlite3.Error` when the database cannot be reached. PostgreSQL sees to itself.
        """
        if self._turn is None:
            return
        raw = self.engine.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute(f"PRAGMA busy_timeout={_LOG_WAIT_SECONDS * 1000}")
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            raw.cursor().execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
            raw.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One moment's view, which waits for no writer. The database refuses to change anything in it."""
        with self._readers.begin() as connection:
            yield connection


def open_records(settings: Settings) -> Records:
    """The database that the settings name, upgraded to the current schema. Raises `RecordsNewer`."""
    records = unopened_records(settings)
    upgrade(records)
    return records


def unopened_records(settings: Settings) -> Records:
    """The same without a look at it: a cleanup purges even while the database is down.

    What a failed statement was about stays out of its exception: an engine writes those down.
    """
    own = URL.create("sqlite", database=settings.own_places.get("records"))  # a home may have `?` in its name
    url = make_url(settings.records_url) if settings.records_url else own
    if url.get_backend_name() == "sqlite":
        pool = {"pool_size": _THREADS, "max_overflow": _THREADS} if url.database else {}
        engine = create_engine(url, hide_parameters=True, **pool)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        patience = {name: value for name, value in _PATIENCE.items() if name not in url.query}
        # A pooler may give the next transaction another connection, where a prepared name is not known, or another's.
        connect = patience | {"prepare_threshold": None}
        engine = create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=connect)
    return Records(engine)


def upgrade(records: Records) -> None:
    """Bring the database to the current schema; SQLite's is made when absent. One process does, the others wait.

    Raises `RecordsNewer`.
    """
    url = records.engine.url
    if records.engine.dialect.name == "sqlite" and url.database and url.database != ":memory:":
        os.makedirs(os.path.dirname(os.path.abspath(url.database)), mode=0o700, exist_ok=True)
        with suppress(OSError):  # it is there, or SQLite says what is wrong; by itself it would let everybody read it
            os.close(os.open(url.database, os.O_CREAT | os.O_EXCL, 0o600))
    with records.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        schema = _schema_of(connection)
        if schema != _schemas()[-1]:
            if schema not in (None, *_schemas()):
                raise RecordsNewer(
                    "A later version of bgbatch has changed the records since. Start that version again, or restore "
                    "the backup from before the upgrade."
                )
            if connection.dialect.name == "postgresql":
                _hold_all(connection)
            _migrate(connection)


def _hold_all(connection: Connection) -> None:
    """Keep everybody off the tables before the first is changed, as older processes work on them meanwhile.

    Who waits for one table and holds another would make a circle with them. So none is waited for long, and the one
    that was waited for in vain is asked for first the next time: so the others' order is found.
    """
    known = [name for name in inspect(connection).get_table_names() if name in metadata.tables]
    for tries_left in reversed(range(_TRIES_TO_HOLD)):
        name = ""
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_HOLD_MILLISECONDS}")
                for name in known:
                    connection.exec_driver_sql(f'LOCK TABLE "{name}" IN ACCESS EXCLUSIVE MODE')
                connection.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")
            return
        except OperationalError:
            if not name or not tries_left:
                raise
            known.remove(name)
            known.insert(0, name)
            time.sleep(_HOLD_MILLISECONDS / 1000)


def hold_lock(connection: Connection, name: str) -> None:
    """Until this transaction ends, nobody else holds the lock of this name. SQLite's transactions wait in any case."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"bgbatch:{name}"})


def _set_up_sqlite(connection, _record) -> None:  # type: ignore[no-untyped-def]
    connection.isolation_level = None  # the driver's own BEGIN comes too late for a read that a write depends on
    for pragma in (
        "journal_mode=WAL",
        "foreign_keys=ON",
        f"busy_timeout={_BUSY_SECONDS * 1000}",
        "secure_delete=ON",
        f"cache_size=-{_CACHE_KILOBYTES}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get(_READS, False)
    connection.exec_driver_sql(f"PRAGMA query_only={'ON' if reads else 'OFF'}")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _wait_briefly(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_PATIENCE['connect_timeout']}s'")


def _schema_of(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@cache
def _schemas() -> list[str]:
    """All that there were, the newest last: the file of a migration begins with the schema that it makes."""
    return sorted(each.name[:4] for each in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def _migrate(connection: Connection) -> None:
    from alembic import command  # slow to import, and hardly ever is there something to migrate
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
