"""What no id, name or reason has in it, wherever one may be sent: PostgreSQL keeps no NUL, and looks for none."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.industries import Industry
from store.records.people import Role
from tests.consent.postgres import current_database
from tests.portal.conftest import Site, opened
from tests.portal.test_account_page import live, say_yes
from tests.portal.test_keys_and_limits import make_key
from tests.portal.test_rights import ask, routes, signed_in, things_of_acme
from tests.records import at_home


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with opened(at_home(tmp_path, records_url=current_database())) as site:
        yield site


def test_nul_in_an_id_leads_nowhere(site: Site) -> None:
    things = things_of_acme(site)
    browser, token = signed_in(site, Role.OWNER)
    for route in sorted(routes(site)):
        for name in things:
            if f"{{{name}}}" in route[1]:
                answer = ask(browser, route, token, things | {name: "a%00b"})
                assert answer.status_code == 404, (route, name)


@pytest.mark.parametrize("where", ["/v1/batches", "/v1/schedules/{schedule_id}/nights", "/nights/{schedule_id}"])
def test_nul_in_where_a_page_begins_is_refused(site: Site, where: str) -> None:
    things = things_of_acme(site)
    client = site.sign_in().client
    for before in ("%00", "a%00b"):
        assert client.get(f"{where.format(**things)}?before={before}").status_code == 422


def test_nul_in_a_reason_is_refused_and_another_reason_takes_back(site: Site) -> None:
    owner = say_yes(site.sign_in(), Industry.AUTOMOTIVE)
    program, account_id = site.browser(headers={"x-api-key": make_key(owner)}).client, site.account("Acme")[0]
    assert program.post("/v1/consent/withdrawals", json={"reason": "a\0b"}).status_code == 422
    assert len(live(site, account_id)) == 1
    assert len(program.post("/v1/consent/withdrawals", json={"reason": "two\nlines"}).json()) == 1
    assert live(site, account_id) == []


def test_nul_in_an_address_that_asks_for_a_link_is_nobodys(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.account("Acme")
    with caplog.at_level(logging.WARNING):
        assert "If somebody here has that address" in site.browser().send("/sign-in", [("email", "a\0@b.c")]).words
    assert caplog.records == []
