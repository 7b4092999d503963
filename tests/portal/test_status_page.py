"""The page for whoever sits at the portal's machine."""

from __future__ import annotations

from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from schemas.clock import system_clock
from tests.portal.conftest import Site


@pytest.mark.parametrize("minutes", [4, 6])
def test_it_says_that_nothing_is_taken_in_while_the_clock_is_ahead(
    site: Site, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    monkeypatch.setattr("portal.web.health.system_clock", lambda: system_clock() + timedelta(minutes=minutes))
    with TestClient(site.app, "http://127.0.0.1:8080", client=("127.0.0.1", 50_000)) as client:
        page = client.get("/status")
    assert page.status_code == 200
    assert ("Nothing is taken in. This machine&#39;s clock" in page.text) == (minutes == 6)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_monitors_that_ask_by_head_find_a_portal_that_lives(site: Site, method: str) -> None:
    with TestClient(site.app, "http://127.0.0.1:8080") as client:
        assert client.request(method, "/healthz").status_code == 200
