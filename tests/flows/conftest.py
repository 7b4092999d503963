"""A home with real stores, an account, and batches of real photos; Ray runs once for the whole module that asks."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from flows.parts import Parts, open_parts
from portal.demo.people import PHOTOS
from schemas.batch import Stamp
from schemas.clock import system_clock
from schemas.ids import AccountId
from schemas.industries import Industry
from schemas.options import CutoutOptions
from store.records.people import create_account
from tests.batches import lay_out, send_folder
from tests.ports import free_port
from tests.records import at_home


def photo(name: str = "chelsea") -> bytes:
    return (PHOTOS / f"{name}.jpg").read_bytes()


@dataclass(frozen=True)
class Place:
    """Where a test works."""

    parts: Parts
    account_id: AccountId
    folder: Path

    def send(
        self, files: dict[str, bytes], industry: Industry | None = None, options: CutoutOptions | None = None
    ) -> Stamp:
        """Submit a folder of these files as one batch."""
        folder = lay_out(self.folder / os.urandom(4).hex(), files)
        return send_folder(self.parts, self.account_id, folder, industry, options)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    parts = open_parts(at_home(tmp_path / "home", actors=2, shard_items=2), system_clock)
    with parts.records.transaction() as connection:
        account_id, _ = create_account(connection, "Acme", "owner@acme.example", parts.clock(), os.urandom)
    yield Place(parts, account_id, tmp_path / "photos")
    parts.records.engine.dispose()


@pytest.fixture(scope="session")
def prefect_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefect's database, empty and current, made once for all processes of the run: each home's own takes 4 s."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    made = place / "empty prefect.db"
    with (place / "prefect.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            env = os.environ | {"PREFECT_HOME": str(place / "prefect"), "DO_NOT_TRACK": "1"}
            upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
            subprocess.run(upgrade, env=env, check=True, capture_output=True)
            (place / "prefect" / "prefect.db").rename(made)
    return made


@pytest.fixture
def home(tmp_path: Path, prefect_db: Path) -> Path:
    """The home of a test's commands: Prefect's database is in it, and nothing else."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "prefect").mkdir()
    shutil.copyfile(prefect_db, home / "prefect" / "prefect.db")
    return home


@pytest.fixture
def prefect_server(tmp_path: Path, prefect_db: Path) -> Iterator[str]:
    """The API of a Prefect server of this test's own."""
    port = free_port()
    (tmp_path / "prefect").mkdir()
    shutil.copyfile(prefect_db, tmp_path / "prefect" / "prefect.db")
    env = os.environ | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    start = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--no-services"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*start, "--host", "127.0.0.1", "--port", str(port)], env=env, **quiet)  # type: ignore[call-overload]
    address = f"http://127.0.0.1:{port}/api"
    until = time.monotonic() + 300  # a busy machine
    while not _is_well(address):
        assert process.poll() is None, "it did not start"
        assert time.monotonic() < until
        time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(timeout=120)


def _is_well(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", trust_env=False, timeout=60).is_success
    except httpx.TransportError:
        return False
