"""Photos go to a store, and cutouts come from it, several at a time: each answer takes it a while, over a network."""

from __future__ import annotations

import io
import struct
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from flows.parts import Parts, open_parts
from flows.receive import seal, stamp_batch
from portal.delivery import Results, deliver, deliver_to_place, read_results, zip_stream
from portal.intake.archive import Archive, ArchiveLimits, upload_archive
from portal.intake.copying import Copying
from portal.intake.folder import find_photos, upload
from portal.intake.manifest import Listed
from portal.intake.upload_manifest import upload_manifest
from schemas.batch import Item, Manifest
from schemas.errors import StoreFault
from schemas.options import CutoutOptions
from schemas.results import ShardReport
from store.objects.object_store import ObjectStore, open_store
from store.objects.storage import Storage
from store.records.people import create_account
from store.transient.transient_store import TransientStore, cutout_key, source_key
from tests.batches import lay_out
from tests.portal.conftest import NOON
from tests.portal.test_batch_view import done
from tests.records import at_home

PHOTOS = 12


class Together:
    """A folder that answers a call for a photo when so many others have come."""

    def __init__(self, storage: Storage, calls: int) -> None:
        self._storage, self._calls = storage, threading.Barrier(calls)
        self.AT_ONCE = 8

    def __getattr__(self, name: str) -> object:
        return getattr(self._storage, name)

    def put(self, key: str, data: bytes) -> None:
        if "/source/" in key:
            self._calls.wait(300)
        self._storage.put(key, data)

    def get(self, key: str) -> bytes:
        if "/cutout/" in key:
            self._calls.wait(300)
        return self._storage.get(key)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = open_parts(at_home(tmp_path / "home"), lambda: NOON)
    yield with_calls(parts, 4)
    parts.records.engine.dispose()


def with_calls(parts: Parts, calls: int) -> Parts:
    storage = open_store(parts.settings.transient_root, parts.settings).storage
    together = ObjectStore(Together(storage, calls))  # type: ignore[arg-type]
    return replace(parts, transient=TransientStore(together, lambda: NOON))


def photo(number: int) -> bytes:
    return b"photo %d" % number


def sent(parts: Parts, folder: Path, way: str) -> Manifest:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", NOON, Random(1).randbytes)
    stamp = stamp_batch(parts, account_id, None, CutoutOptions(), Random(2).randbytes)
    names = {f"{number:02d}.jpg": photo(number) for number in range(1, PHOTOS + 1)}
    told: list[None] = []
    on_item = lambda: told.append(None)  # noqa: E731
    if way == "zip":
        path = folder / "photos.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in names.items():
                archive.writestr(name, data)
        with Archive(path, ArchiveLimits(photo_bytes=100)) as opened:
            manifest = upload_archive(parts, stamp, opened, on_item)
    else:
        photos = lay_out(folder / "photos", names)
        if way == "folder":
            manifest = upload(Copying(parts, stamp), find_photos(photos).photos, on_item)
        else:
            listed = [Listed(path=name, url="", options=None, file=name) for name in names]
            manifest = upload_manifest(Copying(parts, stamp), listed, photos, on_item)
    assert len(told) == PHOTOS
    return manifest


@pytest.mark.parametrize("way", ["folder", "zip", "manifest"])
def test_photos_are_sent_several_at_a_time_and_each_is_itself(parts: Parts, tmp_path: Path, way: str) -> None:
    manifest = sent(parts, tmp_path, way)
    assert [(item.number, item.path) for item in manifest.items] == [(n, f"{n:02d}.jpg") for n in range(1, PHOTOS + 1)]
    for item in manifest.items:
        assert parts.transient.read(source_key(manifest.stamp.batch_id, item.number)) == photo(item.number)


def cut(parts: Parts, folder: Path) -> Results:
    manifest = sent(parts, folder, "folder")
    for number in range(1, PHOTOS + 1):
        parts.transient.write(manifest.stamp, cutout_key(manifest.stamp.batch_id, number, ".png"), photo(number))
        parts.transient.write_report(manifest.stamp, ShardReport(first=number, last=number, results=(done(number),)))
    return read_results(parts.transient, manifest.stamp.batch_id)


def test_who_fetches_a_batch_holds_little_of_each_cutout(parts: Parts) -> None:
    """Ten who fetched a batch of 10,000 at a slow pace held 300 MB in the portal."""
    count = 5_000
    items = [Item(number=number, path=f"{number}.jpg", size=8) for number in range(1, count + 1)]
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", NOON, Random(1).randbytes)
    stamp = stamp_batch(parts, account_id, None, CutoutOptions(), Random(2).randbytes)
    seal(parts, stamp, items)
    found = tuple(done(item.number) for item in items)
    parts.transient.write_report(stamp, ShardReport(first=1, last=count, results=found))
    tracemalloc.start()
    results = read_results(parts.transient, stamp.batch_id)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(results.done) == count
    assert held / count < 700


@pytest.mark.parametrize("way", ["folder", "place", "zip"])
def test_cutouts_are_fetched_several_at_a_time_and_each_is_itself(parts: Parts, tmp_path: Path, way: str) -> None:
    results, to, told = cut(parts, tmp_path), tmp_path / "cutouts", list[None]()
    if way == "zip":
        parts = with_calls(parts, 3)
        with zipfile.ZipFile(io.BytesIO(b"".join(zip_stream(parts.transient, results)))) as archive:
            got = {name: archive.read(name) for name in archive.namelist()}
    else:
        if way == "folder":
            count = deliver(parts.transient, results, to, lambda: told.append(None))
        else:
            place = open_store(str(to), parts.settings)
            count = deliver_to_place(parts.transient, results, place, lambda: told.append(None))
        assert count == len(told) == PHOTOS
        got = {path.name: path.read_bytes() for path in to.iterdir()}
    assert got == {f"{number:02d}.png": photo(number) for number in range(1, PHOTOS + 1)}


def test_a_place_that_goes_away_meanwhile_is_not_said_to_take_no_such_names(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, place = cut(parts, tmp_path), open_store(str(tmp_path / "cutouts"), parts.settings)
    write, written = place.write, list[str]()

    def away_after_three(key: str, data: bytes) -> None:
        if len(written) == 3:
            raise StoreFault("It is full.")
        written.append(key)
        write(key, data)

    monkeypatch.setattr(place, "write", away_after_three)
    with pytest.raises(StoreFault, match="It is full"):
        deliver_to_place(with_calls(parts, 1).transient, results, place, lambda: None)


def test_a_zip_file_can_be_read_as_it_comes(parts: Parts, tmp_path: Path) -> None:
    results = cut(parts, tmp_path)
    whole, at, got = b"".join(zip_stream(with_calls(parts, 3).transient, results)), 0, {}
    while whole[at : at + 4] == b"PK\3\4":  # as Java's ZipInputStream: by what stands before each file alone
        flags, method, size, packed, name, extra = struct.unpack_from("<2xHH8xIIHH", whole, at + 4)
        start = at + 30 + name + extra
        assert (flags & 8, method, size) == (0, 0, packed)
        got[whole[at + 30 : at + 30 + name].decode()] = whole[start : start + size]
        at = start + size
    assert got == {f"{number:02d}.png": photo(number) for number in range(1, PHOTOS + 1)}
