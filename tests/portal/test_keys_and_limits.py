"""Keys: made by an owner, shown once, good for programs, good for nothing that grants. And who asks too often waits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.routing import Mount

from consent import ledger
from consent.notice import CURRENT
from consent.suppression import open_suppressions
from portal.web.limits import ADDED, LINKS_FROM, LINKS_TO, POSTS, SIGN_INS, network_address
from schemas.consent import Act, Method
from schemas.industries import Industry
from store.records.people import Role
from tests.portal.browsing import Browser
from tests.portal.conftest import Site
from tests.portal.test_account_page import NO, PAGE, acts, live, say_yes

AUTO, STUDIO = Industry.AUTOMOTIVE, Industry.STUDIO


def make_key(browser: Browser) -> str:
    """The text of a new key, as the page shows it."""
    browser.open("/account/keys")
    form = next(each for each in browser.forms if "Make a key" in each.buttons)
    browser.send(form.action, [*[pair for pair in form.fields if pair[0] != "name"], ("name", "nightly run")])
    found = re.findall(r"bgb_[0-9a-f]{64}", browser.html)
    assert len(found) == 1, "shown exactly once"
    return str(found[0])


def test_a_key_is_shown_once_and_kept_nowhere(site: Site) -> None:
    browser = site.sign_in()
    key = make_key(browser)
    assert "nightly run" in browser.words
    assert key not in browser.open("/account/keys").html
    kept = b"".join(path.read_bytes() for path in site.settings.home.glob("records.db*"))
    assert key.removeprefix("bgb_").encode() not in kept


def test_a_key_opens_the_api_until_it_is_revoked(site: Site) -> None:
    browser = site.sign_in()
    key = make_key(browser)
    program = site.browser().client
    assert program.get("/v1/consent", headers={"x-api-key": key}).status_code == 200
    browser.open("/account/keys").press("Revoke it for good")
    assert "revoked" in browser.words
    answer = program.get("/v1/consent", headers={"x-api-key": key})
    assert (answer.status_code, answer.json()["code"]) == (401, "key_needed")


@pytest.mark.parametrize("header", [{}, {"x-api-key": ""}, {"x-api-key": "bgb_" + "0" * 64}, {"authorization": "x"}])
def test_without_a_key_the_api_is_closed(site: Site, header: dict[str, str]) -> None:
    program = site.sign_in().client  # a signed-in browser's cookie is no key
    assert program.get("/v1/consent", headers=header).status_code == 401
    assert program.post("/v1/consent/withdrawals", headers=header, json={}).status_code == 401


def test_a_program_sees_and_withdraws_and_the_ledger_says_which_key(site: Site) -> None:
    account_id, _ = site.account("Acme")
    browser = say_yes(site.sign_in(), AUTO, STUDIO)
    program = site.browser(headers={"x-api-key": make_key(browser)}).client
    shown = {each["industry"]: each for each in program.get("/v1/consent").json()}
    states = {industry: each["state"] for industry, each in shown.items()}
    assert states == {each.value: "granted" if each in (AUTO, STUDIO) else "never_asked" for each in Industry}
    grants = {each.industry.value: each for each in live(site, account_id)}
    for industry, each in shown.items():
        grant = grants.get(industry)
        assert each["grant_id"] == (grant and grant.grant_id)
        assert each["granted_at"] == (grant and grant.granted_at.isoformat().replace("+00:00", "Z"))
    grant = grants["automotive"]
    site.wait(hours=1)
    body = {"industries": ["automotive"], "reason": "season ended"}
    (ended,) = program.post("/v1/consent/withdrawals", json=body).json()
    assert (ended["industry"], ended["grant_id"]) == ("automotive", grant.grant_id)
    withdrawn_at, erased_by = (datetime.fromisoformat(ended[name]) for name in ("withdrawn_at", "erased_by"))
    assert erased_by - withdrawn_at == timedelta(hours=24)
    assert [each.industry for each in live(site, account_id)] == [STUDIO]
    assert open_suppressions(site.settings).files("grants") == [f"{grant.grant_id}.json"]
    assert program.post("/v1/consent/withdrawals", json={"reason": 451 * "x"}).status_code == 422
    again = program.post("/v1/consent/withdrawals", json={"industries": ["marketplace"], "reason": 450 * "x"})
    assert (again.status_code, again.json()) == (200, []), "what was off stays off"
    assert len(program.post("/v1/consent/withdrawals", json={}).json()) == 1, "all that is left"
    assert program.post("/v1/consent/withdrawals", json={}).json() == [], "asked again, it changes nothing"
    with site.records.transaction() as connection:
        event, without_words = ledger.read_events(connection)[2:]
    assert (event.method, event.actor, event.act, event.received_at) == (Method.API, None, Act.WITHDRAWN, withdrawn_at)
    assert re.fullmatch(r"with API key k[0-9a-f]{32}: season ended", event.reason)
    assert re.fullmatch(r"with API key k[0-9a-f]{32}", without_words.reason)


def test_a_program_is_told_which_of_its_batches_have_a_live_grant(site: Site) -> None:
    browser = say_yes(site.sign_in(), AUTO)
    program = site.browser(headers={"x-api-key": make_key(browser)}).client
    given = program.post("/v1/batches", json={"industry": AUTO}).json()["batch_id"]
    program.put(f"/v1/batches/{given}/items/1.jpg", content=b"a photo")
    program.post(f"/v1/batches/{given}/seal")
    page = f"/batches/{given}"
    assert "Candidates for training are kept longer, as long as you permit it." in browser.client.get(page).text
    for industry, may in ((AUTO, True), (STUDIO, False), (None, False)):
        batch = program.post("/v1/batches", json={"industry": industry}).json()
        assert batch["may_train_models"] is may
        assert program.get(f"/v1/batches/{batch['batch_id']}").json() == batch
    program.post("/v1/consent/withdrawals", json={})
    assert program.get(f"/v1/batches/{given}").json()["may_train_models"] is False
    assert "The permission to train with it is taken back." in browser.client.get(page).text
    assert not any(each["may_train_models"] for each in program.get("/v1/batches").json()["batches"])


def test_a_key_can_never_grant(site: Site) -> None:
    """Not by any route that there is, with all fields that a granting form has, with or without a session's cookie."""
    account_id, _ = site.account("Acme")
    browser = site.sign_in()
    key = make_key(browser)
    browser.open(PAGE)
    fields = dict(next(each for each in browser.forms if NO in each.buttons).fields)
    body = {**fields, "industry": "automotive", "industries": ["automotive"], "state": "granted", "act": "granted"}
    program = site.browser(headers={"x-api-key": key}).client
    posts = [path for path, methods in paths_of(site.app.routes) if methods & {"POST", "PUT", "PATCH", "DELETE"}]
    assert {f"{PAGE}/grant", "/v1/consent/withdrawals"} <= set(posts)
    for path in (*posts, "/v1/consent", "/v1/consent/grants", "/v1/account", "/v1/consent/automotive"):
        address = re.sub(r"\{[^}]*\}", account_id, path)
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            program.request(method, address, json=body)
            program.request(method, address, data=body)
    assert live(site, account_id) == []
    assert Act.GRANTED not in acts(site)
    answer = program.post(f"{PAGE}/grant", data={**body, "notice_sha256": CURRENT.sha256})
    assert answer.status_code == 401
    say_yes(browser, AUTO)
    assert len(live(site, account_id)) == 1, "the person can, all the same"


def paths_of(routes, prefix: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every path that the app answers, with its methods; FastAPI keeps included routers as they are."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from paths_of(included.routes, prefix + route.include_context.prefix)
        elif isinstance(route, Mount):
            yield from paths_of(route.routes or (), prefix + route.path)
        elif getattr(route, "methods", None):
            yield prefix + route.path, set(route.methods)


@pytest.mark.parametrize("role", [Role.MEMBER, Role.AUDITOR])
def test_only_an_owner_makes_and_revokes_keys(site: Site, role: Role) -> None:
    owner = site.sign_in()
    key = make_key(owner)
    other = site.sign_in_as(role).open("/account/keys")
    assert "Only an owner" in other.words
    token = ("form_token", dict(other.forms[0].fields)["form_token"])
    assert other.send("/account/keys", [token, ("name", "mine")]).status == 403
    revoke = next(each.action for each in owner.open("/account/keys").forms if "Revoke it for good" in each.buttons)
    assert other.send(revoke, [token]).status == 403
    assert site.browser().client.get("/v1/consent", headers={"x-api-key": key}).status_code == 200


def test_another_accounts_keys_are_out_of_reach(site: Site) -> None:
    acme, bazaar = site.sign_in("Acme"), site.sign_in("Bazaar")
    key = make_key(acme)
    assert "nightly run" not in bazaar.open("/account/keys").words
    revoke = next(each.action for each in acme.open("/account/keys").forms if "Revoke it for good" in each.buttons)
    token = ("form_token", dict(bazaar.forms[0].fields)["form_token"])
    assert bazaar.send(revoke, [token]).status == 404
    assert site.browser().client.get("/v1/consent", headers={"x-api-key": key}).status_code == 200
    say_yes(bazaar, AUTO)
    program = site.browser(headers={"x-api-key": key}).client
    assert program.post("/v1/consent/withdrawals", json={}).json() == []
    assert len(live(site, site.account("Bazaar")[0])) == 1


def test_guessing_links_ends_in_waiting(site: Site) -> None:
    browser = site.browser()
    codes = [browser.send(f"/sign-in/{number:064x}", []).status for number in range(70)]
    assert codes == [403] * 60 + [429] * 10
    answer = browser.client.post("/sign-in/x")
    assert 0 < int(answer.headers["retry-after"]) <= 600
    site.wait(minutes=10)
    assert "Off" in site.sign_in().words, "after the wait, people come in"


def test_the_limits_are_those_that_we_name() -> None:
    page = (Path(__file__).parents[2] / "docs/consent.md").read_text()
    assert "| forms | 300 a minute |" in page
    assert (POSTS.most, POSTS.window) == (300, timedelta(minutes=1))
    assert "| links used, sign-ins through a provider | 60 in 10 minutes |" in page
    assert (SIGN_INS.most, SIGN_INS.window) == (60, timedelta(minutes=10))
    assert "| people added | 60 an hour to one account |" in page
    assert (ADDED.most, ADDED.window) == (60, timedelta(hours=1))
    assert "| links asked for | 30 an hour; 5 an hour to one e-mail address |" in page
    assert [(each.most, each.window) for each in (LINKS_FROM, LINKS_TO)] == [(n, timedelta(hours=1)) for n in (30, 5)]


def test_a_flood_of_posts_ends_in_waiting_and_changes_nothing(site: Site) -> None:
    browser = site.sign_in().open(PAGE)
    form = next(each for each in browser.forms if NO in each.buttons)
    codes = [browser.send(f"{PAGE}/review", form.fields).status for _ in range(310)]
    assert codes.count(429) >= 10
    assert set(codes) == {400, 429}
    browser.send(form.buttons[NO], form.fields)
    assert browser.status == 429
    assert acts(site) == []
    site.wait(minutes=1)
    browser.send(form.buttons[NO], form.fields)
    assert set(acts(site)) == {Act.DECLINED}


@pytest.mark.parametrize(
    ("address", "counts_as"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("testclient", "testclient"),
    ],
)
def test_addresses_that_one_connection_has_to_itself_count_as_one(address: str, counts_as: str) -> None:
    assert network_address(Request({"type": "http", "client": (address, 1)})) == counts_as


def test_reading_is_not_limited(site: Site) -> None:
    browser = site.sign_in()
    assert {browser.open("/account").status for _ in range(350)} == {200}


def test_looking_waits_for_no_writer(site: Site) -> None:
    browser = say_yes(site.sign_in(), AUTO)
    key, receipt = make_key(browser), live(site, site.account("Acme")[0])[0]
    link, client = site.link(site.account("Acme")[1]), browser.client
    with site.records.transaction(), ThreadPoolExecutor(1) as other:
        for page in (link, "/account", PAGE, f"/account/consent-receipts/{receipt.grant_id}", "/account/keys"):
            assert other.submit(client.get, page).result(timeout=60).status_code == 200, page
        for path in ("consent", "schedules", "webhooks", "webhooks/1/events", "schedules/1"):
            asked = other.submit(client.get, f"/v1/{path}", headers={"x-api-key": key})
            assert asked.result(timeout=60).status_code in (200, 404), path


def test_a_key_of_a_name_that_is_in_use_is_not_made(site: Site) -> None:
    """So that loading the answer again, which sends the form again, leaves no key behind that nobody has seen."""
    browser = site.sign_in()
    make_key(browser)
    form = next(each for each in browser.forms if "Make a key" in each.buttons)
    again = browser.send(form.action, [*[pair for pair in form.fields if pair[0] != "name"], ("name", " nightly run ")])
    assert again.status == 400
    assert "There is a key of that name already" in again.words
    assert 'value=" nightly run "' in again.html, "what was typed is still there"
    assert again.html.count("Revoke it for good") == 1
    make_key(again.press("Revoke it for good"))
