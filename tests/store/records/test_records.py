"""The database comes to the newest schema whenever it is opened, however old it is; a new one is left alone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, MetaData, String, event, insert, inspect, select, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from lake.copies.manifest import Kind
from schemas.batch import BatchState
from schemas.clock import system_clock
from schemas.consent import Act, Method
from schemas.errors import RecordsNewer
from schemas.industries import Industry
from schemas.receipt import Erased
from store.records import tables
from store.records.database import Records, open_records, unopened_records, upgrade
from store.records.nights import NightState
from store.records.people import Role
from store.records.schedules import Overlap
from store.records.tables import metadata
from store.settings import Settings
from store.transient.backdrop import A_PHOTO_OF_THE_BATCH
from tests.consent.postgres import new_database, standby

MIGRATIONS = Path(__file__).parents[3] / "store" / "records" / "migrations"


def test_records_of_an_older_release_are_brought_to_the_newest_schema(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    open_records(Settings(home=tmp_path / "another"))  # this process knows the newest schema
    old = Config()
    old.set_main_option("script_location", str(MIGRATIONS))
    with unopened_records(settings).engine.begin() as connection:
        old.attributes["connection"] = connection
        command.upgrade(old, "0001")
    assert not set(metadata.tables) <= set(inspect(unopened_records(settings).engine).get_table_names())
    for _ in range(2):
        records = open_records(settings)
        assert set(metadata.tables) <= set(inspect(records.engine).get_table_names())


def test_an_upgrade_beside_older_processes_ends_none_of_their_transactions_nor_itself() -> None:
    """Who held one table and wanted another was in a circle with it, and PostgreSQL ended one of the two."""
    records, old = unopened_records(Settings(records_url=new_database())), Config()
    old.set_main_option("script_location", str(MIGRATIONS))
    with records.engine.begin() as connection:
        old.attributes["connection"] = connection
        command.upgrade(old, "0017")
    with ThreadPoolExecutor(1) as beside:
        with records.transaction() as connection:
            connection.execute(text("SELECT batch_id FROM submissions FOR UPDATE"))
            upgraded = beside.submit(upgrade, records)
            time.sleep(1)
            connection.execute(text("DELETE FROM sign_in_links"))
        upgraded.result(60)
    with records.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    records.engine.dispose()


@pytest.mark.parametrize("server", ["sqlite", "postgresql"])
def test_records_of_a_later_release_are_left_as_they_are_and_it_is_said_so(tmp_path: Path, server: str) -> None:
    settings = Settings(home=tmp_path, records_url="" if server == "sqlite" else new_database())
    records = open_records(settings)
    with records.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'later'"))
    with pytest.raises(RecordsNewer, match="later version"):
        open_records(settings)
    with records.reading() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "later"
    records.engine.dispose()


def test_each_migration_is_called_after_the_schema_that_it_makes() -> None:
    """By the names of their files alone it is known whether there is something to migrate."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    revisions = list(ScriptDirectory.from_config(config).walk_revisions())
    assert [Path(each.path).name[:4] for each in revisions] == [each.revision for each in revisions]
    assert revisions == sorted(revisions, key=lambda each: each.revision, reverse=True)


@pytest.mark.parametrize("server", ["sqlite", "postgresql"])
def test_the_newest_schema_is_the_one_that_the_code_knows(tmp_path: Path, server: str) -> None:
    records = open_records(Settings(home=tmp_path, records_url="" if server == "sqlite" else new_database()))
    with records.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    records.engine.dispose()


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (tables.batches.c.state, BatchState),
        (tables.nights.c.state, NightState),
        (tables.schedules.c.overlap, Overlap),
        (tables.people.c.role, Role),
        (tables.consent_events.c.act, Act),
        (tables.consent_events.c.method, Method),
        (tables.receipts.c.kind, Erased),
        (tables.erasures.c.kind, Erased),
        (tables.pulls.c.kind, Kind),
        *((table.c.industry, Industry) for table in metadata.tables.values() if "industry" in table.c),
    ],
)
def test_each_word_of_ours_fits_its_column(column: Column[str], words: type[StrEnum]) -> None:
    """SQLite takes any length; on PostgreSQL a night with one bad photo could not end."""
    assert isinstance(column.type, String)
    assert column.type.length is not None
    assert max(map(len, words)) <= column.type.length


@pytest.mark.parametrize("server", ["sqlite", "postgresql"])
def test_an_upgrade_forgets_the_names_of_photos_that_lie_behind_subjects(tmp_path: Path, server: str) -> None:
    settings = Settings(home=tmp_path, records_url="" if server == "sqlite" else new_database())
    old = Config()
    old.set_main_option("script_location", str(MIGRATIONS))
    tables, now = MetaData(), system_clock()
    told = {"account_id": "a1", "received_at": now, "purge_at": now, "state": "purged", "refusals": {}, "items": 1}
    batches = [
        {"batch_id": str(number), "options": {"bg_image": name, "shadow": True}, "done": 1, "failed": 0} | told
        for number, name in enumerate((None, "walls/brick.jpg"))
    ]
    schedules = [
        {"schedule_id": each["batch_id"], "account_id": "a1", "options": each["options"], "created_at": now}
        | dict.fromkeys(("cron", "timezone", "source", "overlap", "fingerprint_key"), "")
        for each in batches
    ]
    with unopened_records(settings).engine.begin() as connection:
        old.attributes["connection"] = connection
        command.upgrade(old, "0014")
        tables.reflect(connection, only=["accounts", "batches", "schedules"])
        connection.execute(insert(tables.tables["accounts"]).values(account_id="a1", name="Acme", created_at=now))
        connection.execute(insert(tables.tables["batches"]), batches)
        connection.execute(insert(tables.tables["schedules"]), schedules)
        command.upgrade(old, "head")
        for table, key in (("batches", "batch_id"), ("schedules", "schedule_id")):
            kept = connection.execute(select(tables.tables[table].c.options).order_by(key)).scalars().all()
            assert kept == [{"bg_image": None, "shadow": True}, {"bg_image": A_PHOTO_OF_THE_BATCH, "shadow": True}]


def test_nobody_waits_for_hours_for_a_postgresql_whose_machine_is_gone_unless_the_address_says_so() -> None:
    records = unopened_records(Settings(records_url=f"{new_database()}?keepalives_idle=99"))
    with records.reading() as connection:
        says = connection.connection.driver_connection.info.get_parameters()
    records.engine.dispose()
    assert (says["connect_timeout"], says["keepalives_idle"], says["tcp_user_timeout"]) == ("10", "99", "30000")


@pytest.mark.parametrize("read_before", [False, True])
def test_a_server_that_can_only_be_read_until_it_takes_over_is_to_writers_as_one_that_is_away(
    read_before: bool,
) -> None:
    """A dispatcher that met another fault three times in a row ended."""
    records = unopened_records(Settings(records_url=standby()))
    if read_before:
        with records.reading() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
    with pytest.raises(OperationalError), records.transaction() as connection:
        connection.execute(text("CREATE TABLE written (one int)"))


def test_behind_a_pooler_that_shares_connections_nobody_meets_anothers_prepared_statement(postgres: Records) -> None:
    """PgBouncer gives each transaction any connection: one in seven failed, and a name could have meant another's."""
    for _ in range(10):
        with postgres.reading() as connection:
            prepared = connection.execute(text("SELECT name FROM pg_prepared_statements")).all()
    assert prepared == []


@pytest.mark.parametrize("server", ["sqlite", "postgresql"])
def test_a_statement_that_fails_does_not_say_what_it_was_about(tmp_path: Path, server: str) -> None:
    """Prefect keeps for a week what an exception says."""
    records = unopened_records(Settings(home=tmp_path, records_url="" if server == "sqlite" else new_database()))
    tmp_path.joinpath("records.db").touch()
    with pytest.raises(SQLAlchemyError) as fault, records.transaction() as connection:
        connection.execute(text("INSERT INTO no_such_table VALUES (:name)"), {"name": "Smith & Sons"})
    assert "no_such_table" in str(fault.value)
    assert "Smith" not in str(fault.value)
    records.engine.dispose()


def test_freed_pages_are_overwritten_however_sqlite_was_built(tmp_path: Path) -> None:
    """Debian's overwrites them by itself, so that looking into a file would show nothing here."""
    records = unopened_records(Settings(home=tmp_path))
    asked: list[str] = []
    event.listen(records.engine, "connect", lambda raw, _: raw.set_trace_callback(asked.append), insert=True)
    with records.reading():
        assert any("secure_delete=ON" in each for each in asked)
    records.engine.dispose()


def test_nobody_else_on_the_machine_reads_the_records_in_a_folder_that_is_open_to_all(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    records = open_records(Settings(home=tmp_path))
    with records.transaction() as connection:
        connection.execute(text("SELECT 1"))
    assert {path.name: path.stat().st_mode & 0o077 for path in tmp_path.glob("records.db*")} == {
        "records.db": 0,
        "records.db-wal": 0,
        "records.db-shm": 0,
    }
    records.engine.dispose()


def test_the_records_lie_in_their_home_whatever_it_is_called(tmp_path: Path) -> None:
    home = tmp_path / "häuser mit Platz %d #1?x=1"
    open_records(Settings(home=home)).engine.dispose()
    assert [path.name for path in tmp_path.iterdir()] == [home.name]
    assert (home / "records.db").stat().st_size > 0
