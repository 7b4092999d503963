"""The button: off by default, four deliberate steps to a yes, one to a no, plain HTML."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from sqlalchemy import insert, text

from consent import ledger
from consent.notice import CURRENT
from consent.suppression import open_suppressions
from schemas.consent import Act, Grant
from schemas.ids import AccountId, new_batch_id
from schemas.industries import Industry
from store.records.people import Role, add_person, remove_person
from store.records.tables import admissions
from tests.portal.browsing import Browser
from tests.portal.conftest import Site

PAGE = "/account/ai-training-data"
CONTINUE, YES, NO = "Continue with what I ticked", "Yes, turn it on", "No, leave everything as it is"


def live(site: Site, account_id: AccountId) -> list[Grant]:
    with site.records.transaction() as connection:
        return [each for each in ledger.live_grants(connection) if each.account_id == account_id]


def acts(site: Site) -> list[Act]:
    with site.records.transaction() as connection:
        return [event.act for event in ledger.read_events(connection)]


def say_yes(browser: Browser, *industries: Industry) -> Browser:
    return browser.open(PAGE).press(CONTINUE, tuple(each.value for each in industries)).press(YES)


def test_the_first_visit_says_off_and_writes_nothing(site: Site) -> None:
    browser = site.sign_in()
    main = browser.html.split("<main")[1]
    assert main.index("AI Training Data") < 300, "the button stands at the very top"
    assert "Off" in browser.words
    assert f'href="{PAGE}"' in main
    assert acts(site) == []


def test_no_box_is_ticked_and_looking_is_no_yes(site: Site) -> None:
    browser = site.sign_in().open(PAGE)
    form = next(each for each in browser.forms if CONTINUE in each.buttons)
    assert [value for _, value in form.offered] == [each.value for each in Industry]
    assert not any(name == "industry" for name, _ in form.fields)
    assert "checked" not in browser.html
    browser.press(CONTINUE, ("automotive",))
    browser.open("/account")
    assert acts(site) == []


def test_the_page_shows_exactly_the_text_whose_hash_is_kept(site: Site) -> None:
    browser = site.sign_in().open(PAGE)
    shown = " ".join(re.sub(r"<[^>]+>", " ", html.unescape(browser.html.split("<main")[1])).split())
    place = 0
    for line in filter(None, CURRENT.text.splitlines()):
        for part in line.split(": ", 1) if any(line.startswith(f"{each.label}: ") for each in Industry) else [line]:
            place = shown.index(part, place) + len(part)


def test_four_steps_grant_what_was_ticked_and_nothing_else(site: Site) -> None:
    account_id, person_id = site.account("Acme")
    browser = say_yes(site.sign_in(), Industry.AUTOMOTIVE, Industry.STUDIO)
    assert browser.status == 200
    assert "On for 2 of 6 industries" in browser.words
    assert {each.industry for each in live(site, account_id)} == {Industry.AUTOMOTIVE, Industry.STUDIO}
    with site.records.transaction() as connection:
        event = ledger.read_events(connection)[0]
    assert (event.actor, event.notice_sha256, event.page) == (person_id, CURRENT.sha256, PAGE)


def test_ticking_nothing_asks_again_and_grants_nothing(site: Site) -> None:
    browser = site.sign_in().open(PAGE).press(CONTINUE)
    assert browser.status == 400
    assert "ticked no industry" in browser.words
    assert acts(site) == []


def test_a_no_takes_one_press_and_can_become_a_yes(site: Site) -> None:
    account_id, _ = site.account("Acme")
    browser = site.sign_in().open(PAGE).press(NO)
    assert "declined" in browser.words
    assert set(acts(site)) == {Act.DECLINED}
    assert live(site, account_id) == []
    say_yes(browser, Industry.PIPELINE)
    assert [each.industry for each in live(site, account_id)] == [Industry.PIPELINE]


def test_a_no_with_boxes_ticked_is_a_no(site: Site) -> None:
    account_id, _ = site.account("Acme")
    site.sign_in().open(PAGE).press(NO, ("automotive",))
    assert live(site, account_id) == []


def test_leaving_one_industry_ends_that_grant_alone(site: Site) -> None:
    account_id, _ = site.account("Acme")
    browser = say_yes(site.sign_in(), Industry.AUTOMOTIVE, Industry.STUDIO)
    browser.press("Turn off", nth=0)
    assert [each.industry for each in live(site, account_id)] == [Industry.STUDIO]
    assert "withdrawn" in browser.words


def test_everything_can_be_turned_off_with_one_press(site: Site) -> None:
    account_id, _ = site.account("Acme")
    browser = say_yes(site.sign_in(), *Industry)
    browser.press("Turn off for all industries")
    assert live(site, account_id) == []
    assert acts(site).count(Act.WITHDRAWN) == len(Industry)


def test_all_is_all_also_what_somebody_turned_on_since_the_page_was_shown(site: Site) -> None:
    account_id, _ = site.account("Acme")
    for path in ("/account", PAGE):
        browser = say_yes(site.sign_in(), Industry.AUTOMOTIVE, Industry.STUDIO).open(path)
        say_yes(site.sign_in(), Industry.ECOMMERCE)
        browser.press("Turn off for all industries")
        assert live(site, account_id) == []


def test_it_is_turned_off_on_the_page_that_says_so(site: Site) -> None:
    """`Turn it off on this page`, the notice says, `for one industry or for all`."""
    account_id, _ = site.account("Acme")
    browser = say_yes(site.sign_in(), *Industry).open(PAGE)
    assert CONTINUE not in browser.words, "there is nothing left to tick"
    browser.press("Turn off", nth=1)
    assert browser.at == "/account"
    assert [each.industry for each in live(site, account_id)] == [
        each for each in Industry if each is not list(Industry)[1]
    ]
    browser.open(PAGE).press("Turn off for all industries")
    assert live(site, account_id) == []
    assert "Turn off" not in browser.open(PAGE).words


def test_what_is_turned_off_is_noted_beside_the_lake_at_once(site: Site) -> None:
    account_id, _ = site.account("Acme")
    browser = say_yes(site.sign_in(), Industry.AUTOMOTIVE)
    (grant,) = live(site, account_id)
    browser.press("Turn off")
    assert open_suppressions(site.settings).files("grants") == [f"{grant.grant_id}.json"]


def test_the_history_says_who_pressed_while_they_are_in_the_account(site: Site) -> None:
    owner = say_yes(site.sign_in(), Industry.AUTOMOTIVE)
    account_id, _ = site.account("Acme")
    with site.records.transaction() as connection:
        ann = add_person(connection, account_id, "ann@acme.example", Role.OWNER, site.now, site.randomness)
    site.browser().open(site.link(ann)).press("Sign in").press("Turn off")
    history = owner.open("/account").words.split("History")[1]
    assert "Automotive inventory photos on this page by ann@acme.example" in history
    assert "Automotive inventory photos on this page by owner@acme.example" in history
    with site.records.transaction() as connection:
        remove_person(connection, account_id, "ann@acme.example")
    assert "on this page by somebody who has left the account" in owner.open("/account").words


def test_of_many_batches_that_gave_images_the_page_lists_the_last(site: Site) -> None:
    """A dealer's year of them was a page of megabytes."""
    browser = say_yes(site.sign_in(), Industry.AUTOMOTIVE)
    (grant,) = live(site, site.account("Acme")[0])
    ids = [new_batch_id(site.now + timedelta(minutes=minute), site.randomness) for minute in range(203)]
    of_all = {"grant_id": grant.grant_id, "industry": grant.industry, "rows": 2, "bytes": 1, "sha256": "0" * 64}
    rows = [{"key": each, "batch_id": each, "items": [1, 2], "admitted_at": site.now, **of_all} for each in ids]
    with site.records.transaction() as connection:
        connection.execute(insert(admissions), rows)
    page = browser.open("/account").html
    assert [each in page for each in ids] == [False] * 3 + [True] * 200
    assert "406 images from 203 batches" in " ".join(page.split())
    assert "And 3 earlier batches." in page


def test_industries_that_are_on_are_not_asked_about_again(site: Site) -> None:
    browser = say_yes(site.sign_in(), Industry.AUTOMOTIVE).open(PAGE)
    form = next(each for each in browser.forms if CONTINUE in each.buttons)
    assert "automotive" not in [value for _, value in form.offered]


@pytest.mark.parametrize("step", ["review", "grant"])
def test_a_page_with_an_older_text_grants_nothing(site: Site, step: str) -> None:
    account_id, _ = site.account("Acme")
    browser = site.sign_in().open(PAGE)
    fields = dict(next(each for each in browser.forms if CONTINUE in each.buttons).fields)
    fields |= {"industry": "automotive", "notice_version": "2020-01-01"}
    browser.send(f"{PAGE}/{step}", list(fields.items()))
    assert browser.status == 409
    assert "changed" in browser.words
    assert live(site, account_id) == []


@pytest.mark.parametrize("role", [Role.MEMBER, Role.AUDITOR])
def test_others_in_the_account_see_the_page_and_change_nothing(site: Site, role: Role) -> None:
    account_id, _ = site.account("Acme")
    owner = say_yes(site.sign_in(), Industry.STUDIO).open(PAGE)
    form = next(each for each in owner.forms if CONTINUE in each.buttons)
    browser = site.sign_in_as(role)
    assert "On for 1 of 6" in browser.words
    assert [each.action for each in browser.forms] == ["/sign-out"]
    own_token = ("form_token", dict(browser.forms[0].fields)["form_token"])
    rest = [pair for pair in form.fields if pair[0] != "form_token"]
    for step in ("review", "grant", "decline", "withdraw"):
        browser.send(f"{PAGE}/{step}", [own_token, *rest, ("industry", "studio"), ("industry", "automotive")])
        assert browser.status == 403
    assert [each.industry for each in live(site, account_id)] == [Industry.STUDIO]


def test_two_accounts_do_not_see_or_change_each_other(site: Site) -> None:
    acme, bazaar = site.account("Acme")[0], site.account("Bazaar")[0]
    say_yes(site.sign_in("Acme"), Industry.AUTOMOTIVE)
    browser = site.sign_in("Bazaar")
    assert "Off" in browser.words
    token = dict(browser.forms[0].fields)["form_token"]
    smuggled = [("form_token", token), ("industry", "automotive"), ("account_id", acme), ("account", "Acme")]
    browser.send(f"{PAGE}/withdraw", smuggled)
    assert len(live(site, acme)) == 1
    assert live(site, bazaar) == []


@pytest.mark.parametrize("damage", ["industry = 'studio'", "method = 'x'"])
def test_a_damaged_ledger_shows_nothing_as_on_and_stops_no_withdrawal(site: Site, damage: str) -> None:
    account_id, _ = site.account("Acme")
    browser = say_yes(site.sign_in(), Industry.AUTOMOTIVE)
    with site.records.transaction() as connection:
        connection.execute(text("DROP TRIGGER consent_events_no_update"))
        connection.execute(text(f"UPDATE consent_events SET {damage}"))
    browser.open("/account")
    assert browser.status == 200
    assert "could not be read" in browser.words
    assert "On for" not in browser.words
    assert browser.press("Turn off for all industries").status == 200
    assert live(site, account_id) == []


def test_an_unknown_industry_grants_nothing(site: Site) -> None:
    browser = site.sign_in().open(PAGE)
    fields = next(each for each in browser.forms if CONTINUE in each.buttons).fields
    browser.send(f"{PAGE}/grant", [*fields, ("industry", "automotive"), ("industry", "everything")])
    assert browser.status == 422
    assert acts(site) == []


def test_a_consent_receipt_is_downloaded_by_its_own_account_only(site: Site) -> None:
    account_id, _ = site.account("Acme")
    browser = say_yes(site.sign_in(), Industry.AUTOMOTIVE)
    (grant,) = live(site, account_id)
    path = f"/account/consent-receipts/{grant.grant_id}"
    assert path in browser.html
    answer = browser.client.get(path)
    assert answer.headers["content-type"] == "application/ld+json"
    assert answer.json()["dpv:hasRecordOfActivity"]["dct:identifier"] == grant.grant_id
    assert site.sign_in("Bazaar").open(path).status == 404
    assert site.browser().client.get(path, follow_redirects=False).status_code == 303
