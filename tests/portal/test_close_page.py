"""Closing on the page: a deliberate act by an owner, and what is seen afterwards."""

from __future__ import annotations

import pytest

from schemas.industries import Industry
from store.records.people import Role, find_account
from tests.portal.browsing import Browser
from tests.portal.conftest import Site
from tests.portal.test_account_page import live, say_yes

PAGE, CLOSE = "/account/close", "Close the account for good"


def close(browser: Browser, name: str) -> Browser:
    browser.open(PAGE)
    form = next(each for each in browser.forms if CLOSE in each.buttons)
    return browser.send(form.action, [*[pair for pair in form.fields if pair[0] != "name"], ("name", name)])


def test_an_owner_who_types_the_name_closes_the_account(site: Site) -> None:
    account_id, _ = site.account("Acme")
    browser = say_yes(site.sign_in(), Industry.AUTOMOTIVE)
    member = site.sign_in_as(Role.MEMBER)
    site.wait(minutes=1)
    close(browser, "Acme")
    assert browser.status == 200
    assert "The account is closed" in browser.words
    assert account_id in browser.words
    assert "Acme" not in browser.words
    assert live(site, account_id) == []
    for each in (browser, member):
        assert "one-time link" in each.open("/account").words, "nobody is signed in any more"


@pytest.mark.parametrize("typed", ["", "acme", "Bazaar"])
def test_without_the_right_name_nothing_happens(site: Site, typed: str) -> None:
    account_id, _ = site.account("Acme")
    browser = say_yes(site.sign_in(), Industry.AUTOMOTIVE)
    assert close(browser, typed).status == 400
    assert len(live(site, account_id)) == 1
    with site.records.transaction() as connection:
        assert find_account(connection, account_id).name == "Acme"


@pytest.mark.parametrize("role", [Role.MEMBER, Role.AUDITOR])
def test_others_cannot_close_it(site: Site, role: Role) -> None:
    site.account("Acme")
    browser = site.sign_in_as(role).open(PAGE)
    assert CLOSE not in browser.words
    token = ("form_token", dict(browser.forms[0].fields)["form_token"])
    assert browser.send(PAGE, [token, ("name", "Acme")]).status == 403
    with site.records.transaction() as connection:
        assert find_account(connection, "Acme")


def test_a_forged_post_cannot_close_it(site: Site) -> None:
    site.account("Acme")
    browser = site.sign_in().open(PAGE)
    form = next(each for each in browser.forms if CLOSE in each.buttons)
    fields = [*[pair for pair in form.fields if pair[0] != "name"], ("name", "Acme")]
    assert browser.send(PAGE, fields, {"sec-fetch-site": "cross-site"}).status == 403
    assert browser.send(PAGE, [("form_token", "0" * 64), ("name", "Acme")]).status == 403
    with site.records.transaction() as connection:
        assert find_account(connection, "Acme")
