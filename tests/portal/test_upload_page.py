"""Sending a batch from a real browser: dropped folders, a cut line, a reload, thousands of photos, no key."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, Route, expect

from portal.batches import call_off
from portal.intake.folder import find_photos
from schemas.batch import BatchState
from schemas.ids import BatchId
from store.records.batches import BatchRecord, list_batches
from store.records.people import Role
from store.records.shares import Share, set_limits
from store.transient.transient_store import open_transient
from tests.api.conftest import jpeg
from tests.batches import lay_out
from tests.portal.broken_line import broken_line
from tests.portal.chromium import is_accessible, sign_in
from tests.portal.conftest import Site

MEGABYTE = 2**20


def batch_of(site: Site) -> BatchRecord:
    """The one batch that there is."""
    with site.records.transaction() as connection:
        (record,) = list_batches(connection)
    return record


def paths_in(site: Site, batch_id: BatchId) -> dict[str, bytes]:
    """What a sealed batch holds."""
    transient = open_transient(site.settings, lambda: site.now)
    manifest = transient.manifest(batch_id)
    return {item.path: transient.source(manifest.stamp, item) for item in manifest.items}


def drop(page: Page, *paths: Path) -> None:
    """Drop files or folders from this machine's disk onto the page, as a person does with the mouse."""
    box = page.locator("[data-drop]").bounding_box()
    assert box is not None
    tools = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        tools.send("Input.dispatchDragEvent", {"type": kind, "x": box["x"] + 20, "y": box["y"] + 20, "data": data})


def choose(page: Page, folder: Path) -> None:
    page.locator("input[webkitdirectory]").set_input_files(folder)


def before_its_script(page: Page, address: str) -> list[Route]:
    """The upload page as it stands while a part of its script is on its way: what is asked for, to `let_go` of."""
    held: list[Route] = []
    page.route("**/upload_sending.js", lambda route: held.append(route))
    page.goto(f"{address}/batches/new", wait_until="commit")
    return held


def let_go(page: Page, held: list[Route]) -> None:
    """What the page asks for and the test holds, once it has come."""
    while not held:
        page.wait_for_timeout(10)
    held[0].continue_()


def test_a_dropped_folder_becomes_a_batch_with_its_sub_folders(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    files = {
        "VIN1/1.jpg": jpeg("red"),
        "VIN1/deep/er/2.JPG": jpeg("blue"),
        "VIN 2/größe <b>.jpg": jpeg("green"),
        "VIN 2/notes.txt": b"no photo",
        ".hidden/3.jpg": b"",
        "VIN1/.DS_Store": b"",
    }
    folder = lay_out(tmp_path / "inventory", files)
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    assert is_accessible(page)
    expect(page.get_by_role("button", name="Start the upload")).to_be_disabled()
    drop(page, folder)
    expect(page.get_by_role("status")).to_have_text("3 photos chosen.")
    expect(page.locator("[data-left-out]")).to_contain_text("1 × .txt")
    expect(page.locator("[data-list]")).to_contain_text("inventory/VIN 2/größe <b>.jpg")
    page.get_by_label("What the photos show").select_option("automotive")
    page.get_by_label("File").select_option("jpg")
    page.get_by_label("Background", exact=True).select_option("colour")
    page.get_by_label("Framing").select_option("crop")
    assert is_accessible(page)
    page.get_by_role("button", name="Start the upload").click()
    record = None
    expect(page.get_by_role("heading", level=1)).to_contain_text("Batch of")
    record = batch_of(site)
    assert page.url == f"{address}/batches/{record.stamp.batch_id}"
    assert (record.state, record.stamp.industry) == (BatchState.SEALED, "automotive")
    options = record.stamp.options
    assert (options.format, options.bg_color, options.crop, options.crop_margin) == ("jpg", "#e8eaed", True, "5%")
    wanted = {f"inventory/{path}": path_.read_bytes() for path, path_ in find_photos(folder).photos.items()}
    assert paths_in(site, record.stamp.batch_id) == wanted


def test_a_folder_that_was_chosen_by_mistake_is_taken_out_again(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    wrong = lay_out(tmp_path / "wrong", {"a.jpg": jpeg(), "b.jpg": jpeg(), "c.txt": b"no photo"})
    right = lay_out(tmp_path / "right", {"VIN1/1.jpg": jpeg("red")})
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    choose(page, wrong)
    expect(page.get_by_role("status")).to_have_text("2 photos chosen.")
    page.get_by_role("button", name="Take all of them out again").press("Enter")
    expect(page.get_by_role("status")).to_have_text("Nothing is chosen.")
    expect(page.get_by_role("button", name="Start the upload")).to_be_disabled()
    expect(page.get_by_label("Choose a folder")).to_be_focused()
    assert is_accessible(page)
    choose(page, right)
    expect(page.get_by_role("status")).to_have_text("1 photo chosen.")
    expect(page.get_by_text("Left out")).to_be_hidden()
    page.get_by_role("button", name="Start the upload").click()
    page.wait_for_url(re.compile(r"/batches/[0-9a-f-]{36}$"))
    assert [*paths_in(site, batch_of(site).stamp.batch_id)] == ["right/VIN1/1.jpg"]


def test_options_that_contradict_each_other_are_named_and_nothing_is_opened(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    choose(page, lay_out(tmp_path / "photos", {"1.jpg": jpeg()}))
    page.get_by_text("More", exact=True).click()
    page.get_by_label("A soft shadow on the ground").check()
    page.get_by_label("The mask alone").check()
    page.get_by_role("button", name="Start the upload").click()
    expect(page.get_by_role("alert")).to_contain_text("shadow cannot go with channels=alpha")
    with site.records.transaction() as connection:
        assert list_batches(connection) == []
    page.get_by_label("The mask alone").uncheck()
    page.get_by_role("button", name="Start the upload").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Batch of")


def test_a_line_cut_in_mid_upload_costs_nothing(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    files = {f"VIN/{number}.jpg": bytes([number]) * (3 * MEGABYTE) for number in range(4)}
    files["VIN/large.jpg"] = b"".join(bytes([number]) * MEGABYTE for number in range(10))
    folder = lay_out(tmp_path / "cars", files)
    with broken_line(address) as line:
        page = sign_in(context, site, line.address)
        page.goto(f"{line.address}/batches/new")
        choose(page, folder)
        offsets: list[int] = []
        page.on("request", lambda request: offsets.append(int(request.headers.get("upload-offset", 0))))
        line.cut_after = 7 * MEGABYTE
        page.get_by_role("button", name="Start the upload").click()
        assert line.was_cut.wait(60)
        expect(page.get_by_role("status")).to_contain_text("The connection is gone")
        line.mend()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Batch of")
    assert paths_in(site, batch_of(site).stamp.batch_id) == {f"cars/{path}": data for path, data in files.items()}
    assert any(offset % MEGABYTE for offset in offsets), "what had come of a broken part was not sent again"


def test_a_page_that_is_loaded_again_goes_on_with_what_is_missing(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    files = {f"VIN{number}/1.jpg": bytes([number]) * (2 * MEGABYTE) for number in range(8)}
    folder = lay_out(tmp_path / "cars", files)
    with broken_line(address) as line:
        page = sign_in(context, site, line.address)
        page.goto(f"{line.address}/batches/new")
        choose(page, folder)
        line.cut_after = 9 * MEGABYTE
        page.get_by_role("button", name="Start the upload").click()
        assert line.was_cut.wait(60)
        expect(page).to_have_url(re.compile("/upload$"))
        page.on("dialog", lambda dialog: dialog.accept())
        place = page.url
        page.goto("about:blank")  # it sends no more when the line is mended
        line.mend()
        page.goto(place)
        announced: list[str] = []
        page.on("request", lambda request: announced.append(request.headers.get("upload-metadata", "")))
        status = page.get_by_role("status")
        expect(status).to_contain_text("here already")
        complete = int(status.inner_text().split()[0])
        assert is_accessible(page)
        choose(page, folder)
        expect(page.get_by_role("heading", level=1)).to_contain_text("Batch of")
    assert paths_in(site, batch_of(site).stamp.batch_id) == {f"cars/{path}": data for path, data in files.items()}
    assert complete > 0, "the line was cut too early for this test"
    assert len(set(filter(None, announced))) == len(files) - complete, "what was here is not sent twice"


def test_what_began_to_come_and_is_not_chosen_again_can_be_left_out(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    token = page.locator("#upload [name=form_token]").input_value()
    batch = page.evaluate(
        """async (token) => {
            const headers = {'X-Form-Token': token, 'Content-Type': 'application/json'};
            const made = await (await fetch('/v1/batches', {method: 'POST', headers, body: '{}'})).json();
            const name = 'filename ' + btoa('a/b #1?.jpg');
            const announce = {'X-Form-Token': token, 'Upload-Length': '9', 'Upload-Metadata': name,
                'Content-Type': 'application/offset+octet-stream'};
            await fetch(`/v1/batches/${made.batch_id}/uploads`, {method: 'POST', headers: announce, body: 'four'});
            return made.batch_id;
        }""",
        token,
    )
    page.goto(f"{address}/batches/{batch}")
    page.get_by_role("link", name="Go on with the upload").click()
    choose(page, lay_out(tmp_path / "photos", {"1.jpg": jpeg()}))
    expect(page.locator("[data-offer]")).to_contain_text("1 photo of this batch began to come earlier")
    page.get_by_role("button", name="Leave them out").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Batch of")
    assert list(paths_in(site, BatchId(batch))) == ["photos/1.jpg"]


def test_a_folder_that_is_chosen_before_the_pages_script_has_come_is_taken_when_it_has(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    page = sign_in(context, site, address)
    held = before_its_script(page, address)
    choose(page, lay_out(tmp_path / "photos", {"1.jpg": jpeg(), "2.jpg": jpeg()}))
    let_go(page, held)
    expect(page.get_by_role("status")).to_have_text("2 photos chosen.")


def test_a_folder_that_is_dropped_before_the_pages_script_has_come_is_taken_when_it_has(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    page = sign_in(context, site, address)
    held = before_its_script(page, address)
    drop(page, lay_out(tmp_path / "photos", {"1.jpg": jpeg(), "2.jpg": jpeg()}))
    drop(page, lay_out(tmp_path / "more", {"3.jpg": jpeg()}) / "3.jpg")
    let_go(page, held)
    expect(page.get_by_role("status")).to_have_text("3 photos chosen.")


def test_options_that_are_chosen_before_the_pages_script_has_come_are_heeded(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    page = sign_in(context, site, address)
    held = before_its_script(page, address)
    page.get_by_label("Background", exact=True).select_option("colour")
    page.get_by_label("Framing").select_option("crop")
    let_go(page, held)
    choose(page, lay_out(tmp_path / "photos", {"1.jpg": jpeg()}))
    page.get_by_role("button", name="Start the upload").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Batch of")
    options = batch_of(site).stamp.options
    assert (options.bg_color, options.crop_margin) == ("#e8eaed", "5%")


def test_a_batch_is_sent_and_closed_though_nobody_looks_at_the_page(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    page.evaluate("window.requestAnimationFrame = () => 0")  # no browser draws a page in the background
    choose(page, lay_out(tmp_path / "photos", {"1.jpg": jpeg()}))
    expect(page.get_by_role("status")).to_have_text("1 photo chosen.")
    page.get_by_role("button", name="Start the upload").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Batch of")
    assert list(paths_in(site, batch_of(site).stamp.batch_id)) == ["photos/1.jpg"]


def test_five_thousand_photos_are_listed_paused_and_taken_up_again(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    folder = lay_out(tmp_path / "lot", {f"VIN{n // 30:03}/{n:05}.jpg": b"x" for n in range(5_000)})
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    choose(page, folder)
    # `expect` draws up the whole page each time that it must wait: here that would be what makes the page slow.
    page.get_by_role("status").filter(has_text="5,000 photos chosen.").wait_for()
    assert page.locator("[data-list] li").count() == 5_000
    assert int(page.locator("#upload").get_attribute("data-frames") or 0) >= 20, "the page was drawn in between"
    done = page.locator("[data-list] li[data-state=done]")
    page.locator("[data-start]").click()
    done.nth(40).wait_for(state="attached")
    page.locator("[data-pause]").click()
    page.get_by_role("status").filter(has_text="Paused. What has come is kept.").wait_for()
    page.locator("[data-list] li[data-state=sending]").first.wait_for(state="detached")
    before = done.count()
    assert before < 5_000
    page.locator("[data-pause]").click()
    done.nth(before + 40).wait_for(state="attached")
    assert batch_of(site).state is BatchState.OPEN


def test_photos_of_one_name_are_all_sent_or_counted(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    red, tan = jpeg("red"), jpeg("tan", (80, 60))
    first = lay_out(tmp_path / "first", {"image.jpg": red, "lot/1.jpg": red})
    second = lay_out(tmp_path / "second", {"image.jpg": tan, "lot/1.jpg": tan})
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    picker, status = page.locator("input[accept]"), page.get_by_role("status")
    for folder, count in ((first, "1 photo"), (second, "2 photos"), (first, "2 photos")):
        picker.set_input_files(folder / "image.jpg")  # a phone calls each photo so
        expect(status).to_have_text(f"{count} chosen.")
    for folder in (first, second):
        choose(page, folder / "lot")
        expect(status).to_have_text("3 photos chosen.")
    expect(page.locator("[data-left-out]")).to_have_text("Left out: 1 × the same name as another.")
    page.get_by_role("button", name="Start the upload").click()
    expect(page.get_by_role("alert")).to_contain_text("Some of what you chose was left out")
    page.get_by_role("button", name="Go on without").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Batch of")
    wanted = {"image.jpg": red, "image (2).jpg": tan, "lot/1.jpg": red}
    assert paths_in(site, batch_of(site).stamp.batch_id) == wanted


def test_half_a_folder_is_not_sent_as_the_whole(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    page.evaluate(
        """() => {
            const ofItem = DataTransferItem.prototype.webkitGetAsEntry;
            DataTransferItem.prototype.webkitGetAsEntry = function () {
                const entry = ofItem.call(this);
                const reader = entry.createReader();
                let asked = 0;
                const readEntries = (yes, no) => (asked++ ? no(new DOMException("gone")) : reader.readEntries(yes, no));
                entry.createReader = () => ({ readEntries });
                return entry;
            };
        }"""
    )
    drop(page, lay_out(tmp_path / "cars", {"1.jpg": jpeg()}))
    expect(page.locator("[data-left-out]")).to_have_text("Left out: 1 × unreadable folders.")
    page.get_by_role("button", name="Start the upload").click()
    expect(page.get_by_role("alert")).to_contain_text("Some of what you chose was left out")
    assert is_accessible(page)
    assert batch_of(site).state is BatchState.OPEN


def test_photos_chosen_while_the_batch_is_opened_are_in_it(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    held: list[Route] = []
    page.route("**/v1/batches", lambda route: held.append(route))
    choose(page, lay_out(tmp_path / "one", {"1.jpg": jpeg()}))
    start = page.get_by_role("button", name="Start the upload")
    start.click()
    choose(page, lay_out(tmp_path / "two", {"2.jpg": jpeg()}))
    expect(page.get_by_role("status")).to_have_text("2 photos chosen.")
    expect(start).to_be_disabled()
    let_go(page, held)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Batch of")
    assert sorted(paths_in(site, batch_of(site).stamp.batch_id)) == ["one/1.jpg", "two/2.jpg"]


def test_photos_chosen_while_the_batch_is_closed_are_refused_aloud(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    held: list[Route] = []
    page.route("**/seal", lambda route: held.append(route))
    choose(page, lay_out(tmp_path / "one", {"1.jpg": jpeg()}))
    page.get_by_role("button", name="Start the upload").click()
    expect(page.get_by_role("status")).to_contain_text("Closing the batch")
    choose(page, lay_out(tmp_path / "two", {"2.jpg": jpeg()}))
    expect(page.get_by_role("alert")).to_contain_text("what you chose now is not in it")
    let_go(page, held)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Batch of")
    assert list(paths_in(site, batch_of(site).stamp.batch_id)) == ["one/1.jpg"]


def test_a_proxy_that_refuses_in_html_is_told_and_may_be_tried_again(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    for asked in ("**/v1/batches", "**/seal"):
        page.route(asked, lambda route: route.fulfill(status=403, content_type="text/html", body="<p>No"), times=1)
    choose(page, lay_out(tmp_path / "one", {"1.jpg": jpeg()}))
    for _ in ("the opening is refused", "the seal is refused"):
        page.get_by_role("button", name="Start the upload").click()
        expect(page.get_by_role("alert")).to_have_text(re.compile("The server answered with 403."))
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Batch of")
    assert list(paths_in(site, batch_of(site).stamp.batch_id)) == ["one/1.jpg"]


def test_more_photos_than_the_account_may_have_are_told(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    account_id, _ = site.account("Acme")
    with site.records.transaction() as connection:
        set_limits(connection, Share(account_id=account_id, most_items=1))
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    choose(page, lay_out(tmp_path / "six", {f"{number}.jpg": jpeg() for number in range(6)}))
    page.get_by_role("button", name="Start the upload").click()
    expect(page.get_by_role("status")).to_contain_text("under way, and may have 1.")
    with site.records.transaction() as connection:
        set_limits(connection, Share(account_id=account_id, most_items=6))
    page.evaluate("dispatchEvent(new Event('online'))")  # what ends its waiting
    expect(page.get_by_role("heading", level=1)).to_contain_text("Batch of")
    assert len(paths_in(site, batch_of(site).stamp.batch_id)) == 6


def test_a_seal_that_is_being_answered_already_is_asked_for_again(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    twin = {"code": "still_answering", "detail": "Another request seals the batch just now. Ask again soon."}
    for asked in ("**/uploads", "**/seal"):
        page.route(asked, lambda route: route.fulfill(status=409, json=twin), times=1)
    choose(page, lay_out(tmp_path / "one", {"1.jpg": jpeg()}))
    page.get_by_role("button", name="Start the upload").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Batch of")
    assert list(paths_in(site, batch_of(site).stamp.batch_id)) == ["one/1.jpg"]


def test_the_session_ends_in_mid_upload_and_the_page_says_so(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    choose(page, lay_out(tmp_path / "photos", {"1.jpg": jpeg()}))
    other = context.new_page()
    other.goto(f"{address}/account")
    other.get_by_role("button", name="Sign out").click()
    expect(other).to_have_url(f"{address}/sign-in")
    page.get_by_role("button", name="Start the upload").click()
    expect(page.get_by_role("alert")).to_contain_text("not signed in to this account any more")


def test_a_batch_that_another_tab_called_off_is_not_said_to_be_on_its_way(
    context: BrowserContext, site: Site, address: str, tmp_path: Path
) -> None:
    page = sign_in(context, site, address)
    page.goto(f"{address}/batches/new")
    choose(page, lay_out(tmp_path / "photos", {"1.jpg": jpeg(), "2.jpg": jpeg()}))

    def call_it_off_first(route: Route) -> None:
        call_off(site.records, lambda: site.now, batch_of(site))
        route.continue_()

    page.route("**/uploads", call_it_off_first)
    page.get_by_role("button", name="Start the upload").click()
    expect(page.get_by_role("alert").first).to_contain_text("takes no more photos")
    expect(page.get_by_role("status")).to_have_text("")


def test_who_may_only_look_gets_no_upload_page_and_no_page_holds_a_key(site: Site) -> None:
    assert site.sign_in_as(Role.AUDITOR).open("/batches/new").status == 403
    browser = site.sign_in().open("/batches/new")
    assert browser.status == 200
    assert "bgb_" not in browser.html
    assert site.browser().open("/batches/new").words.startswith("Sign in")


def test_another_accounts_open_batch_has_no_upload_page(site: Site) -> None:
    browser = site.sign_in()
    token = dict(browser.forms[0].fields)["form_token"]
    headers = {"x-form-token": token, "sec-fetch-site": "same-origin"}
    batch = browser.client.post("/v1/batches", json={}, headers=headers).json()["batch_id"]
    assert browser.open(f"/batches/{batch}/upload").status == 200
    assert site.sign_in("Bazaar").open(f"/batches/{batch}/upload").status == 404
