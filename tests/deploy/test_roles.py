"""The roles of the records on a real PostgreSQL: each can do its work, and not the others'."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, RaiseException
from sqlalchemy import make_url

from consent import ledger
from consent.button import Press, press
from consent.ledger import Refusal
from consent.notice import CURRENT
from flows.canary import send_canary
from flows.cleaning import cleaning
from flows.parts import Parts, open_parts
from flows.reconciling import reconcile
from portal.audit import audit
from schemas.chain import GENESIS
from schemas.clock import Clock, ShiftedClock, system_clock
from schemas.consent import Method
from store.purging import canary
from store.purging.cleanup import clean_up
from store.records.database import open_records
from store.records.people import create_account
from store.records.sessions import find_session, open_session
from store.records.tables import metadata
from store.settings import Settings
from tests.consent.postgres import new_database
from tests.deploy.files import DEPLOY
from tests.lake.conftest import AUTO, World

LOGINS = ("bgbatch_portal", "bgbatch_cleanup")


@pytest.fixture(scope="module")
def address() -> str:
    """A database at the current schema, with the roles and a login for each."""
    url = new_database()
    open_records(Settings(records_url=url)).engine.dispose()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as owner:
        for _ in range(2):  # it is run again after each upgrade
            owner.execute((DEPLOY / "postgres" / "roles.sql").read_text())
        for name in LOGINS:
            owner.execute(f"CREATE ROLE a_{name} LOGIN IN ROLE {name}")
    return url


def url_of(address: str, role: str) -> str:
    return make_url(address).set(username=f"a_{role}").render_as_string(hide_password=False)


@contextmanager
def parts_of(address: str, role: str, home: Path, clock: Clock) -> Iterator[Parts]:
    parts = open_parts(Settings(home=home, records_url=url_of(address, role)), clock)
    yield parts
    parts.records.engine.dispose()


@pytest.fixture
def connect(address: str) -> Iterator:
    opened = []

    def open_one(role: str) -> psycopg.Connection:
        opened.append(psycopg.connect(url_of(address, role).replace("+psycopg", ""), autocommit=True))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def test_each_does_its_work_with_its_role(address: str, tmp_path: Path) -> None:
    """The portal's takes in, asks and admits, a day ago; the cleanup's purges, erases, looks and audits."""
    ago = ShiftedClock(timedelta(hours=-24.5))
    with parts_of(address, "bgbatch_portal", tmp_path, ago) as portal:
        with portal.records.transaction() as connection:
            account, owner = create_account(connection, "Acme", "owner@acme.example", ago(), os.urandom)
            token = open_session(connection, owner, ago(), os.urandom)
            session = find_session(connection, token, ago())
            assert session is not None
            act = Press(token, session.form_token, (AUTO,), CURRENT.version, CURRENT.sha256, "/account", ago(), GENESIS)
            (grant,) = press(connection, act, ago(), os.urandom)
        canary_id = send_canary(portal)
        World(portal.lake, portal.transient, portal.records, ago().replace(microsecond=0)).give(grant)
        with portal.records.transaction() as connection:
            by = Refusal(account, Method.API, ago(), reason="asked to")
            assert ledger.withdraw(connection, by, AUTO, ago()) is not None
    with parts_of(address, "bgbatch_cleanup", tmp_path, system_clock) as cleanup:
        report = clean_up(cleaning(cleanup))
        assert report.faults == []
        assert canary_id in {each.subject for each in report.receipts}
        with cleanup.records.transaction() as connection:
            assert canary.to_look_for(connection, system_clock(), timedelta()) == [canary_id]
            assert canary.admitted(connection, [canary_id]) == set()
            canary.note_look(connection, {canary_id: []}, "here", system_clock())
        assert [each.subject for each in reconcile(cleanup).receipts] == [grant.grant_id]
        assert list(cleanup.lake.walk("")) == []
        looked = audit(cleanup, system_clock() - timedelta(minutes=5), system_clock())
        assert looked.held, looked.broken


def test_an_upgraded_database_keeps_no_right_of_a_role_that_is_no_more() -> None:
    """Though another database of the server that knows it is upgraded later."""
    urls = [new_database().replace("+psycopg", "") for _ in range(2)]
    roles = (DEPLOY / "postgres" / "roles.sql").read_text()
    for url in urls:
        open_records(Settings(records_url=url.replace("postgresql", "postgresql+psycopg"))).engine.dispose()
        with psycopg.connect(url, autocommit=True) as owner:
            if url == urls[0]:
                owner.execute("CREATE ROLE bgbatch_compactor")
                owner.execute("CREATE ROLE its_login LOGIN IN ROLE bgbatch_compactor")
            owner.execute("GRANT USAGE ON SCHEMA public TO bgbatch_compactor")
            owner.execute("GRANT SELECT, DELETE ON admissions, merged_files TO bgbatch_compactor")
    with psycopg.connect(urls[0], autocommit=True) as owner:
        owner.execute(roles)
        owner.execute("SET ROLE its_login")
        with pytest.raises(InsufficientPrivilege):
            owner.execute("SELECT * FROM admissions")
    with psycopg.connect(urls[1], autocommit=True) as owner:
        owner.execute(roles)
        assert owner.execute("SELECT FROM pg_roles WHERE rolname = 'bgbatch_compactor'").fetchall() == []


@pytest.mark.parametrize("role", LOGINS)
@pytest.mark.parametrize("statement", ["DROP TABLE batches", "CREATE TABLE mine (n int)", "TRUNCATE consent_events"])
def test_no_role_changes_the_schema(connect, role: str, statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        connect(role).execute(statement)


@pytest.mark.parametrize("role", LOGINS)
@pytest.mark.parametrize("table", ["consent_events", "receipts"])
def test_what_is_append_only_stays_as_it_is(connect, role: str, table: str) -> None:
    for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET hash = ''"):
        with pytest.raises((InsufficientPrivilege, RaiseException)):
            connect(role).execute(statement)


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_the_cleanup_reads_what_its_work_needs_and_neither_people_names_places_nor_keys(connect, table: str) -> None:
    """A table that comes later is closed to it, too."""
    needed = {
        *("batches", "consent_events", "receipts", "erasures", "cleanups", "canaries"),
        *("admissions", "merged_files", "pulled_grants"),
    }
    allowed = nullcontext() if table in needed else pytest.raises(InsufficientPrivilege)
    with allowed:
        connect("bgbatch_cleanup").execute(f"SELECT * FROM {table}")
