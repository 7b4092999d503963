"""`bgbatch serve` as an operator runs it: started in a shell's background, ended in mid-batch, started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from schemas.batch import BatchState
from schemas.clock import system_clock
from schemas.ids import BatchId
from schemas.results import Done
from store.records.api_keys import create_key
from store.records.batches import get_batch
from store.records.database import Records, open_records
from store.records.people import create_account
from store.settings import Settings
from store.transient.transient_store import open_transient
from tests.flows.conftest import photo
from tests.ports import free_port, wait_for

PHOTOS = 16
PASSWORD = os.urandom(8).hex()


class Serve:
    """Runs `bgbatch serve` on a home, as `bgbatch serve &` in a script does: with SIGINT ignored."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.log = home.with_suffix(".log")
        env = os.environ | {"BGBATCH_HOME": str(home), "BGBATCH_ACTORS": "1", "BGBATCH_SHARD_ITEMS": "1"}
        env["BGBATCH_SMTP_URL"] = f"smtp://us:{PASSWORD}@127.0.0.1:1"
        code = "from portal.cli.app import main; main()"
        command = [sys.executable, "-c", code, "serve", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", '"$@" & echo $!; wait $!', "bash", *command],
                env=env,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                text=True,
            )
        assert self.process.stdout is not None
        self.pid = int(self.process.stdout.readline())
        wait_for(self.port)

    def client(self, key: str) -> httpx.Client:
        address = f"http://127.0.0.1:{self.port}"
        return httpx.Client(base_url=address, headers={"x-api-key": key}, trust_env=False, timeout=60)

    def __enter__(self) -> Serve:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGTERM)

    def end(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)
        self.process.wait(timeout=300)
        wait_until(lambda: processes_of(self.log.with_suffix("")) == [])  # Ray's own end some moments later


def processes_of(home: Path) -> list[str]:
    """Programs that work on this home: serve's own, and whatever it started."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if int(place.name) != os.getpid() and f"BGBATCH_HOME={home}".encode() in (place / "environ").read_bytes():
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
        except OSError:
            continue
    return found


def holders_of_the_password() -> set[str]:
    """Programs that have it in their environment, but for this one's own."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if PASSWORD.encode() in (place / "environ").read_bytes():
                found.add((place / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def wait_until(is_true: Callable[[], bool]) -> None:
    until = time.monotonic() + 300  # a busy machine
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.1)


def state_of(records: Records, batch: str) -> BatchState:
    with records.reading() as connection:
        return get_batch(connection, batch).state


def test_a_batch_under_work_survives_the_end_of_serve_and_each_photo_has_one_result(tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = Settings(home=home)
    records, transient = open_records(settings), open_transient(settings, system_clock)
    with records.transaction() as connection:
        account, person = create_account(connection, "Acme", "o@acme.example", system_clock(), os.urandom)
        _, key = create_key(connection, account, person, "tests", system_clock(), os.urandom)

    with Serve(home) as serve, serve.client(key) as client:
        parts = ("prefect server", "work", "upkeep", "schedule run-due")
        wait_until(lambda: all(name in client.get("/status").text for name in parts))
        batch = client.post("/v1/batches", json={}).json()["batch_id"]
        for number in range(PHOTOS):
            client.put(f"/v1/batches/{batch}/items/VIN/{number}.jpg", content=photo()).raise_for_status()
        client.post(f"/v1/batches/{batch}/seal").raise_for_status()
        wait_until(lambda: len(transient.report_names(BatchId(batch))) >= 2)
        holders = holders_of_the_password()
        assert len(holders) >= 4
        assert all("portal.cli" in each for each in holders), "neither Prefect nor Ray's processes and workers have it"
        serve.end(signal.SIGTERM)
    before = {result.number: result for report in transient.reports(BatchId(batch)) for result in report.results}
    assert 2 <= len(before) < PHOTOS, "it was ended in mid-batch"
    assert state_of(records, batch) is BatchState.RUNNING

    with Serve(home) as serve:
        wait_until(lambda: state_of(records, batch) is BatchState.COMPLETED)
        serve.end(signal.SIGINT)
    results = [result for report in transient.reports(BatchId(batch)) for result in report.results]
    assert sorted(result.number for result in results) == list(range(1, PHOTOS + 1)), "every photo has one result"
    assert all(isinstance(result, Done) for result in results)
    assert all(result in results for result in before.values()), "what was done is not done again"
    said = serve.log.read_text()
    assert "Crash detected" not in said
    assert "Traceback" not in said
    assert "was killed" not in said, "each part came to its own end"
    records.engine.dispose()
