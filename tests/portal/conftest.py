"""The portal on an empty home, its clock in the test's hand, and people who can sign in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from portal.web.app import create_app
from schemas.ids import AccountId, PersonId
from store.records.database import Records, open_records
from store.records.people import Role, add_person, create_account
from store.records.sessions import create_sign_in_link
from store.settings import Settings
from store.transient.transient_store import open_transient
from tests.api.conftest import Desk, new_desk
from tests.portal.browsing import Browser
from tests.records import at_home

if TYPE_CHECKING:
    from playwright.sync_api import Browser as Chromium
    from playwright.sync_api import BrowserContext

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass
class Site:
    """A portal and its database."""

    settings: Settings
    records: Records
    app: FastAPI
    randomness: Callable[[int], bytes]
    now: datetime = NOON
    accounts: dict[str, tuple[AccountId, PersonId]] = field(default_factory=dict)

    def wait(self, **time: float) -> None:
        self.now += timedelta(**time)

    def browser(self, **client: object) -> Browser:
        return Browser(TestClient(self.app, base_url="http://127.0.0.1:8080", **client))

    def account(self, name: str) -> tuple[AccountId, PersonId]:
        """The account of that name, made if need be, and its owner."""
        if name not in self.accounts:
            with self.records.transaction() as connection:
                email = f"owner@{name.lower()}.example"
                self.accounts[name] = create_account(connection, name, email, self.now, self.randomness)
        return self.accounts[name]

    def link(self, person_id: PersonId) -> str:
        with self.records.transaction() as connection:
            return "/sign-in/" + create_sign_in_link(connection, person_id, self.now, self.randomness)

    def sign_in(self, name: str = "Acme") -> Browser:
        """The owner's browser, on the account page."""
        return self.browser().open(self.link(self.account(name)[1])).press("Sign in")

    def sign_in_as(self, role: Role) -> Browser:
        """Somebody else's browser, in Acme's account."""
        account_id, email = self.account("Acme")[0], f"{role.value}@acme.example"
        with self.records.transaction() as connection:
            person = add_person(connection, account_id, email, role, self.now, self.randomness)
        return self.browser().open(self.link(person)).press("Sign in")


@contextmanager
def opened(settings: Settings, now: datetime = NOON) -> Iterator[Site]:
    records = open_records(settings)
    randomness = Random(1).randbytes
    site = Site(settings, records, None, randomness, now)  # type: ignore[arg-type]  # the app needs the site's clock
    site.app = create_app(settings, records, open_transient(settings, lambda: site.now), lambda: site.now, randomness)
    yield site
    records.engine.dispose()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with opened(at_home(tmp_path)) as site:
        yield site


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    """A real browser."""
    from playwright.sync_api import sync_playwright

    from tests.portal.chromium import launch

    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Chromium) -> Iterator[BrowserContext]:
    """A fresh profile of it."""
    from tests.portal.chromium import DESKTOP, PATIENCE

    context = chromium.new_context(viewport=DESKTOP)
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture
def address(site: Site) -> Iterator[str]:
    """Where the site is served."""
    from tests.portal.chromium import serving

    with serving(site.app) as address:
        yield address


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Two accounts with keys, in the home that commands find."""
    monkeypatch.setenv("BGBATCH_HOME", str(tmp_path / "home"))
    made = new_desk(tmp_path / "home")
    yield made
    made.parts.records.engine.dispose()
