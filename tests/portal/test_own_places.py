"""A customer's own bucket on a real S3 server: photos are read where they lie, cutouts are put where they belong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from portal.cli.sending import send
from schemas.options import CutoutOptions
from store.objects.object_store import ObjectStore, open_store
from store.settings import Settings
from tests.api.conftest import Desk, cut_batch, jpeg, new_desk
from tests.portal.commands import run
from tests.store.conftest import ceph_bucket, rclone_bucket


@pytest.fixture
def bucket() -> tuple[str, Settings]:
    return rclone_bucket()


@pytest.fixture
def desk(tmp_path: Path, bucket: tuple[str, Settings], monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    home, keys = tmp_path / "home", keys_of(bucket[1])
    monkeypatch.setenv("BGBATCH_HOME", str(home))
    for name, value in keys.items():
        monkeypatch.setenv(f"BGBATCH_{name.upper()}", value)
    made = new_desk(home, **keys)
    yield made
    made.parts.records.engine.dispose()


def keys_of(settings: Settings) -> dict[str, str]:
    return {
        "s3_endpoint": settings.s3_endpoint,
        "s3_key": settings.s3_key,
        "s3_secret": settings.s3_secret.get_secret_value(),
    }


def place(bucket: tuple[str, Settings], name: str) -> tuple[str, ObjectStore]:
    url = f"{bucket[0].removesuffix('/transient')}/{name}"
    return url, open_store(url, bucket[1])


def test_photos_in_a_bucket_are_never_copied_and_cutouts_go_straight_into_another(
    desk: Desk, bucket: tuple[str, Settings]
) -> None:
    (source_url, source), (target_url, target) = place(bucket, "stock"), place(bucket, "cutouts")
    for path in ("VIN1/1.jpg", "VIN2/1.jpg"):
        source.write(path, jpeg())
    source.write("list.txt", b"no photo")
    for each in (source_url, target_url):
        run("place", "allow", "Acme", each)
    batch = send(desk.parts, source_url, desk.accounts["Acme"][0], None, CutoutOptions())
    cut_batch(desk.parts, batch)
    transient = [each.key for each in desk.parts.transient.objects.walk("")]
    assert transient
    assert not [key for key in transient if "/source/" in key]
    told = json.loads(run("download", batch, "--to", target_url, "--json"))
    assert told["cutouts"] == 2
    assert sorted(each.key for each in target.walk("")) == ["VIN1/1.png", "VIN2/1.png"]
    assert target.read("VIN1/1.png") == desk.call("GET", f"/batches/{batch}/items/1/cutout").content


def test_a_bucket_that_the_account_may_not_name_is_neither_read_nor_written(
    desk: Desk, bucket: tuple[str, Settings]
) -> None:
    (source_url, source), (target_url, target) = place(bucket, "stock"), place(bucket, "elsewhere")
    source.write("1.jpg", jpeg())
    assert "may not use that place" in run("submit", source_url, "--account", "Acme", code=2)
    assert json.loads(run("status", "--json")) == []
    batch = desk.send({"1.jpg": jpeg()})
    desk.work(batch)
    assert "may not use that place" in run("download", batch, "--to", target_url, code=2)
    assert list(target.walk("")) == []


def test_a_link_to_a_cutout_opens_on_s3_without_a_key_and_only_as_it_was_signed(tmp_path: Path) -> None:
    url, settings = ceph_bucket()
    desk = new_desk(tmp_path / "home", transient_url=url, **keys_of(settings))
    batch = desk.send({"1.jpg": jpeg()})
    desk.work(batch)
    whole = desk.call("GET", f"/batches/{batch}/items/1/cutout").content
    answer = desk.call("GET", f"/batches/{batch}/items/1/cutout?link=true", follow_redirects=False)
    assert answer.status_code == 307
    link = answer.headers["location"]
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in link, "AWS takes no older signature for buckets made since 2020"
    assert httpx.get(link, timeout=60).content == whole
    assert httpx.get(link.replace("/cutout/", "/source/", 1), timeout=60).status_code == 403
    desk.parts.records.engine.dispose()


def test_retry_and_cancel_by_command_say_what_cannot_be(desk: Desk) -> None:
    batch = desk.send({"1.jpg": jpeg(), "2.jpg": b"no photo"})
    assert "has not ended" in run("retry", batch, "--failed", code=2)
    assert "Say which photos" in run("retry", batch, code=2)
    assert json.loads(run("cancel", batch, "--json"))["state"] == "cancelled"
    done = desk.send({"1.jpg": jpeg(), "2.jpg": b"no photo"})
    desk.work(done)
    assert "nothing to try again" in run("retry", done, "--code", "worker_lost", code=2)
    assert json.loads(run("cancel", done, "--json"))["state"] == "partially_completed"
