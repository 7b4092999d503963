"""A real browser before the real server: Debian's Chromium, and the portal under uvicorn on a port of this machine."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import uvicorn
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect

from flows.listening import listen
from tests.portal.conftest import Site

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
PHONE = {"width": 375, "height": 740}
DESKTOP = {"width": 1180, "height": 860}
PATIENCE = 60_000
"""Milliseconds that a page has for what is expected of it: only a machine that does much else comes near them."""

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def launch(playwright: Playwright, *, keeps_pages: bool = False) -> Browser:
    """Debian's Chromium; playwright's own is not downloaded. `keeps_pages`: those to go back to, as people's do."""
    path = shutil.which("chromium")
    if path is None:
        raise RuntimeError("Chromium is not installed: see deploy/test-packages.txt")
    expect.set_options(timeout=PATIENCE)
    left_out = ["--disable-back-forward-cache"] if keeps_pages else []
    return playwright.chromium.launch(executable_path=path, args=list(_FLAGS), ignore_default_args=left_out)


@contextmanager
def serving(app: FastAPI, port: int = 0) -> Iterator[str]:
    """The app's address while the block runs; on a free port, or on one that was free."""
    with listen("127.0.0.1", port) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=60)


@contextmanager
def another_site(page: str) -> Iterator[str]:
    """Somebody else's site (`localhost` is another site than `127.0.0.1`) that shows one page whatever is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=60)


def sign_in(context: BrowserContext, site: Site, address: str, name: str = "Acme") -> Page:
    page = context.new_page()
    page.goto(address + site.link(site.account(name)[1]))
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{address}/account")
    return page


def is_accessible(page: Page, *rules: str) -> bool:
    """By all of axe's rules, or by these alone."""
    page.wait_for_load_state()
    found = Axe().run(page, options={"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {}))
    assert found.violations_count == 0, found.generate_report()
    return True
