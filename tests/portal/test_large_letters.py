"""Pages for who sees little: letters of twice the size on a narrow phone, and a system that chooses the colours."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from flows.parts import Parts, open_parts
from store.records import webhooks
from store.records.api_keys import create_key
from store.records.people import Role, add_person
from tests.api.conftest import cut_batch, jpeg
from tests.batches import lay_out, send_folder
from tests.portal.chromium import sign_in
from tests.portal.conftest import Site
from tests.portal.test_account_page import PAGE
from tests.portal.test_rights import things_of_acme

NARROW = {"width": 360, "height": 740}


@pytest.fixture
def parts(site: Site) -> Parts:
    return open_parts(site.settings, lambda: site.now)


def a_batch(site: Site, parts: Parts) -> str:
    files = {f"{'a' * 60}/{'b' * 60}/1.jpg": jpeg(), f"VIN1/{'x' * 120}.jpg": b""}
    batch = send_folder(parts, site.account("Acme")[0], lay_out(site.settings.home.parent / "photos", files)).batch_id
    cut_batch(parts, batch)
    return batch


def with_long_words(site: Site) -> None:
    account_id, person_id = site.account("Acme")
    with site.records.transaction() as connection:
        email = f"{'x' * 150}@{'y' * 100}.example"
        add_person(connection, account_id, email, Role.MEMBER, site.now, site.randomness)
        url = f"https://{'w' * 60}.example/{'p' * 300}"
        webhooks.add(connection, account_id, url, site.now, site.randomness)
        create_key(connection, account_id, person_id, "k" * 190, site.now, site.randomness)


def test_no_page_is_wider_than_the_screen(chromium: Browser, site: Site, parts: Parts, address: str) -> None:
    batch, things = a_batch(site, parts), things_of_acme(site)
    with_long_words(site)
    schedule = f"/nights/{things['schedule_id']}"
    pages = (
        *("/account", PAGE, "/account/people", "/account/keys", "/account/webhooks", "/account/close"),
        *("/batches", "/batches/new", f"/batches/{batch}", f"/batches/{things['batch_id']}"),
        *("/nights", schedule, f"{schedule}/{things['night_id']}", "/sign-in", "/nowhere", "/status"),
    )
    with chromium.new_context(viewport=NARROW) as context:  # type: ignore[arg-type]
        page = sign_in(context, site, address)
        for each in pages:
            page.goto(address + each)
            page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
            for size in ("100%", "200%"):
                page.evaluate("(size) => { document.documentElement.style.fontSize = size; }", size)
                assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], (each, size)


def test_in_the_systems_own_colours_one_sees_where_one_is_and_what_was_cut_out(
    context: BrowserContext, site: Site, parts: Parts, address: str
) -> None:
    batch = a_batch(site, parts)
    page = sign_in(context, site, address)
    page.emulate_media(forced_colors="active", color_scheme="dark")
    page.goto(f"{address}/batches/{batch}")
    tabs = page.get_by_role("navigation", name="Photos by outcome").get_by_role("link")
    expect(tabs.nth(0)).to_have_css("border-top-width", "3px")
    expect(tabs.nth(1)).to_have_css("border-top-width", "1px")
    cutout = page.locator("img.after").first
    ground = cutout.evaluate("(picture) => getComputedStyle(picture).forcedColorAdjust")
    assert ground == "none", "a dark subject would be lost on the system's black"
