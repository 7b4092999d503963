"""A batch in a real browser: live progress, before and after, filters, retry, calling off, the zip, and its end."""

from __future__ import annotations

import io
import itertools
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from flows import steps
from flows.parts import Parts, open_parts
from portal.demo.people import PHOTOS
from schemas.batch import BatchState
from schemas.clock import Clock
from schemas.ids import BatchId
from schemas.industries import Industry
from schemas.options import CutoutOptions
from schemas.results import Failed, ShardReport
from store.purging.purge import Purge
from store.records.batches import get_batch
from tests.api.conftest import cut_batch, jpeg, shards_of
from tests.batches import lay_out, run_batch, send_folder
from tests.portal.chromium import DESKTOP, PHONE, SCREENSHOTS, is_accessible, serving, sign_in
from tests.portal.conftest import Site, opened
from tests.records import at_home
from workers.plan import Shard


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with opened(at_home(tmp_path / "home", shard_items=1)) as site:
        yield site


@pytest.fixture
def parts(site: Site) -> Iterator[Parts]:
    """What a worker on the site's stores works with."""
    parts = open_parts(site.settings, lambda: site.now)
    yield parts
    parts.records.engine.dispose()


def send(site: Site, parts: Parts, files: dict[str, bytes], **options: object) -> BatchId:
    """A sealed batch of Acme's."""
    folder = lay_out(site.settings.home.parent / "photos", files)
    account_id = site.account("Acme")[0]
    stamp = send_folder(parts, account_id, folder, Industry.AUTOMOTIVE, CutoutOptions(**options), site.randomness)
    return stamp.batch_id


def state(site: Site, batch_id: BatchId) -> BatchState:
    with site.records.reading() as connection:
        return get_batch(connection, batch_id).state


def refusing(turn: threading.Semaphore) -> Callable[..., Iterator[ShardReport]]:
    """A worker that finds every photo empty, one whenever the test says so."""

    def run(
        _: BatchId, shards: Sequence[Shard], clock: Clock, keep: Callable[[ShardReport], None], stop: Callable[[], bool]
    ) -> Iterator[ShardReport]:
        for number in itertools.chain.from_iterable(shards):
            turn.acquire(timeout=300)
            result = Failed(number=number, code="empty_file", sentence="The file is empty.", finished_at=clock())
            report = ShardReport(first=number, last=number, results=(result,))
            keep(report)
            yield report

    return run


def real(name: str) -> bytes:
    return (PHOTOS / name).read_bytes()


def test_numbers_go_up_while_the_page_is_looked_at(
    context: BrowserContext, site: Site, parts: Parts, address: str
) -> None:
    batch = send(site, parts, {f"VIN1/{number}.jpg": b"" for number in range(4)})
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/{batch}")
    failed = page.locator("[data-count=failed]")
    expect(failed).to_have_text("0")
    ink = page.evaluate("getComputedStyle(document.body).color")
    expect(page.locator(".photo .path").first).to_have_css("color", ink)  # to wait is nothing to be warned of
    turn = threading.Semaphore(0)
    work = threading.Thread(target=lambda: run_batch(parts, batch, refusing(turn)))
    work.start()
    for number in range(1, 4):
        turn.release()
        expect(failed).to_have_text(str(number))
        assert page.locator("progress").get_attribute("value") == str(number)
    expect(page.get_by_role("link", name="There are new results")).to_be_visible()
    turn.release()
    expect(page.get_by_role("heading", name="Failed")).to_be_visible()
    work.join()
    expect(page.locator(".photo")).to_have_count(4)


def test_numbers_go_on_after_a_proxy_has_refused_them(
    context: BrowserContext, site: Site, parts: Parts, address: str
) -> None:
    """While the server starts anew, say. An EventSource gives up then, and nobody would be told."""
    batch = send(site, parts, {"VIN1/1.jpg": b"", "VIN1/2.jpg": b""})
    page = sign_in(context, site, address)
    page.route("**/events", lambda route: route.fulfill(status=502, body="Bad gateway"))
    page.goto(f"{address}/batches/{batch}")
    expect(page.get_by_text("These numbers stand still")).to_be_visible()
    assert is_accessible(page)
    turn = threading.Semaphore(1)
    work = threading.Thread(target=lambda: run_batch(parts, batch, refusing(turn)))
    work.start()
    page.unroute("**/events")
    expect(page.locator("[data-count=failed]")).to_have_text("1")
    expect(page.get_by_text("These numbers stand still")).to_be_hidden()
    turn.release()
    expect(page.get_by_role("heading", name="Failed")).to_be_visible()
    work.join()


def test_an_end_takes_nothing_away_from_who_is_typing(
    context: BrowserContext, site: Site, parts: Parts, address: str
) -> None:
    batch = send(site, parts, {"VIN1/1.jpg": b""})
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/{batch}")
    page.evaluate(
        """() => {
            const close = EventSource.prototype.close;
            EventSource.prototype.close = function () { close.call(this); document.body.dataset.over = ""; };
        }"""
    )
    expect(page.locator("[data-news]")).to_be_attached()
    search = page.get_by_label("Folder or part of a name")
    search.press_sequentially("VIN")
    turn = threading.Semaphore(1)
    run_batch(parts, batch, refusing(turn))
    expect(page.locator("body[data-over]")).to_be_attached()
    expect(search).to_have_value("VIN")
    assert is_accessible(page)
    page.locator("[data-news]").get_by_role("link", name="There are new results").click()
    expect(page.get_by_role("heading", name="Failed")).to_be_visible()


def test_an_end_leaves_who_goes_by_keyboard_where_they_are(
    context: BrowserContext, site: Site, parts: Parts, address: str
) -> None:
    """Loaded again by itself, the page began anew under their fingers, with another button in the old one's place."""
    batch = send(site, parts, {"VIN1/1.jpg": b""})
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/{batch}")
    page.get_by_role("button", name="Call it off").focus()
    run_batch(parts, batch, refusing(threading.Semaphore(1)))
    expect(page.locator("[data-news]")).to_contain_text("There are new results")
    expect(page.get_by_role("button", name="Call it off")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Failed")).to_be_visible()


@pytest.mark.parametrize("who", ["nobody", "Bazaar"])
def test_who_is_signed_out_is_told_that_and_not_that_the_server_is_silent(
    context: BrowserContext, site: Site, parts: Parts, address: str, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.api.batches._WATCHED_FOR", 1.0)
    batch = send(site, parts, {"VIN1/1.jpg": b""})
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/{batch}")
    other = context.new_page()
    other.goto(f"{address}/account")
    other.get_by_role("button", name="Sign out").click()
    expect(other).to_have_url(f"{address}/sign-in")
    if who == "Bazaar":
        sign_in(context, site, address, who)
    expect(page.get_by_text("not signed in to this account any more")).to_be_visible()
    expect(page.get_by_text("the server does not answer")).to_be_hidden()
    assert is_accessible(page)


def test_before_and_after_are_seen_moved_by_key_and_mouse_and_never_cached(
    context: BrowserContext, site: Site, parts: Parts, address: str
) -> None:
    batch = send(site, parts, {"VIN1/1.jpg": real("motorcycle.jpg")})
    cut_batch(parts, batch)
    page = sign_in(context, site, address)
    seen = []
    page.on("response", lambda answer: seen.append(answer) if answer.url.endswith(".webp") else None)
    page.goto(f"{address}/batches/{batch}")
    for kind in ("before", "after"):
        picture = page.locator(f".photo img.{kind}")
        expect(picture).to_have_js_property("complete", True)
        expect(picture).not_to_have_js_property("naturalWidth", 0)
    slider = page.get_by_role("slider", name="Before and after of VIN1/1.jpg")
    slider.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".over")).to_have_attribute("style", "--at: 60%;")
    box = slider.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.2, box["y"] + box["height"] / 2)
    assert 10 < int(slider.input_value()) < 30
    assert len(seen) == 2
    for answer in seen:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "image/webp"
        assert len(answer.body()) < 200_000
    cutout = Image.open(io.BytesIO(next(each.body() for each in seen if "cutout" in each.url)))
    assert cutout.mode == "RGBA"


def test_what_failed_is_found_and_tried_again_by_its_code(
    context: BrowserContext, site: Site, parts: Parts, address: str
) -> None:
    files = {"VIN1/1.jpg": jpeg("red"), "VIN1/2.jpg": b"no photo", "VIN2/1.jpg": jpeg(), "VIN2/2.jpg": b""}
    batch = send(site, parts, files)
    cut_batch(parts, batch)
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/{batch}")
    paths = page.locator(".photo .path")
    expect(paths).to_have_count(4)
    assert paths.all_inner_texts()[:2] == ["VIN1/2.jpg", "VIN2/2.jpg"], "failures stand first"
    page.get_by_role("link", name="Failed 2").click()
    expect(paths).to_have_text(["VIN1/2.jpg", "VIN2/2.jpg"])
    page.get_by_label("Folder or part of a name").fill("vin2")
    page.get_by_role("button", name="Find").click()
    expect(paths).to_have_text(["VIN2/2.jpg"])
    page.get_by_role("link", name="Show all").click()
    expect(paths).to_have_count(4)
    page.get_by_role("link", name="empty file: 1").click()
    expect(paths).to_have_text(["VIN2/2.jpg"])
    page.get_by_role("button", name="Try again what failed with: empty file").click()
    expect(page.get_by_role("heading", name="In line")).to_be_visible()
    assert steps.plan(parts, batch).shards == [(4,)], "that one alone"
    cut_batch(parts, batch)
    page.get_by_role("button", name="Try again what failed", exact=True).click()
    expect(page.get_by_role("heading", name="In line")).to_be_visible()
    assert len(steps.plan(parts, batch).shards) == 2


def test_a_batch_is_called_off_and_the_rest_can_be_done_later(
    context: BrowserContext, site: Site, parts: Parts, address: str
) -> None:
    batch = send(site, parts, {"1.jpg": jpeg(), "2.jpg": jpeg()})
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/{batch}")
    page.get_by_role("button", name="Call it off").click()
    expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
    assert state(site, batch) is BatchState.CANCELLED
    page.get_by_role("button", name="Go on with what is left").click()
    expect(page.get_by_role("heading", name="In line")).to_be_visible()
    assert state(site, batch) is BatchState.SEALED


def test_the_zip_comes_with_the_folders_of_the_photos(
    context: BrowserContext, site: Site, parts: Parts, address: str
) -> None:
    batch = send(site, parts, {"VIN1/1.jpg": jpeg("red"), "VIN2/1.jpg": jpeg("blue")})
    cut_batch(parts, batch)
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/{batch}")
    with page.expect_download() as caught:
        page.get_by_role("link", name="Download all cutouts").click()
    assert caught.value.suggested_filename == f"{batch}.zip"
    with zipfile.ZipFile(caught.value.path()) as archive:
        assert archive.namelist() == ["VIN1/1.png", "VIN2/1.png"]
        assert archive.testzip() is None


def test_hundreds_of_photos_come_page_by_page(context: BrowserContext, site: Site, parts: Parts, address: str) -> None:
    batch = send(site, parts, {f"VIN{number // 10}/{number:03}.jpg": b"" for number in range(100)})
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/{batch}?show=waiting")
    expect(page.get_by_text("Page 1 of 5")).to_be_visible()
    seen = page.locator(".photo .path").all_inner_texts()
    for number in range(2, 6):
        page.get_by_role("link", name="Next").click()
        expect(page.get_by_text(f"Page {number} of 5")).to_be_visible()
        seen += page.locator(".photo .path").all_inner_texts()
    assert len(seen) == len(set(seen)) == 100
    assert page.get_by_role("link", name="Next").count() == 0


def test_a_photos_name_is_shown_as_text_wherever_it_stands(
    context: BrowserContext, site: Site, parts: Parts, address: str
) -> None:
    name = "\"><img src=x onerror=alert(1)>'&{{7*7}}.jpg"
    batch = send(site, parts, {f"<script>alert(2)<b>/{name}": jpeg(), f"{name}.png": b"no photo"})
    cut_batch(parts, batch)
    page = sign_in(context, site, address)
    said: list[str] = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.goto(f"{address}/batches/{batch}")
    expect(page.locator(".photo .path").nth(1)).to_have_text(f"<script>alert(2)<b>/{name}")
    page.get_by_label("Folder or part of a name").fill(name)
    page.get_by_role("button", name="Find").click()
    expect(page.locator(".photo")).to_have_count(2)
    assert page.locator("main img[src=x], main script").count() == 0
    assert said == []


def test_others_see_no_picture_and_nobody_sees_one_after_the_purge_time(site: Site, parts: Parts) -> None:
    batch = send(site, parts, {"1.jpg": jpeg()})
    cut_batch(parts, batch)
    owner, stranger = site.sign_in(), site.sign_in("Bazaar")
    for of in ("photo", "cutout"):
        path = f"/batches/{batch}/items/1/{of}.webp"
        assert owner.open(path).status == 200
        assert stranger.open(path).status == 404
        assert site.browser().client.get(path, follow_redirects=False).status_code == 303
    assert owner.open(f"/batches/{batch}/items/2/photo.webp").status == 404
    assert len(list(parts.transient.objects.walk(""))) > 4, "kept beside the cutouts"
    site.wait(hours=23)
    owner = site.sign_in()
    assert owner.open(f"/batches/{batch}/items/1/photo.webp").status == 410
    Purge(parts.transient.objects, parts.records, timedelta(hours=23), lambda: site.now).run()
    assert list(parts.transient.objects.walk("")) == []
    page = owner.open(f"/batches/{batch}")
    assert "0 left over" in page.words
    assert f"/batches/{batch}/certificate" in page.html
    assert owner.open(f"/batches/{batch}/items/1/photo.webp").status == 410


def test_every_page_is_accessible_on_a_desk_in_the_light_and_on_a_phone_in_the_dark(
    chromium: Browser, site: Site, parts: Parts
) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    files = {
        "VIN1HGCM82633A004352/1.jpg": real("motorcycle.jpg"),
        "VIN1HGCM82633A004352/2.jpg": real("rocket.jpg"),
        "VIN2T1BURHE5JC987654/1.jpg": real("chelsea.jpg"),
        "VIN2T1BURHE5JC987654/2.jpg": real("coffee.jpg"),
        "VIN2T1BURHE5JC987654/3.jpg": real("astronaut.jpg"),
        "VIN2T1BURHE5JC987654/broken.jpg": real("coffee.jpg")[:30_000],
        "VIN2T1BURHE5JC987654/list.jpg": b"This is a shopping list.",
    }
    batch = send(site, parts, files)
    cut_batch(parts, batch)
    site.wait(minutes=7)
    going = send(site, parts, files)
    planned = steps.plan(parts, going)
    steps.cut(parts, replace(planned, shards=planned.shards[:3]), shards_of(parts))
    photos = site.settings.home.parent / "photos"
    with serving(site.app) as address, chromium.new_context() as context:
        page = sign_in(context, site, address)
        for size, viewport, scheme in (("desktop", DESKTOP, "light"), ("phone", PHONE, "dark")):
            page.set_viewport_size(viewport)  # type: ignore[arg-type]
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            look_around(page, address, batch, photos, f"{size}-{scheme}")


def look_around(page: Page, address: str, batch: BatchId, photos: Path, look: str) -> None:
    def picture(name: str) -> None:
        for image in page.locator("img").all():
            image.scroll_into_view_if_needed()
            expect(image).not_to_have_js_property("naturalWidth", 0)
        page.screenshot(path=SCREENSHOTS / f"{name}-{look}.png", full_page=True)
        assert is_accessible(page)
        width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], "nothing sticks out sideways"

    page.goto(f"{address}/batches")
    picture("20-batches")
    page.goto(f"{address}/batches/{batch}")
    picture("21-batch")
    page.goto(f"{address}/batches/new")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Background", exact=True).select_option("colour")
    page.locator("input[webkitdirectory]").set_input_files(photos)
    expect(page.get_by_role("status")).to_have_text("7 photos chosen.")
    picture("22-new-batch")


def test_a_batch_says_what_was_asked_for_and_why_to_look_and_does_not_jump(
    context: BrowserContext, site: Site, parts: Parts, address: str
) -> None:
    batch = send(site, parts, {"VIN1/1.jpg": real("rocket.jpg")}, bg_color="#e8eaed", crop=True)
    cut_batch(parts, batch)
    page = sign_in(context, site, address)
    held: list[Route] = []
    page.route("**/cutout.webp", lambda route: held.append(route))
    page.goto(f"{address}/batches/{batch}", wait_until="domcontentloaded")
    expect(page.get_by_text("Asked for: PNG, on #e8eaed, cropped to the subject")).to_be_visible()
    expect(page.get_by_text("It was hard to tell where the subject ends.")).to_be_visible()
    name = page.locator(".photo .path")
    before = name.bounding_box()
    while not held:
        page.wait_for_timeout(20)
    held[0].continue_()
    expect(page.locator("img.after")).not_to_have_js_property("naturalWidth", 0)
    assert name.bounding_box() == before
