"""A file of a source that cannot be in its batch is counted and said, wherever its customer looks; the rest goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from portal.cli.sending import send
from portal.intake.folder import find_photos
from portal.intake.tally import Tally
from schemas.errors import BadArchive
from schemas.left_out import LeftOut
from schemas.naming import shown
from schemas.options import CutoutOptions
from store.outside import allow
from store.s3 import S3
from tests.api.conftest import Desk, jpeg, new_desk
from tests.portal.commands import run
from tests.portal.test_intake import packed
from tests.portal.test_own_places import keys_of
from tests.store.conftest import ceph_bucket

BAD_NAMES = ("a\x1b[2J.jpg", "b\nc.jpg", os.fsdecode(b"\xff.jpg"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "stock"
    made.mkdir()
    for name in ("1.jpg", "list.txt", *BAD_NAMES):
        (made / name).write_bytes(jpeg())
    return made


def test_of_a_place_it_is_told_by_program_on_the_page_and_by_command(desk: Desk, folder: Path) -> None:
    with desk.parts.records.transaction() as connection:
        allow(connection, desk.accounts["Acme"][0], folder.as_uri(), desk.parts.clock())
    opened = desk.call("POST", "/batches", json={"source": folder.as_uri()}, headers={"Idempotency-Key": "1"}).json()
    batch, left_out = opened["batch_id"], {"bad_name": 3, "not_a_photo": 1}
    assert (opened["items"], opened["left_out"]) == (1, left_out)
    assert desk.call("GET", f"/batches/{batch}").json()["left_out"] == left_out
    again = desk.call("POST", "/batches", json={"source": folder.as_uri()}, headers={"Idempotency-Key": "1"})
    assert again.json() == opened
    assert desk.call("GET", f"/batches/{desk.open()}").json()["left_out"] == {}
    words = "3 × names that cannot be kept, 1 × files of other kinds"
    assert f"left out          {words}\n" in run("status", batch)
    assert json.loads(run("status", batch, "--json"))["left_out"] == left_out
    desk.client.get(desk.links["Acme"])
    desk.client.post(desk.links["Acme"], headers={"sec-fetch-site": "same-origin"})
    assert f"Not in the batch, though they lie in its source: {words}." in desk.client.get(f"/batches/{batch}").text
    desk.work(batch)
    assert "1: 1 done" in run("status", batch)


@pytest.mark.parametrize("way", ["folder", "place", "zip"])
def test_whoever_sends_sees_which_without_harm_to_the_terminal(
    desk: Desk, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    account_id = desk.accounts["Acme"][0]
    with desk.parts.records.transaction() as connection:
        allow(connection, account_id, folder.as_uri(), desk.parts.clock())
    entries = ((name, jpeg()) for name in ("1.jpg", "list.txt", "../x.jpg", "a\x1b[2J.jpg", "b\nc.jpg"))
    sources = {"folder": str(folder), "place": folder.as_uri(), "zip": str(packed(tmp_path, *entries))}
    batch = send(desk.parts, sources[way], account_id, None, CutoutOptions())
    assert [each.path for each in desk.parts.transient.manifest(batch).items] == ["1.jpg"]
    said = capsys.readouterr().err
    assert "Left out: 1 × .txt, 3 × names that cannot be kept (" in said
    shown_as = ("a\\x1b[2J.jpg", "b\\nc.jpg", "../x.jpg" if way == "zip" else "\\udcff.jpg")
    assert [each for each in shown_as if each not in said] == []
    assert "\x1b[2J" not in said
    assert desk.call("GET", f"/batches/{batch}").json()["left_out"] == {"bad_name": 3, "not_a_photo": 1}


def test_a_photo_that_is_damaged_in_its_zip_says_so_and_that_the_zip_is_to_be_packed_again(
    desk: Desk, tmp_path: Path
) -> None:
    path = packed(tmp_path, ("VIN1/1.jpg", jpeg("red")), ("VIN1/2.jpg", jpeg("blue")))
    path.write_bytes(path.read_bytes().replace(jpeg("red")[-9:], b"no longer", 1))
    batch = send(desk.parts, str(path), desk.accounts["Acme"][0], None, CutoutOptions())
    desk.work(batch)
    (failure,) = json.loads(run("status", batch, "--json"))["failures"]
    assert (failure["path"], failure["code"]) == ("VIN1/1.jpg", "damaged_in_zip")
    assert "Pack it again" in failure["sentence"]
    assert desk.call("GET", f"/batches/{batch}").json()["done"] == 1


def test_a_background_that_is_damaged_in_its_zip_is_told_once_and_not_of_every_other_photo(
    desk: Desk, tmp_path: Path
) -> None:
    path = packed(tmp_path, ("wall.jpg", jpeg("red")), ("VIN1/1.jpg", jpeg("blue")), ("VIN1/2.jpg", jpeg("green")))
    path.write_bytes(path.read_bytes().replace(jpeg("red")[-9:], b"no longer", 1))
    with pytest.raises(BadArchive, match=r"^The photo that bg_image names is damaged in the zip file\. Pack it again"):
        send(desk.parts, str(path), desk.accounts["Acme"][0], None, CutoutOptions(bg_image="wall.jpg"))
    (batch,) = json.loads(run("status", "--json"))
    assert batch["state"] == "cancelled", "nobody waits for cutouts that could not be made"


def test_a_key_that_no_folder_can_hold_is_counted_on_a_real_s3_server(tmp_path: Path) -> None:
    url, settings = ceph_bucket()
    desk = new_desk(tmp_path / "home", **keys_of(settings))
    s3 = S3(url, settings)
    for key in ("1.jpg", "VIN1//2.jpg", "../3.jpg", "x" * 300 + ".jpg"):
        s3.call("put_object", Key=f"transient/{key}", Body=jpeg())
    with desk.parts.records.transaction() as connection:
        allow(connection, desk.accounts["Acme"][0], url, desk.parts.clock())
    opened = desk.call("POST", "/batches", json={"source": url}).json()
    assert (opened["items"], opened["left_out"]) == (1, {"bad_name": 3})
    desk.parts.records.engine.dispose()


def test_a_sub_folder_that_cannot_be_read_is_told_before_anything_is_sent(desk: Desk, folder: Path) -> None:
    depth = os.open(folder, os.O_RDONLY)
    for _ in range(20):  # deeper than a path can be, which stops a superuser, too
        os.mkdir("x" * 250, dir_fd=depth)
        below = os.open("x" * 250, os.O_RDONLY, dir_fd=depth)
        os.close(depth)
        depth = below
    os.close(depth)
    said = run("submit", str(folder), "--account", "Acme", code=2)
    assert said.startswith("file_fault: File name too long: ")
    assert json.loads(run("status", "--json")) == []


def test_a_disk_of_photos_is_sent_though_part_of_it_is_roots_own(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    for name in ("1.jpg", "lost+found/2.jpg"):
        (tmp_path / name).write_bytes(jpeg())
    assert list(find_photos(tmp_path).photos) == ["1.jpg"]


def test_a_pipe_that_is_called_a_photo_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg())
    os.mkfifo(tmp_path / "2.jpg")
    found = find_photos(tmp_path)
    assert (list(found.photos), found.left_out.counts) == (["1.jpg"], {LeftOut.NOT_A_PHOTO: 1})


def test_where_all_is_left_out_it_is_said_what_there_was(desk: Desk, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    with desk.parts.records.transaction() as connection:
        allow(connection, desk.accounts["Acme"][0], docs.as_uri(), desk.parts.clock())
    for way, kind in ((str(docs), "folder"), (docs.as_uri(), "place")):
        said = run("submit", way, "--account", "Acme", code=2)
        assert f"no photo in that {kind}. Photos end in .avif" in said
    (docs / "list.txt").write_text("no photo")
    for way, kind in ((str(docs), "folder"), (docs.as_uri(), "place")):
        said = run("submit", way, "--account", "Acme", code=2)
        assert f"no photo in that {kind}. Left out: 1 × files of other kinds. Photos end in .avif" in said


def test_of_many_and_long_names_the_first_are_shown_and_short() -> None:
    tally = Tally()
    for number in range(9):
        tally.leave_out(f"{number}" + "\u202e" * 70_000, LeftOut.BAD_NAME)
    tally.leave_out("x." + "\x1b" * 100, LeftOut.NOT_A_PHOTO)
    assert str(tally).count("…") == 6
    assert ", 4 more)" in str(tally)
    assert len(str(tally)) < 3_000
    assert str(tally).isprintable()
    assert shown("VIN1/größe [x].jpg") == "VIN1/größe [x].jpg"
