"""A night by command, as its operator meets it: real Prefect, Ray and network."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from tests.flows.conftest import photo
from tests.flows.test_command_line import Shell, lay_out


def test_a_night_by_command_delivers_and_the_next_one_has_nothing_to_do(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "home")
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
    for path in (shell.home / "prefect").rglob("*"):
        assert not path.is_file() or b"lot1" not in path.read_bytes(), "a customer's file name is kept by the engine"
