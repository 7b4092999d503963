"""The roles of the records on a real PostgreSQL: each can do its work, and not the others'."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, RaiseException
from sqlalchemy import make_url, text

from flows.cleaning import cleaning
from flows.parts import Parts, open_parts
from schemas.clock import system_clock
from store.cleanup import clean_up
from store.people import create_account
from store.records import open_records
from store.settings import Settings
from tests.consent.postgres import new_database
from tests.deploy.files import DEPLOY

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


def parts_of(address: str, role: str, home: Path) -> Parts:
    return open_parts(Settings(home=home, records_url=url_of(address, role)), system_clock)


@pytest.fixture
def connect(address: str) -> Iterator:
    opened = []

    def open_one(role: str) -> psycopg.Connection:
        opened.append(psycopg.connect(url_of(address, role).replace("+psycopg", ""), autocommit=True))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def test_the_portal_serves_with_its_role(address: str, tmp_path: Path) -> None:
    parts = parts_of(address, "bgbatch_portal", tmp_path)
    with parts.records.transaction() as connection:
        create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    parts.records.engine.dispose()


def test_the_cleanup_cleans_up_with_its_role(address: str, tmp_path: Path) -> None:
    parts = parts_of(address, "bgbatch_cleanup", tmp_path)
    assert clean_up(cleaning(parts)).faults == []
    with parts.records.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM cleanups")).scalar() == 1
    parts.records.engine.dispose()


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


@pytest.mark.parametrize("table", ["people", "api_keys", "sessions", "sign_in_links", "webhooks"])
def test_the_cleanup_sees_no_person_and_no_key(connect, table: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        connect("bgbatch_cleanup").execute(f"SELECT * FROM {table}")
