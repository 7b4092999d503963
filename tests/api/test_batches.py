"""Batches over REST: sent photo by photo, cut, watched, fetched, tried again, called off; nobody sees another's."""

from __future__ import annotations

import base64
import gzip
import io
import json
import logging
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import psycopg
import pytest
from PIL import Image
from sqlalchemy import text

from flows import steps
from flows.cleaning import cleaning
from flows.receive import seal
from portal.api import opening
from portal.api.sender import Sender
from schemas.batch import BatchState, Counts, Item, Manifest
from schemas.clock import system_clock
from schemas.errors import StoreFault
from schemas.ids import BatchId
from schemas.options import CutoutOptions, Format
from store.purging.cleanup import clean_up
from store.records import line, webhooks
from store.records.batches import get_batch, hasten, set_progress
from store.transient.transient_store import TransientStore, batch_prefix, manifest_key, uploaded_key
from store.transient.uploads import Uploads, token_of
from tests.api.conftest import Desk, jpeg, new_desk
from tests.consent.postgres import current_database


def test_a_batch_from_the_first_photo_to_the_zip(desk: Desk) -> None:
    batch = desk.send({"VIN1/1.jpg": jpeg("red"), "VIN2/1.jpg": jpeg("blue"), "VIN2/broken.jpg": b"no image"})
    assert desk.call("GET", f"/batches/{batch}").json()["state"] == "sealed"
    desk.work(batch)
    shown = desk.call("GET", f"/batches/{batch}").json()
    assert (shown["state"], shown["items"], shown["done"], shown["failed"]) == ("partially_completed", 3, 2, 1)
    items = desk.call("GET", f"/batches/{batch}/items").json()["items"]
    assert [each["path"] for each in items] == ["VIN1/1.jpg", "VIN2/1.jpg", "VIN2/broken.jpg"]
    assert items[2]["code"] == "not_an_image"
    cutout = desk.call("GET", items[0]["cutout"].removeprefix("/v1"))
    assert cutout.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(cutout.content)).mode == "RGBA"
    with zipfile.ZipFile(io.BytesIO(desk.call("GET", f"/batches/{batch}/results.zip").content)) as archive:
        assert archive.namelist() == ["VIN1/1.png", "VIN2/1.png"]
        assert archive.testzip() is None
        assert archive.read("VIN1/1.png") == cutout.content


def reports_of(desk: Desk, batch: str) -> list[str]:
    """Their keys, in order of their first photo."""
    return [
        f"{batch_prefix(BatchId(batch))}/report/{name}" for name in desk.parts.transient.report_names(BatchId(batch))
    ]


def test_a_single_cutout_is_fetched_without_reading_what_became_of_the_rest(desk: Desk) -> None:
    photos = {"1.jpg": jpeg("red"), "2.jpg": jpeg("blue"), "3.jpg": b"no image", "4.jpg": jpeg("green")}
    batch = desk.send(photos)
    fetch = partial(desk.call, "GET")
    assert fetch(f"/batches/{batch}/items/4/cutout").status_code == 404, "it is not done yet"
    desk.work(batch)
    other, _ = reports_of(desk, batch)
    desk.parts.transient.objects.write(other, b"unreadable")
    codes = [fetch(f"/batches/{batch}/items/{number}/cutout").status_code for number in (0, 3, 4, 5)]
    assert codes == [404, 404, 200, 404]
    assert Image.open(io.BytesIO(fetch(f"/batches/{batch}/items/4/cutout").content)).size == (64, 48)


def test_a_single_cutout_is_fetched_without_reading_the_list_of_all_photos_unless_it_is_of_a_format_of_its_own(
    desk: Desk,
) -> None:
    batch = BatchId(desk.send({"1.jpg": jpeg(), "2.jpg": jpeg()}))
    manifest = desk.parts.transient.manifest(batch)
    own = manifest.items[1].model_copy(update={"options": CutoutOptions(format=Format.JPG)})
    desk.parts.transient.seal(manifest.model_copy(update={"items": (manifest.items[0], own)}))
    desk.work(batch)

    def fetched() -> list[tuple[int, str]]:
        answers = [desk.call("GET", f"/batches/{batch}/items/{number}/cutout") for number in (1, 2)]
        return [(each.status_code, each.headers["content-type"]) for each in answers]

    assert fetched() == [(200, "image/png"), (200, "image/jpeg")]
    desk.parts.transient.objects.delete([manifest_key(batch)])
    assert [code for code, _ in fetched()] == [200, 409]


def test_pages_of_items_hold_each_once(desk: Desk) -> None:
    batch = desk.send({f"{number}.jpg": b"x" for number in range(7)})
    seen, after = [], 0
    while after is not None:
        page = desk.call("GET", f"/batches/{batch}/items", params={"after": after, "limit": 3}).json()
        seen += [each["number"] for each in page["items"]]
        after = page["next"]
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    full = desk.call("GET", f"/batches/{batch}/items", params={"limit": 7}).json()
    assert (len(full["items"]), full["next"]) == (7, None), "no page follows that would be empty"
    wrong = ({"after": -1}, {"limit": 0}, {"limit": 1001}, {"outcome": "lost"})
    assert [desk.call("GET", f"/batches/{batch}/items", params=each).status_code for each in wrong] == [422] * 4


def test_pages_of_batches_hold_each_once_the_newest_first(desk: Desk) -> None:
    made = sorted((desk.open() for _ in range(5)), reverse=True)  # the time is in the id
    desk.open("Bazaar")
    pages, before = [], {}
    while before is not None:
        page = desk.call("GET", "/batches", params={"limit": 2} | before).json()
        pages.append([each["batch_id"] for each in page["batches"]])
        before = page["next"] and {"before": page["next"]}
    assert pages == [made[:2], made[2:4], made[4:]]
    assert desk.call("GET", "/batches", params={"limit": 5}).json()["next"] is None
    assert [desk.call("GET", "/batches", params={"limit": limit}).status_code for limit in (0, 1, 200, 201)] == [
        422,
        200,
        200,
        422,
    ]


def test_a_page_of_items_is_listed_without_reading_what_became_of_those_on_other_pages(desk: Desk) -> None:
    batch = desk.send({f"{number}.jpg": b"no image" for number in range(1, 5)} | {"5.jpg": jpeg(), "6.jpg": b"no"})
    desk.work(batch)
    transient = desk.parts.transient
    of_1_and_2, _, of_5_and_6 = reports_of(desk, batch)
    whole = transient.read(of_5_and_6)
    for key in (of_1_and_2, of_5_and_6):
        transient.objects.write(key, b"unreadable")

    def numbers(**asked: object) -> list[int]:
        answer = desk.call("GET", f"/batches/{batch}/items", params=asked)
        return [each["number"] for each in answer.json()["items"]] if answer.status_code == 200 else []

    assert numbers(after=2, limit=1) == [3]
    assert numbers(after=2, limit=1, outcome="failed") == [3]
    assert numbers(after=2, limit=1, outcome="done") == [], "for this it reads on"
    transient.objects.write(of_5_and_6, whole)
    assert numbers(after=2, limit=1, outcome="done") == [5]
    assert numbers(after=2, outcome="failed") == [3, 4, 6]
    assert numbers(after=6) == []


def test_a_background_that_is_not_in_the_batch_is_told_at_the_seal_and_can_be_mended(desk: Desk) -> None:
    batch = desk.open(options={"bg_image": "walls/brick.jpg"})
    desk.call("PUT", f"/batches/{batch}/items/a.jpg", content=b"a photo")
    answer = desk.call("POST", f"/batches/{batch}/seal").json()
    assert answer["code"] == "bad_options"
    assert "brick" not in str(answer)
    desk.call("PUT", f"/batches/{batch}/items/walls/brick.jpg", content=b"a wall")
    assert desk.call("POST", f"/batches/{batch}/seal").json()["state"] == "sealed"


def test_the_same_path_again_replaces_the_photo(desk: Desk) -> None:
    batch = desk.open()
    for data in (b"first", b"second!"):
        desk.call("PUT", f"/batches/{batch}/items/a/b.jpg", content=data)
    desk.call("POST", f"/batches/{batch}/seal")
    manifest = desk.parts.transient.manifest(batch)
    assert [(item.path, item.size) for item in manifest.items] == [("a/b.jpg", 7)]
    assert desk.parts.transient.source(manifest.stamp, manifest.items[0]) == b"second!"


@pytest.mark.parametrize("path", ["%2e%2e/x.jpg", "a/%2e%2e/x.jpg", "a%5Cb.jpg", "a//b.jpg", "/abs.jpg", "a/%00.jpg"])
def test_a_path_that_leaves_its_folder_is_refused(desk: Desk, path: str) -> None:
    batch = desk.open()
    answer = desk.call("PUT", f"/batches/{batch}/items/{path}", content=b"x")
    assert answer.status_code in (400, 404), answer.text
    assert desk.call("POST", f"/batches/{batch}/seal").json()["code"] == "empty_batch"


def test_a_photo_over_the_limit_costs_its_own_result(tmp_path) -> None:
    desk = new_desk(tmp_path, max_megabytes=0.01)
    batch = desk.send({"small.jpg": jpeg(), "large.jpg": bytes(20_000)})
    desk.work(batch)
    codes = {each["path"]: each["code"] for each in desk.call("GET", f"/batches/{batch}/items").json()["items"]}
    assert codes == {"small.jpg": None, "large.jpg": "file_too_large"}


def test_a_body_far_over_the_limit_is_not_to_be_sent_again(tmp_path: Path) -> None:
    desk = new_desk(tmp_path, max_megabytes=0.01)
    answer = desk.call("PUT", f"/batches/{desk.open()}/items/film.jpg", content=bytes(300_000))
    assert (answer.status_code, answer.json()["code"]) == (413, "file_too_large")
    assert "retry-after" not in answer.headers


def test_an_idempotency_key_opens_one_batch(desk: Desk) -> None:
    first, second = (
        desk.call("POST", "/batches", json={"industry": "automotive"}, headers={"Idempotency-Key": "k"})
        for _ in range(2)
    )
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    other = desk.call("POST", "/batches", json={"industry": "studio"}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    bazaar = desk.call("POST", "/batches", "Bazaar", json={}, headers={"Idempotency-Key": "k"})
    assert bazaar.json()["batch_id"] != first.json()["batch_id"]
    assert len(desk.call("GET", "/batches").json()["batches"]) == 1


def test_a_portal_that_dies_before_its_answer_has_opened_no_second_batch(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise RuntimeError("killed")

    def ask(**wanted: object) -> httpx.Response:
        return desk.call("POST", "/batches", json=wanted, headers={"Idempotency-Key": str(wanted)})

    with monkeypatch.context() as patch:
        patch.setattr("store.records.idempotency.finish", die)
        assert ask(industry="studio").status_code == 500
    batch = ask(industry="studio").json()["batch_id"]
    assert ask(industry="studio").json()["batch_id"] == batch

    items = [{"path": "1.jpg", "url": "https://photos.example/1.jpg"}]
    with monkeypatch.context() as patch:
        patch.setattr("portal.api.opening.seal", die)
        assert ask(items=items).status_code == 500
    assert ask(items=items).json()["code"] == "still_answering"
    monkeypatch.setattr("store.records.idempotency._STUCK", timedelta())
    later = ask(items=items).json()
    assert later["state"] == "sealed"
    assert {each["batch_id"] for each in desk.call("GET", "/batches").json()["batches"]} == {batch, later["batch_id"]}


def test_a_request_that_was_refused_may_be_made_again_with_its_key(desk: Desk) -> None:
    wanted = {"source": "s3://elsewhere/x"}
    for _ in range(2):
        answer = desk.call("POST", "/batches", json=wanted, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed")


def test_a_request_that_met_a_fault_of_the_store_goes_on_with_its_batch(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [{"path": "1.jpg", "url": "https://photos.example/1.jpg"}]

    def ask() -> httpx.Response:
        return desk.call("POST", "/batches", json={"items": items}, headers={"Idempotency-Key": "k"})

    def fail(*_: object) -> None:
        raise StoreFault("The store is away.")

    with monkeypatch.context() as patch:
        patch.setattr("portal.api.opening.seal", fail)
        assert [ask().status_code for _ in range(2)] == [503, 503]
    assert ask().json()["state"] == "sealed"
    assert len(desk.call("GET", "/batches").json()["batches"]) == 1


def test_photos_are_called_what_is_said_or_after_their_address(desk: Desk) -> None:
    items = [
        {"url": "https://photos.example/VIN1/1.jpg", "path": "front.jpg"},
        {"url": "https://photos.example/VIN1/1%20b.jpg?size=2"},
        {"url": "http://photos.example:81/VIN2/"},
    ]
    manifest = desk.parts.transient.manifest(BatchId(desk.open(items=items)))
    assert [item.path for item in manifest.items] == ["front.jpg", "photos.example/VIN1/1 b.jpg", "photos.example/VIN2"]
    assert [(item.source, item.size) for item in manifest.items] == [(each["url"], 0) for each in items]


def test_addresses_are_checked_whole_and_each_fault_is_told_by_its_place(desk: Desk) -> None:
    good = {"url": "https://photos.example/1.jpg", "path": "caf\u00e9.jpg"}
    same = {"url": "https://photos.example/2.jpg", "path": "cafe\u0301.jpg"}
    wrong = [{"url": "https:///1.jpg"}, {"url": "https://x.example/1.jpg", "path": "../1.jpg"}, same]
    refused = desk.call("POST", "/batches", json={"items": [good, *wrong]})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_manifest")
    assert refused.json()["detail"] == (
        "Nothing was started. item 2: An address names a host, and no user. item 3: its path cannot be used. "
        "item 4: it has the same path as item 1. Give each photo a path of its own."
    )
    for more, ends in ((20, "user."), (21, "user. And 1 more.")):
        told = desk.call("POST", "/batches", json={"items": wrong[:1] * more}).json()["detail"]
        assert (told.count("item "), told.endswith(ends)) == (20, True)
    assert desk.call("GET", "/batches").json()["batches"] == []


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"items": []}, "empty_batch"),
        ({"items": [{"url": "https://x.example/1.jpg"}], "options": {"bg_image": "wall.jpg"}}, "bad_options"),
    ],
)
def test_a_request_that_cannot_be_sealed_leaves_no_open_batch(desk: Desk, wanted: object, code: str) -> None:
    for headers in ({"Idempotency-Key": "k"}, {}):
        assert desk.call("POST", "/batches", json=wanted, headers=headers).json()["code"] == code
    assert desk.call("GET", "/batches").json()["batches"] == []


@pytest.mark.parametrize(
    "wanted",
    [
        '{"options": {"bg_image": "\\ud800.jpg"}}',
        '{"items": [{"url": "https://x.example/\\ud800.jpg", "path": "1.jpg"}]}',
        '{"items": [{"url": "https://x.example/1.jpg", "path": "\\ud800.jpg"}]}',
        '{"items": [{"url": "https://x.example/1.jpg", "options": {"bg_image": "\\ud800.jpg"}}]}',
    ],
)
def test_half_a_letter_in_a_path_or_an_address_is_refused(desk: Desk, wanted: str) -> None:
    answer = desk.call("POST", "/batches", content=wanted, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert desk.call("GET", "/batches").json()["batches"] == []


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_no_time_that_a_batch_is_wanted_by_keeps_the_line_from_being_read(tmp_path: Path, zone: str) -> None:
    """One of the calendar's ends is in a year that the driver does not read, where the database's zone is not UTC."""
    url = current_database()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as database:
        database.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET timezone TO '{zone}'")  # as Debian's packages do
    desk = new_desk(tmp_path / "home", records_url=url)
    ends = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")
    for due_at in ends:
        wanted = {"due_at": due_at, "items": [{"url": "https://x.example/1.jpg"}]}
        assert desk.call("POST", "/batches", "Bazaar", json=wanted).status_code == 422, due_at
    with desk.parts.records.reading() as connection:
        assert line.in_line(connection, desk.parts.clock()) == []
    desk.parts.records.engine.dispose()


def test_nobody_sees_or_touches_another_account(desk: Desk) -> None:
    batch = desk.send({"1.jpg": jpeg()})
    desk.work(batch)
    for method, path in (
        ("GET", ""),
        ("GET", "/items"),
        ("GET", "/items/1/cutout"),
        ("GET", "/results.zip"),
        ("GET", "/events"),
        ("GET", "/receipts"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("POST", "/seal"),
        ("PUT", "/items/2.jpg"),
        ("DELETE", "/items/1.jpg"),
    ):
        answer = desk.call(method, f"/batches/{batch}{path}", "Bazaar")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    assert desk.call("GET", "/batches", "Bazaar").json()["batches"] == []


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"content": b"industry=x"}, "body: Send a JSON object with the header Content-Type: application/json."),
        ({"json": []}, "body: Send a JSON object with the header Content-Type: application/json."),
        ({"json": {"options": []}}, "body.options: A JSON object is wanted here."),
        (
            {"content": b'{"industry": }', "headers": {"Content-Type": "application/json"}},
            "body: It is no JSON (Expecting value, at byte 13).",
        ),
        ({"json": {"format": "png"}}, "body.format: There is no such field."),
    ],
)
def test_a_body_that_cannot_be_read_is_told_in_words(desk: Desk, sent: dict[str, object], told: str) -> None:
    answer = desk.call("POST", "/batches", **sent)
    assert (answer.status_code, answer.json()["detail"]) == (422, told)


def test_a_body_that_is_no_text_gets_a_code_of_ours(desk: Desk) -> None:
    head = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = desk.call("POST", "/batches", headers=head, content=gzip.compress(b"{}"))
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "head",
    [{"Content-Type": "Multipart/form-data; boundary=x"}, {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}],
)
def test_a_photo_with_a_form_around_it_or_packed_is_refused_at_once(desk: Desk, head: dict[str, str]) -> None:
    batch = desk.open()
    answer = desk.call("PUT", f"/batches/{batch}/items/1.jpg", headers=head, content=jpeg())
    assert (answer.status_code, answer.json()["code"]) == (415, "wrong_media_type")
    for told, encoding in (("image/jpeg", ""), ("application/x-www-form-urlencoded", "identity")):  # curl --data-binary
        head = {"Content-Type": told, "Content-Encoding": encoding}
        assert desk.call("PUT", f"/batches/{batch}/items/1.jpg", headers=head, content=jpeg()).status_code == 201


def test_what_is_gone_is_told_as_that(desk: Desk) -> None:
    batch = desk.send({"1.jpg": b"no photo"})
    with desk.parts.records.transaction() as connection:
        hasten(connection, BatchId(batch), desk.parts.clock())
    for is_purged in (False, True):
        if is_purged:
            clean_up(cleaning(desk.parts))
        for path in ("items", "items/1/cutout", "results.zip"):
            answer = desk.call("GET", f"/batches/{batch}/{path}")
            assert (answer.status_code, answer.json()["code"]) == (410, "past_deadline")
        assert desk.call("POST", f"/batches/{batch}/retry").status_code == 410


def test_errors_are_problem_details(desk: Desk) -> None:
    answer = desk.call("POST", "/batches", json={"industry": "cars"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) == {"type", "title", "status", "code", "detail"}
    assert desk.client.get("/v1/batches").json()["code"] == "key_needed"
    assert desk.call("GET", "/nothing").json()["code"] == "not_found"
    assert desk.call("GET", "/batches/not-a-batch").json()["code"] == "not_found"


def test_what_nobody_foresaw_is_told_as_any_other_error_and_nothing_of_it_is_shown(desk: Desk) -> None:
    desk.client.post(desk.links["Acme"])
    with desk.parts.records.transaction() as connection:
        connection.execute(text("DROP TABLE api_keys"))
        connection.execute(text("DROP TABLE sessions"))
    answer, page = desk.call("GET", "/batches"), desk.client.get("/account")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (page.status_code, "Something went wrong on our side" in page.text) == (500, True)
    for each in (answer, page):
        assert each.headers["x-request-id"]
        assert each.headers["x-content-type-options"] == "nosniff"
        assert each.headers["cache-control"] == "no-store"
        assert "api_keys" not in each.text
        assert "sessions" not in each.text


def test_failed_photos_are_tried_again_by_code_and_only_once(desk: Desk) -> None:
    batch = desk.send({"1.jpg": jpeg(), "2.jpg": b"no image", "3.jpg": b""})
    desk.work(batch)
    before = {e["number"]: e["code"] for e in desk.call("GET", f"/batches/{batch}/items").json()["items"]}
    assert before == {1: None, 2: "not_an_image", 3: "empty_file"}
    assert desk.call("POST", f"/batches/{batch}/retry", json={"codes": ["damaged_image"]}).status_code == 400
    answer = desk.call("POST", f"/batches/{batch}/retry", json={"codes": ["not_an_image"]})
    assert answer.json()["state"] == "sealed"
    assert steps.plan(desk.parts, batch).shards == [(2,)]
    desk.work(batch)
    assert steps.plan(desk.parts, batch).shards == [], "what failed again is not tried for ever"
    assert desk.call("GET", f"/batches/{batch}").json()["state"] == "partially_completed"


def test_webhooks_are_told_of_the_end_of_each_retry_also_of_one_that_came_out_as_before(desk: Desk) -> None:
    with desk.parts.records.transaction() as connection:
        account_id = desk.accounts["Acme"][0]
        hook = webhooks.add(connection, account_id, "https://acme.example/hook", desk.parts.clock(), os.urandom)
    batch = desk.send({"1.jpg": jpeg(), "2.jpg": b"no image"})
    desk.work(batch)
    for _ in range(2):
        assert desk.call("POST", f"/batches/{batch}/retry").status_code == 200
        desk.work(batch)
    with desk.parts.records.reading() as connection:
        told = [each.body for each in webhooks.events_of(connection, hook.webhook_id) if each.kind == "batch.ended"]
    assert told == 3 * [{"batch_id": batch, "state": "partially_completed", "items": 2, "done": 1, "failed": 1}]


def test_a_batch_called_off_keeps_what_is_done_and_its_purge_time(desk: Desk) -> None:
    batch = desk.send({f"{number}.jpg": jpeg() for number in range(6)})
    purge_at = desk.call("GET", f"/batches/{batch}").json()["purge_at"]
    with desk.parts.records.transaction() as connection:
        assert line.claim(connection, batch, "worker", desk.parts.clock())
    from flows.lease import is_called_off

    told = []

    def watch(counts) -> None:
        told.append(counts)
        if counts.done == 2:
            desk.call("POST", f"/batches/{batch}/cancel")

    called_off = lambda batch_id: is_called_off(desk.parts.records, batch_id)  # noqa: E731
    desk.parts = replace(desk.parts, watch=watch, stop=called_off, holder="worker")
    desk.work(batch)
    shown = desk.call("GET", f"/batches/{batch}").json()
    assert (shown["state"], shown["done"], shown["purge_at"]) == ("cancelled", 2, purge_at)
    assert len(desk.call("GET", f"/batches/{batch}/items", params={"outcome": "done"}).json()["items"]) == 2
    with zipfile.ZipFile(io.BytesIO(desk.call("GET", f"/batches/{batch}/results.zip").content)) as archive:
        assert len(archive.namelist()) == 2


def test_a_waiting_batch_is_called_off_at_once_and_takes_no_photo(desk: Desk) -> None:
    batch = desk.open()
    assert desk.call("POST", f"/batches/{batch}/cancel").json()["state"] == "cancelled"
    assert desk.call("PUT", f"/batches/{batch}/items/1.jpg", content=b"x").json()["code"] == "wrong_state"
    assert desk.call("POST", f"/batches/{batch}/seal").json()["code"] == "wrong_state"


def test_the_webhooks_hear_once_that_a_batch_was_called_off_whoever_had_it(desk: Desk) -> None:
    with desk.parts.records.transaction() as connection:
        account_id = desk.accounts["Acme"][0]
        hook = webhooks.add(connection, account_id, "https://acme.example/hook", desk.parts.clock(), os.urandom)

    def told() -> list[tuple[object, object]]:
        with desk.parts.records.reading() as connection:
            events = webhooks.events_of(connection, hook.webhook_id)
        return [(each.body["batch_id"], each.body["state"]) for each in events if each.kind == "batch.ended"]

    waits, held = (desk.send({"1.jpg": jpeg()}) for _ in range(2))
    with desk.parts.records.transaction() as connection:
        assert line.claim(connection, BatchId(held), "worker", desk.parts.clock())
    for batch in (waits, held, waits, held):
        desk.call("POST", f"/batches/{batch}/cancel")
    assert told() == [(waits, "cancelled")], "who has the other tells of its end"
    steps.finish(replace(desk.parts, holder="worker"), BatchId(held))
    assert sorted(told()) == sorted([(waits, "cancelled"), (held, "cancelled")])


def test_a_request_that_is_refused_leaves_the_key_to_its_twin_that_was_quicker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, opened = new_desk(tmp_path, account_batches=1), list[str]()
    check = opening._check_line

    def open_it() -> httpx.Response:
        return desk.call("POST", "/batches", json={}, headers={"Idempotency-Key": "k"})

    def twin_first(sender: Sender) -> None:
        monkeypatch.setattr(opening, "_check_line", check)
        opened.append(open_it().json()["batch_id"])
        check(sender)

    monkeypatch.setattr(opening, "_check_line", twin_first)
    assert open_it().json()["code"] == "line_too_long"
    desk.call("POST", f"/batches/{opened[0]}/cancel")
    assert open_it().json()["batch_id"] == opened[0], "and not a second batch"


@pytest.mark.parametrize("writes", ["keep_list", "seal"])
def test_a_batch_that_could_not_be_sealed_as_it_was_opened_is_under_way_only_for_who_can_go_on_with_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, writes: str
) -> None:
    """Nobody is told its id, and a program that tries again and again would use up what its account may have."""
    wanted = {"items": [{"url": "https://x.example/1.jpg"}]}

    def full(self: TransientStore, manifest: Manifest) -> None:
        raise StoreFault("The object store refused to write.")

    def under_way() -> int:
        with desk.parts.records.reading() as connection:
            return line.load_of(connection, desk.parts.clock()).batches

    with monkeypatch.context() as disk:
        disk.setattr(TransientStore, writes, full)
        for _ in range(3):
            assert desk.call("POST", "/batches", json=wanted).json()["code"] == "store_fault"
        assert under_way() == 0
        keyed = {"headers": {"idempotency-key": "one"}, "json": wanted}
        assert desk.call("POST", "/batches", **keyed).json()["code"] == "store_fault"
    assert desk.call("POST", "/batches", **keyed).status_code == 201
    assert under_way() == 1


def test_a_batch_whose_sealer_could_not_write_its_manifest_is_shown_all_the_same(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits in line: who asked for its photos was told to submit them again."""

    def full(self: TransientStore, manifest: Manifest) -> None:
        raise StoreFault("The object store refused to write.")

    batch = desk.open()
    desk.call("PUT", f"/batches/{batch}/items/1.jpg", content=b"x")
    with monkeypatch.context() as disk:
        disk.setattr(TransientStore, "seal", full)
        assert desk.call("POST", f"/batches/{batch}/seal").json()["code"] == "store_fault"
    assert desk.call("POST", f"/batches/{batch}/seal").json()["state"] == "sealed"
    (item,) = desk.call("GET", f"/batches/{batch}/items").json()["items"]
    assert (item["path"], item["outcome"]) == ("1.jpg", "waiting")


def test_too_many_batches_are_refused_with_a_time_to_ask_again(tmp_path) -> None:
    desk = new_desk(tmp_path, account_batches=2)
    desk.open(), desk.open()
    answer = desk.call("POST", "/batches", json={})
    assert (answer.status_code, answer.json()["code"]) == (429, "line_too_long")
    assert int(answer.headers["retry-after"]) > 0
    assert desk.call("POST", "/batches", "Bazaar", json={}).status_code == 201, "others are not stopped by it"


def test_photos_of_an_open_batch_count_before_it_is_sealed(tmp_path: Path) -> None:
    desk = new_desk(tmp_path, account_items=2)
    batch = desk.open()

    def put(path: str) -> int:
        return desk.call("PUT", f"/batches/{batch}/items/{path}", content=b"x").status_code

    def announce(path: str) -> int:
        return desk.call("POST", f"/batches/{batch}/uploads", headers=announced(path, 5)).status_code

    assert (put("1.jpg"), put("1.jpg"), announce("2.jpg"), announce("2.jpg")) == (201, 201, 201, 201)
    assert desk.call("GET", f"/batches/{batch}").json()["items"] == 2, "what is sent again counts once"
    refused = desk.call("PUT", f"/batches/{batch}/items/3.jpg", content=b"x")
    assert (refused.status_code, refused.json()["code"]) == (429, "line_too_long")
    assert int(refused.headers["retry-after"]) > 0
    assert (announce("3.jpg"), put("1.jpg")) == (429, 201)
    other = desk.open("Bazaar")
    assert desk.call("PUT", f"/batches/{other}/items/1.jpg", "Bazaar", content=b"x").status_code == 201
    assert desk.call("DELETE", f"/batches/{batch}/items/2.jpg").status_code == 204
    assert (put("3.jpg"), put("4.jpg")) == (201, 429)
    assert desk.call("POST", f"/batches/{batch}/cancel").json()["items"] == 0
    batch = desk.open()
    assert put("1.jpg") == 201, "what was called off counts no more"


def test_progress_comes_as_events_and_ends(desk: Desk) -> None:
    batch = desk.send({"1.jpg": jpeg()})
    desk.work(batch)
    with desk.client.stream("GET", f"/v1/batches/{batch}/events", headers={"x-api-key": desk.accounts["Acme"][1]}) as s:
        lines = [each for each in s.iter_lines() if each]
    assert lines[0] == "event: progress"
    assert lines[-2] == "event: end"
    assert json.loads(lines[-1].removeprefix("data: "))["state"] == BatchState.COMPLETED


def test_a_stream_of_events_closes_after_a_while_so_that_the_key_is_shown_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("portal.api.batches.asyncio.sleep", sleep)
    batch = desk.open()
    with desk.client.stream("GET", f"/v1/batches/{batch}/events", headers={"x-api-key": desk.accounts["Acme"][1]}) as s:
        lines = [each for each in s.iter_lines() if each]
    assert (lines[0], set(lines[2:])) == ("event: progress", {": still here"})
    assert pauses == sorted(pauses), "nothing changes, so it is looked at less and less often"
    assert (pauses[0], pauses[-1]) == (0.7, 5.0)
    assert 300 <= sum(pauses) < 310


@pytest.mark.parametrize(
    "path", ["a%0Ab.jpg", "%1B%5B2J.jpg", "%7F.jpg", "%C2%9B2J.jpg", "a%5Cb.jpg", "%FF.jpg", "a//b.jpg"]
)
def test_a_path_that_spoils_a_terminal_or_stands_for_another_is_refused(desk: Desk, path: str) -> None:
    batch = desk.open()
    assert desk.call("PUT", f"/batches/{batch}/items/{path}", content=jpeg()).status_code == 400
    head = announced(unquote(path), len(jpeg()))
    assert desk.call("POST", f"/batches/{batch}/uploads", headers=head, content=jpeg()).status_code == 400
    assert desk.call("GET", f"/batches/{batch}/uploads").json()["uploads"] == []


def test_a_resumable_upload_goes_on_where_it_stood(desk: Desk) -> None:
    batch, photo = desk.open(), jpeg(size=(200, 160))
    name = base64.b64encode("VIN 1/größe.jpg".encode()).decode()
    announce = {"Upload-Length": str(len(photo)), "Upload-Metadata": f"filename {name}"}
    made = desk.call("POST", f"/batches/{batch}/uploads", headers=announce)
    assert made.status_code == 201
    place = made.headers["location"].removeprefix("/v1")
    assert "gr" not in place.rpartition("/")[2] or len(place.rpartition("/")[2]) == 32

    def send(offset: int, data: bytes) -> int:
        head = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        return desk.call("PATCH", place, headers=head, content=data).status_code

    assert send(0, photo[:100]) == 204
    for part in ("000000000100-000000000200", "000000000100-000000000104.partial-0a1b"):  # a writer was killed
        desk.parts.transient.objects.write(f"{batch_prefix(batch)}/upload/{place.rpartition('/')[2]}/{part}", b"half")
    assert send(50, photo[50:]) == 409, "a part that does not begin where the upload stands"
    assert desk.call("POST", f"/batches/{batch}/seal").json()["code"] == "wrong_state"
    again = desk.call("POST", f"/batches/{batch}/uploads", headers=announce)
    assert again.headers["upload-offset"] == "100", "a page that was loaded again goes on"
    assert desk.call("HEAD", place).headers["upload-offset"] == "100"
    assert send(100, photo[100:]) == 204
    assert desk.call("HEAD", place).headers["upload-offset"] == str(len(photo))
    assert desk.call("POST", f"/batches/{batch}/seal").json()["items"] == 1
    manifest = desk.parts.transient.manifest(batch)
    assert manifest.items[0].path == "VIN 1/größe.jpg"
    assert desk.parts.transient.source(manifest.stamp, manifest.items[0]) == photo


PART = {"Content-Type": "application/offset+octet-stream"}


def announced(path: str, size: int) -> dict[str, str]:
    name = base64.b64encode(path.encode()).decode()
    return {"Upload-Length": str(size), "Upload-Metadata": f"filename {name}", **PART}


def test_each_answer_about_an_upload_names_the_version_of_tus_and_no_other_is_served(desk: Desk) -> None:
    uploads = f"/batches/{desk.open()}/uploads"
    place = desk.call("POST", uploads, headers=announced("1.jpg", 5)).headers["Location"].removeprefix("/v1")
    answers = {
        status: desk.call("PATCH", path, content=b"12345", headers={"Upload-Offset": "0", **PART, **headers})
        for status, path, headers in (
            (412, place, {"Tus-Resumable": "0.2.2"}),
            (409, place, {"Upload-Offset": "3"}),
            (422, place, {"Upload-Offset": "x"}),
            (404, f"{uploads}/none", {}),
            (405, uploads, {}),
            (401, place, {"x-api-key": "none"}),
            (415, place, {"Content-Type": "application/octet-stream"}),
            (204, place, {"Tus-Resumable": "1.0.0"}),
        )
    }
    assert {status: answer.status_code for status, answer in answers.items()} == {each: each for each in answers}
    assert {answer.headers["Tus-Resumable"] for answer in answers.values()} == {"1.0.0"}
    assert answers[412].headers["Tus-Version"] == "1.0.0"
    assert "Tus-Resumable" not in desk.call("GET", "/batches").headers


@pytest.mark.parametrize(
    "said", ["", "name MS5qcGc=", "filename", "filename 1.jpg", "filename MS5q cGc=", "filename /w==", "filename ä.jpg"]
)
def test_an_upload_whose_name_cannot_be_read_is_refused(desk: Desk, said: str) -> None:
    place = f"/batches/{desk.open()}/uploads"
    refused = desk.call("POST", place, headers={"Upload-Length": "1", "Upload-Metadata": said.encode()})
    assert refused.status_code == 400
    assert desk.call("GET", place).json()["uploads"] == []


def test_bytes_that_do_not_say_that_they_are_a_part_of_an_upload_are_refused(desk: Desk) -> None:
    uploads = f"/batches/{desk.open()}/uploads"
    place = desk.call("POST", uploads, headers=announced("1.jpg", 5)).headers["Location"].removeprefix("/v1")
    for told in ("image/jpeg", "application/x-www-form-urlencoded", ""):
        for method, at, data in (("PATCH", place, b"12345"), ("PATCH", place, b""), ("POST", uploads, b"12345")):
            head = announced("1.jpg", 5) | {"Upload-Offset": "0", "Content-Type": told}
            assert desk.call(method, at, headers=head, content=data).json()["code"] == "wrong_media_type"
    assert desk.call("HEAD", place).headers["Upload-Offset"] == "0"
    head = {"Upload-Offset": "0", "Content-Type": "Application/Offset+Octet-Stream; charset=binary"}
    assert desk.call("PATCH", place, headers=head, content=b"12345").status_code == 204


def test_a_client_hears_its_metadata_again_and_may_name_its_method_in_a_header(desk: Desk) -> None:
    uploads = f"/batches/{desk.open()}/uploads"
    head = announced("1.jpg", 5)
    head["Upload-Metadata"] += ",filetype aW1hZ2UvanBlZw==,is_confidential"
    place = desk.call("POST", uploads, headers=head).headers["Location"].removeprefix("/v1")
    assert desk.call("HEAD", place).headers["Upload-Metadata"] == head["Upload-Metadata"]

    def instead(method: str) -> httpx.Response:
        as_part = {"X-HTTP-Method-Override": method, "Upload-Offset": "0", **PART}
        return desk.call("POST", place, headers=as_part, content=b"12")

    assert instead("PATCH").headers["Upload-Offset"] == "2"
    assert desk.call("POST", uploads, headers=announced("1.jpg", 5)).headers["Upload-Offset"] == "2"
    assert instead("DELETE").status_code == 204
    assert desk.call("HEAD", place).status_code == 404
    offered = desk.client.options("/v1/batches/any/uploads").headers
    assert (offered["Tus-Version"], "Tus-Max-Size" in offered) == ("1.0.0", False), "over the limit is taken, too"


def test_a_method_that_there_is_not_is_refused_and_the_log_does_not_repeat_it(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    uploads = f"/batches/{desk.open()}/uploads"
    caplog.set_level(logging.INFO)
    head = announced("1.jpg", 5) | {"X-HTTP-Method-Override": "grandmothers-portrait.jpg"}
    assert desk.call("POST", uploads, headers=head).status_code == 405
    (facts,) = [each.facts for each in caplog.records if hasattr(each, "facts") and each.facts["status"] == 405]
    assert facts["method"] == "UNKNOWN"


def test_a_first_part_comes_with_the_announcement_and_the_list_says_what_has_come(desk: Desk) -> None:
    batch = desk.open()

    def begin(path: str, size: int, part: bytes) -> str:
        made = desk.call("POST", f"/batches/{batch}/uploads", headers=announced(path, size), content=part)
        return made.headers["upload-offset"]

    assert begin("VIN1/whole.jpg", 5, b"12345") == "5"
    assert begin("VIN1/begun.jpg", 5, b"12") == "2"
    assert begin("VIN1/begun.jpg", 5, b"12345"[:1]) == "2", "what stands already stays"
    assert begin("VIN2/empty.jpg", 0, b"") == "0"
    assert begin("VIN2/none.jpg", 5, b"") == "0"
    seen, after = {}, ""
    while after is not None:
        page = desk.call("GET", f"/batches/{batch}/uploads", params={"after": after, "limit": 3}).json()
        seen |= {each["path"]: (each["size"], each["bytes_received"]) for each in page["uploads"]}
        after = page["next"]
    assert seen == {
        "VIN1/whole.jpg": (5, 5),
        "VIN1/begun.jpg": (5, 2),
        "VIN2/empty.jpg": (0, 0),
        "VIN2/none.jpg": (5, 0),
    }
    assert desk.call("GET", f"/batches/{batch}/uploads", "Bazaar").status_code == 404
    assert begin("VIN1/begun.jpg", 5, b"12345") == "5"
    desk.call("DELETE", f"/batches/{batch}/items/VIN2/none.jpg")
    assert desk.call("POST", f"/batches/{batch}/seal").json()["items"] == 3
    assert desk.call("GET", f"/batches/{batch}/uploads").json()["code"] == "wrong_state", "its names are forgotten"


def test_a_resumable_upload_over_the_limit_is_never_kept_nor_asked_for(tmp_path: Path) -> None:
    desk = new_desk(tmp_path, max_megabytes=0.01)
    batch, size = desk.open(), 50_000_000_000
    made = desk.call("POST", f"/batches/{batch}/uploads", headers=announced("large.jpg", size))
    place = made.headers["location"].removeprefix("/v1")
    for offset in (0, size):
        head = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        assert desk.call("PATCH", place, headers=head, content=bytes(1_000)).json()["code"] == "wrong_offset"
    again = desk.call("POST", f"/batches/{batch}/uploads", headers=announced("large.jpg", size))
    stands = desk.call("HEAD", place).headers["upload-offset"]
    assert (made.headers["upload-offset"], stands, again.headers["upload-offset"]) == (str(size),) * 3
    (listed,) = desk.call("GET", f"/batches/{batch}/uploads").json()["uploads"]
    assert listed["bytes_received"] == size
    assert desk.call("POST", f"/batches/{batch}/seal").json()["items"] == 1
    assert not [each for each in desk.parts.transient.objects.walk("") if each.size == 1_000]


def test_a_client_that_sends_a_whole_photo_in_one_part_may(desk: Desk) -> None:
    most = desk.parts.settings.max_bytes
    assert most > 2**24
    batch, photo = desk.open(), bytes(most)
    assert begin_upload(desk, batch, most)(0, photo).headers["upload-offset"] == str(most)
    assert sent_whole(desk, batch) == photo


def test_what_is_too_much_for_a_photo_is_read_to_its_end_and_not_kept(tmp_path: Path) -> None:
    desk = new_desk(tmp_path, max_megabytes=0.01)
    batch, most = desk.open(), 10_000
    send = begin_upload(desk, batch, most)
    assert send(0, bytes(2 * most)).json()["code"] == "wrong_offset", "more than was announced"
    assert send(0, bytes(20 * most + 1)).status_code == 413
    head = announced("2.jpg", 2 * most)
    assert desk.call("POST", f"/batches/{batch}/uploads", headers=head, content=bytes(2 * most)).status_code == 201
    assert send(0, bytes(most)).status_code == 204
    assert desk.call("POST", f"/batches/{batch}/seal").json()["items"] == 2
    assert {each.size for each in desk.parts.transient.objects.walk("") if "/source/" in each.key} == {most}


def test_an_empty_part_changes_nothing_of_an_upload(desk: Desk) -> None:
    batch, photo = desk.open(), jpeg()
    head = announced("1.jpg", len(photo))
    place = desk.call("POST", f"/batches/{batch}/uploads", headers=head, content=photo).headers["location"]
    head = {"Upload-Offset": str(len(photo)), "Content-Type": "application/offset+octet-stream"}
    assert desk.call("PATCH", place.removeprefix("/v1"), headers=head).headers["upload-offset"] == str(len(photo))
    assert desk.call("POST", f"/batches/{batch}/seal").json()["items"] == 1


def test_a_seal_that_comes_twice_changes_nothing_of_what_has_begun(desk: Desk) -> None:
    for begun in (BatchState.RUNNING, BatchState.CANCELLED):
        batch = desk.open()
        assert desk.call("PUT", f"/batches/{batch}/items/1.jpg", content=jpeg()).status_code == 201
        with desk.parts.records.transaction() as connection:
            stamp = get_batch(connection, batch).stamp
            set_progress(connection, stamp.batch_id, Counts(items=1, done=0, failed=0), begun)
        seal(desk.parts, stamp, [Item(number=1, path="1.jpg", size=1)])  # it saw the batch open a moment ago
        with desk.parts.records.reading() as connection:
            assert get_batch(connection, batch).state is begun


def before_the_next_write(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let a write to the transient store be so slow that something else comes first."""
    write = TransientStore.write

    def late(*called: Any) -> None:
        monkeypatch.setattr(TransientStore, "write", write)
        act()
        write(*called)

    monkeypatch.setattr(TransientStore, "write", late)


def begin_upload(desk: Desk, batch: str, size: int) -> Callable[[int, bytes], httpx.Response]:
    """Announce a photo; what comes back sends a part of it."""
    made = desk.call("POST", f"/batches/{batch}/uploads", headers=announced("1.jpg", size))
    place = made.headers["location"].removeprefix("/v1")

    def send(offset: int, data: bytes) -> httpx.Response:
        head = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        return desk.call("PATCH", place, headers=head, content=data)

    return send


def sent_whole(desk: Desk, batch: str) -> bytes:
    """The bytes of the one photo of a batch, once it is sealed."""
    assert desk.call("POST", f"/batches/{batch}/seal").json()["items"] == 1
    manifest = desk.parts.transient.manifest(BatchId(batch))
    return desk.parts.transient.source(manifest.stamp, manifest.items[0])


@pytest.mark.parametrize("late", [100, 300])
def test_a_cut_part_that_is_written_late_spoils_nothing_of_what_the_client_sent_after_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    batch, photo = desk.open(), os.urandom(500)
    send = begin_upload(desk, batch, len(photo))

    def go_on() -> None:
        assert send(0, photo[:200]).headers["upload-offset"] == "200"
        assert send(200, photo[200:400]).headers["upload-offset"] == "400"

    before_the_next_write(monkeypatch, go_on)
    send(0, photo[:late])
    (listed,) = desk.call("GET", f"/batches/{batch}/uploads").json()["uploads"]
    assert listed["bytes_received"] == 400
    assert send(400, photo[400:]).status_code == 204
    assert sent_whole(desk, batch) == photo


def test_two_requests_that_end_an_upload_at_a_time_leave_it_whole(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, photo = desk.open(), os.urandom(500)
    send = begin_upload(desk, batch, len(photo))
    send(0, photo[:400])
    parts = Uploads._parts

    def listed(self: Uploads, token: str) -> object:
        found = parts(self, token)
        if not answers:
            answers.append(None)  # the first listing says where the upload stands, the second what is joined
        else:
            monkeypatch.setattr(Uploads, "_parts", parts)
            answers.append(send(400, photo[400:]).status_code)
        return found

    answers: list[int | None] = []
    monkeypatch.setattr(Uploads, "_parts", listed)
    assert send(400, photo[400:]).json()["code"] == "wrong_offset"
    assert answers == [None, 204]
    assert sent_whole(desk, batch) == photo


def test_bytes_of_another_size_are_not_taken_for_the_whole_photo(desk: Desk) -> None:
    batch, photo = desk.open(), os.urandom(500)
    send = begin_upload(desk, batch, len(photo))
    with desk.parts.records.reading() as connection:
        token = token_of(line.find_submission(connection, batch).upload_key, "1.jpg")
        stamp = get_batch(connection, batch).stamp
    desk.parts.transient.write(stamp, uploaded_key(stamp.batch_id, token), photo[:300])  # by a late writer
    assert desk.call("HEAD", f"/batches/{batch}/uploads/{token}").headers["upload-offset"] == "0"
    assert send(0, photo).status_code == 204
    assert sent_whole(desk, batch) == photo


def during_the_listing(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something once a seal has listed what has come, and before it writes that down."""
    items = Uploads.items

    def listed(self: Uploads) -> tuple[Item, ...]:
        found = items(self)
        monkeypatch.setattr(Uploads, "items", items)
        act()
        return found

    monkeypatch.setattr(Uploads, "items", listed)


@pytest.mark.parametrize("way", ["whole", "with its announcement", "announced"])
def test_a_photo_that_comes_while_the_batch_is_sealed_is_not_said_to_be_in_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    batch, answers = desk.open(), []
    assert desk.call("PUT", f"/batches/{batch}/items/1.jpg", content=jpeg()).status_code == 201

    def send() -> None:
        if way == "whole":
            answers.append(desk.call("PUT", f"/batches/{batch}/items/2.jpg", content=jpeg()))
        else:
            part = jpeg() if way == "with its announcement" else b""
            answers.append(
                desk.call("POST", f"/batches/{batch}/uploads", headers=announced("2.jpg", len(jpeg())), content=part)
            )

    during_the_listing(monkeypatch, send)
    assert desk.call("POST", f"/batches/{batch}/seal").json()["items"] == 1
    assert [(each.status_code, each.json()["code"]) for each in answers] == [(409, "still_answering")]
    assert int(answers[0].headers["retry-after"]) > 0
    send()
    assert answers[1].json()["code"] == "wrong_state"


@pytest.mark.parametrize("is_resumable", [False, True])
def test_a_photo_under_way_as_the_seal_begins_is_not_said_to_be_in_the_batch(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, is_resumable: bool
) -> None:
    batch, put = desk.open(), Uploads.put
    desk.call("PUT", f"/batches/{batch}/items/1.jpg", content=jpeg())

    def late(self: Uploads, *photo: Any) -> None:
        assert desk.call("POST", f"/batches/{batch}/seal").json()["items"] == 1
        put(self, *photo)

    monkeypatch.setattr(Uploads, "put", late)
    if is_resumable:
        head = announced("2.jpg", len(jpeg()))
        answer = desk.call("POST", f"/batches/{batch}/uploads", headers=head, content=jpeg())
    else:
        answer = desk.call("PUT", f"/batches/{batch}/items/2.jpg", content=jpeg())
    assert answer.json()["code"] == "wrong_state"


def test_two_seals_at_a_time_write_one_manifest(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, answers = desk.open(), []
    desk.call("PUT", f"/batches/{batch}/items/2.jpg", content=jpeg())

    def repeat() -> None:
        answers.append(desk.call("PUT", f"/batches/{batch}/items/1.jpg", content=jpeg()).status_code)
        answers.append(desk.call("POST", f"/batches/{batch}/seal").json()["code"])

    during_the_listing(monkeypatch, repeat)
    assert desk.call("POST", f"/batches/{batch}/seal").json()["items"] == 1
    assert answers == [409, "still_answering"]
    assert [item.path for item in desk.parts.transient.manifest(BatchId(batch)).items] == ["2.jpg"]
    assert desk.call("POST", f"/batches/{batch}/seal").json()["items"] == 1


def test_a_batch_that_could_not_be_sealed_takes_photos_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise StoreFault("The store is gone.")

    batch = desk.open()
    desk.call("PUT", f"/batches/{batch}/items/1.jpg", content=jpeg())
    during_the_listing(monkeypatch, fail)
    assert desk.call("POST", f"/batches/{batch}/seal").status_code >= 500
    assert desk.call("PUT", f"/batches/{batch}/items/2.jpg", content=jpeg()).status_code == 201
    assert desk.call("POST", f"/batches/{batch}/seal").json()["items"] == 2


def test_a_seal_whose_process_died_is_taken_up_by_a_later_one(tmp_path: Path) -> None:
    moments = [system_clock()]
    desk = new_desk(tmp_path, clock=lambda: moments[-1])
    batch = desk.open()
    desk.call("PUT", f"/batches/{batch}/items/1.jpg", content=jpeg())
    with desk.parts.records.transaction() as connection:
        assert line.shut(connection, BatchId(batch), "seal of a process that dies", moments[-1])
    assert desk.call("POST", f"/batches/{batch}/seal").json()["code"] == "still_answering"
    moments.append(moments[-1] + line.LEASE_LIFE)
    assert desk.call("PUT", f"/batches/{batch}/items/2.jpg", content=jpeg()).status_code == 201
    assert desk.call("POST", f"/batches/{batch}/seal").json()["items"] == 2
    with desk.parts.records.reading() as connection:
        assert [each.batch_id for each in line.in_line(connection, moments[-1])] == [batch], "workers need not wait"


def test_a_batch_that_is_called_off_while_it_is_sealed_stays_called_off(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = desk.open()
    desk.call("PUT", f"/batches/{batch}/items/1.jpg", content=jpeg())
    during_the_listing(monkeypatch, lambda: desk.call("POST", f"/batches/{batch}/cancel"))
    desk.call("POST", f"/batches/{batch}/seal")
    assert desk.call("GET", f"/batches/{batch}").json()["state"] == "cancelled"


def test_what_a_killed_portal_left_half_written_holds_no_batch_up(desk: Desk) -> None:
    batch = desk.open()
    assert desk.call("PUT", f"/batches/{batch}/items/1.jpg", content=jpeg()).status_code == 201
    storage = desk.parts.transient.objects.storage
    for folder in ("upload", "source"):
        left = Path(storage.root) / batch_prefix(BatchId(batch)) / folder / f"{'0' * 32}.json.partial-0123456789abcdef"
        left.write_bytes(b'{"path": "2.j')
    assert len(desk.call("GET", f"/batches/{batch}/uploads").json()["uploads"]) == 1
    assert desk.call("POST", f"/batches/{batch}/seal").status_code == 200


def test_no_name_of_a_photo_stands_in_any_key_or_record(desk: Desk) -> None:
    batch = desk.send({"Geheim/wagen.jpg": jpeg()})
    desk.work(batch)
    keys = [found.key for found in desk.parts.transient.objects.walk("")]
    assert keys
    assert not any("wagen" in key or "Geheim" in key for key in keys)
    kept = b"".join(path.read_bytes() for path in desk.parts.settings.home.glob("records.db*"))
    assert b"wagen" not in kept
    with desk.parts.records.transaction() as connection:
        assert line.find_submission(connection, batch).upload_key is None
        assert get_batch(connection, batch).counts.done == 1


def test_a_signed_in_page_may_send_and_a_forged_one_may_not(desk: Desk) -> None:
    desk.client.get(desk.links["Acme"])
    desk.client.post(desk.links["Acme"], headers={"sec-fetch-site": "same-origin"})
    assert desk.client.get("/v1/batches").status_code == 200
    assert desk.client.post("/v1/batches", json={}, headers={"sec-fetch-site": "same-origin"}).status_code == 403
    token = desk.client.get("/account").text.split('name="form_token" value="')[1][:64]
    good = {"sec-fetch-site": "same-origin", "x-form-token": token}
    assert desk.client.post("/v1/batches", json={}, headers={**good, "sec-fetch-site": "cross-site"}).status_code == 403
    assert desk.client.post("/v1/batches", json={}, headers=good).status_code == 201
