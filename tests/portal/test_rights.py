"""Who may do what, asked of every route that there is: a new one is on one of these lists, or fails here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import httpx
import pytest

from portal.web.limits import LINKS_FROM, POSTS, SIGN_INS
from schemas.ids import new_batch_id
from store.records import batches, line, nights, schedules, webhooks
from store.records.api_keys import create_key
from store.records.attempts import Limit, wait_before_trying
from store.records.people import Role, add_person
from tests.portal.browsing import Browser
from tests.portal.conftest import Site
from tests.portal.test_keys_and_limits import paths_of
from tests.schedules import nightly
from tests.store.purging.test_purge import stamp_of

Route = tuple[str, str]

AN_OWNERS = {
    ("POST", "/account/ai-training-data/review"),
    ("POST", "/account/ai-training-data/grant"),
    ("POST", "/account/ai-training-data/decline"),
    ("POST", "/account/ai-training-data/withdraw"),
    ("POST", "/account/people"),
    ("POST", "/account/people/{person_id}/role"),
    ("POST", "/account/people/{person_id}/remove"),
    ("POST", "/account/keys"),
    ("POST", "/account/keys/{key_id}/revoke"),
    ("POST", "/account/webhooks"),
    ("POST", "/account/webhooks/{webhook_id}/remove"),
    ("POST", "/account/webhooks/{webhook_id}/ping"),
    ("POST", "/account/webhooks/{webhook_id}/events/{event_id}/replay"),
    ("POST", "/account/purge"),
    ("POST", "/account/close"),
    ("POST", "/v1/schedules"),
    ("PATCH", "/v1/schedules/{schedule_id}"),
    ("DELETE", "/v1/schedules/{schedule_id}"),
    ("POST", "/v1/webhooks"),
    ("DELETE", "/v1/webhooks/{webhook_id}"),
    ("POST", "/v1/webhooks/{webhook_id}/ping"),
    ("POST", "/v1/webhooks/{webhook_id}/events/{event_id}/replay"),
}
A_MEMBERS = {
    ("POST", "/batches/{batch_id}/retry"),
    ("POST", "/batches/{batch_id}/cancel"),
    ("POST", "/nights/{schedule_id}/pause"),
    ("POST", "/nights/{schedule_id}/resume"),
    ("POST", "/v1/batches"),
    ("PUT", "/v1/batches/{batch_id}/items/{path:path}"),
    ("DELETE", "/v1/batches/{batch_id}/items/{path:path}"),
    ("POST", "/v1/batches/{batch_id}/seal"),
    ("POST", "/v1/batches/{batch_id}/retry"),
    ("POST", "/v1/batches/{batch_id}/cancel"),
    ("POST", "/v1/batches/{batch_id}/uploads"),
    ("PATCH", "/v1/batches/{batch_id}/uploads/{token}"),
    ("DELETE", "/v1/batches/{batch_id}/uploads/{token}"),
    ("POST", "/v1/schedules/{schedule_id}/pause"),
    ("POST", "/v1/schedules/{schedule_id}/resume"),
}
AN_AUDITORS = {("POST", "/sign-out")}
A_KEYS = {("POST", "/v1/consent/withdrawals")}
"""A session is no key: see `test_without_a_key_the_api_is_closed`."""
ANYBODYS = {("POST", "/sign-in"), ("POST", "/sign-in/{token}")}
OPEN_TO_ALL = {
    ("GET", "/sign-in"),
    ("GET", "/sign-in/{token}"),
    ("GET", "/sign-in/provider/go"),
    ("GET", "/sign-in/provider/back"),
    ("GET", "/healthz"),
    ("GET", "/metrics"),
    ("GET", "/status"),
    ("GET", "/v1/openapi.json"),
    ("OPTIONS", "/v1/batches/{batch_id}/uploads"),
}
MAY = {Role.OWNER: AN_OWNERS | A_MEMBERS, Role.MEMBER: A_MEMBERS, Role.AUDITOR: set()}
BY_A_SESSION = sorted(AN_OWNERS | A_MEMBERS)


@pytest.fixture
def desk_of_acme(site: Site) -> dict[str, str]:
    """See `things_of_acme`."""
    return things_of_acme(site)


def things_of_acme(site: Site) -> dict[str, str]:
    """One of each thing that an account has, by the name of its id in a path."""
    account_id, person_id = site.account("Acme")
    batch_id = new_batch_id(site.now, site.randomness)
    schedule = nightly(account_id, site.now, site.randomness)
    with site.records.transaction() as connection:
        batches.open_batch(connection, stamp_of(batch_id), account_id)
        line.enter(connection, batch_id, account_id, upload_key="k")
        schedules.add(connection, schedule)
        night = nights.begin(connection, schedule, site.now, site.now, site.randomness)
        hook = webhooks.add(connection, account_id, "https://acme.example/", site.now, site.randomness)
        event_id = webhooks.ping(connection, hook, site.now, site.randomness)
        key, _ = create_key(connection, account_id, person_id, "tests", site.now, site.randomness)
        ann = add_person(connection, account_id, "ann@acme.example", Role.MEMBER, site.now, site.randomness)
    assert night is not None
    return {
        "batch_id": batch_id,
        "schedule_id": schedule.schedule_id,
        "night_id": night.night_id,
        "webhook_id": hook.webhook_id,
        "event_id": event_id,
        "key_id": key.key_id,
        "person_id": ann,
    }


def routes(site: Site) -> set[Route]:
    found = paths_of(site.app.routes)
    return {(method, path) for path, methods in found for method in methods - {"HEAD"}}


def ask(
    browser: Browser, route: Route, token: str = "", ids: Mapping[str, str] = MappingProxyType({}), **headers: str
) -> httpx.Response:
    """As our own page would: with all that tells whose form it is, and nothing that makes sense."""
    method, path = route
    body, kind = (b"{}", {"content-type": "application/json"}) if method == "PATCH" else (None, {})
    sent = {"sec-fetch-site": "same-origin", "x-form-token": token, **kind, **headers}
    fields = {"form_token": token} if method == "POST" and not path.startswith("/v1/") else None
    where = re.sub("{([^}:]*)[^}]*}", lambda name: ids.get(name[1], "1"), path).replace("1.webp", "photo.webp")
    return browser.client.request(method, where, data=fields, content=body, headers=sent, follow_redirects=False)


def signed_in(site: Site, role: Role) -> tuple[Browser, str]:
    """A browser, and the token of its forms."""
    browser = site.sign_in() if role is Role.OWNER else site.sign_in_as(role)
    return browser, dict(browser.open("/account").forms[0].fields)["form_token"]


def test_of_every_route_that_changes_something_it_is_said_who_may(site: Site) -> None:
    changing = {(method, path) for method, path in routes(site) if method not in ("GET", "OPTIONS")}
    assert changing == AN_OWNERS | A_MEMBERS | AN_AUDITORS | A_KEYS | ANYBODYS


@pytest.mark.parametrize("role", list(Role))
def test_each_role_changes_what_it_may_and_nothing_else(site: Site, role: Role) -> None:
    browser, token = signed_in(site, role)
    allowed = {route for route in BY_A_SESSION if ask(browser, route, token).status_code != 403}
    assert allowed == MAY[role]
    assert ask(browser, ("POST", "/sign-out"), token).headers["location"] == "/sign-in"


def test_a_key_may_do_all_that_the_api_offers(site: Site) -> None:
    account_id, person_id = site.account("Acme")
    with site.records.transaction() as connection:
        _, key = create_key(connection, account_id, person_id, "tests", site.now, site.randomness)
    program = site.browser()
    refused = {route for route in routes(site) if ask(program, route, **{"x-api-key": key}).status_code in (401, 403)}
    assert {path for _, path in refused if path.startswith("/v1/")} == set()
    wrong = ask(site.sign_in(), ("GET", "/v1/batches"), **{"x-api-key": key[:-1]})
    assert wrong.status_code == 401, "nobody is asked for by a wrong key, whoever is signed in"


def test_nothing_is_changed_without_the_sessions_form_token_or_by_another_site(site: Site) -> None:
    browser, token = signed_in(site, Role.OWNER)
    for route in (*BY_A_SESSION, ("POST", "/sign-out")):
        assert ask(browser, route, token[::-1]).status_code == 403, route
        assert ask(browser, route).status_code == 403, route
        assert ask(browser, route, token, **{"sec-fetch-site": "cross-site"}).status_code == 403, route
        assert ask(browser, route, token, origin="https://evil.example").status_code == 403, route
    for route in ANYBODYS:
        assert ask(browser, route, **{"sec-fetch-site": "cross-site"}).status_code == 403, route
    assert browser.open("/account").words.count("Sign out") == 1


def test_who_is_not_signed_in_and_has_no_key_gets_nothing(site: Site) -> None:
    stranger = site.browser()
    for route in routes(site) - OPEN_TO_ALL - ANYBODYS:
        answer = ask(stranger, route)
        if route[1].startswith("/v1/"):
            assert (answer.status_code, answer.json()["code"]) == (401, "key_needed"), route
        elif route[0] == "GET":
            where = "/account" if route[1] == "/" else "/sign-in"
            assert (answer.status_code, answer.headers["location"]) == (303, where), route
        else:
            assert "You are not signed in." in answer.text, route


def test_what_is_another_accounts_does_not_exist_whatever_is_asked_of_it(
    site: Site, desk_of_acme: dict[str, str]
) -> None:
    none = dict.fromkeys(desk_of_acme, "n" + "0" * 32) | {"batch_id": new_batch_id(site.now, site.randomness)}
    upload = {
        "upload-length": "1",
        "upload-metadata": "filename MS5qcGc=",
        "upload-offset": "0",
        "content-type": "application/offset+octet-stream",
    }
    owner, stranger = site.sign_in(), site.sign_in("Bazaar")
    token = dict(stranger.forms[0].fields)["form_token"]
    of_something = {route for route in routes(site) if "_id}" in route[1] and route[0] != "OPTIONS"}
    assert len(of_something) > 40
    for route in of_something:
        told = [
            ask(stranger, route, token, ids, **(upload if "/uploads" in route[1] else {}))
            for ids in (desk_of_acme, none)
        ]
        assert [each.status_code for each in told] == [404, 404], route
        bodies = [re.sub("[0-9a-f-]{32,36}", "", each.text) for each in told]
        assert bodies[0] == bodies[1], route
    shown = {path for method, path in of_something if method == "GET" and not path.endswith("/events")}  # for minutes
    theirs = {path for path in shown if ask(owner, ("GET", path), "", desk_of_acme).status_code == 200}
    assert len(theirs) >= 10, "they are all there"


def test_whichever_form_is_sent_too_often_waits(site: Site) -> None:
    browser, token = signed_in(site, Role.OWNER)
    try_often(site, POSTS)
    forms = {route for route in routes(site) if route[0] == "POST" and not route[1].startswith("/v1/")}
    assert len(forms) > 15
    assert {route: ask(browser, route, token).status_code for route in forms} == dict.fromkeys(forms, 429)


def test_whoever_asks_for_links_or_tries_to_come_in_too_often_waits(site: Site) -> None:
    def waiting() -> set[str]:
        ways = {route for route in routes(site) if route[1].startswith("/sign-in")}
        return {" ".join(route) for route in ways if ask(site.browser(), route).status_code == 429}

    assert waiting() == set()
    try_often(site, LINKS_FROM)
    assert waiting() == {"POST /sign-in"}
    try_often(site, SIGN_INS)
    with_provider = {"GET /sign-in/provider/go", "GET /sign-in/provider/back"}
    assert waiting() == {"POST /sign-in", "POST /sign-in/{token}", *with_provider}


def try_often(site: Site, which: Limit) -> None:
    with site.records.transaction() as connection:
        for _ in range(which.most):
            wait_before_trying(connection, which, "testclient", site.now)
