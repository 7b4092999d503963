"""The account page in a real browser: what a person can do, and what others cannot make them do."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pydantic import SecretStr
from sqlalchemy import insert

from consent import ledger
from lake.erase import LOOKED_INTO
from schemas.consent import Act, Grant
from schemas.ids import new_batch_id
from schemas.industries import Industry
from schemas.receipt import Erased
from store.purging.receipts import begin_erasures, finish_erasures
from store.records.people import Role, add_person, person_of
from store.records.tables import admissions, pulled_grants, pulls
from store.settings import Settings
from tests.portal.chromium import DESKTOP, PHONE, SCREENSHOTS, another_site, is_accessible, serving, sign_in
from tests.portal.conftest import Site, opened
from tests.portal.provider_server import CLIENT, SECRET, identity_provider
from tests.portal.test_account_page import PAGE, acts, live
from tests.ports import free_port

AUTO, STUDIO, SHOP = Industry.AUTOMOTIVE, Industry.STUDIO, Industry.ECOMMERCE


def say_yes(page: Page, *industries: Industry) -> None:
    page.locator(f"a[href='{PAGE}'].button").click()
    for industry in industries:
        page.get_by_role("checkbox", name=industry.label).check()
    page.get_by_role("button", name="Continue with what I ticked").click()
    page.get_by_role("button", name="Yes, turn it on").click()
    expect(page.locator(".state")).to_contain_text("On for")


def test_a_first_visit_by_keyboard_alone_and_a_no(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    expect(page.locator(".state")).to_have_text("Off")
    button = page.locator(f"a[href='{PAGE}'].button")
    box = button.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 300, "the button is seen without scrolling"
    for _ in range(10):
        page.keyboard.press("Tab")
        if button.evaluate("element => element === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("what turning it on means")
    boxes = page.get_by_role("checkbox")
    expect(boxes).to_have_count(len(Industry))
    for box in boxes.all():
        expect(box).not_to_be_checked()
    page.get_by_role("button", name="No, leave everything as it is").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{address}/account")
    expect(page.locator(".state")).to_have_text("Off")
    assert set(acts(site)) == {Act.DECLINED}


def test_closing_the_page_at_any_step_changes_nothing(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    page.goto(address + PAGE)
    page.get_by_role("checkbox", name=AUTO.label).check()
    page.get_by_role("button", name="Continue with what I ticked").click()
    expect(page.get_by_role("button", name="Yes, turn it on")).to_be_visible()
    page.close()
    assert acts(site) == []


def test_going_back_does_not_bring_ticks_back(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    page.goto(address + PAGE)
    page.get_by_role("checkbox", name=AUTO.label).check()
    page.get_by_role("link", name="bgbatch").click()
    expect(page.locator(".state")).to_have_text("Off")
    page.go_back()
    expect(page.get_by_role("checkbox")).to_have_count(len(Industry))
    assert page.get_by_role("checkbox", checked=True).count() == 0
    page.reload()
    expect(page.get_by_role("checkbox")).to_have_count(len(Industry))
    assert page.get_by_role("checkbox", checked=True).count() == 0


def test_going_back_after_a_yes_or_loading_it_again_sends_no_form_a_second_time(
    context: BrowserContext, site: Site, address: str
) -> None:
    page = sign_in(context, site, address)
    page.goto(address + PAGE)
    page.get_by_role("checkbox", name=AUTO.label).check()
    page.get_by_role("button", name="Continue with what I ticked").click()
    yes = page.get_by_role("button", name="Yes, turn it on")
    expect(yes).to_be_visible()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.reload()
    expect(yes).to_be_visible()
    assert sent == []
    yes.click()
    expect(page.locator(".state")).to_contain_text("On for 1")
    page.go_back()
    expect(page).to_have_url(address + PAGE)
    expect(page.get_by_role("heading", level=1)).to_contain_text("what turning it on means")
    expect(yes).to_have_count(0)
    page.go_forward()
    expect(page.locator(".state")).to_contain_text("On for 1")
    assert sent == [f"{address}{PAGE}/grant"]
    assert acts(site) == [Act.GRANTED]


def test_yes_then_another_industry_then_no_more(context: BrowserContext, site: Site, address: str) -> None:
    account_id, _ = site.account("Acme")
    page = sign_in(context, site, address)
    say_yes(page, AUTO, STUDIO)
    assert {each.industry for each in live(site, account_id)} == {AUTO, STUDIO}
    say_yes(page, SHOP)
    expect(page.locator(".state")).to_have_text("On for 3 of 6 industries")
    page.get_by_role("button", name=f"Turn off for {STUDIO.label}").click()
    expect(page.locator(".state")).to_have_text("On for 2 of 6 industries")
    assert {each.industry for each in live(site, account_id)} == {AUTO, SHOP}
    page.get_by_role("button", name="Turn off for all industries").click()
    expect(page.locator(".state")).to_have_text("Off")
    assert live(site, account_id) == []


def test_all_of_it_works_without_javascript(chromium: Browser, site: Site, address: str) -> None:
    account_id, _ = site.account("Acme")
    with chromium.new_context(java_script_enabled=False, viewport=PHONE) as context:
        page = sign_in(context, site, address)
        say_yes(page, AUTO)
        assert [each.industry for each in live(site, account_id)] == [AUTO]
        page.get_by_role("button", name="Turn off").click()
        expect(page.locator(".state")).to_have_text("Off")
        assert live(site, account_id) == []


def test_two_tabs_at_once(context: BrowserContext, site: Site, address: str) -> None:
    """Both confirm the same form: one grant. Then one turns off while the other still shows it on: off is off."""
    account_id, _ = site.account("Acme")
    tabs = [sign_in(context, site, address), context.new_page()]
    for tab in tabs:
        tab.goto(address + PAGE)
        tab.get_by_role("checkbox", name=AUTO.label).check()
        tab.get_by_role("button", name="Continue with what I ticked").click()
    for tab in tabs:
        tab.get_by_role("button", name="Yes, turn it on").click()
        expect(tab.locator(".state")).to_contain_text("On for 1")
    assert acts(site) == [Act.GRANTED]
    for tab in tabs:
        tab.get_by_role("button", name=f"Turn off for {AUTO.label}").click()
        expect(tab.locator(".state")).to_have_text("Off")
    assert acts(site) == [Act.GRANTED, Act.WITHDRAWN]
    assert live(site, account_id) == []


def test_signing_out_in_one_tab_disarms_the_other(context: BrowserContext, site: Site, address: str) -> None:
    tab, other = sign_in(context, site, address), context.new_page()
    tab.goto(address + PAGE)
    tab.get_by_role("checkbox", name=AUTO.label).check()
    other.goto(f"{address}/account")
    other.get_by_role("button", name="Sign out").click()
    expect(other).to_have_url(f"{address}/sign-in")
    tab.get_by_role("button", name="Continue with what I ticked").click()
    expect(tab.get_by_role("alert")).to_contain_text("not signed in")
    assert acts(site) == []


def test_another_site_cannot_press_the_button(context: BrowserContext, site: Site, address: str) -> None:
    """Even one that has somehow learned the form's token: the browser sends no cookie, and says who sent it."""
    account_id, _ = site.account("Acme")
    page = sign_in(context, site, address)
    page.goto(address + PAGE)
    fields = {
        each: page.locator(f"#choose input[name={each}]").input_value()
        for each in ("form_token", "notice_version", "notice_sha256")
    }
    hidden = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
    trap = f"""<form method="post" action="{address}{PAGE}/grant">{hidden}<input name="industry" value="automotive">
        <button>Win a prize</button></form>"""
    with another_site(trap) as evil:
        page.goto(evil)
        with page.expect_response(f"{address}{PAGE}/grant") as caught:
            page.get_by_role("button", name="Win a prize").click()
        assert caught.value.status == 403
    assert live(site, account_id) == []
    assert acts(site) == []


def test_another_site_cannot_frame_the_page(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    with another_site(f'<iframe id="it" src="{address}/account" width="900" height="900"></iframe>') as evil:
        with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
            page.goto(evil)
        framed = page.frames[1]
        assert "AI Training Data" not in framed.content()


def test_another_accounts_id_leads_nowhere(chromium: Browser, site: Site, address: str) -> None:
    acme, _ = site.account("Acme")
    with chromium.new_context() as first, chromium.new_context() as second:
        say_yes(sign_in(first, site, address, "Acme"), AUTO)
        page = sign_in(second, site, address, "Bazaar")
        for path in (f"/account/{acme}", f"/account?account_id={acme}", f"{PAGE}?account_id={acme}"):
            page.goto(address + path)
            assert acme not in page.locator("body").inner_text()
            assert "On for" not in page.locator("body").inner_text()
        status = page.evaluate(
            """async ([path, account]) => {
                const body = new URLSearchParams({form_token: 'x', industry: 'automotive', account_id: account});
                return (await fetch(path, {method: 'POST', body})).status;
            }""",
            [f"{address}{PAGE}/withdraw", acme],
        )
        assert status == 403
    assert len(live(site, acme)) == 1


def test_the_pages_run_no_inline_script_and_load_nothing_from_elsewhere(
    context: BrowserContext, site: Site, address: str
) -> None:
    asked: list[str] = []
    complaints: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(address + site.link(site.account("Acme")[1]))
    page.get_by_role("button", name="Sign in").click()
    say_yes(page, AUTO)
    assert all(url.startswith(address) for url in asked)
    assert complaints == []
    page.evaluate("""() => { const script = document.createElement('script');
        script.textContent = 'window.broken = true'; document.body.append(script); }""")
    assert page.evaluate("window.broken === undefined"), "the content security policy must stop it"


def test_through_an_identity_provider_on_another_site(context: BrowserContext, tmp_path: Path) -> None:
    """There and back with real cookies: the way back comes from another site, and the cookie comes with it."""
    port = free_port()
    with identity_provider() as provider:
        provider.issuer = provider.issuer.replace("127.0.0.1", "localhost")
        provider.person = {"sub": "1", "email": "owner@acme.example", "email_verified": True}
        settings = Settings(
            home=tmp_path / "portal",
            portal_url=f"http://127.0.0.1:{port}",
            oidc_issuer=provider.issuer,
            oidc_client_id=CLIENT,
            oidc_client_secret=SecretStr(SECRET),
            oidc_name="Acme ID",
        )
        with opened(settings) as site, serving(site.app, port) as address:
            provider.now = lambda: site.now.timestamp()
            site.account("Acme")
            page = context.new_page()
            page.goto(f"{address}/batches")
            expect(page).to_have_url(f"{address}/sign-in")
            page.screenshot(path=SCREENSHOTS / "13-provider-desktop-light.png", full_page=True)
            assert is_accessible(page)
            page.get_by_role("link", name="Sign in with Acme ID").click()
            expect(page.get_by_text("Press to sign in to Acme as")).to_be_visible()
            page.get_by_role("button", name="Sign in").click()
            expect(page).to_have_url(f"{address}/batches")
            assert {each["name"] for each in context.cookies()} == {"bgbatch"}, "the cookies of the way are gone"
            page.get_by_role("link", name="Account").click()
            expect(page.locator(".state")).to_have_text("Off")
            say_yes(page, AUTO)
            assert acts(site) == [Act.GRANTED]
            page.get_by_role("button", name="Sign out").click()
            expect(page).to_have_url(f"{address}/sign-in")
            provider.person = {}
            page.get_by_role("link", name="Sign in with Acme ID").click()
            expect(page.get_by_role("alert")).to_contain_text("did not sign you in")


SCHEMES: dict[Literal["light", "dark"], list[str]] = {"light": [], "dark": ["color-contrast", "link-in-text-block"]}
"""And axe's rules to try there, if not all of them: in the dark nothing changes but colours."""


@pytest.mark.parametrize(("size", "viewport"), [("phone", PHONE), ("desktop", DESKTOP)])
def test_every_state_is_accessible_and_is_pictured(
    chromium: Browser, site: Site, address: str, size: str, viewport: dict[str, int]
) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with chromium.new_context(viewport=viewport) as context:  # type: ignore[arg-type]

        def picture(name: str) -> None:
            page.wait_for_load_state()
            for scheme, rules in SCHEMES.items():
                page.emulate_media(color_scheme=scheme)
                page.screenshot(path=SCREENSHOTS / f"{name}-{size}-{scheme}.png", full_page=True)
                assert is_accessible(page, *rules)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= viewport["width"], "nothing sticks out sideways"

        page = context.new_page()
        page.goto(address + site.link(site.account("Acme")[1]))
        picture("0-sign-in")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator(".state")).to_have_text("Off")
        picture("1-never-asked")
        page.goto(address + PAGE)
        picture("2-see-and-choose")
        page.get_by_role("checkbox", name=AUTO.label).check()
        page.get_by_role("checkbox", name=STUDIO.label).check()
        page.get_by_role("button", name="Continue with what I ticked").click()
        expect(page.get_by_role("button", name="Yes, turn it on")).to_be_visible()
        picture("3-confirm")
        page.get_by_role("button", name="Yes, turn it on").click()
        expect(page.locator(".state")).to_contain_text("On for 2")
        for grant in live(site, site.account("Acme")[0]):
            contribute(site, grant, 2 if grant.industry is AUTO else 1)
            take(site, grant, "Vehicles team, model 2027-1", 128)
        page.goto(f"{address}/account")
        page.locator("summary").first.click()
        picture("4-granted")
        page.get_by_role("link", name="Change").click()
        expect(page.get_by_role("button", name=f"Turn off for {STUDIO.label}")).to_be_visible()
        picture("4b-change")
        page.goto(f"{address}/account")
        page.get_by_role("button", name="Turn off for all industries").click()
        expect(page.locator(".state")).to_have_text("Off")
        site.wait(hours=1, minutes=7)
        erase(site, STUDIO)
        page.goto(f"{address}/account")
        for media in ("print", "screen"):  # on paper, too: it is a receipt
            page.emulate_media(media=media)  # type: ignore[arg-type]
            expect(page.get_by_text("0 remaining in the folder of this permission")).to_be_visible()
        expect(page.get_by_text("cannot unlearn")).to_be_visible()
        picture("5-withdrawn")
        page.get_by_role("link", name="API keys").click()
        expect(page).to_have_url(f"{address}/account/keys")
        picture("6-keys-none")
        page.get_by_label("A new key, for").fill("nightly catalog run")
        page.get_by_role("button", name="Make a key").click()
        expect(page.locator("code.secret")).to_contain_text("bgb_")
        picture("7-key-shown-once")
        page.goto(f"{address}/account/keys")
        page.get_by_text("Revoke the key for nightly catalog run").click()
        picture("7b-revoke")
        page.get_by_role("button", name="Revoke it for good (nightly catalog run)").click()
        expect(page.get_by_role("heading", name="Revoked")).to_be_visible()
        page.goto(f"{address}/account")
        page.get_by_role("link", name="People").click()
        expect(page).to_have_url(f"{address}/account/people")
        picture("14-people-alone")
        page.get_by_label("Add somebody").fill("ann.somebody-with-a-long-name@workshop.acme.example")
        page.get_by_role("button", name="Add them").click()
        expect(page.get_by_role("status")).to_contain_text("was added")
        picture("14b-somebody-added")
        for asked in page.locator(".sure summary").all():
            asked.click()
        picture("14c-people-to-change")
        page.goto(f"{address}/account/close")
        picture("8-close")
        page.get_by_label("To close it").fill("Acme")
        page.get_by_role("button", name="Close the account for good").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("The account is closed")
        picture("9-closed")
        page.goto(f"{address}/sign-in")
        picture("10-ways-in")
        page.get_by_label("Get a one-time link by e-mail").fill("owner@acme.example")
        page.get_by_role("button", name="Send me a link").click()
        expect(page.get_by_text("printed where this portal runs")).to_be_visible()
        picture("11-letter-sent")
        page.goto(f"{address}/sign-in/nothing")
        picture("12-dead-link")


def contribute(site: Site, grant: Grant, batches: int) -> None:
    """As the lake records it when the gate has let rows in."""
    with site.records.transaction() as connection:
        for number in range(batches):
            batch_id = new_batch_id(site.now, site.randomness)
            connection.execute(
                insert(admissions).values(
                    key=f"industry={grant.industry}/grant={grant.grant_id}/{batch_id}-{number}.parquet",
                    grant_id=grant.grant_id,
                    batch_id=batch_id,
                    industry=grant.industry,
                    rows=128 + number,
                    bytes=10_000_000,
                    sha256="0" * 64,
                    admitted_at=site.now,
                )
            )


def erase(site: Site, industry: Industry) -> None:
    """As reconcile does it: note, delete, receipt."""
    with site.records.transaction() as connection:
        given = ledger.read_grants(connection, site.account("Acme")[0]).by_id.values()
        grant = next(each for each in given if each.industry is industry)
        assert grant.withdrawn_at is not None
        begin_erasures(connection, Erased.GRANT, {grant.grant_id: (1, 10_000_000)}, site.now)
        deadline = grant.withdrawn_at + timedelta(hours=24)
        finish_erasures(connection, {grant.grant_id: deadline}, site.now, places=LOOKED_INTO)


def take(site: Site, grant: Grant, recipient: str, images: int) -> None:
    """As a pull for training is recorded."""
    pull_id = "c" + site.randomness(16).hex()
    with site.records.transaction() as connection:
        connection.execute(
            insert(pulls).values(
                pull_id=pull_id,
                industry=grant.industry,
                recipient=recipient,
                place="/data/training",
                kind="parquet",
                query={},
                lake_state="0" * 64,
                started_at=site.now,
                finished_at=site.now,
            )
        )
        connection.execute(insert(pulled_grants).values(pull_id=pull_id, grant_id=grant.grant_id, rows=images))


def test_an_owner_hands_the_account_on_and_leaves(chromium: Browser, site: Site, address: str) -> None:
    account_id, _ = site.account("Acme")
    with chromium.new_context() as first, chromium.new_context() as second:
        page = sign_in(first, site, address)
        page.goto(f"{address}/account/people")
        page.get_by_label("Add somebody").fill("ann@acme.example")
        expect(page.get_by_label("As", exact=True)).to_have_value("member")
        page.get_by_role("button", name="Add them").click()
        expect(page.get_by_role("status")).to_contain_text("ann@acme.example was added")
        page.get_by_text("Change role of ann@acme.example").click()
        page.get_by_label("Role of ann@acme.example").select_option("owner")
        page.get_by_role("button", name="Change it (ann@acme.example)").click()
        expect(page).to_have_url(f"{address}/account/people")
        expect(page.locator("li", has_text="ann@acme.example").locator(".tag")).to_have_text("owner")
        with site.records.reading() as connection:
            ann = person_of(connection, account_id, "ann@acme.example")
        anns = second.new_page()
        anns.goto(address + site.link(ann.person_id))
        anns.get_by_role("button", name="Sign in").click()
        expect(anns.locator(".state")).to_have_text("Off")
        page.reload()
        page.get_by_text("Take out owner@acme.example").click()
        page.get_by_role("button", name="Leave for good").click()
        expect(page).to_have_url(f"{address}/sign-in")
        page.goto(f"{address}/account/people")
        expect(page).to_have_url(f"{address}/sign-in")
        anns.goto(f"{address}/account/people")
        expect(anns.get_by_text("The only owner")).to_be_visible()
        expect(anns.get_by_text("added by somebody who is no longer here")).to_be_visible()


def test_an_auditor_sees_and_cannot_press(context: BrowserContext, site: Site, address: str) -> None:
    account_id, _ = site.account("Acme")
    with site.records.transaction() as connection:
        person = add_person(connection, account_id, "a@x.example", Role.AUDITOR, site.now, site.randomness)
    page = context.new_page()
    page.goto(address + site.link(person))
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{address}/account")
    page.goto(address + PAGE)
    expect(page.get_by_text("Only an owner of the account can turn this on")).to_be_visible()
    assert page.get_by_role("checkbox").count() == 0
    assert is_accessible(page)


def test_the_long_name_of_a_new_key_sticks_out_of_no_phone(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address)
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.goto(f"{address}/account/keys")
    page.get_by_label("A new key, for").fill("x" * 60)
    page.get_by_label("A new key, for").press("Enter")
    expect(page.get_by_text("Your new key for")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_long_name_of_an_account_sticks_out_of_no_phone(context: BrowserContext, site: Site, address: str) -> None:
    page = sign_in(context, site, address, name="L" * 90)
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    for path in ("/account/close", site.link(site.account("M" * 90)[1])):
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
