"""Draw the pictures of pages that README.md and docs/ show: docs/img/web-*.png, from the real portal in a real browser.

    make pictures

Somebody looks at the account page, sends a folder, and then looks at a night's report and at a batch.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import FloatRect, Locator, Page, Route, expect, sync_playwright

from flows.parts import open_parts
from portal.demo.people import PHOTOS
from schemas.ids import BatchId
from schemas.industries import Industry
from store.records import nights, schedules
from store.records.nights import NightState
from tests.api.conftest import cut_batch
from tests.batches import lay_out, send_folder
from tests.portal.chromium import DESKTOP, PATIENCE, launch, serving, sign_in
from tests.portal.conftest import Site, opened
from tests.records import at_home
from tests.schedules import nightly

IMAGES = Path(__file__).parents[1] / "docs" / "img"
WINDOW = {"width": 900, "height": 760}
OWNER = "Harbor"
CAME = 41
"""How many of the folder's photos have come when the upload page is pictured."""


def main() -> None:
    """Draw them all."""
    with (
        tempfile.TemporaryDirectory() as folder,
        opened(at_home(Path(folder, "home"))) as site,
        serving(site.app) as address,
        sync_playwright() as playwright,
    ):
        browser = launch(playwright)
        with browser.new_context(viewport=WINDOW) as context:  # type: ignore[arg-type]
            context.set_default_timeout(PATIENCE)
            page = sign_in(context, site, address, OWNER)
            take(page, "account", down_to=page.get_by_role("heading", name="History"))
            send(page, address, inventory(Path(folder, "inventory")))
            take(page, "upload")
            page.goto(f"{address}/nights/{report(site)}")
            take(page, "night")
            page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
            page.goto(f"{address}/batches/{cut(site, Path(folder, 'photos'))}")
            take(page, "batch", down_to=page.get_by_role("contentinfo"))
        browser.close()


def take(page: Page, name: str, down_to: Locator | None = None) -> None:
    """Picture the window, or the page as far as what it is `down_to`."""
    page.wait_for_load_state()
    for image in page.locator("img").all():
        image.scroll_into_view_if_needed()
        expect(image).not_to_have_js_property("naturalWidth", 0)
    page.evaluate("scrollTo(0, 0)")
    box, window = None if down_to is None else down_to.bounding_box(), page.viewport_size
    clip = None if box is None or window is None else FloatRect(x=0, y=0, width=window["width"], height=box["y"])
    picture = Image.open(BytesIO(page.screenshot(full_page=clip is not None, clip=clip))).convert("RGB")
    target = IMAGES / f"web-{name}.png"
    picture.quantize(colors=256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(target, optimize=True)
    print(target, flush=True)


def inventory(folder: Path) -> Path:
    """Twelve cars, six photos of each."""
    photo = (PHOTOS / "motorcycle.jpg").read_bytes()
    names = [f"VIN1HGCM82633A0043{car:02}/{number}.jpg" for car in range(12) for number in range(1, 7)]
    return lay_out(folder, dict.fromkeys(names, photo))


def send(page: Page, address: str, folder: Path) -> None:
    """Choose the folder and send it; the server hears nothing of what follows the first photos."""
    left = CAME

    def let_through(route: Route) -> None:
        nonlocal left
        if route.request.method in ("POST", "PATCH"):
            left -= 1
        if left >= 0:
            route.continue_()

    page.route("**/uploads**", let_through)
    page.goto(f"{address}/batches/new")
    page.locator("input[webkitdirectory]").set_input_files(folder)
    page.get_by_role("button", name="Start the upload").click()
    expect(page.get_by_text(f"{CAME} of ")).to_be_visible()


def cut(site: Site, folder: Path) -> BatchId:
    """Five good photos and two bad ones, cut."""
    photos = {name: (PHOTOS / f"{name}.jpg").read_bytes() for name in ("motorcycle", "rocket", "chelsea", "coffee")}
    astronaut = (PHOTOS / "astronaut.jpg").read_bytes()
    first, other = "VIN1HGCM82633A004352", "VIN2T1BURHE5JC987654"
    files = {
        f"{first}/1.jpg": photos["motorcycle"],
        f"{first}/2.jpg": photos["rocket"],
        f"{other}/1.jpg": photos["chelsea"],
        f"{other}/2.jpg": photos["coffee"],
        f"{other}/3.jpg": astronaut,
        f"{other}/broken.jpg": photos["coffee"][:30_000],
        f"{other}/list.jpg": b"This is a shopping list.",
    }
    parts = open_parts(site.settings, lambda: site.now)
    stamp = send_folder(parts, site.account(OWNER)[0], lay_out(folder, files), Industry.AUTOMOTIVE)
    cut_batch(parts, stamp.batch_id)
    site.wait(minutes=7)
    parts.records.engine.dispose()
    return stamp.batch_id


def report(site: Site) -> str:
    """The last night of a schedule, by both their ids."""
    schedule = nightly(
        site.account(OWNER)[0],
        site.now - timedelta(days=2),
        site.randomness,
        timezone="Europe/Berlin",
        source="s3://harbor/photos",
        deliver="s3://harbor/cutouts",
        industry=Industry.AUTOMOTIVE,
        deadline_minutes=240,
    )
    due = site.now.replace(hour=1, minute=0)
    found = {"found": 20_418, "new": 4_000, "changed": 212, "skipped": 16_206, "done": 4_209, "delivered": 4_209}
    with site.records.transaction() as connection:
        schedules.add(connection, schedule)
        night = nights.begin(connection, schedule, due, due, site.randomness)
        assert night is not None
        over = due + timedelta(minutes=48)
        state = NightState.PARTIALLY_COMPLETED
        nights.note(connection, night, state=state, ended_at=over, failures={"damaged_image": 3}, **found)
    return f"{schedule.schedule_id}/{night.night_id}"


if __name__ == "__main__":
    main()
