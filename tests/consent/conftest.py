"""A ledger to work with, on SQLite and on PostgreSQL, and an owner who presses the button."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from consent.button import Press, press
from consent.ledger import Refusal, newest_event
from consent.notice import CURRENT
from schemas.chain import GENESIS
from schemas.consent import Grant, Method
from schemas.ids import AccountId, PersonId
from schemas.industries import Industry
from store.records.database import Records, open_records
from store.records.people import create_account
from store.records.sessions import find_session, open_session
from tests.consent.postgres import current_database
from tests.records import at_home

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Records]:
    """An empty, current database."""
    url = "" if request.param == "sqlite" else current_database()
    records = open_records(at_home(tmp_path, records_url=url))
    yield records
    records.engine.dispose()


@dataclass(frozen=True)
class Owner:
    """An account's owner, signed in, who reads the current notice."""

    records: Records
    account_id: AccountId
    person_id: PersonId
    act: Press

    def press(self, *industries: Industry, at: datetime = NOON, **changed: object) -> list[Grant]:
        """Confirm the form, with some of its fields changed."""
        with self.records.transaction() as connection:
            now = {"received_at": at, "newest_event": newest_event(connection, self.account_id)}
            act = replace(self.act, industries=industries, **{**now, **changed})
            return press(connection, act, at, Random(f"{self.account_id}{at}").randbytes)

    def refusal(self, at: datetime = NOON) -> Refusal:
        return Refusal(self.account_id, Method.BUTTON, at, actor=self.person_id, page="/account")


def new_owner(records: Records, name: str = "Acme Motors") -> Owner:
    randomness = Random(name).randbytes
    with records.transaction() as connection:
        account_id, person_id = create_account(connection, name, "owner@example.com", NOON, randomness)
        token = open_session(connection, person_id, NOON, randomness)
        session = find_session(connection, token, NOON)
    assert session is not None
    act = Press(
        token, session.form_token, (), CURRENT.version, CURRENT.sha256, "/account/ai-training-data", NOON, GENESIS
    )
    return Owner(records, account_id, person_id, act)


@pytest.fixture
def owner(records: Records) -> Owner:
    return new_owner(records)


@pytest.fixture
def other(records: Records) -> Owner:
    return new_owner(records, "Bazaar")


def later(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)
