"""Schedules by program: what stands in the way of another, and nights as far back as they go."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from sqlalchemy import update

from store.outside.allowed import allow
from store.records import nights, schedules, tables
from store.records.nights import Night, NightState
from tests.api.conftest import Desk, jpeg


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


def test_a_schedule_that_is_removed_by_a_program_leaves_no_night_and_no_batch_behind(desk: Desk) -> None:
    with desk.parts.records.transaction() as connection:
        allow(connection, desk.accounts["Acme"][0], "s3://shop", desk.parts.clock())
    own = desk.call("POST", "/schedules", json={"cron": "0 2 * * *", "source": "s3://shop/photos"}).json()
    batch = desk.send({"1.jpg": jpeg()})
    with desk.parts.records.transaction() as connection:
        schedule, now = schedules.find(connection, own["schedule_id"]), desk.parts.clock()
        night = nights.begin(connection, schedule, now, now, os.urandom)
        assert night is not None
        nights.note(connection, night, batch_id=batch, new=1)
    assert desk.call("DELETE", f"/schedules/{own['schedule_id']}").status_code == 204
    assert desk.call("GET", f"/batches/{batch}").json()["state"] == "cancelled"
    with desk.parts.records.reading() as connection:
        assert nights.find(connection, night.night_id).state is NightState.CANCELLED


def nights_of(desk: Desk, schedule_id: str, count: int) -> list[Night]:
    """So many that have ended, one a day, the latest first."""
    with desk.parts.records.transaction() as connection:
        schedule, now = schedules.find(connection, schedule_id), desk.parts.clock()
        days = [now - timedelta(days=day) for day in range(count)]
        made = [nights.begin(connection, schedule, due, due, os.urandom, NightState.COMPLETED) for due in days]
    return [each for each in made if each is not None]


def test_a_program_pages_back_to_the_first_night_and_asks_for_one(desk: Desk) -> None:
    with desk.parts.records.transaction() as connection:
        for who in ("Acme", "Bazaar"):
            allow(connection, desk.accounts[who][0], "s3://shop", desk.parts.clock())
    wanted = {"cron": "0 2 * * *", "source": "s3://shop/photos"}
    own, theirs = (desk.call("POST", "/schedules", who, json=wanted).json()["schedule_id"] for who in desk.accounts)
    made, (other,) = nights_of(desk, own, 70), nights_of(desk, theirs, 1)
    path, seen, before = f"/schedules/{own}/nights", [], {}
    while True:
        page = desk.call("GET", path, params={"limit": 30, **before}).json()
        seen.append([each["night_id"] for each in page["nights"]])
        if page["next"] is None:
            break
        before = {"before": page["next"]}
    assert [len(each) for each in seen] == [30, 30, 10]
    assert [each for page in seen for each in page] == [each.night_id for each in made]
    assert len(desk.call("GET", path).json()["nights"]) == 50
    assert len(desk.call("GET", path, params={"limit": 70}).json()["nights"]) == 70
    assert desk.call("GET", path, params={"limit": 70}).json()["next"] is None
    assert [desk.call("GET", path, params={"limit": limit}).status_code for limit in (0, 200, 201)] == [422, 200, 422]
    assert desk.call("GET", f"{path}/{made[-1].night_id}").json()["night_id"] == made[-1].night_id
    for strange in (f"{path}/{other.night_id}", f"{path}?before={other.night_id}", f"/schedules/{theirs}/nights"):
        assert desk.call("GET", strange).status_code == 404


def test_an_owner_gives_a_schedule_other_times_and_what_is_left_out_stays(desk: Desk) -> None:
    with desk.parts.records.transaction() as connection:
        allow(connection, desk.accounts["Acme"][0], "s3://shop", desk.parts.clock())
    wanted = {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "source": "s3://shop/photos", "deadline_minutes": 60}
    path = f"/schedules/{desk.call('POST', '/schedules', json=wanted).json()['schedule_id']}"
    changed = desk.call("PATCH", path, json={"cron": "30 4 * * *"}).json()
    told = ("cron", "timezone", "deadline_minutes", "overlap")
    assert [changed[name] for name in told] == ["30 4 * * *", "Europe/Berlin", 60, "skip"]
    changed = desk.call("PATCH", path, json={"deadline_minutes": None, "overlap": "wait"}).json()
    assert [changed[name] for name in told] == ["30 4 * * *", "Europe/Berlin", None, "wait"]
    assert changed == desk.call("GET", path).json()
    for wrong in ({"cron": ""}, {"cron": None}, {"source": "s3://shop"}, {"deadline_minutes": 0}):
        assert desk.call("PATCH", path, json=wrong).status_code in (400, 422)
    assert desk.call("PATCH", path, "Bazaar", json={"cron": "0 1 * * *"}).status_code == 404
    assert changed == desk.call("GET", path).json()
    assert desk.call("PATCH", path, json={}).json() == changed, "nothing was to be changed"


def test_a_program_pauses_a_schedule_and_lets_it_go_on(desk: Desk) -> None:
    with desk.parts.records.transaction() as connection:
        allow(connection, desk.accounts["Acme"][0], "s3://shop", desk.parts.clock())
    own = desk.call("POST", "/schedules", json={"cron": "0 2 * * *", "source": "s3://shop/photos"}).json()
    path = f"/schedules/{own['schedule_id']}"
    paused = desk.call("POST", f"{path}/pause").json()
    assert paused["paused_at"] is not None
    assert paused == desk.call("GET", path).json()
    resumed = desk.call("POST", f"{path}/resume").json()
    assert resumed["paused_at"] is None
    assert resumed == desk.call("GET", path).json()


def test_the_description_names_no_default_for_what_stays_as_it_is_when_it_is_left_out(desk: Desk) -> None:
    """A client that is made from it would send the default, and change what nobody asked it to."""
    schemas = desk.client.get("/v1/openapi.json").json()["components"]["schemas"]
    assert [name for name, field in schemas["NewTimes"]["properties"].items() if "default" in field] == []
    assert "required" not in schemas["NewTimes"]


def test_a_schedule_from_before_there_were_limits_is_shown_and_can_be_given_times_within_them(desk: Desk) -> None:
    """By command any deadline was taken, and on SQLite a cron line of any length."""
    with desk.parts.records.transaction() as connection:
        allow(connection, desk.accounts["Acme"][0], "s3://shop", desk.parts.clock())
    own = desk.call("POST", "/schedules", json={"cron": "0 2 * * *", "source": "s3://shop/photos"}).json()
    long = f"{','.join(map(str, range(60)))} * * * *"
    with desk.parts.records.transaction() as connection:
        connection.execute(update(tables.schedules).values(deadline_minutes=200_000, cron=long))
    path = f"/schedules/{own['schedule_id']}"
    for answer in (desk.call("GET", path), *map(desk.call, ["POST"], [f"{path}/pause"])):
        assert (answer.status_code, answer.json()["deadline_minutes"], answer.json()["cron"]) == (200, 200_000, long)
    assert desk.call("GET", "/schedules").status_code == 200
    for times in ({"overlap": "wait"}, {"cron": "0 3 * * *"}, {"deadline_minutes": 60}):
        assert desk.call("PATCH", path, json=times).status_code == 200
