"""Schedules by program: what stands in the way of another, and nights as far back as they go."""

from __future__ import annotations

from pathlib import Path

from store.outside import allow
from tests.api.conftest import Desk


def test_a_schedule_that_would_write_over_anothers_cutouts_gets_a_409_that_names_it(desk: Desk, tmp_path: Path) -> None:
    with desk.parts.records.transaction() as connection:
        for who in ("Acme", "Bazaar"):
            allow(connection, desk.accounts[who][0], f"file://{tmp_path}/shop", desk.parts.clock())
    places = {"source": f"file://{tmp_path}/shop/photos", "deliver": f"file://{tmp_path}/shop/cutouts"}
    wanted = {"cron": "0 2 * * *", **places}
    first = desk.call("POST", "/schedules", json=wanted).json()["schedule_id"]
    answer = desk.call("POST", "/schedules", json=wanted | {"options": {"bg_color": "white"}})
    assert (answer.status_code, answer.json()["code"]) == (409, "already_exists")
    assert first in answer.json()["detail"]
    assert desk.call("POST", "/schedules", json=wanted | {"options": {"format": "jpg"}}).status_code == 201
    assert desk.call("DELETE", f"/schedules/{first}").status_code == 204
    assert desk.call("POST", "/schedules", json=wanted | {"options": {"bg_color": "white"}}).status_code == 201
