"""What the commands for batches print, and how they end."""

from __future__ import annotations

import errno
import json
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from flows import steps
from flows.canary import send_canary
from flows.cleaning import cleaning
from flows.parts import Parts, current_parts, open_parts
from portal.cli.app import app
from portal.cli.terminal import exit_for
from schemas.batch import BatchState
from schemas.clock import system_clock
from schemas.errors import DeviceAbsent, StoreFault
from schemas.ids import BatchId
from schemas.options import CutoutOptions
from schemas.results import Failed, ShardReport
from store.objects.folder import Folder
from store.purging.cleanup import clean_up
from store.records import line
from store.records.batches import get_batch, hasten, list_batches
from store.transient.transient_store import batch_prefix
from tests.api.conftest import Desk, cut_batch, jpeg
from tests.flows.test_dispatch import pretend
from tests.portal.commands import run
from tests.portal.test_batch_view import done


def fail_all(parts: Parts, batch_id: BatchId) -> None:
    """What becomes of a batch without a single photo, without opening a network for it."""
    manifest = parts.transient.manifest(batch_id)
    results = tuple(
        Failed(number=each.number, code="not_an_image", sentence="It is no image.", finished_at=parts.clock())
        for each in manifest.items
    )
    parts.transient.write_report(manifest.stamp, ShardReport(first=1, last=len(results), results=results))
    steps.finish(parts, batch_id)


def test_names_of_photos_are_printed_as_they_are(desk: Desk, tmp_path: Path) -> None:
    names = ("car [front].jpg", "x[/y].jpg", "[red]:car:[/red].jpg")
    batch = desk.send(dict.fromkeys(names, b"no photo"))
    fail_all(desk.parts, BatchId(batch))
    shown = run("status", batch)
    assert [name for name in names if name not in shown] == []
    folder = tmp_path / "[/red] cutouts :car:"
    assert f"0 cutouts in {folder}" in run("download", batch, "--to", str(folder), code=4)
    (tmp_path / "list.csv").write_text("x[/y]\n1\n")
    said = run("submit", str(tmp_path / "list.csv"), "--account", "Acme", code=2)
    assert said.startswith("bad_manifest: Nothing was started. line 1, column 1 (x[/y]): there is no such column")


def test_a_photos_name_turns_no_line_of_a_terminal_round(desk: Desk) -> None:
    failed, flagged = "\u202egpj.1.jpg", "a\u2028\u2066b.jpg"
    batch = BatchId(desk.send({failed: b"no photo", flagged: b"a photo"}))
    manifest = desk.parts.transient.manifest(batch)
    numbers = {each.path: each.number for each in manifest.items}
    failure = Failed(
        number=numbers[failed], code="not_an_image", sentence="It is none.", finished_at=desk.parts.clock()
    )
    results = (failure, done(numbers[flagged], "no_subject"))
    desk.parts.transient.write_report(manifest.stamp, ShardReport(first=1, last=2, results=results))
    steps.finish(desk.parts, batch)
    table = run("status", batch, code=0)
    assert all(each.isprintable() for each in table.splitlines())
    assert "\\u202egpj.1.jpg" in table
    assert "a\\u2028\\u2066b.jpg" in table
    assert json.loads(run("status", batch, "--json"))["failures"][0]["path"] == failed


def test_a_command_opens_the_stores_once(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened = []
    without_engine = SimpleNamespace(process_batch=lambda batch_id: fail_all(current_parts(), batch_id))
    monkeypatch.setitem(sys.modules, "flows.process_batch", without_engine)
    monkeypatch.setattr("flows.engine.start", lambda: None)

    def counted(*what: Any) -> Parts:
        opened.append(what)
        return open_parts(*what)

    monkeypatch.setattr("portal.cli.terminal.open_parts", counted)
    batch = desk.send({"1.jpg": b"no photo"})
    assert "0 cutouts in" in run("run", batch, "--to", str(tmp_path / "cutouts"), code=4)
    assert len(opened) == 1


def test_a_command_names_the_cutouts_that_a_person_should_look_at(desk: Desk) -> None:
    batch = desk.send({"VIN1/1.jpg": jpeg(), "VIN1/2.jpg": jpeg()})
    manifest = desk.parts.transient.manifest(BatchId(batch))
    results = (done(1), done(2, "empty_mask", "dark"))
    desk.parts.transient.write_report(manifest.stamp, ShardReport(first=1, last=2, results=results))
    steps.finish(desk.parts, BatchId(batch))
    shown = run("status", batch)
    assert "2: 2 done (1 to look at), 0 failed" in shown
    assert [line for line in shown.splitlines() if "VIN1" in line] == ["│ VIN1/2.jpg │ empty_mask, dark │"]
    assert "left out" not in shown
    to_check = json.loads(run("status", batch, "--json"))["to_check"]
    assert to_check == [{"path": "VIN1/2.jpg", "flags": ["empty_mask", "dark"]}]


def test_of_a_batch_whose_sender_was_killed_status_says_that_it_never_came_whole(desk: Desk) -> None:
    half = desk.open()
    assert "open: not all of its photos have come; if nobody sends them any more, submit them again" in " ".join(
        run("status", half).split()
    )
    with desk.parts.records.transaction() as connection:
        hasten(connection, BatchId(half), desk.parts.clock())
    assert "submit them again" not in run("status", half)


@pytest.mark.parametrize("is_swept", [True, False], ids=["swept", "not swept"])
def test_between_its_purge_time_and_its_receipt_a_batch_is_said_to_be_due(
    desk: Desk, tmp_path: Path, is_swept: bool
) -> None:
    batch = BatchId(desk.send({"VIN1/1.jpg": b"no photo"}))
    fail_all(desk.parts, batch)
    with desk.parts.records.transaction() as connection:
        hasten(connection, batch, desk.parts.clock())
    if is_swept:
        desk.parts.transient.objects.delete_folder(batch_prefix(batch))
    shown = run("status", batch)
    assert "that time has come, and the cleanup that finds nothing left leaves the receipt" in shown
    assert "VIN1" not in shown
    assert json.loads(run("status", batch, "--json"))["purged_at"] is None
    said = run("download", batch, "--to", str(tmp_path / "cutouts"), code=2)
    assert said.startswith(f"past_deadline: The purge time of batch {batch} has come")
    clean_up(cleaning(desk.parts))
    assert is_swept or "that time has come" not in run("status", batch)


def test_a_folder_for_cutouts_that_cannot_be_written_is_told_before_anything_is_sent(
    desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.jpg").write_bytes(b"no photo")
    (tmp_path / "taken").write_text("a file")
    said = run("submit", str(tmp_path / "photos"), "--account", "Acme", "--to", str(tmp_path / "taken"), code=2)
    assert said.startswith("file_fault: File exists: ")
    assert json.loads(run("status", "--json")) == []


def test_a_place_for_cutouts_that_the_account_may_not_use_is_told_before_anything_is_sent(
    desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.jpg").write_bytes(b"no photo")
    elsewhere = (tmp_path / "elsewhere").as_uri()
    said = run("submit", str(tmp_path / "photos"), "--account", "Acme", "--to", elsewhere, code=2)
    assert "may not use that place" in said
    assert json.loads(run("status", "--json")) == []


def test_the_list_of_batches_says_how_far_each_is_and_when_it_is_gone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    photos = {"1.jpg": jpeg(), "2.jpg": b"no photo"}
    mixed, whole = desk.send(photos, industry="automotive"), desk.send({"1.jpg": jpeg()})
    others, called_off = desk.send(photos, "Bazaar"), desk.send(photos)
    for batch in (mixed, whole):
        desk.work(batch)
    run("cancel", called_off)

    def listed(*words: str) -> list[list[str]]:
        lines = [each for each in run("status", *words).splitlines() if each.startswith("│")]
        return [[cell.strip() for cell in each.strip("│").split("│")] for each in lines]

    def gone(batch: str) -> str:
        with desk.parts.records.reading() as connection:
            record = get_batch(connection, batch)
        return f"{record.purged_at or record.stamp.purge_at:%Y-%m-%d %H:%M}"

    assert sorted(listed("--account", "Acme")) == sorted(
        [
            [mixed, "2 automotive", "partially completed: 1 done, 1 failed", gone(mixed)],
            [whole, "1", "completed", gone(whole)],
            [called_off, "2", "cancelled: 0 done, 0 failed", gone(called_off)],
        ]
    )
    assert [others, "2 of Bazaar", "sealed: 0 done, 0 failed", gone(others)] in listed(), "there are several accounts"
    with desk.parts.records.transaction() as connection:
        hasten(connection, BatchId(whole), desk.parts.clock())
    clean_up(cleaning(desk.parts))
    assert [whole, "1 of Acme", "purged", gone(whole)] in listed()


@pytest.mark.parametrize(
    ("words", "code", "done_then"), [(("--failed",), 0, 2), (("--code", "unreadable", "--code", "x"), 3, 1)]
)
def test_photos_that_failed_are_tried_again_by_command_all_of_them_or_by_their_code(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], code: int, done_then: int
) -> None:
    batch = BatchId(desk.send({"1.jpg": jpeg(), "2.jpg": jpeg()}))
    stamp = desk.parts.transient.manifest(batch).stamp
    results = tuple(
        Failed(number=number, code=why, sentence="It failed.", finished_at=desk.parts.clock())
        for number, why in ((1, "unreadable"), (2, "not_an_image"))
    )
    desk.parts.transient.write_report(stamp, ShardReport(first=1, last=2, results=results))
    steps.finish(desk.parts, batch)
    cut = SimpleNamespace(process_batch=lambda batch_id: cut_batch(current_parts(), batch_id))
    monkeypatch.setitem(sys.modules, "flows.process_batch", cut)
    monkeypatch.setattr("flows.engine.start", lambda: None)
    monkeypatch.setattr("portal.cli.batch_lease._FOR_THE_IDLE", 0)
    folder = tmp_path / "cutouts"
    done = CliRunner().invoke(app, ["retry", batch, *words, "--to", str(folder), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["counts"]["done"]) == (code, done_then)
    assert sorted(each.name for each in folder.iterdir()) == ["1.png", "2.png"][:done_then]
    assert f"cutout{'s' if done_then > 1 else ''} in {folder}" in done.stderr


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ((), {}),
        (
            ("--format", "jpg", "--bg-color", "white", "--crop", "--crop-margin", "10%", "--size", "hd"),
            {"format": "jpg", "bg_color": "white", "crop": True, "crop_margin": "10%", "size": "hd"},
        ),
        (
            ("--bg-image", "2.jpg", "--refine", "--despill", "--shadow"),
            {"bg_image": "2.jpg", "refine": True, "despill": True, "shadow": True},
        ),
        (("--channels", "alpha", "--consistent"), {"channels": "alpha", "consistent": True}),
    ],
    ids=["nothing", "on white", "on a photo", "masks"],
)
def test_a_batch_is_to_be_cut_as_the_command_asks_and_plainly_where_it_asks_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], asked: dict[str, Any]
) -> None:
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(b"no photo")
    ends = SimpleNamespace(process_batch=lambda batch_id: fail_all(current_parts(), batch_id))
    monkeypatch.setitem(sys.modules, "flows.process_batch", ends)
    monkeypatch.setattr("flows.engine.start", lambda: None)
    monkeypatch.setattr("portal.cli.batch_lease._FOR_THE_IDLE", 0)
    said = run("submit", str(tmp_path), "--account", "Acme", *words, code=4)
    (bar,) = [each for each in said.splitlines() if "Removing backgrounds" in each]
    assert " 2/2 " in bar, "one that failed is over, too"
    (shown,) = json.loads(run("status", "--json"))
    assert desk.parts.transient.manifest(BatchId(shown["stamp"]["batch_id"])).stamp.options == CutoutOptions(**asked)
    assert shown["stamp"]["received_at"][10] == "T", "a time as the REST API writes it"


def test_a_batch_is_called_off_also_while_nothing_of_it_can_be_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = BatchId(desk.send({"1.jpg": b"no photo", "2.jpg": b"no photo"}))
    fail_all(desk.parts, batch)

    get = Folder.get

    def away(self: Folder, key: str) -> bytes:
        if batch in key:
            raise OSError(errno.EIO, "no answer")
        return get(self, key)

    monkeypatch.setattr(Folder, "get", away)
    run("status", batch, code=1)
    assert json.loads(run("cancel", batch, "--json"))["state"] == "failed", "as it had ended before"


def test_where_nothing_cleans_up_a_command_says_who_has_to(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = desk.send({"1.jpg": b"no photo"})
    told = "run `bgbatch cleanup` at that time"

    def says_so() -> bool:
        return told in CliRunner().invoke(app, ["status", batch]).stderr

    assert says_so()
    clean_up(cleaning(desk.parts))
    assert says_so(), "one cleanup may be a command's own, and the last"
    clean_up(cleaning(desk.parts))
    assert not says_so()
    later = system_clock() + timedelta(minutes=31)
    monkeypatch.setattr("portal.cli.terminal.system_clock", lambda: later)
    assert says_so()
    monkeypatch.setenv("BGBATCH_CLEANUP_EXPECTED", "true")
    assert not says_so()


def test_a_download_to_where_nothing_can_be_written_fails_before_it_counts(desk: Desk, tmp_path: Path) -> None:
    batch = desk.send({"1.jpg": jpeg()})
    desk.work(batch)
    (tmp_path / "taken").write_text("a file")
    said = run("download", batch, "--to", str(tmp_path / "taken/cutouts"), code=2)
    assert said.startswith("file_fault: Not a directory: ")


def test_a_batch_that_was_never_sealed_is_not_run_and_nothing_is_started_for_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flows.process_batch", None)  # whoever imports it fails
    assert run("run", desk.open(), code=2).startswith("not_sealed: ")


def test_where_serve_has_cleaned_up_once_and_sent_its_canary_nobody_has_to(desk: Desk) -> None:
    batch = desk.send({"1.jpg": b"no photo"})
    clean_up(cleaning(desk.parts))
    assert "`bgbatch cleanup`" in CliRunner().invoke(app, ["status", batch]).stderr
    send_canary(desk.parts)
    assert CliRunner().invoke(app, ["status", batch]).stderr == ""


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("gs://bucket/x", "That is no place that bgbatch can use"),
        ("s3:/bucket/x", "That is no place that bgbatch can use"),
        ("S3://bucket/x", "That is no place that bgbatch can use"),
        ("azure://x", "That is no place that bgbatch can use"),
        ("file:/srv/x", "That is no place that bgbatch can use"),
        ("s3://", "A place is s3://bucket/prefix"),
        ("~/x", "The shell left `~` as it is"),
    ],
)
def test_no_address_of_another_kind_is_taken_for_a_folder(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, told: str
) -> None:
    """Cutouts, or candidates, were put into a folder of that name here, and said to be there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1.jpg").write_bytes(jpeg())
    batch = desk.send({"1.jpg": b"no photo"})
    before = set(tmp_path.iterdir())
    for words in (
        ("submit", "1.jpg", "--account", "Acme", "--to", place),
        ("run", batch, "--to", place),
        ("retry", batch, "--failed", "--to", place),
        ("download", batch, "--to", place),
        ("lake", "pull", "--industry", "automotive", "--to", place),
        ("place", "allow", "Acme", place),
        ("schedule", "add", "--account", "Acme", "--cron", "0 2 * * *", "--source", place),
    ):
        assert told in run(*words, code=2), words
    assert set(tmp_path.iterdir()) == before
    assert len(json.loads(run("status", "--json"))) == 1


@pytest.mark.parametrize("to", ["photos", "photos/cutouts", "link"])
def test_cutouts_among_the_photos_are_refused_before_anything_is_sent(desk: Desk, tmp_path: Path, to: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.jpg").write_bytes(jpeg())
    (tmp_path / "link").symlink_to("photos")
    said = run("submit", str(tmp_path / "photos"), "--account", "Acme", "--to", str(tmp_path / to), code=2)
    assert said.startswith("bad_request: The cutouts would lie among the photos")
    assert json.loads(run("status", "--json")) == []


def test_no_cutout_replaces_its_photo(desk: Desk, tmp_path: Path) -> None:
    photo = tmp_path / "VIN1/1.jpg"
    photo.parent.mkdir()
    photo.write_bytes(jpeg())
    batch = desk.send({"VIN1/1.jpg": jpeg()}, options={"format": "jpg"})
    desk.work(batch)
    said = run("download", batch, "--to", str(tmp_path), code=2)
    assert "already_exists: The photos themselves lie there" in said
    assert photo.read_bytes() == jpeg()
    photo.write_bytes(bytes(len(jpeg())))
    assert "1 cutout in" in run("download", batch, "--to", str(tmp_path))
    assert "1 cutout in" in run("download", batch, "--to", str(tmp_path)), "its own cutout may be fetched once more"


def test_a_cutout_whose_name_the_disk_does_not_take_keeps_no_other_from_being_fetched(
    desk: Desk, tmp_path: Path
) -> None:
    batch = desk.send({"a.jpg": jpeg(), "VIN1/1.jpg": jpeg(), "z.jpg": jpeg()})
    desk.work(batch)
    (tmp_path / "VIN1").write_bytes(b"no folder")
    said = run("download", batch, "--to", str(tmp_path), "--purge", code=2)
    assert "not_delivered: 1 cutout of 3 could not be written" in said
    assert "the place takes no file of such a name as VIN1/1.png." in " ".join(said.split())
    assert sorted(each.name for each in tmp_path.glob("*.png")) == ["a.png", "z.png"]
    assert "file_fault: " in run("download", batch, "--to", str(tmp_path / "VIN1"), code=2)
    assert "3 cutouts in" in run("download", batch, "--to", str(tmp_path / "other")), "it was not fetched whole before"


def test_a_download_of_a_batch_without_a_single_cutout_does_not_end_as_if_there_were_some(
    desk: Desk, tmp_path: Path
) -> None:
    waiting, called_off = desk.send({"1.jpg": b"no photo"}), desk.send({"1.jpg": b"no photo"})
    run("cancel", called_off)
    for batch, code in ((waiting, 1), (called_off, 5)):
        assert "0 cutouts in" in run("download", batch, "--to", str(tmp_path), code=code)


def test_a_download_that_is_interrupted_says_what_fetches_the_rest(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = desk.send({"1.jpg": b"no photo"})

    def interrupted(*_what: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("portal.cli.download.deliver", interrupted)
    said = run("download", batch, "--to", str(tmp_path), code=130)
    assert said.endswith("\nStopped. Run the same command again: it fetches all.\n")


def test_a_submit_needs_no_account_named_where_there_is_one(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    assert "Say which account: --account NAME" in run("submit", str(folder), code=2)
    run("account", "close", "Bazaar", "--reason", "contract ended", "--yes")
    assert "There is no photo in" in run("submit", str(folder), code=2), "it is Acme's, and looked through"
    run("account", "close", "Acme", "--reason", "contract ended", "--yes")
    assert "`bgbatch account create NAME" in run("submit", str(folder), code=2)


def test_a_cutout_whose_name_their_own_place_does_not_take_keeps_no_other_from_being_delivered(
    desk: Desk, tmp_path: Path
) -> None:
    batch = desk.send({"VIN1/1.jpg": jpeg(), "a.jpg": jpeg(), "z.jpg": jpeg()})
    desk.work(batch)
    place = tmp_path / "own"
    place.mkdir()
    (place / "VIN1").write_bytes(b"no folder")
    run("place", "allow", "Acme", f"file://{place}")
    said = run("download", batch, "--to", f"file://{place}", code=2)
    assert "not_delivered: 1 cutout of 3 could not be written" in said
    assert sorted(each.name for each in place.glob("*.png")) == ["a.png", "z.png"]
    for other in place.iterdir():
        other.unlink()
    place.rmdir()
    place.write_bytes(b"no folder")
    assert "store_fault: " in run("download", batch, "--to", f"file://{place}", code=1), "the place itself"


def test_no_cutout_replaces_a_photo_that_is_read_in_its_place(desk: Desk, tmp_path: Path) -> None:
    place = tmp_path / "own"
    place.mkdir()
    (place / "1.jpg").write_bytes(jpeg())
    run("place", "allow", "Acme", f"file://{place}")
    said = run("submit", f"file://{place}", "--account", "Acme", "--to", f"file://{place}/cutouts", code=2)
    assert "among the photos" in said
    batch = desk.open(source=f"file://{place}", options={"format": "jpg"})
    desk.work(batch)
    for to in (f"file://{place}", str(place)):
        assert "already_exists: The photos themselves lie there" in run("download", batch, "--to", to, code=2)
    assert (place / "1.jpg").read_bytes() == jpeg()


def test_an_upload_that_is_interrupted_is_called_off_and_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "1.jpg").write_bytes(b"no photo")

    def interrupted(*_what: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("portal.cli.sending.upload", interrupted)
    said = run("submit", str(tmp_path), "--account", "Acme", code=130)
    (shown,) = json.loads(run("status", "--json"))
    assert f"Batch {shown['stamp']['batch_id']} is called off, because it was not sent whole." in said
    assert "Stopped. Submit the photos again." in said
    assert shown["state"] == "cancelled"
    assert json.loads(run("status", shown["stamp"]["batch_id"], "--json"))["state"] == "cancelled"


def test_a_batch_that_came_whole_before_its_sender_was_interrupted_is_not_said_to_be_deleted_soon(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A dispatcher may be at work on it; it goes at its time, as each batch that is called off does."""
    (tmp_path / "1.jpg").write_bytes(b"no photo")

    def interrupted(*_what: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("portal.cli.sending._tell_lost", interrupted)
    said = run("submit", str(tmp_path), "--account", "Acme", code=130)
    (shown,) = json.loads(run("status", "--json"))
    batch_id, gone_by = shown["stamp"]["batch_id"], shown["stamp"]["purge_at"][:16].replace("T", " ")
    assert f"Batch {batch_id} came whole, and is called off. It is gone by {gone_by} UTC.\n" in said
    assert shown["state"] == "cancelled"
    clean_up(cleaning(desk.parts))
    assert list(desk.parts.transient.objects.walk(batch_prefix(batch_id))) != []


def test_an_upload_that_the_store_refuses_after_some_photos_names_its_batch_and_leaves_no_photo_for_a_day(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(b"no photo")
    put = Folder.put

    def full(self: Folder, key: str, data: bytes) -> None:
        if key.endswith("source/000003"):
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, key, data)

    monkeypatch.setattr(Folder, "put", full)
    said = run("submit", str(tmp_path), "--account", "Acme", code=1)
    (shown,) = json.loads(run("status", "--json"))
    batch_id = shown["stamp"]["batch_id"]
    assert shown["state"] == "cancelled"
    assert f"Batch {batch_id} is called off, because it was not sent whole. The next cleanup deletes what came." in said
    assert "store_fault: The object store refused to write: No space left on device." in said
    assert "Submit the photos again." in said
    assert len(list(desk.parts.transient.objects.walk(batch_prefix(batch_id)))) == 2
    clean_up(cleaning(desk.parts))
    assert list(desk.parts.transient.objects.walk(batch_prefix(batch_id))) == []


def test_an_upload_that_breaks_off_together_with_the_records_says_how_to_call_it_off(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "1.jpg").write_bytes(b"no photo")

    def away(*_what: object) -> None:
        raise OperationalError("", {}, Exception("no such host"))

    monkeypatch.setattr("portal.cli.sending.upload", away)
    monkeypatch.setattr("portal.cli.sending.call_off", away)
    said = run("submit", str(tmp_path), "--account", "Acme", code=1)
    (shown,) = json.loads(run("status", "--json"))
    assert f"`bgbatch cancel {shown['stamp']['batch_id']}` does so. It is gone by 20" in said
    assert "records_fault: the records cannot be used (OperationalError). Check BGBATCH_RECORDS_URL; where" in said
    assert shown["state"] == "open"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (StoreFault("The object store refused to write."), 1),
        (DeviceAbsent("There is no such device."), 2),
        (OperationalError("", {}, Exception("no such host")), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 2),
    ],
)
def test_a_batch_that_a_fault_interrupts_is_named_with_how_to_go_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: Exception, code: int
) -> None:
    (tmp_path / "1.jpg").write_bytes(b"no photo")

    def fails(_batch_id: BatchId) -> None:
        raise fault

    monkeypatch.setitem(sys.modules, "flows.process_batch", SimpleNamespace(process_batch=fails))
    monkeypatch.setattr("flows.engine.start", lambda: None)
    said = run("submit", str(tmp_path), "--account", "Acme", code=code)
    (shown,) = json.loads(run("status", "--json"))
    batch_id = shown["stamp"]["batch_id"]
    go_on = (
        f"What is done stays done: `bgbatch status {batch_id}` shows it, and `bgbatch run {batch_id}` does the rest."
    )
    assert said.rstrip().endswith(go_on)
    assert "run the command again" not in said, "that would send all photos once more"


def test_a_batch_that_is_done_is_shown_at_once_when_it_is_run_again_and_what_failed_by_our_fault_is_done(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[BatchId] = []
    monkeypatch.setitem(sys.modules, "flows.process_batch", SimpleNamespace(process_batch=ran.append))
    monkeypatch.setattr("flows.engine.start", lambda: None)
    batch = BatchId(desk.send({"1.jpg": b"no photo"}))
    fail_all(desk.parts, batch)
    said = run("run", batch, "--to", str(tmp_path), code=4)
    assert "not_an_image" in said
    assert f"Nothing of the batch is left to do. `bgbatch retry {batch} --failed` tries again what failed." in said
    assert ran == []
    manifest = desk.parts.transient.manifest(batch)
    ours = Failed(number=1, code="worker_lost", sentence="The worker died.", finished_at=desk.parts.clock())
    desk.parts.transient.write_report(manifest.stamp, ShardReport(first=1, last=1, results=(ours,)))
    run("run", batch, code=4)
    assert ran == [batch]


def test_a_batch_that_was_called_off_is_run_to_its_end_by_who_asks_for_that(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_engine = SimpleNamespace(process_batch=lambda batch_id: pretend(current_parts(), batch_id))
    monkeypatch.setitem(sys.modules, "flows.process_batch", without_engine)
    monkeypatch.setattr("flows.engine.start", lambda: None)
    batch = BatchId(desk.send({f"{n}.jpg": b"no photo" for n in range(3)}))
    answers = iter([False, True])  # after the first call of two photos
    pretend(replace(desk.parts, stop=lambda _: next(answers)), batch)
    assert json.loads(run("cancel", batch, "--json"))["state"] == "cancelled"
    before = desk.parts.transient.report_names(batch)
    assert "failed" in run("run", batch, code=4)
    assert len(desk.parts.transient.report_names(batch)) == len(before) + 1, "only what was not done yet"
    with desk.parts.records.reading() as connection:
        assert not line.is_called_off(connection, batch)


def test_a_mistake_of_the_callers_is_not_told_how_to_go_on(desk: Desk, tmp_path: Path) -> None:
    said = run("submit", str(tmp_path), "--account", "Acme", code=2)
    assert "Submit the photos again" not in said


def test_a_defect_is_one_sentence_whatever_it_says(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"no photo")
    secret = "grandmothers-portrait.jpg"

    def defective(*_what: object) -> None:
        raise KeyError(secret)

    monkeypatch.setattr("portal.cli.sending.upload", defective)
    said = run("submit", str(tmp_path), "--account", "Acme", code=1)
    assert said.count("internal: Something went wrong that nobody foresaw (KeyError at sending.py:") == 1
    assert "was not sent whole" in said
    assert "Submit the photos again." in said
    assert secret not in said


def test_what_broke_an_upload_is_told_although_it_cannot_be_called_off(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg())

    def is_full(*_what: object) -> None:
        raise StoreFault("No space left.")

    def is_full_too(*_what: object) -> None:
        raise OperationalError("", None, Exception("database or disk is full"))

    monkeypatch.setattr("portal.cli.sending.upload", is_full)
    monkeypatch.setattr("portal.cli.sending.call_off", is_full_too)
    assert "store_fault: No space left." in run("submit", str(tmp_path), "--account", "Acme", code=1)


def test_work_that_is_interrupted_says_how_to_go_on_with_that_batch(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_batch_id: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "flows.process_batch", SimpleNamespace(process_batch=interrupted))
    monkeypatch.setattr("flows.engine.start", lambda: None)
    batch = desk.send({"1.jpg": b"no photo"})
    assert f"`bgbatch run {batch}` does the rest." in run("run", batch, code=130)


def test_who_submits_beside_a_busy_dispatcher_is_told_that_the_batch_waits_and_gets_its_result(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "1.jpg").write_bytes(b"no photo")
    other, waited = BatchId(desk.send({"1.jpg": b"no photo"})), []
    with desk.parts.records.transaction() as connection:
        assert line.claim(connection, other, f"{line.DISPATCHER}one", desk.parts.clock())

    def ends_at_its_turn(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            with desk.parts.records.reading() as connection:
                (ours,) = [each for each in list_batches(connection) if each.stamp.batch_id != other]
            fail_all(desk.parts, ours.stamp.batch_id)

    monkeypatch.setattr("portal.cli.batch_lease.sleep", ends_at_its_turn)
    said = run("submit", str(tmp_path / "1.jpg"), "--account", "Acme", "--to", str(tmp_path / "cutouts"), code=4)
    assert said.count("so this one stands in line for its turn. Ctrl-C leaves it there; `bgbatch run ") == 1
    assert "0 done, 1 failed" in said
    assert "0 cutouts in" in said


@pytest.mark.parametrize("cleanup", ["was there", "is late"])
def test_who_waited_until_the_batch_was_gone_is_told_so_and_to_fetch_nothing(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cleanup: str
) -> None:
    (tmp_path / "1.jpg").write_bytes(b"no photo")
    other = BatchId(desk.send({"1.jpg": b"no photo"}))
    with desk.parts.records.transaction() as connection:
        assert line.claim(connection, other, f"{line.DISPATCHER}one", desk.parts.clock())

    def its_time_is_over(_seconds: float) -> None:
        with desk.parts.records.transaction() as connection:
            (ours,) = [each for each in list_batches(connection) if each.stamp.batch_id != other]
            hasten(connection, ours.stamp.batch_id, desk.parts.clock())
        if cleanup == "was there":
            clean_up(cleaning(desk.parts))

    monkeypatch.setattr("portal.cli.batch_lease.sleep", its_time_is_over)
    said = run("submit", str(tmp_path / "1.jpg"), "--account", "Acme", "--to", str(tmp_path / "cutouts"), code=1)
    assert "can still be fetched" not in said
    assert "cutouts in" not in said
    assert ("was purged at" if cleanup == "was there" else "The purge time of batch ") in said
    assert "Send it again." in said


@pytest.mark.parametrize("words", [("run",), ("retry", "--failed"), ("download", "--to", "cutouts")], ids=" ".join)
def test_of_a_batch_that_is_gone_nothing_is_begun_and_that_is_said(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    batch = desk.send({"1.jpg": b"no photo"})
    fail_all(desk.parts, BatchId(batch))
    with desk.parts.records.transaction() as connection:
        hasten(connection, BatchId(batch), desk.parts.clock())
    clean_up(cleaning(desk.parts))
    monkeypatch.setattr("portal.cli.submit._work_through", None)
    said = run(words[0], batch, *words[1:], code=2)
    assert said.startswith("past_deadline: ")
    assert "was purged at" in said


def test_calling_off_what_has_ended_says_that_it_had(desk: Desk) -> None:
    batch = desk.send({"1.jpg": b"no photo"})
    fail_all(desk.parts, BatchId(batch))
    assert "had ended already" in CliRunner().invoke(app, ["cancel", batch]).stderr


def test_who_stops_waiting_leaves_the_batch_in_line(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "1.jpg").write_bytes(b"no photo")
    other = BatchId(desk.send({"1.jpg": b"no photo"}))
    with desk.parts.records.transaction() as connection:
        assert line.claim(connection, other, f"{line.DISPATCHER}one", desk.parts.clock())

    def is_interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("portal.cli.batch_lease.sleep", is_interrupted)
    said = run("submit", str(tmp_path / "1.jpg"), "--account", "Acme", code=130)
    assert "Stopped. What is done stays done: " in said
    with desk.parts.records.reading() as connection:
        assert len(line.in_line(connection, desk.parts.clock())) == 1


@pytest.mark.parametrize(
    ("step", "error", "code"),
    [
        ("portal.cli.download.deliver", OSError(errno.ENOSPC, "No space left on device"), 2),
        ("portal.cli.submit.show_one", BrokenPipeError(errno.EPIPE, "`| head` has read enough"), 1),
    ],
)
def test_cutouts_that_cannot_be_written_in_the_end_can_still_be_fetched(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str, error: OSError, code: int
) -> None:
    without_engine = SimpleNamespace(process_batch=lambda batch_id: fail_all(current_parts(), batch_id))
    monkeypatch.setitem(sys.modules, "flows.process_batch", without_engine)
    monkeypatch.setattr("flows.engine.start", lambda: None)

    def fails(*_what: object, **_named: object) -> int:
        raise error

    monkeypatch.setattr(step, fails)
    batch = desk.send({"1.jpg": b"no photo"})
    said = run("run", batch, "--to", str(tmp_path / "cutouts"), code=code)
    assert f"bgbatch download {batch} --to FOLDER" in said


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (BatchState.PARTIALLY_COMPLETED, 3),
        (BatchState.FAILED, 4),
        (BatchState.CANCELLED, 5),
        (BatchState.RUNNING, 1),
        (BatchState.PURGED, 1),
    ],
)
def test_a_command_ends_with_0_only_when_all_is_done(state: BatchState, code: int) -> None:
    exit_for(BatchState.COMPLETED)
    with pytest.raises(typer.Exit) as end:
        exit_for(state)
    assert end.value.exit_code == code
