"""What an operator types about schedules and their nights."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from flows.nights import steps as night_steps
from flows.nights.worker import Job, Worker
from portal.cli.app import app
from schemas.ids import BatchId
from store.outside import allowed
from store.purging import canary
from store.records import line, nights, schedules
from store.records.batches import list_batches
from store.records.nights import NightId, NightState
from store.records.schedules import Schedule
from tests.api.conftest import Desk, jpeg
from tests.portal.commands import run

BUSY = f"{line.DISPATCHER}one"
WHITE = ("--format", "jpg", "--bg-color", "white", "--crop", "--crop-margin", "10%")


def add(place: Path, *options: str, code: int = 0) -> str:
    for name in ("photos", "cutouts"):
        (place / name).mkdir(exist_ok=True)
    places = ("--source", str(place / "photos"), "--deliver", str(place / "cutouts"))
    when = ("--cron", "0 2 * * *", "--timezone", "Europe/Berlin")
    return run("schedule", "add", "--account", "Acme", *when, *places, *options, code=code)


def added(place: Path, *options: str) -> str:
    return str(json.loads(add(place, *options, "--json"))["schedule_id"])


def all_of(desk: Desk) -> list[Schedule]:
    with desk.parts.records.reading() as connection:
        return schedules.list_all(connection)


def begin(desk: Desk, schedule_id: str, due: datetime, state: NightState = NightState.COMPLETED) -> str:
    with desk.parts.records.transaction() as connection:
        schedule = schedules.find(connection, schedule_id)
        night = nights.begin(connection, schedule, due, due, os.urandom, state)
    assert night is not None
    return str(night.night_id)


def test_the_account_may_be_left_out_beside_the_canaries_own(desk: Desk, tmp_path: Path) -> None:
    for name in ("photos", "cutouts"):
        (tmp_path / name).mkdir()
    places = ("--source", str(tmp_path / "photos"), "--deliver", str(tmp_path / "cutouts"))
    words = ("schedule", "add", "--cron", "0 2 * * *", "--timezone", "UTC", *places)
    with desk.parts.records.transaction() as connection:
        canary.ensure_account(connection, desk.parts.clock())
    assert "Say which account: --account NAME" in run(*words, code=2)
    run("account", "close", "Bazaar", "--reason", "contract ended", "--yes")
    assert json.loads(run(*words, "--json"))["account_id"] == desk.accounts["Acme"][0]


def test_who_adds_a_schedule_hears_that_its_source_holds_no_photo(desk: Desk, tmp_path: Path) -> None:
    words = ("schedule", "add", "--account", "Acme", "--cron", "0 2 * * *", "--source")

    def told(source: Path) -> str:
        done = CliRunner().invoke(app, [*words, str(source)])
        assert done.exit_code == 0, done.output
        return done.stderr

    assert "its source cannot be read as yet" in told(tmp_path / "nowhere")
    (tmp_path / "photos/VIN1").mkdir(parents=True)
    (tmp_path / "photos/VIN1/list.txt").write_text("no photo")
    assert "there is no photo in its source as yet" in told(tmp_path / "photos")
    (tmp_path / "photos/VIN1/1.JPG").write_bytes(jpeg())
    assert told(tmp_path / "photos") == ""


def test_a_schedule_in_the_way_of_another_is_named_and_nothing_is_changed(desk: Desk, tmp_path: Path) -> None:
    first = added(tmp_path)
    (tmp_path / "cutouts/white").mkdir()
    said = add(tmp_path, "--bg-color", "white", "--deliver", str(tmp_path / "cutouts/white"), code=2)
    assert said.startswith(f"already_exists: Schedule {first} delivers png files into a folder above or below")
    with desk.parts.records.reading() as connection:
        given = allowed.places_of(connection, desk.accounts["Acme"][0])
    assert f"file://{tmp_path}/cutouts/white" not in given
    run("schedule", "remove", first)
    add(tmp_path, "--bg-color", "white")


def test_what_cutouts_are_to_be_like_is_said_and_shown(desk: Desk, tmp_path: Path) -> None:
    plain, white = added(tmp_path), added(tmp_path, *WHITE, "--despill", "--refine", "--shadow")
    assert "cutouts           png\n" in run("schedule", "show", plain)
    asked = "jpg, crop, crop_margin 10%, bg_color white, refine, despill, shadow"
    assert f"cutouts           {asked}\n" in run("schedule", "show", white)
    listed = run("schedule", "list")
    assert all(f"│ {each} " in listed for each in ("png", asked)), "two of one source can be told apart"


def test_any_night_is_reported_by_its_day_its_time_or_its_id(desk: Desk, tmp_path: Path) -> None:
    schedule = added(tmp_path)
    long_ago = begin(desk, schedule, datetime(2025, 7, 1, 0, tzinfo=UTC))  # two o'clock in Berlin, in summer
    late = begin(desk, schedule, datetime(2025, 7, 1, 21, 30, tzinfo=UTC))
    other_day = begin(desk, schedule, datetime(2025, 6, 30, 21, 59, tzinfo=UTC))
    for minute in range(40):
        begin(desk, schedule, datetime(2025, 8, 1, 0, minute, tzinfo=UTC), NightState.SKIPPED)

    def reported(*which: str) -> str:
        return str(json.loads(run("schedule", "report", schedule, *which, "--json"))["night_id"])

    assert reported() == late, "however many were skipped since"
    assert reported("--night", "2025-06-30") == other_day
    for which in ("2025-07-01T02:00", "2025-07-01 02:00", "2025-07-01T00:00:00Z", long_ago):
        assert reported("--night", which) == long_ago
    assert "# Night of 2025-07-01 23:30 (Europe/Berlin)" in run("schedule", "report", schedule, "--night", late)
    assert "bad_request: 2 nights were due then. Say the time" in run(
        "schedule", "report", schedule, "--night", "2025-07-01", code=2
    )
    shown = run("schedule", "show", schedule, "--nights", "43")
    assert all(f"│ {time} │" in shown for time in ("2025-07-01T02:00", "2025-07-01T23:30", "2025-06-30T23:59"))
    assert len(json.loads(run("schedule", "show", schedule, "--json"))["nights"]) == 10


@pytest.mark.parametrize("which", ["2025-07-02", "2025-07-01T03:00", "9999-12-31", "0001-01-01", "yesterday", "n" * 33])
def test_a_night_that_there_was_not_is_told_with_how_to_name_one(desk: Desk, tmp_path: Path, which: str) -> None:
    schedule = added(tmp_path)
    begin(desk, schedule, datetime(2025, 7, 1, 0, tzinfo=UTC))
    said = run("schedule", "report", schedule, "--night", which, code=2)
    assert said.startswith("not_found: ")
    assert "Name it by" in said or "schedule show" in said


def test_a_night_of_another_schedule_is_not_reported_as_this_ones(desk: Desk, tmp_path: Path) -> None:
    one, other = added(tmp_path), added(tmp_path, "--format", "jpg")
    night = begin(desk, other, datetime(2025, 7, 1, 0, tzinfo=UTC))
    run("schedule", "report", one, "--night", night, code=2)


def test_a_schedule_without_a_night_yet_says_how_to_have_one(desk: Desk, tmp_path: Path) -> None:
    said = run("schedule", "report", added(tmp_path), code=2)
    assert said == "not_found: The schedule has had no night yet. `bgbatch schedule run` starts one now.\n"


def test_the_list_says_when_each_runs_next_and_how_its_last_night_ended(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    summer = datetime(2025, 7, 1, 12, tzinfo=UTC)
    monkeypatch.setattr("portal.cli.terminal.system_clock", lambda: summer)
    schedule = added(tmp_path)
    row = f"│ {schedule} │ file://{tmp_path}/photos │ png │ 0 2 * * * Europe/Berlin │ "

    def listed() -> str:
        (line,) = [each for each in run("schedule", "list").splitlines() if schedule in each]
        return " ".join(line.split()).replace(row, "")

    assert listed() == "2025-07-02 00:00 │ │"
    begin(desk, schedule, datetime(2025, 6, 30, 0, tzinfo=UTC), NightState.FAILED)
    begin(desk, schedule, datetime(2025, 7, 1, 0, tzinfo=UTC))
    assert f"`bgbatch schedule resume {schedule}`" in run("schedule", "pause", schedule)
    assert listed() == "paused │ completed │"
    assert run("schedule", "resume", schedule) == "Not paused: the next night starts at 2025-07-02 00:00 UTC.\n"
    assert listed() == "2025-07-02 00:00 │ completed │"
    add(tmp_path, "--format", "jpg")
    shown = json.loads(run("schedule", "list", "--account", "Acme", "--json"))
    assert [each["next_at"] for each in shown] == ["2025-07-02T00:00:00Z"] * 2
    assert json.loads(run("schedule", "list", "--account", "Bazaar", "--json")) == []


def test_the_list_of_schedules_names_their_accounts_where_there_are_several(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    added(tmp_path)
    assert "account" not in run("schedule", "list")
    place = tmp_path / "bazaar"
    place.mkdir()
    run("schedule", "add", "--account", "Bazaar", "--cron", "0 2 * * *", "--source", str(place))
    rows = [each.split("│") for each in run("schedule", "list").splitlines() if each.startswith("│")]
    assert sorted(row[2].strip() for row in rows) == ["Acme", "Bazaar"]


def test_a_schedule_gets_other_times_and_keeps_the_rest(desk: Desk, tmp_path: Path) -> None:
    schedule = added(tmp_path, "--deadline", "60")

    def times(*options: str) -> list[object]:
        shown = json.loads(run("schedule", "retime", schedule, *options, "--json"))
        return [shown[name] for name in ("cron", "timezone", "overlap", "deadline_minutes")]

    assert times("--cron", "30 4 * * *") == ["30 4 * * *", "Europe/Berlin", "skip", 60]
    assert times("--deadline", "0", "--overlap", "wait") == ["30 4 * * *", "Europe/Berlin", "wait", None]
    assert times("--timezone", "UTC") == ["30 4 * * *", "UTC", "wait", None]
    assert "Say what is to be otherwise" in run("schedule", "retime", schedule, code=2)
    assert "overlap policy" in run("schedule", "retime", schedule, "--overlap", "never", code=2)
    assert "five fields" in run("schedule", "retime", schedule, "--cron", "often", code=2)


@pytest.fixture
def busy(desk: Desk) -> BatchId:
    """A batch in the middle of a dispatcher's turn."""
    other = BatchId(desk.send({"1.jpg": b"no photo"}))
    with desk.parts.records.transaction() as connection:
        assert line.claim(connection, other, BUSY, desk.parts.clock())
    return other


@pytest.mark.parametrize("finishes", ["the command", "serve"])
def test_a_night_that_is_run_beside_a_busy_dispatcher_is_cut_there_and_told_here(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: BatchId, finishes: str
) -> None:
    schedule, looks = added(tmp_path), []
    (tmp_path / "photos/1.jpg").write_bytes(jpeg())

    def is_cut_at_its_turn(_seconds: float) -> None:
        looks.append(0)
        if len(looks) == 2:
            with desk.parts.records.transaction() as connection:
                (waiting,) = line.in_line(connection, desk.parts.clock())
                line.release(connection, busy, BUSY, desk.parts.clock())
            desk.work(waiting.batch_id)
            if finishes == "serve":
                night_steps.run_due(desk.parts, Worker("serve", os.urandom, None))

    monkeypatch.setattr("portal.cli.night_in_line.sleep", is_cut_at_its_turn)
    done = CliRunner().invoke(app, ["schedule", "run", schedule, "--json"])
    assert (done.exit_code, "this night stands in line" in done.stderr, "1/1" in done.stderr) == (0, True, True)
    report = json.loads(done.stdout)
    assert (report["state"], report["new"], report["delivered"], len(looks)) == ("completed", 1, 1, 2)
    assert (tmp_path / "cutouts/1.png").exists()
    assert len(json.loads(run("schedule", "show", schedule, "--json"))["nights"]) == 1


def test_a_night_whose_dispatcher_has_gone_is_gone_on_with_here_and_no_other_is_begun(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: BatchId
) -> None:
    schedule, asked = added(tmp_path), []
    (tmp_path / "photos/1.jpg").write_bytes(jpeg())

    def is_gone(_seconds: float) -> None:
        with desk.parts.records.transaction() as connection:
            line.release(connection, busy, BUSY, desk.parts.clock())

    def night(schedule_id: str, out_of_turn: bool) -> list[str]:
        asked.append(out_of_turn)
        return []

    monkeypatch.setattr("portal.cli.night_in_line.sleep", is_gone)
    monkeypatch.setitem(sys.modules, "flows.nights.due_nights", SimpleNamespace(night=night))
    monkeypatch.setattr("flows.engine.start", lambda: None)
    assert '"state": "running"' in run("schedule", "run", schedule, "--json", code=1)
    assert asked == [False]


def test_a_night_is_left_to_a_dispatcher_that_has_no_batch_for_a_moment_between_two_turns(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: BatchId
) -> None:
    schedule, looks = added(tmp_path), []
    (tmp_path / "photos/1.jpg").write_bytes(jpeg())

    def is_between_turns(_seconds: float) -> None:
        looks.append(0)
        with desk.parts.records.transaction() as connection:
            if len(looks) == 1:
                line.release(connection, busy, BUSY, desk.parts.clock())
                return
            (waiting,) = [each for each in line.in_line(connection, desk.parts.clock()) if each.batch_id != busy]
        if len(looks) == 3:
            desk.work(waiting.batch_id)

    monkeypatch.setattr("portal.cli.night_in_line.sleep", is_between_turns)
    monkeypatch.setattr("flows.engine.start", lambda: pytest.fail("it would be cut here, too"))
    assert '"state": "completed"' in run("schedule", "run", schedule, "--json")
    assert len(looks) == 3


def test_a_night_whose_schedule_is_removed_while_it_stands_in_line_is_called_off_and_delivers_nothing(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: BatchId
) -> None:
    schedule, looks = added(tmp_path), []
    (tmp_path / "photos/1.jpg").write_bytes(jpeg())

    def is_removed(_seconds: float) -> None:
        looks.append(0)
        assert len(looks) < 4, "nobody waits for a night that nobody wants"
        if len(looks) == 1:
            said = run("schedule", "remove", schedule)
            assert "A night was going. It is over: 0 of its 1 photo delivered, and batch " in said

    monkeypatch.setattr("portal.cli.night_in_line.sleep", is_removed)
    said = run("schedule", "run", schedule, code=5)
    assert "cancelled" in said
    assert "| schedule_removed | 1 | The schedule was removed before these were delivered." in said
    with desk.parts.records.reading() as connection:
        assert line.in_line(connection, desk.parts.clock()) == []
    assert list((tmp_path / "cutouts").iterdir()) == []


def test_a_night_that_finds_nothing_new_ends_at_once_beside_a_busy_dispatcher(
    desk: Desk, tmp_path: Path, busy: BatchId
) -> None:
    report = json.loads(run("schedule", "run", added(tmp_path), "--json"))
    assert (report["state"], report["new"], report["batch_id"]) == ("completed", 0, None)


def test_a_night_is_not_called_waiting_while_its_own_photos_are_cut(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: BatchId
) -> None:
    schedule, looks = added(tmp_path), []
    (tmp_path / "photos/1.jpg").write_bytes(jpeg())
    (begun,) = [night_steps.run_now(Job(desk.parts, each, Worker("serve", os.urandom, None))) for each in all_of(desk)]
    assert begun is not None
    assert begun.batch_id is not None
    with desk.parts.records.transaction() as connection:
        line.release(connection, busy, BUSY, desk.parts.clock())
        assert line.claim(connection, begun.batch_id, BUSY, desk.parts.clock())

    def is_cut(_seconds: float) -> None:
        looks.append(0)
        with desk.parts.records.transaction() as connection:
            line.release(connection, BatchId(str(begun.batch_id)), BUSY, desk.parts.clock())
        desk.work(str(begun.batch_id))

    monkeypatch.setattr("portal.cli.night_in_line.sleep", is_cut)
    done = CliRunner().invoke(app, ["schedule", "run", schedule])
    assert (done.exit_code, len(looks), "1/1" in done.stderr) == (0, 1, True)
    assert "stands in line" not in done.stderr


def test_a_night_that_serve_works_on_at_that_moment_is_waited_for_beside_a_busy_dispatcher(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: BatchId
) -> None:
    """With a process of one's own it would be cut here as soon as serve has let go of it."""
    schedule, looks = added(tmp_path), []
    (tmp_path / "photos/1.jpg").write_bytes(jpeg())
    (here,) = all_of(desk)
    begun = night_steps.run_now(Job(desk.parts, here, Worker("serve", os.urandom, None)))
    assert begun is not None
    with desk.parts.records.transaction() as connection:
        assert nights.hold(connection, begun.night_id, "serve", desk.parts.clock())

    def is_ended(_seconds: float) -> None:
        looks.append(0)
        desk.work(str(begun.batch_id))
        night_steps.run_due(desk.parts, Worker("serve", os.urandom, None))
        with desk.parts.records.transaction() as connection:
            nights.let_go(connection, begun.night_id, "serve")

    monkeypatch.setattr("portal.cli.night_in_line.sleep", is_ended)
    report = json.loads(run("schedule", "run", schedule, "--json"))
    assert (report["night_id"], report["state"], len(looks)) == (begun.night_id, "completed", 1)


def test_a_night_whose_batch_an_idle_dispatcher_takes_first_is_waited_for(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks every second, so it may be quicker than the command that has just sealed the batch."""
    schedule, looks = added(tmp_path), []
    (tmp_path / "photos/1.jpg").write_bytes(jpeg())

    def night(_schedule_id: str, out_of_turn: bool) -> list[str]:
        (here,) = all_of(desk)
        begun = night_steps.run_now(Job(desk.parts, here, Worker("command", os.urandom, None)))
        assert begun is not None
        assert begun.batch_id is not None
        with desk.parts.records.transaction() as connection:
            assert line.claim(connection, begun.batch_id, BUSY, desk.parts.clock())
        return [begun.state]

    def is_cut(_seconds: float) -> None:
        looks.append(0)
        with desk.parts.records.transaction() as connection:
            (ours,) = list_batches(connection)
            line.release(connection, ours.stamp.batch_id, BUSY, desk.parts.clock())
        desk.work(ours.stamp.batch_id)

    monkeypatch.setattr("portal.cli.night_in_line.sleep", is_cut)
    monkeypatch.setitem(sys.modules, "flows.nights.due_nights", SimpleNamespace(night=night))
    monkeypatch.setattr("flows.engine.start", lambda: None)
    assert '"state": "completed"' in run("schedule", "run", schedule, "--json")
    assert (len(looks), (tmp_path / "cutouts/1.png").exists()) == (1, True)


def test_a_deadline_that_no_calendar_holds_is_refused_before_it_ends_every_night(desk: Desk, tmp_path: Path) -> None:
    for minutes in ("100001", "5000000000", "99999999999999999999"):
        said = add(tmp_path, "--deadline", minutes, code=2)
        assert "bad_request: A deadline is 1 to 100000 minutes after the run's time." in said
    schedule = added(tmp_path, "--deadline", "100000")
    assert "A deadline is 1 to 100000 minutes" in run("schedule", "retime", schedule, "--deadline", "100001", code=2)


def test_a_cron_line_or_place_that_the_records_cannot_hold_is_refused_in_a_sentence(desk: Desk, tmp_path: Path) -> None:
    long = f"{','.join(map(str, range(60)))} * * * *"
    assert "bad_request: A cron line has at most 100 characters." in add(tmp_path, "--cron", long, code=2)
    place = f"s3://shop/{'x' * 500}"
    assert "bad_request: The address of a place has at most 500 characters." in add(tmp_path, "--source", place, code=2)
    schedule = added(tmp_path)
    assert "A cron line has at most 100" in run("schedule", "retime", schedule, "--cron", long, code=2)
    assert "at most 500 characters" in run("place", "allow", "Acme", place, code=2)


def test_a_night_is_found_by_its_minute_also_before_the_clocks_go_back(desk: Desk, tmp_path: Path) -> None:
    schedule = added(tmp_path)
    first = begin(desk, schedule, datetime(2026, 10, 25, 0, 59, tzinfo=UTC))  # 02:59 in Berlin, and an hour later again
    begin(desk, schedule, datetime(2026, 10, 25, 1, 30, tzinfo=UTC))
    assert json.loads(run("schedule", "report", schedule, "--night", "2026-10-25T02:59", "--json"))["night_id"] == first


def test_a_night_that_a_second_dispatcher_takes_at_once_is_not_called_waiting(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: BatchId
) -> None:
    schedule = added(tmp_path)
    (tmp_path / "photos/1.jpg").write_bytes(jpeg())

    def is_cut(_seconds: float) -> None:
        with desk.parts.records.reading() as connection:
            (waiting,) = line.in_line(connection, desk.parts.clock())
        desk.work(waiting.batch_id)

    monkeypatch.setattr("portal.cli.night_in_line.sleep", is_cut)
    done = CliRunner().invoke(app, ["schedule", "run", schedule])
    assert (done.exit_code, "1/1" in done.stderr, "stands in line" in done.stderr) == (0, True, False)


def test_who_runs_a_night_that_another_process_works_on_is_told_where_to_look(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = added(tmp_path)
    monkeypatch.setitem(
        sys.modules, "flows.nights.due_nights", SimpleNamespace(night=lambda _schedule_id, out_of_turn: [])
    )
    monkeypatch.setattr("flows.engine.start", lambda: None)
    said = run("schedule", "run", schedule, code=2)
    assert "Another process works on this schedule's night, or died within the last minute" in said
    assert "after a minute" in said


def test_a_cron_job_that_leaves_the_cutting_to_others_says_what_it_began(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = added(tmp_path)
    (tmp_path / "photos/1.jpg").write_bytes(jpeg())
    monkeypatch.setattr("flows.engine.start", lambda: pytest.fail("Prefect and Ray take seconds to start"))
    assert run("schedule", "run-due") == "Nights begun, gone on with, or skipped: 0.\n"
    tomorrow = desk.parts.clock() + timedelta(days=1)
    monkeypatch.setattr("portal.cli.terminal.system_clock", lambda: tomorrow)
    assert "With --watch nothing is printed" in run("schedule", "run-due", "--watch", "--json", code=2)
    (begun,) = json.loads(run("schedule", "run-due", "--in-line", "--json"))
    assert (begun["schedule_id"], begun["state"], begun["new"]) == (schedule, "running", 1)
    with desk.parts.records.reading() as connection:
        (waiting,) = line.in_line(connection, tomorrow)
    desk.work(waiting.batch_id)
    assert run("schedule", "run-due", "--in-line") == "Nights begun, gone on with, or skipped: 1.\n"
    assert (tmp_path / "cutouts/1.png").exists()


def test_a_cron_job_leaves_what_is_due_to_others_when_four_are_at_work_and_skips_what_comes_too_soon(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / name for name in "1234"]
    for place in places:
        place.mkdir()
    added(tmp_path)
    held = [added(place) for place in places]
    tomorrow, begun = desk.parts.clock() + timedelta(days=1), list[int]()
    monkeypatch.setattr("portal.cli.terminal.system_clock", lambda: tomorrow)
    monkeypatch.setattr("flows.engine.start", lambda: None)
    for at_work, schedule in enumerate(held, start=1):
        night = begin(desk, schedule, desk.parts.clock(), NightState.RUNNING)
        with desk.parts.records.transaction() as connection:
            assert nights.hold(connection, NightId(night), str(at_work), tomorrow)
        flow = SimpleNamespace(due_nights=lambda at_work=at_work: begun.append(at_work) or [])
        monkeypatch.setitem(sys.modules, "flows.nights.due_nights", flow)
        said = run("schedule", "run-due")
    assert begun == [1, 2, 3], "each has a Ray and a network of its own"
    assert said == "Nights begun, gone on with, or skipped: 4.\n"
    shown = [json.loads(run("schedule", "show", each, "--json", "--nights", "2")) for each in held]
    assert [each["nights"][0]["state"] for each in shown] == 4 * ["skipped"]
