"""A person looks at their batches: what failed stands first, others' do not exist, buttons do what they say."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from flows import steps
from flows.parts import open_parts
from schemas.batch import BatchState, Item, Manifest, Stamp
from schemas.results import Failed, ShardReport
from store.records import line
from store.records.batches import get_batch
from store.records.people import Role
from store.transient.transient_store import open_transient, source_key
from tests.api.conftest import jpeg
from tests.batches import lay_out, send_folder
from tests.portal.conftest import Site
from tests.portal.test_gone_on_download import batch_of


@pytest.fixture
def stamp(site: Site, tmp_path: Path) -> Stamp:
    """A batch of three photos by Acme, all of them bad but one, which has no result yet."""
    folder = lay_out(tmp_path / "photos", dict.fromkeys(("VIN1/1.jpg", "VIN2/1.jpg", "VIN2/<b>.jpg"), b"no photo"))
    parts = open_parts(site.settings, lambda: site.now)
    stamp = send_folder(parts, site.account("Acme")[0], folder, randomness=site.randomness)

    def run(batch_id, shards, clock, keep, stopped):
        results = tuple(
            Failed(number=n, code="not_an_image", sentence="No image.", finished_at=clock()) for n in (2, 3)
        )
        report = ShardReport(first=2, last=3, results=results)
        keep(report)
        yield report

    steps.cut(parts, replace(steps.plan(parts, stamp.batch_id), shards=[(2, 3)]), run)
    parts.records.engine.dispose()
    return stamp


def state(site: Site, stamp: Stamp) -> BatchState:
    with site.records.transaction() as connection:
        return get_batch(connection, stamp.batch_id).state


def test_what_failed_stands_first_with_its_reason_and_names_are_escaped(site: Site, stamp: Stamp) -> None:
    browser = site.sign_in()
    assert "0 of 3" in browser.open("/batches").words
    page = browser.open(f"/batches/{stamp.batch_id}")
    assert page.words.index("VIN2/1.jpg") < page.words.index("VIN1/1.jpg")
    assert "not an image" in page.words
    assert "No image." in page.words
    assert "VIN2/<wbr>&lt;b&gt;.jpg" in page.html
    assert "in 23 h 00 min" in page.words


def test_another_accounts_batch_does_not_exist(site: Site, stamp: Stamp) -> None:
    site.account("Bazaar")
    stranger = site.sign_in("Bazaar")
    for path in ("", "/cutouts.zip"):
        assert stranger.open(f"/batches/{stamp.batch_id}{path}").status == 404
    assert "There is no batch yet" in stranger.open("/batches").words
    token = [("form_token", dict(stranger.open("/account").forms[0].fields)["form_token"])]
    assert stranger.send(f"/batches/{stamp.batch_id}/cancel", token).status == 404
    assert state(site, stamp) is BatchState.RUNNING


def test_calling_off_ends_the_batch_and_what_failed_can_be_tried_again(site: Site, stamp: Stamp) -> None:
    browser = site.sign_in().open(f"/batches/{stamp.batch_id}")
    assert browser.press("Call it off").status == 200
    assert state(site, stamp) is BatchState.CANCELLED
    browser.press("Try again what failed")
    assert state(site, stamp) is BatchState.SEALED
    with site.records.transaction() as connection:
        assert [each.batch_id for each in line.in_line(connection, site.now)] == [stamp.batch_id]


def test_an_auditor_looks_and_changes_nothing(site: Site, stamp: Stamp) -> None:
    auditor = site.sign_in_as(Role.AUDITOR).open(f"/batches/{stamp.batch_id}")
    assert "Call it off" not in auditor.words
    token = [("form_token", dict(auditor.forms[0].fields)["form_token"])]
    assert auditor.send(f"/batches/{stamp.batch_id}/cancel", token).status == 403
    assert state(site, stamp) is BatchState.RUNNING


def test_the_zip_holds_the_cutouts_that_there_are(site: Site, stamp: Stamp) -> None:
    browser = site.sign_in()
    answer = browser.client.get(f"/batches/{stamp.batch_id}/cutouts.zip")
    assert answer.status_code == 200
    assert zipfile.ZipFile(io.BytesIO(answer.content)).namelist() == []


def test_after_its_purge_time_nothing_is_handed_out_though_no_cleanup_was_there_yet(site: Site) -> None:
    stamp = batch_of(site)
    places = [f"/batches/{stamp.batch_id}/cutouts.zip"]
    places += [f"/v1/batches/{stamp.batch_id}/{each}" for each in ("items", "items/1/cutout", "results.zip")]
    assert [site.sign_in().client.get(each).status_code for each in places] == [200] * 4
    assert "VIN1/front.jpg" in site.sign_in().open(f"/batches/{stamp.batch_id}").words
    site.wait(hours=23)
    assert [site.sign_in().client.get(each).status_code for each in places] == [410] * 4
    page = site.sign_in().open(f"/batches/{stamp.batch_id}")
    assert page.status == 200
    assert "VIN1" not in page.html
    assert "Download" not in page.words


def test_looking_at_a_photo_calls_nobodys_address(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp, store = batch_of(site, items=1, done=1), open_transient(site.settings, lambda: site.now)
    photo = Item(number=1, path="1.jpg", size=1, source="https://slow.example/1.jpg")
    store.seal(Manifest(stamp=stamp, items=(photo,)))
    called: list[str] = []

    def resolve(host: str, *_: object, **__: object) -> None:
        called.append(host)
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    client = site.sign_in().client
    assert client.get(f"/batches/{stamp.batch_id}/items/1/photo.webp").status_code == 404
    assert called == []
    store.write(stamp, source_key(stamp.batch_id, 1), jpeg())
    assert client.get(f"/batches/{stamp.batch_id}/items/1/photo.webp").status_code == 200, "a worker fetched it"


def test_a_cutout_is_saved_under_the_name_of_its_photo(site: Site) -> None:
    stamp = batch_of(site, items=2, done=2)
    page = site.sign_in().open(f"/batches/{stamp.batch_id}")
    for number in (1, 2):
        assert f'/items/{number}/cutout" download="VIN{number}_front.png"' in page.html
