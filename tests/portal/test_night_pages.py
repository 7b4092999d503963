"""Nights in a browser: when each schedule runs next, what each morning reports; paused by its own people alone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import BrowserContext

from schemas.industries import Industry
from store.records import nights, schedules
from store.records.nights import Night, NightState
from store.records.people import Role
from store.records.schedules import Schedule, ScheduleId
from tests.portal.browsing import Browser
from tests.portal.chromium import DESKTOP, PHONE, SCREENSHOTS, is_accessible, sign_in
from tests.portal.conftest import NOON, Site
from tests.schedules import nightly

DUE = datetime(2026, 11, 25, 1, tzinfo=UTC)  # two o'clock in Berlin


@pytest.fixture
def schedule(site: Site) -> Schedule:
    """Acme's, at two in Berlin."""
    schedule = nightly(
        site.account("Acme")[0],
        NOON - timedelta(days=2),
        site.randomness,
        timezone="Europe/Berlin",
        source="s3://acme/<i>photos",
        deliver="s3://acme-out/cutouts",
        industry=Industry.MARKETPLACE,
        deadline_minutes=240,
    )
    with site.records.transaction() as connection:
        schedules.add(connection, schedule)
    return schedule


@pytest.fixture
def night(site: Site, schedule: Schedule) -> Night:
    """One that ended with three failures."""
    with site.records.transaction() as connection:
        night = nights.begin(connection, schedule, DUE, DUE, site.randomness)
        assert night is not None
        return nights.note(
            connection,
            night,
            state=NightState.PARTIALLY_COMPLETED,
            ended_at=DUE + timedelta(hours=1),
            found=200_000,
            new=4_000,
            changed=2_000,
            skipped=194_000,
            done=5_997,
            delivered=5_997,
            failures={"damaged_image": 3},
        )


def paused(site: Site, schedule_id: ScheduleId) -> bool:
    with site.records.reading() as connection:
        return schedules.find(connection, schedule_id).paused_at is not None


def test_the_list_says_when_each_runs_next_in_its_own_time_zone_and_how_the_last_went(site: Site, night: Night) -> None:
    browser = site.sign_in().open("/nights")
    assert "Next run 26 Nov 2026, 02:00 CET" in browser.words
    assert "Last: partially completed, 5,997 photos done" in browser.words
    assert "Every day at 02:00 in Europe/Berlin" in browser.words
    assert "s3://acme/&lt;i&gt;photos → s3://acme-out/cutouts, PNG, transparent" in browser.html
    assert "As a cron line 0 2 * * *" in browser.open(f"/nights/{night.schedule_id}").words
    assert "Cutouts PNG, transparent" in browser.open(f"/nights/{night.schedule_id}").words


def test_a_mornings_report_says_what_was_new_changed_skipped_failed_and_why(site: Site, night: Night) -> None:
    browser = site.sign_in().open(f"/nights/{night.schedule_id}")
    assert f"/nights/{night.schedule_id}/{night.night_id}" in browser.html
    words = browser.open(f"/nights/{night.schedule_id}/{night.night_id}").words
    for each in (
        "New 4,000",
        "Changed 2,000",
        "Skipped, because unchanged 194,000",
        "Delivered 5,997",
        "damaged image",
    ):
        assert each in words
    assert "3 photos" in words
    assert "Deadline 25 Nov 2026, 06:00 CET: kept" in words
    assert f"Which they are: bgbatch-reports/2026-11-25T01-00-00-{night.schedule_id}.json, beside the cutouts." in words


def test_one_pages_back_to_the_first_night_and_opens_it(site: Site, schedule: Schedule, night: Night) -> None:
    with site.records.transaction() as connection:
        for day in range(1, 70):
            due = DUE - timedelta(days=day)
            earlier = nights.begin(connection, schedule, due, due, site.randomness, NightState.COMPLETED)
    assert earlier is not None
    browser, seen = site.sign_in().open(f"/nights/{schedule.schedule_id}"), []
    while True:
        found = re.findall(rf'href="/nights/{schedule.schedule_id}/(n\w+)"', browser.html)
        seen.append(len(found))
        following = re.search(rf'href="(/nights/{schedule.schedule_id}\?before=n\w+)"', browser.html)
        if following is None:
            break
        browser = browser.open(following[1])
    assert seen == [30, 30, 10]
    assert found[-1] == earlier.night_id
    assert "Latest" in browser.words
    assert (
        "Night of 17 Sep 2026, 03:00 CEST" in browser.open(f"/nights/{schedule.schedule_id}/{earlier.night_id}").words
    )


def test_no_night_of_another_schedule_is_told_by_its_id(site: Site, schedule: Schedule, night: Night) -> None:
    other = schedule.model_copy(
        update={"schedule_id": schedules.new_schedule_id(site.randomness), "account_id": site.account("Bazaar")[0]}
    )
    with site.records.transaction() as connection:
        schedules.add(connection, other)
        theirs = nights.begin(connection, other, DUE, DUE, site.randomness)
    assert theirs is not None
    browser, own = site.sign_in(), f"/nights/{schedule.schedule_id}"
    for path in (f"{own}/{theirs.night_id}", f"{own}?before={theirs.night_id}", f"{own}?before=none"):
        assert browser.open(path).status == 404


def test_a_schedule_is_paused_and_goes_on(site: Site, schedule: Schedule) -> None:
    browser = site.sign_in().open("/nights")
    browser.press("Pause")
    assert paused(site, schedule.schedule_id)
    assert "No next run" in browser.words
    browser.press("Go on")
    assert not paused(site, schedule.schedule_id)


def test_only_the_accounts_own_people_see_it_and_an_auditor_changes_nothing(site: Site, night: Night) -> None:
    stranger, auditor = site.sign_in("Bazaar"), site.sign_in_as(Role.AUDITOR)
    page = f"/nights/{night.schedule_id}"
    assert [stranger.open(path).status for path in (page, f"{page}/{night.night_id}")] == [404, 404]
    assert "Nothing runs by itself yet" in stranger.open("/nights").words
    assert post(stranger, f"{page}/pause").status == 404
    assert "Pause" not in auditor.open("/nights").words
    assert post(auditor, f"{page}/pause").status == 403
    assert post(site.sign_in(), f"{page}/pause", {"sec-fetch-site": "cross-site"}).status == 403
    assert site.sign_in().send(f"{page}/pause", [("form_token", "0" * 64)]).status == 403
    assert not paused(site, night.schedule_id)


def test_only_an_owner_adds_and_removes_a_schedule_by_their_session(site: Site, schedule: Schedule) -> None:
    wanted = {"cron": "0 2 * * *", "source": "s3://acme/more"}
    one = f"/v1/schedules/{schedule.schedule_id}"
    for browser, may in ((site.sign_in_as(Role.MEMBER), False), (site.sign_in(), True)):
        token = dict(browser.open("/account").forms[0].fields)["form_token"]
        sent = {"x-form-token": token, "sec-fetch-site": "same-origin"}
        assert browser.client.post(f"{one}/pause", headers=sent).status_code == 200
        added = browser.client.post("/v1/schedules", json=wanted, headers=sent).json()
        assert added["detail"].startswith("Only an owner") is not may
        assert browser.client.delete(one, headers=sent).status_code == (204 if may else 403)


def test_the_pages_are_accessible_also_on_a_phone_in_the_dark(
    context: BrowserContext, site: Site, night: Night, address: str
) -> None:
    page = sign_in(context, site, address)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    paths = ("/nights", f"/nights/{night.schedule_id}", f"/nights/{night.schedule_id}/{night.night_id}")
    for place, path in enumerate((*paths, "/account/webhooks")):
        page.goto(address + path)
        assert is_accessible(page)
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=SCREENSHOTS / f"4{place}-night-phone-dark.png", full_page=True)
        assert is_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out sideways"
        page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
        page.emulate_media(color_scheme="light")


def post(browser: Browser, path: str, headers: dict[str, str] | None = None) -> Browser:
    token = dict(browser.open("/account").forms[0].fields)["form_token"]
    return browser.send(path, [("form_token", token)], headers)
