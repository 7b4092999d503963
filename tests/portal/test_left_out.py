"""A file of a source that cannot be in its batch is counted and said, wherever its customer looks; the rest goes on."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from flows.receive import stamp_batch
from portal.cli.sending import send
from portal.intake.archive import Archive
from portal.intake.copying import Copying
from portal.intake.folder import find_photos, one_photo, upload
from portal.intake.tally import Tally
from schemas.batch import UNREAD
from schemas.errors import BadArchive
from schemas.left_out import LeftOut
from schemas.naming import shown
from schemas.options import CutoutOptions
from store.objects.s3 import S3
from store.outside.allowed import allow
from tests.api.conftest import Desk, jpeg, new_desk
from tests.portal.commands import run
from tests.portal.test_intake import LIMITS, packed
from tests.portal.test_own_places import keys_of
from tests.store.conftest import ceph_bucket

BAD_NAMES = ("a\x1b[2J.jpg", "b\nc.jpg", os.fsdecode(b"\xff.jpg"))


def too_deep(tmp_path: Path, photos: dict[str, bytes], out_of_reach: dict[str, bytes]) -> Path:
    """A folder with these photos, at such a depth that longer names can be listed and not opened, by nobody."""
    longest = os.pathconf(tmp_path, "PC_PATH_MAX") - 1
    missing = longest - len(f"{tmp_path}/12345.jpg")
    names = ["x" * 249] * (missing // 250 - 1)
    rest = missing - 250 * len(names)
    names += ["y" * (rest // 2 - 1), "y" * (rest - rest // 2 - 1)]
    depth = os.open(tmp_path, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=depth)
        below = os.open(name, os.O_RDONLY, dir_fd=depth)
        os.close(depth)
        depth = below
    for name, data in (photos | out_of_reach).items():
        with open(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=depth), "wb") as file:
            file.write(data)
    os.close(depth)
    return tmp_path.joinpath(*names)


@contextmanager
def a_user_who_is_not_root() -> Iterator[None]:
    own = os.geteuid()
    os.seteuid(own or 65_534)
    try:
        yield
    finally:
        os.seteuid(own)


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


@pytest.mark.parametrize(("many", "rest"), [(5, "."), (7, " and 2 more.")])
def test_of_many_photos_with_nothing_to_cut_the_first_five_are_named(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str], many: int, rest: str
) -> None:
    path = packed(tmp_path, *((f"{number}.jpg", b"as it was packed") for number in range(1, 1 + many)))
    path.write_bytes(path.read_bytes().replace(b"as it was packed", b"as it was copied"))
    send(desk.parts, str(path), desk.accounts["Acme"][0], None, CutoutOptions())
    named = "1.jpg, 2.jpg, 3.jpg, 4.jpg, 5.jpg"
    assert f"Damaged in the zip file, so that there is nothing to cut: {named}{rest}\n" in capsys.readouterr().err


def test_the_entry_for_which_a_whole_zip_is_refused_is_named(desk: Desk, tmp_path: Path) -> None:
    path = packed(tmp_path, ("VIN1/1.jpg", jpeg()), method=zipfile.ZIP_BZIP2)
    said = run("submit", str(path), "--account", "Acme", code=2)
    assert said.startswith("The entry: VIN1/1.jpg\nbad_archive: ")


def test_a_background_that_is_damaged_in_its_zip_is_told_once_and_not_of_every_other_photo(
    desk: Desk, tmp_path: Path
) -> None:
    path = packed(tmp_path, ("wall.jpg", jpeg("red")), ("VIN1/1.jpg", jpeg("blue")), ("VIN1/2.jpg", jpeg("green")))
    path.write_bytes(path.read_bytes().replace(jpeg("red")[-9:], b"no longer", 1))
    with pytest.raises(BadArchive, match=r"^The photo that bg_image names is damaged in the zip file\. Pack it again"):
        send(desk.parts, str(path), desk.accounts["Acme"][0], None, CutoutOptions(bg_image="wall.jpg"))
    (batch,) = json.loads(run("status", "--json"))
    assert batch["state"] == "cancelled", "nobody waits for cutouts that could not be made"


@pytest.mark.parametrize("way", ["folder", "manifest"])
def test_a_photo_that_cannot_be_read_costs_its_own_result_and_is_named_with_the_reason(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    deep = too_deep(tmp_path, {"1.jpg": jpeg("red"), "x.jpg": jpeg("blue")}, {"out-of-reach.jpg": jpeg("green")})
    (deep / "l.csv").write_text("path\n1.jpg\nout-of-reach.jpg\nx.jpg\n")
    source = deep if way == "folder" else deep / "l.csv"
    batch = send(desk.parts, str(source), desk.accounts["Acme"][0], None, CutoutOptions())
    said = "Not to be read, so that there is nothing to cut: out-of-reach.jpg (File name too long)."
    assert said in capsys.readouterr().err
    desk.work(batch)
    told = json.loads(run("status", batch, "--json"))
    (failure,) = told["failures"]
    assert (failure["path"], failure["code"]) == ("out-of-reach.jpg", "unreadable")
    assert "submit it again" in failure["sentence"]
    assert (told["state"], told["counts"]["done"]) == ("partially_completed", 2)


def test_a_photo_that_is_listed_and_not_there_is_told_as_missing_and_not_as_unreadable(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(jpeg())
    (tmp_path / "l.csv").write_text("path\n1.jpg\ngone.jpg\n2.jpg/inside-a-file.jpg\n")
    batch = send(desk.parts, str(tmp_path / "l.csv"), desk.accounts["Acme"][0], None, CutoutOptions())
    assert "Not to be read" not in capsys.readouterr().err
    desk.work(batch)
    failures = json.loads(run("status", batch, "--json"))["failures"]
    lost = ("gone.jpg", "2.jpg/inside-a-file.jpg")
    assert [(each["path"], each["code"]) for each in failures] == [(path, "source_missing") for path in lost]


def test_a_photo_that_goes_while_it_is_sent_costs_its_own_result(desk: Desk, tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (tmp_path / name).write_bytes(jpeg())
    copying = Copying(desk.parts, stamp_batch(desk.parts, desk.accounts["Acme"][0], None, CutoutOptions()))
    manifest = upload(copying, find_photos(tmp_path).photos, lambda: (tmp_path / "2.jpg").unlink(missing_ok=True))
    came = [(item.path, item.size, item.source) for item in manifest.items]
    assert came == [("1.jpg", len(jpeg()), ""), ("2.jpg", 0, UNREAD), ("3.jpg", len(jpeg()), "")]
    assert copying.unread == {"2.jpg": "No such file or directory"}


@pytest.mark.parametrize("way", ["folder", "manifest"])
def test_a_background_that_cannot_be_read_is_told_once_and_not_of_every_other_photo(
    desk: Desk, tmp_path: Path, way: str
) -> None:
    deep = too_deep(tmp_path, {"1.jpg": jpeg()}, {"out-of-reach.jpg": jpeg()})
    (deep / "l.csv").write_text("path\n1.jpg\nout-of-reach.jpg\n")
    source = deep if way == "folder" else deep / "l.csv"
    options = CutoutOptions(bg_image="out-of-reach.jpg")
    with pytest.raises(OSError, match="File name too long"):
        send(desk.parts, str(source), desk.accounts["Acme"][0], None, options)
    (batch,) = json.loads(run("status", "--json"))
    assert batch["state"] == "cancelled"


def test_a_photo_alone_and_a_zip_that_may_not_be_read_are_told_as_such() -> None:
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for name in ("1.jpg", "1.zip"):
            (Path(folder) / name).touch(mode=0)
        with a_user_who_is_not_root():
            with pytest.raises(PermissionError):
                one_photo(Path(folder) / "1.jpg")
            with pytest.raises(PermissionError):
                Archive(Path(folder) / "1.zip", LIMITS)


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


def test_who_sends_a_folder_with_a_zip_file_in_it_hears_how_its_photos_come_too(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lot = tmp_path / "lot"
    lot.mkdir()
    (lot / "1.jpg").write_bytes(b"no photo")
    packed(lot, ("2.jpg", b"no photo"))
    send(desk.parts, str(lot), desk.accounts["Acme"][0], None, CutoutOptions())
    hint = "What is in a zip file comes when that is submitted by itself."
    assert f"Left out: 1 × .zip. {hint}\n" in capsys.readouterr().err
