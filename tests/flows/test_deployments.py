"""Schedules as deployments on a live Prefect server: runs by the clock on the wall, also when it changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from flows.timetable import next_due
from tests.flows.test_command_line import Shell
from tests.store.rclone import free_port

CRON, ZONE = "0 2 * * *", "Europe/Berlin"
DEPLOY = """
from flows.nights import deployments
from flows.parts import current_parts
for each in deployments(current_parts()):
    print(each.apply())
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The API of a Prefect server of this test's own."""
    port = free_port()
    env = os.environ | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    start = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--no-services"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*start, "--host", "127.0.0.1", "--port", str(port)], env=env, **quiet)  # type: ignore[call-overload]
    address = f"http://127.0.0.1:{port}/api"
    for _ in range(600):
        try:
            if httpx.get(f"{address}/health", trust_env=False).is_success:
                break
        except httpx.TransportError:
            time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(timeout=60)


def test_a_schedule_is_planned_in_its_time_zone_when_the_clocks_change(tmp_path: Path, server: str) -> None:
    shell = Shell(tmp_path / "home")
    shell.run("account", "create", "Bazaar", "--email", "owner@bazaar.example")
    (tmp_path / "catalog").mkdir()
    places = ("--source", str(tmp_path / "catalog"), "--deliver", str(tmp_path / "cutouts"))
    added = json.loads(shell.run("schedule", "add", "--cron", CRON, "--timezone", ZONE, *places, "--json"))
    env = shell.env | {"PREFECT_API_URL": server, "PREFECT_HOME": str(tmp_path / "prefect")}
    made = subprocess.run([sys.executable, "-c", DEPLOY], env=env, capture_output=True, text=True, timeout=180)
    assert made.returncode == 0, made.stderr[-1000:]
    deployment = made.stdout.split()[-1]

    with httpx.Client(base_url=server, timeout=60, trust_env=False) as client:
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
