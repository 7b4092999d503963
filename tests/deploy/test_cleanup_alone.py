"""The cleanup as it is deployed, with everything else down or spoilt: no records, no Ray, no Prefect server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import psycopg
import pytest

from consent import ledger
from consent.suppression import open_suppressions
from flows.cleaning import cleaning
from flows.parts import parts_to_clean, using
from lake.layout import Place
from schemas.clock import system_clock
from schemas.errors import EngineFault
from schemas.ids import BatchId, new_batch_id, received_at
from schemas.industries import Industry
from store.purging.cleanup import clean_up
from store.purging.health import read_health
from store.records.database import open_records
from store.settings import Settings
from store.transient.transient_store import batch_prefix
from tests.consent.conftest import later, new_owner
from tests.consent.postgres import current_database
from tests.deploy.files import COMPOSE, called
from tests.ports import free_port
from tests.store.conftest import ceph_bucket, open_store, s3_of

(CONTAINER,) = called("Deployment", "cleanup")["spec"]["template"]["spec"]["containers"]
COMMANDS = {
    "kubernetes": CONTAINER["command"],
    "compose": [word.replace("$$", "$") for word in COMPOSE["services"]["cleanup"]["entrypoint"]],
}


def sent(hours: float, seed: int) -> BatchId:
    return new_batch_id(datetime.now(UTC) - timedelta(hours=hours), Random(seed).randbytes)


def run_cleanup(**environment: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("bgbatch")
    return subprocess.run(
        [program, "cleanup"], env=os.environ | environment, capture_output=True, text=True, check=False, timeout=600
    )


def test_what_is_due_goes_while_the_records_are_down_and_somebody_is_told(tmp_path: Path) -> None:
    old, young = sent(23.2, 1), sent(2, 2)
    places = {each: tmp_path / "home" / "transient" / batch_prefix(each) / "source" for each in (old, young)}
    for place in places.values():
        place.mkdir(parents=True)
        (place / "1").write_bytes(b"a photo")
    assert received_at(old) < received_at(young)
    records_url = f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/records"
    run = run_cleanup(BGBATCH_HOME=str(tmp_path / "home"), BGBATCH_RECORDS_URL=records_url)
    assert not (places[old] / "1").exists(), run.stderr
    assert (places[young] / "1").exists()
    assert run.returncode == 1
    assert "records_fault" in run.stderr


def test_what_is_due_goes_while_somebody_holds_tables_of_the_records_and_somebody_is_told(tmp_path: Path) -> None:
    """An upgrade, a restore or somebody's own session may hold them for hours."""
    place = tmp_path / "home" / "transient" / batch_prefix(sent(23.2, 1)) / "source"
    place.mkdir(parents=True)
    (place / "1").write_bytes(b"a photo")
    records_url = current_database()
    soon = (
        "from store.records import database; database._PATIENCE['connect_timeout'] = 1; "
        "from portal.cli.app import main; main()"
    )
    environment = os.environ | {"BGBATCH_HOME": str(tmp_path / "home"), "BGBATCH_RECORDS_URL": records_url}
    with psycopg.connect(records_url.replace("+psycopg", "")) as somebody:
        somebody.execute("LOCK TABLE receipts, erasures, batches IN ACCESS EXCLUSIVE MODE")
        command = [sys.executable, "-c", soon, "cleanup"]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert not (place / "1").exists(), run.stderr
    assert run.returncode == 1
    assert "records_fault" in run.stderr


def test_what_is_due_goes_from_a_bucket_that_became_unfit_beside_a_spoilt_lake_and_both_are_told(
    tmp_path: Path,
) -> None:
    """Somebody turned versions on, and nobody can read what was noted beside the lake."""
    url, settings = ceph_bucket()
    objects = open_store(url, settings)
    s3_of(objects).call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    old, young = sent(23.2, 1), sent(2, 2)
    for each in (old, young):
        objects.write(f"{batch_prefix(each)}/source/1", b"a photo")
    settings = settings.model_copy(update={"home": tmp_path / "home", "transient_url": url})
    open_suppressions(settings).write("purges.json", b"no json")
    run = run_cleanup(
        BGBATCH_HOME=str(settings.home),
        BGBATCH_TRANSIENT_URL=url,
        BGBATCH_S3_ENDPOINT=settings.s3_endpoint,
        BGBATCH_S3_KEY=settings.s3_key,
        BGBATCH_S3_SECRET=settings.s3_secret.get_secret_value(),
    )
    assert not list(objects.walk(batch_prefix(old))), run.stderr
    assert list(objects.walk(batch_prefix(young)))
    assert run.returncode == 1
    assert "bucket_unfit, ledger_broken" in run.stderr
    assert "BGBATCH_ALLOW_VERSIONED" in run.stderr


@pytest.mark.parametrize("is_configured", [True, False])
def test_what_is_due_goes_while_prefect_cannot_run_and_somebody_is_told(tmp_path: Path, is_configured: bool) -> None:
    place = tmp_path / "home" / "transient" / batch_prefix(sent(23.2, 1)) / "source"
    place.mkdir(parents=True)
    (place / "1").write_bytes(b"a photo")
    (tmp_path / "home" / "prefect" / "prefect.db").mkdir(parents=True)  # no server of its own can start on that
    away = f"http://127.0.0.1:{free_port()}/api" if is_configured else ""
    run = run_cleanup(BGBATCH_HOME=str(tmp_path / "home"), PREFECT_API_URL=away)
    assert not (place / "1").exists(), run.stderr
    assert run.returncode == 1
    assert "engine_fault" in run.stderr
    assert "1 batch purged without it, with 0 faults" in run.stderr
    assert "Traceback" not in run.stderr


def test_where_the_home_cannot_be_used_prefect_takes_no_place_of_its_own_and_tells_nobody(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    program = Path(sys.executable).with_name("bgbatch")
    run = subprocess.run(
        [program, "cleanup"],
        env=environment | {"BGBATCH_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "engine_fault" in run.stderr
    assert "telemetry" not in run.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["home"]


def test_a_cleanup_that_only_what_engines_leave_is_wrong_for_says_that_what_was_due_is_purged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import cleanup as flow

    for name in ("purge_what_is_due", "sweep_engines", "look_for_our_canaries"):
        monkeypatch.setattr(flow, name, getattr(flow, name).fn)  # the steps themselves, without a Prefect server
    pages: list[str] = []
    monkeypatch.setattr(flow, "create_markdown_artifact", lambda page, **_: pages.append(page))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "prefect.db").write_bytes(b"no database" * 100)
    parts = parts_to_clean(Settings(home=tmp_path / "home"), system_clock)
    parts.transient.objects.write(f"{batch_prefix(sent(23.2, 1))}/source/1", b"a photo")
    with using(parts), pytest.raises(EngineFault, match="What was due is purged \\(1 batch,") as raised:
        flow.cleanup.fn()
    assert "DatabaseError" in str(raised.value)
    assert "1 batch purged" in pages[0]
    parts.records.engine.dispose()


def test_upkeep_purges_too_while_prefect_cannot_run_and_the_records_are_down(tmp_path: Path) -> None:
    place = tmp_path / "home" / "transient" / batch_prefix(sent(23.2, 1)) / "source"
    place.mkdir(parents=True)
    (place / "1").write_bytes(b"a photo")
    nowhere = f"127.0.0.1:{free_port()}"
    environment = {
        "BGBATCH_HOME": str(tmp_path / "home"),
        "PREFECT_API_URL": f"http://{nowhere}/api",
        "BGBATCH_RECORDS_URL": f"postgresql+psycopg://nobody@{nowhere}/records",
    }
    program = Path(sys.executable).with_name("bgbatch")
    running = subprocess.Popen([program, "upkeep"], env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while (place / "1").exists() and running.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        assert not (place / "1").exists()
        assert running.poll() is None, "it goes on"
    finally:
        running.kill()
        running.wait()


def test_upkeep_erases_what_was_withdrawn_while_the_bucket_for_photos_is_unfit_and_prefect_cannot_run(
    tmp_path: Path,
) -> None:
    url, settings = ceph_bucket()
    s3_of(open_store(url, settings)).call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    records = open_records(Settings(home=tmp_path / "home"))
    owner = new_owner(records)
    (grant,) = owner.press(Industry.AUTOMOTIVE)
    with records.transaction() as connection:
        ledger.withdraw_all(connection, owner.refusal(later(1)), later(1))
    records.engine.dispose()
    place = tmp_path / "home" / "lake" / Place(grant.industry, grant.grant_id).prefix
    place.mkdir(parents=True)
    (place / "rows.parquet").write_bytes(b"a photo")
    environment = {
        "BGBATCH_HOME": str(tmp_path / "home"),
        "BGBATCH_TRANSIENT_URL": url,
        "BGBATCH_S3_ENDPOINT": settings.s3_endpoint,
        "BGBATCH_S3_KEY": settings.s3_key,
        "BGBATCH_S3_SECRET": settings.s3_secret.get_secret_value(),
        "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
    }
    program = Path(sys.executable).with_name("bgbatch")
    running = subprocess.Popen([program, "upkeep"], env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while place.exists() and running.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        assert not place.exists()
        assert running.poll() is None, "it goes on"
    finally:
        running.kill()
        running.wait()


def test_a_cleanup_that_found_something_wrong_leaves_its_receipts_and_is_no_good_one(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    open_suppressions(settings).write("purges.json", b"no json")
    parts = parts_to_clean(settings, system_clock)
    parts.transient.objects.write(f"{batch_prefix(sent(23.2, 1))}/source/1", b"a photo")
    report = clean_up(cleaning(parts), [type(each).__name__ for each in parts.troubles])
    assert (len(report.receipts), report.faults) == (1, ["LedgerBroken"])
    health = read_health(parts.transient.objects, parts.records, system_clock())
    assert (health.faults, health.last_good_at) == (1, None)
    parts.records.engine.dispose()


def test_upkeep_goes_on_purging_while_somebody_holds_tables_of_the_records(tmp_path: Path) -> None:
    records_url = current_database()
    environment = {"BGBATCH_HOME": str(tmp_path / "home"), "BGBATCH_RECORDS_URL": records_url}
    soon = (
        "from datetime import timedelta; from portal.cli import app, upkeep; from store.records import database; "
        "upkeep._EVERY = timedelta(); database._PATIENCE['connect_timeout'] = 1; app.main()"
    )
    with psycopg.connect(records_url.replace("+psycopg", "")) as somebody:
        somebody.execute("LOCK TABLE receipts, erasures, batches IN ACCESS EXCLUSIVE MODE")
        command = [sys.executable, "-c", soon, "upkeep"]
        running = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL)
        try:
            for seed in (1, 2):
                photo = tmp_path / "home" / "transient" / batch_prefix(sent(23.2, seed)) / "source" / "1"
                photo.parent.mkdir(parents=True)
                photo.write_bytes(b"a photo")
                until = time.monotonic() + 300
                while photo.exists() and running.poll() is None and time.monotonic() < until:
                    time.sleep(0.1)
                assert not photo.exists()
        finally:
            running.kill()
            running.wait()


@contextmanager
def going(command: Sequence[str], home: Path, bgbatch: str) -> Iterator[Path]:
    """The loop of a deployment with another program, quicker, until it has run that twice. `home` stands for /tmp."""
    (home / "bgbatch").write_text(f"#!/bin/sh\necho $1 >> {home}/ran\n{bgbatch}\n")
    (home / "bgbatch").chmod(0o755)
    quick = [re.sub(r"-k 60 \dh", "-k 1 2", each).replace("/tmp/", f"{home}/") for each in command]
    environment = {"PATH": f"{home}:{os.environ['PATH']}"}
    loop = subprocess.Popen(quick, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while not (home / "ran").exists() or len((home / "ran").read_text().split()) < 2:
            assert time.monotonic() < until, "it hangs"
            time.sleep(0.02)
        yield home
    finally:
        os.killpg(loop.pid, signal.SIGKILL)
        loop.wait()


def probe(name: str, home: Path) -> bool:
    command = [word.replace("/tmp/", f"{home}/") for word in CONTAINER[name]["exec"]["command"]]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("where", COMMANDS)
def test_a_step_that_hangs_is_ended_and_the_next_one_runs(where: str, tmp_path: Path) -> None:
    with going(COMMANDS[where], tmp_path, "exec sleep 600"):
        assert (tmp_path / "ran").read_text().split() == ["cleanup", "reconcile"]
        assert not (tmp_path / "last").exists(), "a cleanup that was ended is no good one"


def test_a_container_that_starts_again_is_not_judged_by_what_the_last_one_left(tmp_path: Path) -> None:
    """An emptyDir outlives the container: a kill must not lead to the next one."""
    assert "startupProbe" not in CONTAINER, "a first purge may take hours"
    for name in ("last", "alive"):
        (tmp_path / name).write_text("1")
    with going(CONTAINER["command"], tmp_path, "exit 1"):
        assert probe("livenessProbe", tmp_path)
        assert not probe("readinessProbe", tmp_path)


def test_no_step_may_take_longer_than_the_cleanup_is_believed_to_live() -> None:
    *_, loop = CONTAINER["command"]
    longest = max(int(hours) * 3600 + int(more) for more, hours in re.findall(r"timeout -k (\d+) (\d)h", loop))
    (believed,) = re.findall(r"-lt (\d+)", CONTAINER["livenessProbe"]["exec"]["command"][2])
    assert longest + 600 < int(believed)
