"""`bgbatch lake …` on a real ledger: a customer presses the button, the ML team pulls, the customer takes it back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from consent import ledger
from flows.parts import open_parts
from lake.copies_under_way import LEASE_LIFE, hold_place
from lake.pictures import gray, rgb
from portal.cli.batch_lease import holding
from portal.cli.copy_lease import holding_place
from portal.cli.lake import app
from portal.cli.this_command import host_name
from portal.training import open_lake
from schemas.consent import Grant
from schemas.errors import CopyInTheWay, UnknownIndustry
from store.records.people import create_account
from tests.batches import send_folder
from tests.consent.conftest import NOON, Owner, new_owner
from tests.consent.postgres import current_database
from tests.lake.conftest import AUTO, World, build_world
from tests.records import at_home

NO_PROCESS = 2**22  # Linux gives smaller numbers only


@pytest.fixture
def customer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[World, Owner, Grant]]:
    """Three candidates of one customer in the lake that the environment names."""
    monkeypatch.setenv("BGBATCH_HOME", str(tmp_path))
    world = build_world(tmp_path)
    world.now = datetime.now(UTC).replace(microsecond=0)
    owner = new_owner(world.records)
    (grant,) = owner.press(AUTO)
    world.grants[grant.grant_id] = grant
    world.give(grant, 3)
    yield world, owner, grant
    world.records.engine.dispose()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def told(*arguments: str) -> object:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_pull_verify_and_take_back(customer: tuple[World, Owner, Grant], tmp_path: Path) -> None:
    world, owner, grant = customer
    copy = str(tmp_path / "copy")
    pulled = told("pull", "--industry", "automotive", "--to", copy, "--for", "the matting team", "--as", "files")
    assert (pulled["rows"], pulled["grants"]) == (3, [grant.grant_id])
    assert told("verify", copy)["is_good"]
    with world.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(world.now), AUTO, world.now)
    found = run("verify", copy)
    assert found.exit_code == 3
    assert "3 must go" in found.stdout
    assert grant.grant_id in found.stdout
    assert copy in run("pulls").stdout  # whole, however long: nobody's window breaks it
    (known,) = told("pulls")
    assert (known["recipient"], known["rows"], known["must_go"]) == ("the matting team", 3, {grant.grant_id: 3})
    assert "3 candidates erased; left in the copy: 0" in run("verify", copy, "--erase").stdout
    assert not list((tmp_path / "copy").rglob("*.jpg"))
    (known,) = told("pulls")
    assert (known["rows"], known["must_go"], known["grants"]) == (0, {}, {grant.grant_id: 3})
    assert told("pull", "--industry", "automotive", "--to", str(tmp_path / "other"))["rows"] == 0


def test_who_pulls_what_there_is_not_hears_where_to_look(customer: tuple[World, Owner, Grant], tmp_path: Path) -> None:
    done = run("pull", "--industry", "studio", "--to", str(tmp_path / "copy"))
    assert "0 candidates of 0 customers in" in done.stdout
    assert "`bgbatch lake stats`" in done.stderr


def test_erasing_from_a_copy_of_a_copy_does_not_clear_the_one_that_was_pulled(
    customer: tuple[World, Owner, Grant], tmp_path: Path
) -> None:
    world, owner, grant = customer
    copy, other = tmp_path / "copy", tmp_path / "other"
    told("pull", "--industry", "automotive", "--to", str(copy))
    shutil.copytree(copy, other)
    with world.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(world.now), AUTO, world.now)
    erased = run("verify", str(other), "--erase")
    assert not list(other.rglob("*.parquet"))
    assert f"This is a copy of the copy in {copy}: verify that one, too." in erased.stderr
    assert told("pulls")[0]["must_go"] == {grant.grant_id: 3}
    shutil.move(copy, tmp_path / "moved")
    assert "copy of the copy" not in run("verify", str(tmp_path / "moved"), "--erase").stderr
    assert told("pulls")[0]["must_go"] == {}


def test_a_copy_that_was_deleted_as_a_whole_is_noted_as_gone(
    customer: tuple[World, Owner, Grant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, owner, grant = customer
    monkeypatch.chdir(tmp_path)
    pulled = told("pull", "--industry", "automotive", "--to", "copy")
    (known,) = told("pulls")
    assert known["place"] == str(tmp_path / "copy"), "however it was called"
    with world.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(world.now), AUTO, world.now)
    assert told("pulls")[0]["must_go"] == {grant.grant_id: 3}
    assert run("pulls", "--gone", "c" + "0" * 32).exit_code == 2
    refused = run("pulls", "--gone", pulled["pull_id"])
    assert (refused.exit_code, refused.stderr.split()[0]) == (2, "copy_in_the_way:"), "it is there still"
    assert told("pulls")[0]["must_go"] == {grant.grant_id: 3}
    shutil.rmtree(tmp_path / "copy")
    (known,) = told("pulls", "--gone", pulled["pull_id"])
    assert known["must_go"] == {}
    assert not (tmp_path / "copy").exists()


def test_no_name_of_the_lake_lets_a_copy_into_it(customer: tuple[World, Owner, Grant], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "lake")
    for to in (tmp_path / "lake" / "copy", f"file://{tmp_path}/lake/copy", tmp_path / "link" / "copy"):
        assert run("pull", "--industry", "automotive", "--to", str(to)).exit_code == 2
    assert not (tmp_path / "lake" / "copy").exists()


@pytest.mark.parametrize("inside", ["more", "data/train/more"])
@pytest.mark.parametrize("is_finished", [True, False])
def test_no_copy_lies_inside_another(
    customer: tuple[World, Owner, Grant],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    inside: str,
    is_finished: bool,
) -> None:
    copy = ("pull", "--industry", "automotive", "--to", str(tmp_path / "copy"))
    with monkeypatch.context() as killed:
        if not is_finished:
            killed.setattr("lake.pull._finish", lambda *_: exec("raise KeyboardInterrupt"))
        assert run(*copy).exit_code == (0 if is_finished else 130)
    done = run(*copy[:-1], str(tmp_path / "copy" / inside))
    assert done.exit_code == 2
    assert "inside another copy" in done.stderr
    assert run(*copy).exit_code == 0
    assert told("verify", str(tmp_path / "copy"))["is_good"]


@pytest.mark.parametrize("name", ["manifest.json", "plan.json"])
@pytest.mark.parametrize("text", ['{"name": "a web page"}', "", "\x00"])
def test_a_file_of_others_that_is_called_as_a_copys_is_left_alone(
    customer: tuple[World, Owner, Grant], tmp_path: Path, name: str, text: str
) -> None:
    page = tmp_path / "page"
    page.mkdir()
    (page / name).write_text(text)
    for arguments in (("pull", "--industry", "automotive", "--to", str(page)), ("verify", str(page))):
        done = run(*arguments)
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"There is a {name} that no pull wrote" in done.stderr
    assert [(each.name, each.read_text()) for each in page.iterdir()] == [(name, text)]
    assert run("pull", "--industry", "automotive", "--to", str(page / "copy")).exit_code == 0, "beside it there is room"


def test_stats_with_a_contact_sheet_and_the_audit(customer: tuple[World, Owner, Grant], tmp_path: Path) -> None:
    sheet = tmp_path / "look.png"
    (line,) = told("stats", "--sheet", str(sheet))
    assert (line["industry"], line["grants"], line["images"]) == ("automotive", 1, 3)
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert told("audit")["rows"] == 3


def test_a_contact_sheet_of_what_was_taken_back_goes_when_it_is_asked_for_again(
    customer: tuple[World, Owner, Grant], tmp_path: Path
) -> None:
    world, owner, _ = customer
    sheet = tmp_path / "look.png"
    told("stats", "--sheet", str(sheet))
    with world.records.transaction() as connection:
        ledger.withdraw(connection, owner.refusal(world.now), AUTO, world.now)
    assert told("stats", "--sheet", str(sheet)) == []
    assert not sheet.exists()


def test_a_contact_sheet_shows_the_others_when_a_photo_does_not_decode_here(
    customer: tuple[World, Owner, Grant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decodes = iter((False, True, True))
    monkeypatch.setattr("lake.stats.rgb", lambda *which: rgb(*which) if next(decodes) else gray(b"no mask"))
    sheet = tmp_path / "look.png"
    assert run("stats", "--sheet", str(sheet)).exit_code == 0
    assert next(decodes, None) is None
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_an_audit_with_a_finding_ends_with_3(customer: tuple[World, Owner, Grant]) -> None:
    world, *_ = customer
    world.lake.delete(world.keys())
    found = run("audit")
    assert found.exit_code == 3
    assert "1 fault." in found.stdout


@pytest.mark.parametrize("damage", [b"", b"PAR1", bytes(1000)])
def test_a_damaged_file_of_the_lake_is_said_in_a_sentence(
    customer: tuple[World, Owner, Grant], tmp_path: Path, damage: bytes
) -> None:
    world, *_ = customer
    world.lake.write(world.keys()[0], damage)
    found = run("pull", "--industry", "automotive", "--to", str(tmp_path / "copy"))
    assert found.exit_code == 1
    assert "bgbatch lake audit" in found.stderr
    assert run("audit").exit_code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("pull", "--industry", "space", "--to", "copy"),
        ("pull", "--industry", "automotive", "--to", "copy", "--as", "zip"),
        ("pull", "--industry", "automotive", "--to", "copy", "--where", "price > 3"),
        ("pull", "--industry", "automotive", "--to", "copy", "--without-duplicates", "all"),
        ("pull", "--industry", "automotive", "--to", "lake/copy"),
        ("pull", "--industry", "automotive", "--to", "transient"),
        ("pull", "--industry", "automotive", "--to", "lake/../a-file"),
        ("verify", "nothing-there"),
        ("verify", "s3://"),
    ],
)
def test_mistakes_get_a_sentence_and_exit_code_2(
    customer: tuple[World, Owner, Grant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert len(done.stderr.strip()) > 20


def test_open_lake_reads_what_the_environment_names(customer: tuple[World, Owner, Grant]) -> None:
    assert open_lake().dataset(industry="automotive").to_table().num_rows == 3
    assert len(list(open_lake().torch_dataset(industry="automotive"))) == 3


def test_an_industry_that_there_is_not_is_told_with_those_that_there_are(
    customer: tuple[World, Owner, Grant],
) -> None:
    lake = open_lake()
    for ask in (lake.dataset, lake.paths, lake.torch_dataset):
        with pytest.raises(UnknownIndustry, match="Choose one of: automotive"):
            ask(industry="autmotive")


def test_a_pull_that_is_stopped_says_how_to_go_on(
    customer: tuple[World, Owner, Grant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    copy = ("pull", "--industry", "automotive", "--to", str(tmp_path / "copy"))
    with monkeypatch.context() as ctrl_c:
        ctrl_c.setattr("lake.pull._finish", stopped)
        done = run(*copy)
    assert done.exit_code == 130
    assert "run the same command again" in done.stderr
    assert "parts that were there already: 1" in run(*copy).stdout


_PULL_THAT_STANDS_STILL = """
import sys, time
import lake.pull
from portal.cli.app import app

def stand_still(*_):
    print("it copies", flush=True)
    time.sleep(600)

lake.pull._copy_part = stand_still
app(sys.argv[1:])
"""


def test_of_two_pulls_into_one_place_the_second_is_refused_until_the_first_is_killed(
    customer: tuple[World, Owner, Grant], tmp_path: Path
) -> None:
    copy = ("pull", "--industry", "automotive", "--to", str(tmp_path / "copy"))
    command = (sys.executable, "-c", _PULL_THAT_STANDS_STILL, "lake", *copy)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first, ExitStack() as at_the_end:
        at_the_end.callback(first.kill)
        assert first.stdout is not None
        assert first.stdout.readline() == "it copies\n"
        before = sorted((tmp_path / "copy").rglob("*"))
        done = run(*copy)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "copy_in_the_way" in done.stderr
        assert "Another pull writes into this place just now" in done.stderr
        assert sorted((tmp_path / "copy").rglob("*")) == before
        assert run(*copy[:-1], str(tmp_path / "other")).exit_code == 0
    assert run(*copy).exit_code == 0, "nobody waits for a dead one"
    assert run(*copy).exit_code == 0, "nor for one that has ended"
    assert told("verify", str(tmp_path / "copy"))["is_good"]


@pytest.mark.parametrize("records_on", ["sqlite", "postgresql"])
def test_a_pull_whose_place_another_has_by_now_writes_no_more_there(tmp_path: Path, records_on: str) -> None:
    url = "" if records_on == "sqlite" else current_database()
    now = [NOON]
    parts = open_parts(at_home(tmp_path, records_url=url), lambda: now[0])
    with holding_place(parts, "s3://copies/one") as require_ours:
        require_ours()
        with pytest.raises(CopyInTheWay, match="just now"), holding_place(parts, "s3://copies/one"):
            pass
        now[0] += LEASE_LIFE
        with parts.records.transaction() as connection:
            assert hold_place(connection, "s3://copies/one", "another", now[0]) is None
        with pytest.raises(CopyInTheWay, match="stood still"):
            require_ours()
    with parts.records.transaction() as connection:
        assert hold_place(connection, "s3://copies/one", "a third", now[0]) == "another", "whose place it stays"
    parts.records.engine.dispose()


def test_a_stop_while_a_place_is_taken_leaves_it_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = open_parts(at_home(tmp_path), lambda: NOON)

    def stopped_meanwhile(*what: Any) -> str | None:
        signal.raise_signal(signal.SIGINT)
        return hold_place(*what)

    monkeypatch.setattr("lake.copies_under_way.hold_place", stopped_meanwhile)
    with pytest.raises(KeyboardInterrupt), holding_place(parts, "/copies/one"):
        pass
    with parts.records.transaction() as connection:
        assert hold_place(connection, f"{host_name()} /copies/one", "another", NOON) is None
    parts.records.engine.dispose()


@pytest.mark.parametrize("records_on", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    ("first", "second", "may_both"),
    [
        ("/copies/one", "/copies/one/data/inside", False),
        ("/copies/one/data/inside", "/copies/one", False),
        ("/copies/one", "/", False),
        ("s3://copies", "s3://copies/one", False),
        ("s3://copies/one/two", "s3://copies/one", False),
        ("/copies/one", "/copies/one-more", True),
        ("/copies/one", "/copies/two", True),
        ("s3://copies/one", "/copies/one", True),
    ],
)
def test_of_two_pulls_at_once_neither_lies_inside_the_other(
    tmp_path: Path, records_on: str, first: str, second: str, may_both: bool
) -> None:
    url = "" if records_on == "sqlite" else current_database()
    parts = open_parts(at_home(tmp_path, records_url=url), lambda: NOON)
    with holding_place(parts, first) as require_ours:
        if may_both:
            with holding_place(parts, second):
                require_ours()
        else:
            with pytest.raises(CopyInTheWay, match="inside or around"), holding_place(parts, second):
                pass
        require_ours()
    with holding_place(parts, second):
        pass
    dead = f"{host_name()} {NO_PROCESS} command"
    with parts.records.transaction() as connection:
        assert hold_place(connection, f"{host_name()} /copies/one/killed", dead, NOON) is None
    with holding_place(parts, "/copies/one"):
        pass
    parts.records.engine.dispose()


def test_a_host_of_a_long_name_can_hold_a_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL takes no longer text than a column has room for; SQLite does."""
    monkeypatch.setattr("socket.gethostname", lambda: "n" * 64)
    parts = open_parts(at_home(tmp_path, records_url=current_database()), lambda: NOON)
    with holding_place(parts, str(tmp_path)):
        pass
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", NOON, os.urandom)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"x")
    stamp = send_folder(parts, account_id, tmp_path / "photos")
    with holding(parts, stamp.batch_id) as held:
        assert held is not None
    parts.records.engine.dispose()
