"""`bgbatch lake …` on a real ledger: a customer presses the button, the ML team pulls, the customer takes it back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from consent import ledger
from lake.pictures import gray, rgb
from portal.cli.lake import app
from portal.training import open_lake
from schemas.consent import Grant
from tests.consent.conftest import Owner, new_owner
from tests.lake.conftest import AUTO, World, build_world


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
    assert (known["recipient"], known["must_go"]) == ("the matting team", {grant.grant_id: 3})
    assert "3 candidates erased; 0 are left" in run("verify", copy, "--erase").stdout
    assert not list((tmp_path / "copy").rglob("*.jpg"))
    assert told("pulls")[0]["must_go"] == {}
    assert told("pull", "--industry", "automotive", "--to", str(tmp_path / "other"))["rows"] == 0


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
    (known,) = told("pulls", "--gone", pulled["pull_id"])
    assert known["must_go"] == {}


def test_no_name_of_the_lake_lets_a_copy_into_it(customer: tuple[World, Owner, Grant], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "lake")
    for to in (tmp_path / "lake" / "copy", f"file://{tmp_path}/lake/copy", tmp_path / "link" / "copy"):
        assert run("pull", "--industry", "automotive", "--to", str(to)).exit_code == 2
    assert not (tmp_path / "lake" / "copy").exists()


def test_stats_with_a_contact_sheet_and_the_audit(customer: tuple[World, Owner, Grant], tmp_path: Path) -> None:
    sheet = tmp_path / "look.png"
    (line,) = told("stats", "--sheet", str(sheet))
    assert (line["industry"], line["grants"], line["images"]) == ("automotive", 1, 3)
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert told("audit")["rows"] == 3


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
    assert "1 faults" in found.stdout


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
        ("verify", "nothing-there"),
    ],
)
def test_mistakes_get_a_sentence_and_exit_code_2(
    customer: tuple[World, Owner, Grant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert len(done.stderr.strip()) > 20


def test_open_lake_reads_what_the_environment_names(customer: tuple[World, Owner, Grant]) -> None:
    assert open_lake().dataset(industry="automotive").to_table().num_rows == 3
    assert len(list(open_lake().torch_dataset(industry="automotive"))) == 3


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
    assert "1 parts were there already" in run(*copy).stdout
