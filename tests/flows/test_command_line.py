"""The command line as a dealer meets it, in processes of its own: real Prefect, real Ray, kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schemas.clock import system_clock
from schemas.results import results_by_number
from store.records.database import open_records
from store.records.people import create_account
from store.settings import Settings
from store.transient.transient_store import open_transient
from tests.batches import lay_out
from tests.flows.conftest import photo
from tests.records import at_home
from tests.workers.images import HOSTILE

PHOTOS = 24  # more than are done by the time that the first are seen to be
BGBATCH = [sys.executable, "-c", "from portal.cli.app import main; main()"]


class Shell:
    """Runs commands on one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = os.environ | {"BGBATCH_HOME": str(home), "BGBATCH_ACTORS": "2", "BGBATCH_SHARD_ITEMS": "2"}

    def run(self, *words: str, code: int = 0) -> str:
        done = subprocess.run([*BGBATCH, *words], env=self.env, capture_output=True, text=True, timeout=600)
        assert done.returncode == code, done.stderr[-2000:]
        assert "Traceback" not in done.stderr
        self.said = done.stderr
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen([*BGBATCH, *words], env=self.env, stdout=quiet, stderr=quiet, start_new_session=True)


@pytest.fixture
def shell(home: Path) -> Shell:
    shell = Shell(home)
    records = open_records(at_home(shell.home))
    with records.transaction() as connection:
        create_account(connection, "Acme", "owner@acme.example", system_clock(), os.urandom)
    records.engine.dispose()
    return shell


def test_bad_photos_cost_their_own_result_and_both_number_ones_live(shell: Shell, tmp_path: Path) -> None:
    files = {
        "VIN1/1.jpg": photo("motorcycle"),
        "VIN2/1.jpg": photo("coffee"),
        "VIN2/damaged.jpg": photo()[:9000],
        **{f"hostile/{name}": data for name, (data, _) in HOSTILE.items()},
    }
    shell.env["BGBATCH_MAX_MEGABYTES"] = "2"
    folder = lay_out(tmp_path / "photos", files)
    (folder / "VIN3").mkdir()
    cutouts = tmp_path / "cutouts"
    said = shell.run(
        "submit", str(folder), "--account", "Acme", "--industry", "automotive", "--to", str(cutouts), "--json", code=3
    )
    batch = json.loads(said)
    assert batch["state"] == "partially_completed"
    codes = {failure["path"]: failure["code"] for failure in batch["failures"]}
    assert codes == {"VIN2/damaged.jpg": "damaged_image"} | {f"hostile/{name}": HOSTILE[name][1] for name in HOSTILE}
    assert all(failure["sentence"].endswith(".") for failure in batch["failures"])
    assert {path.relative_to(cutouts).as_posix() for path in cutouts.rglob("*.png")} == {"VIN1/1.png", "VIN2/1.png"}
    assert batch["refusals"] == {"no_grant": 2}

    kept = [*shell.home.glob("records.db*"), *(each for each in (shell.home / "prefect").rglob("*") if each.is_file())]
    assert {"records.db", "prefect.db"} <= {path.name for path in kept}
    assert not any(b"VIN2/" in path.read_bytes() for path in kept), "a customer's file name is kept by the engine"


def test_a_flow_killed_in_mid_batch_is_run_again_and_does_only_the_rest(shell: Shell, tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "photos", {f"VIN{n:02d}/1.jpg": photo() for n in range(PHOTOS)})
    process = shell.start("submit", str(folder), "--account", "Acme")
    transient = open_transient(Settings(home=shell.home), lambda: None)  # type: ignore[arg-type, return-value]
    done_before = wait_for_reports(transient, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (batch,) = json.loads(shell.run("status", "--json"))
    batch_id = batch["stamp"]["batch_id"]
    assert 0 < len(done_before) < PHOTOS
    written = {number: result.finished_at for number, result in done_before.items()}
    again = json.loads(shell.run("run", batch_id, "--json"))
    assert (again["state"], again["counts"]["done"]) == ("completed", PHOTOS)
    results = results_by_number(transient.reports(batch_id))
    assert sorted(results) == list(range(1, PHOTOS + 1)), "every item has one result"
    for number, moment in written.items():
        assert results[number].finished_at == moment, "what was done is not done again"


@pytest.mark.parametrize(
    ("way", "stop"), [("submit", signal.SIGINT), ("schedule run", signal.SIGINT), ("submit", signal.SIGTERM)]
)
def test_who_is_stopped_in_mid_batch_ends_with_a_sentence_and_code_130(
    shell: Shell, tmp_path: Path, way: str, stop: signal.Signals
) -> None:
    folder = lay_out(tmp_path / "photos", {f"VIN{n:02d}/1.jpg": photo() for n in range(PHOTOS)})
    words = ["submit", str(folder), "--account", "Acme"]
    if way == "schedule run":
        shell.run("place", "allow", "Acme", str(folder))
        made = shell.run("schedule", "add", "--cron", "0 2 * * *", "--source", folder.as_uri(), "--json")
        words = ["schedule", "run", json.loads(made)["schedule_id"]]
    with (tmp_path / "said").open("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", "from portal.cli.start import main; main()", *words],
            env=shell.env,
            stderr=said,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        wait_for_reports(open_transient(Settings(home=shell.home), lambda: None), process)  # type: ignore[arg-type, return-value]
        if stop is signal.SIGINT:
            os.killpg(process.pid, stop)  # as a terminal does: to all that the command started
        else:
            os.kill(process.pid, stop)
        assert process.wait(timeout=300) == 130, (tmp_path / "said").read_text()[-2000:]
    text = (tmp_path / "said").read_text()
    assert "Stopped. What is done stays done" in text
    assert [each for each in ("Traceback", "ERROR") if each in text] == []


def wait_for_reports(transient, process):
    """Results of the one batch in the store, as soon as there are some."""
    while process.poll() is None:
        for hour in transient.objects.folders(""):
            for batch_id in transient.objects.folders(hour):
                results = results_by_number(transient.reports(batch_id))
                if results:
                    return results
        time.sleep(0.05)
    raise AssertionError("the process ended before it could be killed")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("submit", "/nowhere", "--account", "Acme"), 2),
        (("submit", ".", "--account", "Acme", "--format", "gif"), 2),
        (("submit", ".", "--account", "Acme", "--industry", "aviation"), 2),
        (("status", "01a20f60-1afe-7ce2-a865-0a6976a259ec"), 2),
        (("download", "01a20f60-1afe-7ce2-a865-0a6976a259ec", "--to", "x"), 2),
    ],
)
def test_a_mistake_gets_a_sentence_and_exit_code_2(shell: Shell, words: tuple[str, ...], code: int) -> None:
    shell.run(*words, code=code)
    assert ": " in shell.said
    assert shell.said.strip().endswith(".")


def test_an_empty_folder_is_no_batch(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shell.run("submit", str(tmp_path / "empty"), "--account", "Acme", code=2)
    assert "empty_batch" in shell.said
    assert json.loads(shell.run("status", "--json")) == []
