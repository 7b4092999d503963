"""Prefect's server as it is deployed answers only who knows its password, and flows run with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cluster.servers import Engine

FLOW = "from prefect import flow\n@flow\ndef two():\n    return 2\nprint('it gave', two())"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = Engine(tmp_path_factory.mktemp("engine"))
    yield engine
    engine.kill()


def run_a_flow(home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"PREFECT_HOME": str(home), "PREFECT_CLIENT_MAX_RETRIES": "0"} | environment
    return subprocess.run([sys.executable, "-c", FLOW], env=given, capture_output=True, text=True, check=False)


def test_a_stranger_is_refused_and_who_knows_the_password_is_not(engine: Engine) -> None:
    address = engine.of_its_clients["PREFECT_API_URL"] + "/flows/filter"
    user, _, password = engine.password.partition(":")
    assert httpx.post(address, timeout=60, json={}).status_code == 401
    assert httpx.post(address, timeout=60, json={}, auth=(user, "wrong")).status_code == 401
    assert httpx.post(address, timeout=60, json={}, auth=(user, password)).status_code == 200


def test_a_flow_runs_with_the_password_alone(engine: Engine, tmp_path: Path) -> None:
    assert run_a_flow(tmp_path, **engine.of_its_clients).stdout.endswith("it gave 2\n")
    without = run_a_flow(tmp_path, PREFECT_API_URL=engine.of_its_clients["PREFECT_API_URL"])
    assert "it gave" not in without.stdout
    assert "401" in without.stderr
    assert engine.password not in without.stderr
