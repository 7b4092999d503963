"""What the command line finds wrong with a batch before it has sent a byte of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Literal
from unicodedata import normalize

import pytest

from flows.parts import Parts, open_parts
from flows.receive import stamp_batch
from portal.cli.sending import send
from portal.intake.copying import Copying
from schemas.clock import system_clock
from schemas.errors import BadManifest, BadOptions, NotFound, UserError
from schemas.left_out import LeftOut
from schemas.options import CutoutOptions
from store.outside.allowed import allow
from store.records.batches import list_batches
from store.records.people import create_account
from store.transient.transient_store import source_key
from tests.portal.test_intake import packed
from tests.records import at_home

ON_BRICK = CutoutOptions(bg_image="walls/brick.jpg")


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = open_parts(at_home(tmp_path / "home"), system_clock)
    yield parts
    parts.records.engine.dispose()


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    """The same two photos in each way to send them; of the manifest's, the second has a background of its own."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("1.jpg", "2.jpg"):
        (folder / name).write_bytes(name.encode())
    listed = tmp_path / "list.csv"
    listed.write_text("path,bg_image\nphotos/1.jpg,\nphotos/2.jpg,walls/brick.jpg\n")
    return {"folder": folder, "zip": packed(tmp_path, ("1.jpg", b"1"), ("2.jpg", b"2")), "manifest": listed}


@pytest.mark.parametrize("way", ["folder", "zip", "manifest", "place"])
def test_a_background_that_is_not_among_the_photos_is_told_before_anything_is_sent(
    parts: Parts, sources: dict[str, Path], way: str
) -> None:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
        allow(connection, account_id, sources["folder"].as_uri(), parts.clock())
    source = sources["folder"].as_uri() if way == "place" else str(sources[way])
    with pytest.raises(BadOptions, match="not in the batch") as refused:
        send(parts, source, account_id, None, CutoutOptions() if way == "manifest" else ON_BRICK)
    assert "brick" not in str(refused.value)
    with parts.records.reading() as connection:
        assert list_batches(connection) == []
    assert list(parts.transient.objects.walk("")) == []


def test_a_background_that_is_among_them_is_sent_with_them(parts: Parts, sources: dict[str, Path]) -> None:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    batch_id = send(parts, str(sources["folder"]), account_id, None, CutoutOptions(bg_image="2.jpg"))
    assert len(parts.transient.manifest(batch_id).items) == 2


def test_a_manifest_names_only_what_the_account_may_use(parts: Parts, tmp_path: Path) -> None:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
        allow(connection, account_id, "s3://acme/stock", parts.clock())
    may, may_not = tmp_path / "may.csv", tmp_path / "may_not.csv"
    may.write_text("url\ns3://acme/stock/1.jpg\nhttps://photos.example/2.jpg\n")
    others = (f"file://{parts.settings.transient_root}/x/source/1", "s3://beta/1.jpg", "file:///etc/1.jpg")
    nowhere = ("ftp://x/y.jpg", "https://user@photos.example/1.jpg", "https://[x/1.jpg", "1.jpg")
    unwritten = ("https://photos.example/a b.jpg", "https://photos.example/ä.jpg")
    may_not.write_text("\n".join(("url", *others, *nowhere, *unwritten)))
    with pytest.raises(BadManifest) as refused:
        send(parts, str(may_not), account_id, None, CutoutOptions())
    assert [f"line {number}, column 1 (url)" in str(refused.value) for number in range(2, 11)] == [True] * 9
    assert "%20" in str(refused.value)
    with parts.records.reading() as connection:
        assert list_batches(connection) == []
    batch_id = send(parts, str(may), account_id, None, CutoutOptions())
    sources = [item.source for item in parts.transient.manifest(batch_id).items]
    assert sources == ["s3://acme/stock/1.jpg", "https://photos.example/2.jpg"]


@pytest.mark.parametrize("name", ["1.jpg", "PHOTO.JPG", "link.heic"])
def test_a_photo_is_sent_alone_under_its_name(
    parts: Parts, sources: dict[str, Path], tmp_path: Path, name: str
) -> None:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    photo = sources["folder"] / "1.jpg"
    if name != "1.jpg":
        (tmp_path / name).symlink_to(photo)  # what the caller names is followed
        photo = tmp_path / name
    batch_id = send(parts, str(photo), account_id, None, CutoutOptions())
    manifest = parts.transient.manifest(batch_id)
    assert [(item.path, item.size) for item in manifest.items] == [(name, 5)]
    assert parts.transient.source(manifest.stamp, manifest.items[0]) == b"1.jpg"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("list.txt", "no photo by its name"),
        ("none.jpg", "No such file"),
        ("none.zip", "No such file"),
        ("https://photos.example/1.jpg", "a column `url`"),
        ("gs://stock/photos", "s3://bucket/prefix"),
        ("pipe.jpg", "no photo by its name"),
        ("a\x1b.jpg", "Rename it"),
        (os.fsdecode(b"\xff.jpg"), "in no UTF-8"),
    ],
)
def test_what_cannot_be_sent_is_said_before_anything_is(parts: Parts, tmp_path: Path, name: str, said: str) -> None:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    for there in ("list.txt", "a\x1b.jpg", os.fsdecode(b"\xff.jpg")):
        (tmp_path / there).write_text("1.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")  # would be read for ever
    with pytest.raises((UserError, FileNotFoundError), match=said):
        send(parts, name if "://" in name else str(tmp_path / name), account_id, None, CutoutOptions())
    with parts.records.reading() as connection:
        assert list_batches(connection) == []


@pytest.mark.parametrize("way", ["folder", "manifest", "place"])
def test_photos_come_by_name_with_their_bytes_and_one_over_the_limit_without(tmp_path: Path, way: str) -> None:
    parts = open_parts(at_home(tmp_path / "home", max_megabytes=0.000_005), system_clock)
    photos = tmp_path / "photos"
    sizes = {"1.jpg": 5, "VIN1/1.JPG": 4, "a.jpg": 6}
    for name in ("a.jpg", "VIN1/1.JPG", "1.jpg", ".git/1.jpg", ".1.jpg"):
        (photos / name).parent.mkdir(exist_ok=True, parents=True)
        (photos / name).write_bytes(b"x" * sizes.get(name, 1))
    listed = photos / "list.csv"
    listed.write_text("\n".join(("path", *sizes)))
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
        allow(connection, account_id, photos.as_uri(), parts.clock())
    source = {"folder": str(photos), "manifest": str(listed), "place": photos.as_uri()}[way]
    batch_id = send(parts, source, account_id, None, CutoutOptions())
    assert {item.path: item.size for item in parts.transient.manifest(batch_id).items} == sizes
    assert [item.path for item in parts.transient.manifest(batch_id).items] == list(sizes)
    kept = sorted(found.size for found in parts.transient.objects.walk("") if "/source/" in found.key)
    assert kept == ([] if way == "place" else [4, 5])
    with parts.records.reading() as connection:
        left_out = list_batches(connection)[0].left_out
    hidden = {LeftOut.HIDDEN: 1} if way == "folder" else {}
    assert left_out == ({} if way == "manifest" else hidden | {LeftOut.NOT_A_PHOTO: 1})
    parts.records.engine.dispose()


@pytest.mark.parametrize("folder", ["shoot.zip", "shoot.json"])
def test_a_folder_is_one_whatever_its_name_ends_in(parts: Parts, tmp_path: Path, folder: str) -> None:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "1.jpg").write_bytes(b"1")
    batch_id = send(parts, str(tmp_path / folder), account_id, None, CutoutOptions())
    assert [item.path for item in parts.transient.manifest(batch_id).items] == ["1.jpg"]


@pytest.mark.parametrize("name", ["list.json", "list.jsonl", "LIST.NDJSON"])
def test_each_kind_of_manifest_that_can_be_read_can_be_sent(
    parts: Parts, sources: dict[str, Path], tmp_path: Path, name: str
) -> None:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    (tmp_path / name).write_text('{"path": "photos/1.jpg"}\n')
    batch_id = send(parts, str(tmp_path / name), account_id, None, CutoutOptions())
    assert [item.path for item in parts.transient.manifest(batch_id).items] == ["photos/1.jpg"]


def test_a_manifest_of_another_encoding_is_refused_with_what_to_do(parts: Parts, tmp_path: Path) -> None:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    (tmp_path / "list.csv").write_bytes("path\nTür.jpg\n".encode("cp1252"))
    with pytest.raises(BadManifest, match="UTF-8"):
        send(parts, str(tmp_path / "list.csv"), account_id, None, CutoutOptions())


def test_links_are_not_followed_out_of_what_was_sent(
    parts: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    (tmp_path / "others").mkdir()
    (tmp_path / "others/1.jpg").write_bytes(b"another customer's")
    sent = tmp_path / "sent"
    sent.mkdir()
    (sent / "own.jpg").write_bytes(b"own")
    (sent / "folder").symlink_to(tmp_path / "others")
    (sent / "file.jpg").symlink_to(tmp_path / "others/1.jpg")
    (sent / "list.csv").write_text("path\nown.jpg\nfolder/1.jpg\nfile.jpg\n")
    (tmp_path / "link").symlink_to(sent)  # what the caller names is followed
    listed = send(parts, str(tmp_path / "link/list.csv"), account_id, None, CutoutOptions())
    assert [each.size for each in parts.transient.manifest(listed).items] == [3, 0, 0]
    walked = send(parts, str(tmp_path / "link"), account_id, None, CutoutOptions())
    assert [each.path for each in parts.transient.manifest(walked).items] == ["own.jpg"]
    assert "Left out: 1 × .csv, 2 × links." in capsys.readouterr().err


def test_a_file_that_changed_since_it_was_listed_is_what_it_is_when_it_is_read(parts: Parts, tmp_path: Path) -> None:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    copying = Copying(parts, stamp_batch(parts, account_id, None, CutoutOptions()))
    os.mkfifo(tmp_path / "1.jpg")
    release = Timer(20, lambda: (tmp_path / "1.jpg").write_bytes(b""))  # of whoever waits for a writer
    release.daemon = True
    release.start()
    assert copying.copy(1, "1.jpg", tmp_path / "1.jpg") == (0, "")
    assert not release.finished.is_set(), "it waited"
    release.cancel()
    grows = Path("/proc/self/maps")  # its status says that it is empty
    size, source = copying.copy(2, "2.jpg", grows)
    assert (size, source) == (len(parts.transient.read(source_key(copying.stamp.batch_id, 2))), "")
    assert size > 0
    small = replace(copying, parts=replace(parts, settings=parts.settings.model_copy(update={"max_megabytes": 1e-4})))
    assert small.copy(3, "3.jpg", grows) == (101, ""), "over the limit, whatever it seemed to be"
    with pytest.raises(NotFound):
        parts.transient.read(source_key(copying.stamp.batch_id, 3))


@pytest.mark.parametrize(("listed", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_list_may_write_letters_otherwise_than_the_disk(
    parts: Parts, tmp_path: Path, listed: Literal["NFC", "NFD"], on_disk: Literal["NFC", "NFD"]
) -> None:
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    (tmp_path / normalize(on_disk, "Müller")).mkdir()
    (tmp_path / normalize(on_disk, "Müller/ä.jpg")).write_bytes(b"1")
    (tmp_path / "list.csv").write_text(normalize(listed, "path\nMüller/ä.jpg\n"))
    batch = send(parts, str(tmp_path / "list.csv"), account_id, None, CutoutOptions())
    (item,) = parts.transient.manifest(batch).items
    assert (item.path, item.size) == (normalize(listed, "Müller/ä.jpg"), 1)
