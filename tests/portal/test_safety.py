"""Sign-in, sessions, and the posts that are refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from consent import ledger
from portal.web.body_limit import BATCH, FORM, STRANGER, VALUES
from store.records.people import create_account
from store.records.sessions import LINK_LIFE, SESSION_LIFE
from store.records.tables import sessions, sign_in_links
from tests.portal.browsing import Browser
from tests.portal.conftest import Site, opened
from tests.portal.test_account_page import CONTINUE, PAGE, YES
from tests.portal.test_keys_and_limits import make_key, paths_of
from tests.records import at_home


def ready_form(site: Site) -> tuple[Browser, list[tuple[str, str]]]:
    """A browser on the page of choice, and all that a granting post needs."""
    browser = site.sign_in().open(PAGE)
    fields = next(each for each in browser.forms if CONTINUE in each.buttons).fields
    return browser, [*fields, ("industry", "automotive")]


def nothing_stands(site: Site) -> bool:
    with site.records.transaction() as connection:
        return ledger.read_events(connection) == []


def test_the_form_of_these_tests_would_grant(site: Site) -> None:
    browser, fields = ready_form(site)
    browser.send(f"{PAGE}/grant", fields)
    assert not nothing_stands(site)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:8080"},
        {"origin": "http://127.0.0.1"},
    ],
)
def test_a_post_from_another_site_changes_nothing(site: Site, headers: dict[str, str]) -> None:
    browser, fields = ready_form(site)
    for step in ("review", "grant", "decline", "withdraw"):
        browser.send(f"{PAGE}/{step}", fields, headers)
        assert browser.status == 403
    assert nothing_stands(site)


@pytest.mark.parametrize("token", [None, "", "0" * 64, "ä"])
def test_a_post_without_this_sessions_form_token_changes_nothing(site: Site, token: str | None) -> None:
    browser, fields = ready_form(site)
    other = [pair for pair in fields if pair[0] != "form_token"] + (
        [("form_token", token)] if token is not None else []
    )
    for step in ("review", "grant", "decline", "withdraw"):
        browser.send(f"{PAGE}/{step}", other)
        assert browser.status in (403, 422)
    assert nothing_stands(site)


def test_another_sessions_form_token_changes_nothing(site: Site) -> None:
    _, fields = ready_form(site)
    other = site.sign_in("Bazaar")
    other.send(f"{PAGE}/grant", fields)
    assert other.status == 403
    assert nothing_stands(site)


def test_a_form_that_was_sent_grants_nothing_more_once_it_was_taken_back(site: Site) -> None:
    browser, fields = ready_form(site)
    browser.send(f"{PAGE}/grant", fields)
    token = next(pair for pair in fields if pair[0] == "form_token")
    browser.send(f"{PAGE}/withdraw", [token, ("industry", "automotive")])
    browser.send(f"{PAGE}/grant", fields)
    assert browser.status == 409
    with site.records.transaction() as connection:
        assert ledger.live_grants(connection) == []


def test_getting_never_grants(site: Site) -> None:
    browser, fields = ready_form(site)
    for step in ("grant", "decline", "withdraw"):
        answer = browser.client.get(f"{PAGE}/{step}", params=dict(fields))
        assert answer.status_code == 405
    browser.send(f"{PAGE}/review", fields)
    assert (browser.at, YES in browser.words) == (f"{PAGE}/review", True)
    assert browser.open(f"{PAGE}/review?{browser.query}").words.count(YES) == 1, "it can be loaded again"
    assert nothing_stands(site)


def test_only_what_was_ticked_a_moment_ago_in_this_session_is_shown_to_be_confirmed(site: Site) -> None:
    """A link from elsewhere leads to the notice, whatever it holds: nobody ticks a box for somebody else."""
    browser, fields = ready_form(site)
    sealed = browser.send(f"{PAGE}/review", fields).query
    seal = sealed.partition("choice=")[2]

    def leads_to_the_notice(asked: str, who: Browser = browser) -> bool:
        answer = who.client.get(f"{PAGE}/review?{asked}", follow_redirects=False)
        return (answer.status_code, answer.headers.get("location")) == (303, PAGE)

    assert not leads_to_the_notice(sealed)
    for asked in ("", "industry=automotive", f"choice={seal}", f"industry=studio&choice={seal}", f"{sealed[:-1]}g"):
        assert leads_to_the_notice(asked), asked
    assert leads_to_the_notice(f"industry=studio&{sealed}"), "a box more"
    assert leads_to_the_notice(sealed, site.sign_in()), "the same person's other session"
    browser.send(f"{PAGE}/decline", [pair for pair in fields if pair[0] == "form_token"])
    assert leads_to_the_notice(sealed), "something was decided since"
    assert browser.send(f"{PAGE}/review", fields).status == 409
    assert "Something was decided since" in browser.words
    with site.records.transaction() as connection:
        assert ledger.live_grants(connection) == []


def test_nobody_signed_in_sees_the_way_in(site: Site) -> None:
    for path in ("/", "/account", PAGE):
        browser = site.browser().open(path)
        assert (browser.status, "one-time link" in browser.words) == (200, True)
    assert site.browser().send(f"{PAGE}/grant", [("industry", "automotive")]).status == 401


def test_a_link_is_looked_at_often_and_used_once(site: Site) -> None:
    link = site.link(site.account("Acme")[1])
    for _ in range(3):
        assert site.browser().open(link).status == 200
    assert "Off" in site.browser().open(link).press("Sign in").words
    assert site.browser().open(link).status == 410
    again = site.browser().send(link, [])
    assert again.status == 403
    assert "Off" not in again.words


def test_a_link_says_whom_it_signs_in_to_what_and_no_whole_address(site: Site) -> None:
    browser = site.browser().open(site.link(site.account("Acme")[1]))
    assert "Press to sign in to Acme as o…@acme.example on this device." in browser.words
    assert "owner@" not in browser.html


def test_links_and_sessions_end(site: Site) -> None:
    link = site.link(site.account("Acme")[1])
    site.wait(seconds=LINK_LIFE.total_seconds())
    assert site.browser().send(link, []).status == 403
    browser = site.sign_in()
    site.wait(seconds=SESSION_LIFE.total_seconds())
    assert "one-time link" in browser.open("/account").words
    site.sign_in()
    with site.records.transaction() as connection:
        assert len(connection.execute(sessions.select()).all()) == 1, "expired ones are deleted"
        assert connection.execute(sign_in_links.select()).all() == []


@pytest.mark.parametrize("way", ["/batches", "/batches/new", "/nights"])
def test_who_was_on_the_way_to_a_page_comes_there_by_signing_in(site: Site, way: str) -> None:
    browser = site.browser().open(way)
    assert "one-time link" in browser.words
    came = browser.open(site.link(site.account("Acme")[1])).press("Sign in")
    assert came.at == way
    assert browser.open(site.link(site.account("Acme")[1])).press("Sign in").at == "/account", "once"


@pytest.mark.parametrize(
    "way", ["//evil.example", "https://evil.example/batches", "/batches/../account", "/batches/x.zip", PAGE, "/\\evil"]
)
def test_signing_in_leads_to_no_other_place(site: Site, way: str) -> None:
    client = site.browser().client
    client.get(way if way.startswith("/b") or way == PAGE else "/account")
    client.cookies.set("bgbatch-way", way)
    answer = client.post(site.link(site.account("Acme")[1]), follow_redirects=False)
    assert answer.headers["location"] == "/account"


@pytest.mark.parametrize(
    "path", ["/batches/", "/account/", "/v1/batches/", "/v1", "/static", "//evil.example/batches/"]
)
def test_no_redirect_leads_to_the_host_that_a_request_names(site: Site, path: str) -> None:
    """Nor from TLS to http, with a program's key, behind a proxy that says nothing of it."""
    client = site.browser(headers={"x-api-key": make_key(site.sign_in()), "host": "evil.example"}).client
    for method in ("GET", "POST"):
        answer = client.request(method, path, follow_redirects=False)
        assert (answer.status_code, answer.headers.get("location")) == (404, None)


def test_signing_out_ends_the_session_for_good(site: Site) -> None:
    browser = site.sign_in()
    cookie = browser.client.cookies.get("bgbatch")
    browser.press("Sign out")
    thief = site.browser(cookies={"bgbatch": cookie})
    assert "one-time link" in thief.open("/account").words


def test_no_token_is_kept_in_the_database(site: Site) -> None:
    link = site.link(site.account("Acme")[1])
    browser = site.sign_in()
    token = browser.client.cookies.get("bgbatch")
    kept = b"".join(path.read_bytes() for path in site.settings.home.glob("records.db*"))
    assert link.removeprefix("/sign-in/").encode() not in kept
    assert token.encode() not in kept


def test_every_answer_carries_the_safety_headers(site: Site) -> None:
    client = site.sign_in().client
    for path in ("/account", PAGE, "/sign-in", "/sign-in/x", "/nowhere", "/account/nothing", "/static/portal.css"):
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == ("no-cache" if "static" in path else "no-store")


def test_what_any_route_answers_is_kept_by_no_browser_and_no_proxy(site: Site) -> None:
    client = site.sign_in().client
    routes = [(path, methods) for path, methods in paths_of(site.app.routes) if not path.startswith("/static")]
    assert len(routes) > 60
    for path, methods in routes:
        answer = client.request(min(methods), re.sub("{[^}]*}", "1", path), follow_redirects=False)
        assert answer.headers["cache-control"] == "no-store", (path, methods)


def test_a_script_that_has_not_changed_is_not_sent_again(site: Site) -> None:
    client = site.browser().client
    tag = client.get("/static/portal.js").headers["etag"]
    assert client.get("/static/portal.js", headers={"if-none-match": tag}).status_code == 304
    assert client.get("/static/portal.js", headers={"if-none-match": '"of an older version"'}).status_code == 200


def test_the_cookie_is_kept_from_scripts_and_other_sites(site: Site) -> None:
    client = site.browser().client
    answer = client.post(site.link(site.account("Acme")[1]), follow_redirects=False)
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/" in cookie


def test_over_tls_cookie_and_browser_are_held_to_it(tmp_path: Path) -> None:
    flags = {"httponly", "path=/", "samesite=lax", "secure"}
    with opened(at_home(tmp_path, portal_url="https://cut.example/")) as site:
        browser = Browser(TestClient(site.app, base_url="https://cut.example"))
        came_in = browser.client.post(site.link(site.account("Acme")[1]), follow_redirects=False)
        cookie, *told = came_in.headers["set-cookie"].split("; ")
        assert cookie.startswith("__Host-bgbatch=")
        assert {each.lower() for each in told} == flags | {"max-age=43200"}
        assert came_in.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
        token = dict(browser.open("/account").forms[0].fields)["form_token"]
        origin = {"origin": "https://cut.example"}
        went = browser.client.post("/sign-out", data={"form_token": token}, headers=origin, follow_redirects=False)
        cookie, *told = went.headers["set-cookie"].split("; ")
        assert cookie == '__Host-bgbatch=""'
        assert flags | {"max-age=0"} <= {each.lower() for each in told}


def test_without_tls_browsers_are_asked_for_none(site: Site) -> None:
    answer = site.browser().client.post(site.link(site.account("Acme")[1]), follow_redirects=False)
    assert "secure" not in answer.headers["set-cookie"].lower()
    assert "strict-transport-security" not in answer.headers


def test_names_are_shown_as_text_not_as_markup(site: Site) -> None:
    with site.records.transaction() as connection:
        name, email = "<script>alert(1)</script>", "o'x&amp@acme.example"
        _, owner = create_account(connection, name, email, site.now, site.randomness)
    page = site.browser().open(site.link(owner))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.html
    assert name not in page.html
    assert "o&#39;x&amp;amp@acme.example" in page.press("Sign in").html


def sent_in_pieces(size: int) -> Iterator[bytes]:
    """A body that does not say beforehand how long it is."""
    for _ in range(size // 100_000):
        yield b"x" * 100_000


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
def test_a_form_that_is_too_large_is_refused_before_anybody_asks_whose_it_is(site: Site, kind: str) -> None:
    client = site.browser().client
    for body in (b"email=" + b"x" * FORM, sent_in_pieces(2 * FORM)):
        answer = client.post("/sign-in", content=body, headers={"content-type": kind})
        assert answer.status_code == 413
        assert "more than 1 MB" in answer.text
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize(("path", "most"), [("/v1/batches", BATCH), ("/v1/webhooks", FORM)])
def test_a_request_that_is_too_large_is_refused_in_the_apis_own_words(site: Site, path: str, most: int) -> None:
    client = site.browser(headers={"x-api-key": make_key(site.sign_in())}).client
    at_most = b'{"a": "' + b"x" * (most - 9) + b'"}'
    assert client.post(path, content=at_most).status_code == 422
    answer = client.post(path, content=at_most + b" ")
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/webhooks", "/v1/consent/withdrawals"])
def test_of_a_program_without_a_key_no_large_body_becomes_objects(site: Site, path: str) -> None:
    """30 MB of JSON became 800 MB of them, for whoever sent it: one that can be read by nobody tells who reads it."""
    key, no_json = make_key(site.sign_in()), b"{" * (STRANGER + 1)
    stranger = site.browser(headers={"content-type": "application/json"}).client
    for headers in ({}, {"x-api-key": key[:-1]}, {"x-api-key": ""}, {"cookie": "bgbatch=" + "0" * 64}):
        for body in (no_json, sent_in_pieces(2 * FORM), sent_in_pieces(2 * BATCH)):
            answer = stranger.post(path, content=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "key_needed"), headers
    assert stranger.post(path, content=no_json, headers={"x-api-key": key}).status_code == 422
    session = {"cookie": f"bgbatch={site.sign_in().client.cookies['bgbatch']}"}
    assert stranger.post(path, content=no_json, headers=session).status_code == 422


def test_more_values_than_photos_can_have_become_no_objects(site: Site) -> None:
    client = site.browser(headers={"x-api-key": make_key(site.sign_in())}).client
    answer = client.post("/v1/batches", content=b"[" + b"0," * (VALUES + 1) + b"0]")
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
    assert "values of JSON" in answer.json()["detail"]
    many = dict.fromkeys(map(str, range(2_000)), 1)
    for wanted in (many, {"options": many}, {"items": [many]}, {"items": [{"url": "x", "options": many}]}):
        told = client.post("/v1/batches", json=wanted).json()["detail"]
        assert told.endswith("An object has at most 100 fields."), told
        assert (told.count(";"), "Value error" in told) == (0, False)
    told = client.post("/v1/batches", json={"items": [{}] * 1_000}).json()["detail"]
    assert told == "body.items.0.url: Field required", "the first photo tells what is wrong with all"
    told = client.post("/v1/batches", json={"items": [{"url": "x"}] * 100_001}).json()["detail"]
    assert told == "body.items: At most 100,000 may stand here."


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "items/a.jpg"), ("POST", "uploads"), ("PATCH", "uploads/1"), ("POST", "retry"), ("POST", "/sign-in")],
)
def test_of_a_strangers_body_no_more_is_read_than_the_limit(site: Site, method: str, path: str) -> None:
    read = 0

    async def receive() -> dict[str, object]:
        nonlocal read
        read += 100_000
        assert read <= 21 * FORM
        return {"type": "http.request", "body": b"x" * 100_000, "more_body": True}

    async def send(message: dict[str, object]) -> None:
        pass

    headers = [(b"content-type", b"application/x-www-form-urlencoded"), (b"upload-length", b"9")]
    where = path if path.startswith("/") else f"/v1/batches/1/{path}"
    scope = {
        "type": "http",
        "method": method,
        "path": where,
        "raw_path": where.encode(),
        "query_string": b"",
        "headers": [*headers, (b"upload-metadata", b"filename YQ==")],
        "scheme": "http",
        "server": ("127.0.0.1", 8080),
        "client": ("127.0.0.1", 1),
    }
    asyncio.run(site.app(scope, receive, send))


def test_a_page_that_there_is_not_and_a_form_that_cannot_be_read_are_answered_by_a_page(site: Site) -> None:
    browser = site.sign_in()
    for status, answer in (
        (404, browser.client.get("/nowhere")),
        (404, browser.client.get("/static/nowhere.css")),
        (405, browser.client.put("/account")),
        (400, browser.client.post("/sign-in", data={f"{number}": "x" for number in range(1001)})),
    ):
        assert answer.status_code == status
        assert "<h1>That did not work</h1>" in answer.text
        assert answer.headers["Content-Type"].startswith("text/html")
    assert browser.client.put("/account").headers["Allow"] == "GET"
