"""A night by command, as its operator meets it: real Prefect, Ray and network."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import update

from store.records.database import open_records
from store.records.tables import schedules
from tests.flows.conftest import photo
from tests.flows.test_command_line import Shell, lay_out
from tests.records import at_home


def test_a_night_by_command_delivers_the_next_one_has_nothing_to_do_and_a_look_by_cron_cuts_what_is_due(
    home: Path, tmp_path: Path
) -> None:
    shell = Shell(home)
    shell.run("account", "create", "Bazaar", "--email", "owner@bazaar.example")
    catalog = lay_out(tmp_path / "catalog", {"lot1/1.jpg": photo("coffee"), "lot2/1.jpg": photo("motorcycle")})
    far_from_now = f"0 {(datetime.now(ZoneInfo('Europe/Berlin')).hour + 12) % 24} * * *"
    added = shell.run(
        *("schedule", "add", "--cron", far_from_now, "--timezone", "Europe/Berlin", "--source", str(catalog)),
        *("--deliver", str(tmp_path / "cutouts"), "--industry", "marketplace", "--json"),
    )
    schedule = json.loads(added)["schedule_id"]
    assert "fingerprint_key" not in added
    first = json.loads(shell.run("schedule", "run", schedule, "--json"))
    assert (first["state"], first["new"], first["delivered"]) == ("completed", 2, 2)
    assert "Removing backgrounds" in shell.said
    assert "2/2" in shell.said
    found = sorted(path.relative_to(tmp_path / "cutouts").as_posix() for path in (tmp_path / "cutouts").rglob("*.png"))
    assert found == ["lot1/1.png", "lot2/1.png"]
    second = json.loads(shell.run("schedule", "run", schedule, "--json"))
    assert (second["state"], second["new"], second["skipped"], second["batch_id"]) == ("completed", 0, 2, None)
    assert "| skipped, because unchanged | 2 |" in shell.run("schedule", "report", schedule)
    assert json.loads(shell.run("schedule", "run-due", "--json")) == [], "the next due time has not come"
    words = ("--cron", far_from_now, "--timezone", "Europe/Berlin", "--source", str(catalog), "--json")
    other = json.loads(shell.run("schedule", "add", *words))["schedule_id"]
    records = open_records(at_home(shell.home))
    with records.transaction() as connection:
        added_before = datetime.now(UTC) - timedelta(days=1)
        connection.execute(update(schedules).where(schedules.c.schedule_id == other).values(created_at=added_before))
    records.engine.dispose()
    (third,) = json.loads(shell.run("schedule", "run-due", "--json"))
    assert (third["schedule_id"], third["state"], third["new"], third["done"]) == (other, "completed", 2, 2)
    for path in (shell.home / "prefect").rglob("*"):
        assert not path.is_file() or b"lot1" not in path.read_bytes(), "a customer's file name is kept by the engine"
