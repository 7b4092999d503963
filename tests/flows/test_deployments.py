"""Schedules as deployments on a live Prefect server: runs by the clock on the wall, also when it changes."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from flows.nights.timetable import next_due
from tests.flows.test_command_line import Shell

CRON, ZONE = "0 2 * * *", "Europe/Berlin"
DEPLOY = """
from flows.nights.due_nights import deployments
from flows.parts import current_parts
for each in deployments(current_parts()):
    print(each.apply())
"""


def test_a_schedule_is_planned_in_its_time_zone_when_the_clocks_change(tmp_path: Path, prefect_server: str) -> None:
    shell = Shell(tmp_path / "home")
    shell.run("account", "create", "Bazaar", "--email", "owner@bazaar.example")
    (tmp_path / "catalog").mkdir()
    places = ("--source", str(tmp_path / "catalog"), "--deliver", str(tmp_path / "cutouts"))
    added = json.loads(shell.run("schedule", "add", "--cron", CRON, "--timezone", ZONE, *places, "--json"))
    env = shell.env | {"PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(tmp_path / "prefect")}
    made = subprocess.run([sys.executable, "-c", DEPLOY], env=env, capture_output=True, text=True, timeout=600)
    assert made.returncode == 0, made.stderr[-1000:]
    deployment = made.stdout.split()[-1]

    with httpx.Client(base_url=prefect_server, timeout=60, trust_env=False) as client:
        shown = client.get(f"/deployments/{deployment}").json()
        assert (shown["name"], shown["parameters"]) == (added["schedule_id"], {"schedule_id": added["schedule_id"]})
        for first_day in (datetime(2027, 3, 26, tzinfo=UTC), datetime(2027, 10, 29, tzinfo=UTC)):
            last_day = first_day + timedelta(days=5)
            span = {"start_time": first_day.isoformat(), "end_time": last_day.isoformat(), "min_runs": 5}
            client.post(f"/deployments/{deployment}/schedule", json=span).raise_for_status()
        runs = client.post("/flow_runs/filter", json={"sort": "EXPECTED_START_TIME_ASC"}).json()
    planned = [datetime.fromisoformat(each["expected_start_time"]) for each in runs]
    assert len(planned) >= 10
    assert len({each.hour for each in planned}) == 2, "the time of day in UTC changes with the clocks"
    assert all(each["parameters"] == {"schedule_id": added["schedule_id"]} for each in runs)
    for moment in planned:
        assert next_due(CRON, ZONE, moment - timedelta(minutes=1)) == moment, "our own timetable agrees"
