"""What all pages have in common, in a real browser: forms that are sent once, and a way on from everywhere."""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, Request, Route, expect

from schemas.ids import new_batch_id
from store.records import batches, line, webhooks
from store.records.people import Role, add_person
from tests.portal.chromium import is_accessible, sign_in
from tests.portal.conftest import Site
from tests.portal.test_certificate import purged_batch
from tests.store.purging.test_purge import stamp_of


def test_a_form_is_sent_once_however_often_it_is_pressed(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    page.goto(f"{address}/account/keys")
    page.get_by_label("A new key, for").fill("nightly")
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    waiting: list[Route] = []
    page.route("**/account/keys", lambda route: waiting.append(route))
    box = page.get_by_role("button", name="Make a key").bounding_box()
    assert box is not None
    for _ in range(3):
        page.mouse.click(box["x"] + 5, box["y"] + 5)  # a locator would wait for the answer
        page.wait_for_timeout(150)
    assert len(sent) == 1
    for route in waiting:
        route.continue_()
    expect(page.locator("code.secret")).to_contain_text("bgb_")
    page.unroute("**/account/keys")
    page.goto(f"{address}/account/keys")
    page.get_by_label("A new key, for").fill("nightly")
    page.get_by_role("button", name="Make a key").click()
    expect(page.get_by_role("alert")).to_contain_text("There is a key of that name already")


def test_who_hears_pages_hears_that_it_was_not_done_and_why(context: BrowserContext, site: Site, address: str) -> None:
    """The title is read first, then the field that one is in; an alert that comes with its page is often not read."""
    page = sign_in(context, site, address)
    for path, label, button in (
        ("/account/keys", "A new key, for", "Make a key"),
        ("/account/webhooks", "A public address", "Add it"),
        ("/account/people", "Add somebody", "Add them"),
        ("/account/close", "To close it", "Close the account for good"),
    ):
        page.goto(address + path)
        assert not page.title().startswith("Not done")
        field = page.get_by_label(label)
        expect(field).not_to_have_attribute("aria-invalid", "true")
        page.locator("form.fields").evaluate("(form) => { form.noValidate = true; }")
        field.fill(" " if path == "/account/keys" else "http://x y")
        page.get_by_role("button", name=button).click()
        expect(page).to_have_title(re.compile("^Not done: "))
        expect(field).to_be_focused()
        expect(field).to_have_accessible_description(page.get_by_role("alert").inner_text())
        assert is_accessible(page)


def test_what_cannot_be_taken_back_is_pressed_twice(context: BrowserContext, site: Site, address: str) -> None:
    """By keyboard: the first press says what the second does. A change of mind closes it again, and nothing is sent."""
    page = sign_in(context, site, address)
    account_id = site.account("Acme")[0]
    batch = new_batch_id(site.now, site.randomness)
    with site.records.transaction() as connection:
        batches.open_batch(connection, stamp_of(batch), account_id)
        line.enter(connection, batch, account_id, upload_key="k")
        webhooks.add(connection, account_id, "https://acme.example/hook", site.now, site.randomness)
        add_person(connection, account_id, "ann@acme.example", Role.MEMBER, site.now, site.randomness)
    page.goto(f"{address}/account/keys")
    page.get_by_label("A new key, for").fill("nightly")
    page.get_by_role("button", name="Make a key").click()
    page.goto(f"{address}/account/keys")
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    for path, first, second in (
        ("/account/keys", "Revoke", "Revoke it for good"),
        ("/account/webhooks", "Remove", "Remove it for good"),
        ("/account/people", "Take out", "Take them out for good"),
        (f"/batches/{batch}", "Call it off", "Call it off for good"),
    ):
        page.goto(address + path)
        asked, button = page.locator(".sure summary", has_text=first), page.get_by_role("button", name=second)
        expect(asked).to_have_count(1)
        asked.focus()
        page.keyboard.press("Enter")
        expect(button).to_be_visible()
        assert is_accessible(page)
        page.keyboard.press("Enter")
        expect(button).to_be_hidden()
        assert not sent
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator(".sure")).to_have_count(0)
        assert sent.pop().method == "POST"


def test_what_was_saved_is_said_where_it_was_saved(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    now = page.locator("#gone ~ p").filter(has_text="As it is now:")
    expect(now).to_have_text(
        "As it is now: a batch that you send is deleted after 23 hours, as for everybody; downloading deletes nothing."
    )
    page.get_by_label("Delete a finished batch").check()
    page.get_by_label("Hours until").fill("6")
    page.get_by_role("button", name="Save").click()
    expect(now).to_contain_text(
        "deleted after 6 hours; a finished batch is deleted once all its cutouts were downloaded."
    )
    expect(now).to_be_in_viewport()
    assert is_accessible(page)


def test_there_is_a_way_on_from_every_page_and_it_says_where_one_is(
    context: BrowserContext, site: Site, address: str
) -> None:
    page = sign_in(context, site, address)
    here = page.locator(".places [aria-current]")
    for path, place in (("/account/keys", "Account"), ("/batches/new", "Batches"), ("/nights", "Nights")):
        page.goto(address + path)
        expect(here).to_have_text(place)
    page.goto(f"{address}/batches/nothing")
    expect(page.get_by_role("alert")).to_contain_text("There is no batch of that id")
    expect(page.get_by_role("navigation", name="Places")).to_be_visible()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    assert is_accessible(page)
    page.goto(f"{address}/nowhere")
    page.get_by_role("link", name="Go to the start page").click()
    expect(page).to_have_url(f"{address}/account")


def test_a_purged_batch_is_told_apart_in_its_tab_and_its_certificate_leads_back(
    context: BrowserContext, site: Site, address: str
) -> None:
    batch = purged_batch(site, "Acme")
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/{batch}")
    assert re.match(r"Purged: batch of \d+ \w+ 20\d\d, \d\d:\d\d UTC · bgbatch", page.title())
    page.get_by_role("link", name="Certificate").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Certificate of deletion")
    assert is_accessible(page)
    page.emulate_media(media="print")
    expect(page.get_by_role("navigation", name="Places")).to_be_hidden()
    expect(page.get_by_text("Left over").first).to_be_visible()
    page.emulate_media(media="screen")
    page.get_by_role("link", name="The batch").click()
    expect(page).to_have_url(f"{address}/batches/{batch}")


def test_the_operators_page_points_at_what_is_wrong_and_at_nothing_else(
    context: BrowserContext, site: Site, address: str
) -> None:
    page = context.new_page()
    page.goto(f"{address}/status")
    warned = page.get_by_text("look into it")
    expect(warned).to_have_count(0)
    batch, account_id = new_batch_id(site.now, site.randomness), site.account("Acme")[0]
    with site.records.transaction() as connection:
        batches.open_batch(connection, stamp_of(batch), account_id)
    site.wait(hours=25)
    page.get_by_role("link", name="Look again").click()
    expect(page.locator("dt", has_text="Batches overdue").locator("+ dd")).to_have_text(
        "1 look into it: docs/runbook.md says how"
    )
    expect(warned).to_have_count(1)
    assert is_accessible(page)
