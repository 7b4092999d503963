"""Webhooks in a browser: added by an owner after the address is checked, tried, sent again, removed; nobody else's."""

from __future__ import annotations

import pytest

from store.records import webhooks
from store.records.people import Role
from store.records.webhooks import Event, Webhook
from tests.portal.browsing import Browser
from tests.portal.conftest import Site
from tests.portal.test_keys_and_limits import make_key

PAGE = "/account/webhooks"
PUBLIC = "https://93.184.215.14/hook"
"""Nobody calls it here, nor asks for its name."""


def hooked(site: Site) -> Webhook:
    """One of Acme's."""
    with site.records.transaction() as connection:
        account_id = site.accounts["Acme"][0]
        return webhooks.add(connection, account_id, "https://acme.example/<b>hook", site.now, site.randomness)


def events(site: Site, webhook: Webhook) -> list[Event]:
    with site.records.reading() as connection:
        return webhooks.events_of(connection, webhook.webhook_id)


def test_an_address_that_is_not_public_is_refused_and_nothing_is_noted(site: Site) -> None:
    browser = site.sign_in().open(PAGE)
    token = dict(browser.forms[0].fields)["form_token"]
    for url in ("http://127.0.0.1:9/x", "http://169.254.169.254/", "file:///etc/passwd", "no address"):
        refused = browser.send(PAGE, [("form_token", token), ("url", url)])
        assert refused.status == 400
        assert "Use a public http or https address." in refused.words
        assert [each.action for each in refused.forms] == ["/sign-out", PAGE], "where another can be given"
    assert "No program is told yet." in browser.open(PAGE).words


def test_a_webhook_is_tried_sent_again_and_removed_and_its_secret_is_not_shown_again(site: Site) -> None:
    browser = site.sign_in()
    webhook = hooked(site)
    browser.open(PAGE)
    assert "https://acme.example/&lt;b&gt;hook" in browser.html
    assert webhook.secret not in browser.html
    assert "ping" in press(browser, "/ping").words
    (event,) = events(site, webhook)
    with site.records.transaction() as connection:
        webhooks.note_try(connection, event, 200, True, site.now)
    assert "delivered" in browser.open(PAGE).words
    assert "1 try, last answer 200" in browser.words
    press(browser, "/replay")
    assert events(site, webhook)[0].delivered_at is None
    assert "No program is told yet." in press(browser, "/remove").words


def test_others_neither_see_nor_change_it(site: Site) -> None:
    site.account("Acme")
    webhook = hooked(site)
    stranger, member = site.sign_in("Bazaar").open(PAGE), site.sign_in_as(Role.MEMBER).open(PAGE)
    assert "acme.example" not in stranger.html.split("<main")[1]
    assert [each.action for each in member.forms] == ["/sign-out"]
    for browser, status in ((stranger, 404), (member, 403)):
        token = dict(browser.forms[0].fields)["form_token"]
        assert browser.send(f"{PAGE}/{webhook.webhook_id}/remove", [("form_token", token)]).status == status
    with site.records.reading() as connection:
        assert webhooks.list_all(connection, webhook.account_id) == [webhook]


def press(browser: Browser, ending: str) -> Browser:
    """Send the form whose action ends so."""
    (form,) = [each for each in browser.forms if each.action.endswith(ending)]
    return browser.send(form.action, form.fields)


@pytest.mark.parametrize(("role", "status"), [(Role.OWNER, 202), (Role.MEMBER, 403), (Role.AUDITOR, 403)])
def test_what_only_an_owner_does_on_the_page_nobody_else_does_by_its_session(
    site: Site, role: Role, status: int
) -> None:
    site.account("Acme")
    webhook = hooked(site)
    browser = site.sign_in() if role is Role.OWNER else site.sign_in_as(role)
    token = dict(browser.open("/account").forms[0].fields)["form_token"]
    sent = {"x-form-token": token, "sec-fetch-site": "same-origin"}
    one = f"/v1/webhooks/{webhook.webhook_id}"
    assert browser.client.post(f"{one}/ping", headers=sent).status_code == status
    if role is not Role.OWNER:
        assert browser.client.post("/v1/webhooks", json={"url": "https://x.example"}, headers=sent).status_code == 403
        assert browser.client.post(f"{one}/events/1/replay", headers=sent).status_code == 403
        assert browser.client.delete(one, headers=sent).status_code == 403
        assert browser.client.get("/v1/webhooks").json()[0]["webhook_id"] == webhook.webhook_id
        assert events(site, webhook) == []


def test_an_address_is_added_once_by_whatever_way_and_one_that_is_refused_can_be_mended(site: Site) -> None:
    browser = site.sign_in()
    program = site.browser(headers={"x-api-key": make_key(browser)}).client
    added = program.post("/v1/webhooks", json={"url": PUBLIC})
    assert added.status_code == 201
    for url in (PUBLIC, f" {PUBLIC} "):
        refused = program.post("/v1/webhooks", json={"url": url})
        assert (refused.status_code, refused.json()["code"]) == (409, "already_exists")
    browser.open(PAGE)
    token = dict(browser.forms[0].fields)["form_token"]
    mistyped = browser.send(PAGE, [("form_token", token), ("url", 'http://127.0.0.1:9/"x')])
    assert 'value="http://127.0.0.1:9/&#34;x"' in mistyped.html
    again = browser.send(PAGE, [("form_token", token), ("url", f" {PUBLIC}")])
    assert again.status == 400
    assert "is a webhook already" in again.words
    assert again.words.count("Send a ping") == 1
    assert program.delete(f"/v1/webhooks/{added.json()['webhook_id']}").status_code == 204
    assert program.post("/v1/webhooks", json={"url": PUBLIC}).json()["secret"] != added.json()["secret"]
