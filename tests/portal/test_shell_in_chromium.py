"""What all pages have in common, in a real browser: forms that are sent once, and a way on from everywhere."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, Request, Route, expect

from tests.portal.chromium import sign_in
from tests.portal.conftest import Site

pytestmark = pytest.mark.slow


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
