"""Pages that a browser has kept whole and shows again, as they were, when somebody goes back to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from consent import ledger
from schemas.industries import Industry
from tests.portal.chromium import PATIENCE, launch, sign_in
from tests.portal.conftest import Site
from tests.portal.test_in_chromium import say_yes


@pytest.fixture
def context() -> Iterator[BrowserContext]:
    """Of a browser that keeps pages, as all but those of tests do."""
    with sync_playwright() as playwright:
        browser = launch(playwright, keeps_pages=True)
        context = browser.new_context()
        context.set_default_timeout(PATIENCE)
        context.add_init_script("addEventListener('pageshow', (event) => { window.wasKept = event.persisted; });")
        yield context
        browser.close()


def go_back(page: Page) -> None:
    page.evaluate("history.back()")  # playwright's own waits for a page to be loaded, and one that was kept is not


def test_the_account_page_says_what_holds_now(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    page.get_by_role("link", name="People").click()
    expect(page).to_have_url(f"{address}/account/people")
    page.goto(f"{address}/account")
    other = context.new_page()
    other.goto(f"{address}/account")
    say_yes(other, Industry.AUTOMOTIVE)
    go_back(page)
    expect(page).to_have_url(f"{address}/account/people")
    go_back(page)
    expect(page).to_have_url(f"{address}/account")
    expect(page.locator(".state")).to_contain_text("On for 1")


def test_the_page_to_confirm_on_is_not_there_a_second_time(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    say_yes(page, Industry.AUTOMOTIVE)
    go_back(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("what turning it on means")
    with site.records.transaction() as connection:
        assert len(ledger.read_events(connection)) == 1


def test_what_a_form_was_answered_with_is_not_sent_once_more(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    page.goto(f"{address}/account/keys")
    page.get_by_label("A new key, for").fill("nightly catalog run")
    page.get_by_role("button", name="Make a key").click()
    expect(page.get_by_role("heading", name="Your new key")).to_be_visible()
    # Safari keeps such pages, too; Chromium does not, so it is told that it had.
    with page.expect_navigation() as shown:
        page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    assert shown.value is not None
    assert shown.value.request.method == "GET"
    expect(page).to_have_title("API keys · bgbatch")


def test_who_goes_back_is_where_they_were_on_the_page(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    page.set_viewport_size({"width": 600, "height": 200})
    page.evaluate("scrollTo(0, 120)")
    page.evaluate("location.assign('/nights')")
    expect(page).to_have_url(f"{address}/nights")
    with page.expect_event("domcontentloaded"):
        go_back(page)
    expect(page).to_have_url(f"{address}/account")
    page.wait_for_function("scrollY === 120")
    page.reload()
    page.evaluate("location.assign('/nights')")
    expect(page).to_have_url(f"{address}/nights")
    assert page.evaluate("scrollY") == 0


def test_after_signing_out_nothing_of_the_account_is_shown(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    page.get_by_role("link", name="People").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{address}/sign-in")
    go_back(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    expect(page.get_by_text("owner@acme.example")).to_have_count(0)


def test_what_was_chosen_to_be_sent_is_still_chosen(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    photo = {"name": "1.jpg", "mimeType": "image/jpeg", "buffer": b"x"}
    page.get_by_label("Choose photos").set_input_files(photo)  # type: ignore[arg-type]
    expect(page.get_by_role("status")).to_have_text("1 photo chosen.")
    page.get_by_role("link", name="Nights").click()
    expect(page).to_have_url(f"{address}/nights")
    go_back(page)
    expect(page).to_have_url(f"{address}/batches/new")
    expect(page.locator(".files li")).to_have_count(1)
