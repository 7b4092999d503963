"""Schemathesis plays the programs' side of the OpenAPI description, with and without a key; nothing it sends grants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import ignored_auth, use_after_free

from consent import ledger
from schemas.consent import Act
from schemas.industries import Industry
from store.settings import Settings
from tests.portal.conftest import Site, opened
from tests.portal.test_account_page import live, say_yes
from tests.portal.test_keys_and_limits import make_key

AUTO = Industry.AUTOMOTIVE


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    """A portal, with Acme that has a key and Bazaar that has turned something on."""
    with opened(Settings(home=tmp_path_factory.mktemp("contract"))) as site:
        say_yes(site.sign_in("Bazaar"), AUTO)
        key = make_key(say_yes(site.sign_in("Acme"), AUTO))
        yield site, key


def play(site: Site, examples: int, check: Callable[[schemathesis.Case], None]) -> int:
    """Check so many cases of each operation that is described; returns how many operations there are."""
    described = schemathesis.openapi.from_dict(site.app.openapi())
    described.app = site.app
    operations = [found.ok() for found in described.get_all_operations()]
    for operation in operations:
        with_settings = settings(
            max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        with_settings(given(case=operation.as_strategy())(lambda case: check(case)))()
    return len(operations)


def test_every_answer_is_as_described_and_nothing_that_is_sent_grants(played: tuple[Site, str]) -> None:
    site, key = played

    def check(case: schemathesis.Case) -> None:
        # Whether keys are asked for is checked below; here each call has one.
        case.call_and_validate(headers={"x-api-key": key}, excluded_checks=[ignored_auth, use_after_free])

    assert play(site, 40, check) >= 2
    with site.records.transaction() as connection:
        events = ledger.read_events(connection)
        assert ledger.verify(connection) == len(events)
    assert [event.act for event in events].count(Act.GRANTED) == 2, "the two on the page before"
    assert len(live(site, site.account("Bazaar")[0])) == 1
    assert live(site, site.account("Acme")[0]) == [], "withdrawals were among what was sent, and worked"


def test_without_a_key_every_answer_is_a_no(played: tuple[Site, str]) -> None:
    site, _ = played

    def check(case: schemathesis.Case) -> None:
        for headers in ({}, {"x-api-key": "bgb_" + "0" * 64}):
            answer = case.call(headers=headers)
            assert answer.status_code == 401, answer.content
            assert set(answer.json()) == {"code", "sentence"}

    play(site, 15, check)


def test_the_description_names_the_key_and_no_way_to_grant(played: tuple[Site, str], tmp_path: Path) -> None:
    site, _ = played
    description = site.app.openapi()
    assert description["components"]["securitySchemes"]["APIKeyHeader"]["name"] == "x-api-key"
    for path, verbs in description["paths"].items():
        assert path.startswith("/api/"), "the pages' forms are no interface for programs"
        assert "grant" not in path.rsplit("/", 1)[-1]
        for verb in verbs.values():
            assert verb["security"], path
