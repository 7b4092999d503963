"""Schemathesis plays the programs' side of the OpenAPI description, with and without a key; nothing it sends grants."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance, use_after_free
from starlette.routing import Mount
from starlette.testclient import TestClient

from consent import ledger
from schemas.consent import Act
from schemas.industries import Industry
from schemas.options import Format
from tests.portal.conftest import Site, opened
from tests.portal.test_account_page import live, say_yes
from tests.portal.test_keys_and_limits import make_key
from tests.records import at_home

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")

AUTO = Industry.AUTOMOTIVE
_LEFT_OUT = [ignored_auth, use_after_free, positive_data_acceptance]
"""Each call has a key here (without one: see below); ids are made up; a colour's name is no matter of a schema."""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    """A portal, with Acme that has a key and Bazaar that has turned something on."""
    with opened(at_home(tmp_path_factory.mktemp("contract"))) as site:
        say_yes(site.sign_in("Bazaar"), AUTO)
        key = make_key(say_yes(site.sign_in("Acme"), AUTO))
        yield site, key


def api_of(site: Site) -> FastAPI:
    """The API below the portal's pages."""
    (api,) = [each.app for each in site.app.routes if isinstance(each, Mount) and isinstance(each.app, FastAPI)]
    return api


def play(site: Site, under: str, examples: int, check: Callable[[schemathesis.Case], None]) -> int:
    """Check so many cases of each operation whose path begins with `under`; returns how many operations those are."""
    api = api_of(site)
    described = schemathesis.openapi.from_dict(api.openapi())
    described.app = api
    found = [each.ok() for each in described.get_all_operations()]
    operations = [each for each in found if each.path.startswith(under) and each.method.upper() != "OPTIONS"]
    for operation in operations:
        with_settings = settings(
            max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        with_settings(given(case=operation.as_strategy())(lambda case: check(case)))()
    return len(operations)


def test_every_answer_is_as_described_and_nothing_that_is_sent_grants(played: tuple[Site, str]) -> None:
    site, key = played

    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(headers={"x-api-key": key}, excluded_checks=_LEFT_OUT)

    assert play(site, "/consent", 40, check) == 2
    assert play(site, "/batches", 10, check) > 10
    assert play(site, "/schedules", 10, check) == 9
    assert play(site, "/webhooks", 10, check) == 6
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
            assert case.method == "HEAD" or answer.json()["code"] == "key_needed"

    assert play(site, "/", 5, check) > 2


def test_the_description_names_the_key_and_no_way_to_grant(played: tuple[Site, str]) -> None:
    site, _ = played
    description = api_of(site).openapi()
    assert description["components"]["securitySchemes"]["APIKeyHeader"]["name"] == "x-api-key"
    for path, verbs in description["paths"].items():
        assert not path.startswith(("/account", "/sign-in")), "the pages' forms are no interface for programs"
        assert "grant" not in path.rsplit("/", 1)[-1]
        for verb, operation in verbs.items():
            assert verb == "options" or operation["security"], path


def test_the_description_names_bodies_headers_and_faults(played: tuple[Site, str]) -> None:
    paths = api_of(played[0]).openapi()["paths"]
    put = paths["/batches/{batch_id}/items/{path}"]["put"]
    assert set(put["requestBody"]["content"]) == {"application/octet-stream"}
    assert {"500", "503"} <= set(put["responses"])
    assert "Retry-After" in put["responses"]["429"]["headers"]
    assert "Location" in paths["/batches"]["post"]["responses"]["201"]["headers"]
    create, upload = paths["/batches/{batch_id}/uploads"]["post"], paths["/batches/{batch_id}/uploads/{token}"]
    for operation, status in ((create, "201"), (upload["patch"], "204")):
        assert set(operation["requestBody"]["content"]) == {"application/offset+octet-stream"}
        assert {"Upload-Offset", "Tus-Resumable"} <= set(operation["responses"][status]["headers"])
    assert {"Upload-Offset", "Upload-Length"} <= set(upload["head"]["responses"]["200"]["headers"])


def test_the_description_has_the_form_of_all_faults_once(played: tuple[Site, str]) -> None:
    """From one beside each fault, generators of clients make as many types of one name, and leave all of them out."""
    description = TestClient(played[0].app).get("/v1/openapi.json").json()
    faults = [
        answer["content"]["application/problem+json"]["schema"]
        for verbs in description["paths"].values()
        for operation in verbs.values()
        for status, answer in operation["responses"].items()
        if status >= "400"
    ]
    assert len(faults) > 100
    assert all(each == {"$ref": "#/components/schemas/Problem"} for each in faults)
    assert "code" in description["components"]["schemas"]["Problem"]["properties"]


def test_the_description_names_every_kind_of_cutout(played: tuple[Site, str]) -> None:
    cutout = api_of(played[0]).openapi()["paths"]["/batches/{batch_id}/items/{number}/cutout"]["get"]
    assert set(cutout["responses"]["200"]["content"]) == {each.media_type for each in Format}
