"""One trial: a batch runs on several hosts, something is killed with -9 at a random moment, and then all is counted.

A trial passes when every photo has exactly one result and its cutout, nothing is left to plan, and a day later
nothing of the batch is left and one receipt says so. Everything random comes from the seed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random

from flows import steps
from flows.cleaning import cleaning
from flows.parts import Parts, open_parts
from flows.receive import seal, stamp_batch
from schemas.batch import BatchState, Item
from schemas.clock import ShiftedClock, system_clock
from schemas.errors import StoreFault
from schemas.ids import BatchId
from schemas.options import CutoutOptions
from schemas.results import Done
from store.batches import get_batch
from store.cleanup import clean_up
from store.people import create_account
from store.receipts import list_receipts, verify_receipts
from store.settings import Settings
from store.transient import cutout_key, source_key
from tests.cluster.hosts import Hosts
from tests.cluster.servers import Objects, Postgres
from tests.store.rclone import SECRET

ROOT = Path(__file__).parents[2]
VICTIMS = ("actor", "host", "runner", "records", "objects")
MORE_VICTIMS = (*VICTIMS, "frozen host", "head")
_MOST_RUNS = 6
_PATIENCE = 420.0


@dataclass(frozen=True)
class Outcome:
    """What it took. `said`: codes with which a run gave up and asked to be run again."""

    seed: int
    victim: str
    photos: int
    runs: int
    said: tuple[str, ...]
    seconds: float


class World:
    """Hosts, records and objects, for many trials one after another."""

    def __init__(self, home: Path, workers: int = 3) -> None:
        self.home = home
        self._postgres = Path(tempfile.mkdtemp(prefix="bgbatch-trials-", dir="/tmp"))  # whose user may not enter `home`
        self._postgres.chmod(0o755)
        self.records, self.objects = Postgres(self._postgres / "postgres"), Objects(home / "objects")
        self._workers = workers
        base = Settings(home=home, records_url=self.records.url, shard_items=4, actor_idle_minutes=0)
        self.settings = self.objects.settings(base)
        self.put_up_hosts()
        self.parts = open_parts(self.settings, system_clock)
        with self.parts.records.transaction() as connection:
            self.account, _ = create_account(connection, "Acme", "a@acme.example", system_clock(), os.urandom)

    def put_up_hosts(self) -> None:
        """A cluster, in place of the one that there was."""
        if hasattr(self, "hosts"):
            self.hosts.end()
        self.hosts = Hosts(self.home, self._workers, {"BGBATCH_S3_SECRET": SECRET})
        self.settings = self.hosts.settings(self.settings)

    def environment(self) -> dict[str, str]:
        """What a process needs to work here."""
        given = self.settings.without_secrets() | {
            "records_url": self.records.url,
            "s3_secret": self.settings.s3_secret.get_secret_value(),
        }
        named = {f"BGBATCH_{name.upper()}": str(value) for name, value in given.items() if value is not None}
        return os.environ | named | {"PYTHONPATH": str(ROOT)}

    def end(self) -> None:
        self.parts.records.engine.dispose()
        self.hosts.end()
        self.objects.kill()
        self.records.kill()
        shutil.rmtree(self._postgres, ignore_errors=True)


def send(parts: Parts, account, photos: int, randomness: Random) -> BatchId:
    """A sealed batch of small files, each with its own bytes."""
    stamp = stamp_batch(parts, account, None, CutoutOptions(), os.urandom)
    items = []
    for number in range(1, photos + 1):
        photo = randomness.randbytes(64)
        parts.transient.write(stamp, source_key(stamp.batch_id, number), photo)
        items.append(Item(number=number, path=f"VIN{number}/1.jpg", size=len(photo)))
    seal(parts, stamp, items)
    return stamp.batch_id


def trial(world: World, seed: int, victim: str, photos: int) -> Outcome:
    """Run it; raises AssertionError when a photo is lost or doubled, or the batch does not end."""
    random, began = Random(seed), time.monotonic()
    batch_id = send(world.parts, world.account, photos, random)
    moment = random.randrange(photos // 8, photos // 2)
    said: list[str] = []
    is_killed, runs = False, 0
    while runs < _MOST_RUNS:
        runs += 1
        process = _start(world, batch_id)
        while process.poll() is None:
            if time.monotonic() - began > _PATIENCE:
                process.kill()
                raise AssertionError(f"seed {seed}: {victim}: it hangs in run {runs}, after {said}")
            if not is_killed and _done(world.parts, batch_id) >= moment:
                is_killed = True
                _kill(world, victim, random, process)
            time.sleep(0.05)
        if process.returncode == 0:
            break
        said.append(_last_word(process))
    else:
        raise AssertionError(f"seed {seed}: {victim}: not done after {_MOST_RUNS} runs: {said}")
    assert is_killed, f"seed {seed}: the batch was done before anything was killed"
    while len(world.hosts.nodes) < 3:
        world.hosts.bring_one()
    _count(world.parts, batch_id, photos, seed)
    _purge(world.parts, batch_id, seed)
    return Outcome(seed, victim, photos, runs, tuple(said), time.monotonic() - began)


def _start(world: World, batch_id: BatchId) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.cluster.runner", batch_id]
    return subprocess.Popen(
        command, env=world.environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _last_word(process: subprocess.Popen[str]) -> str:
    """The code of the fault that it ended with; other lines are Ray's."""
    if process.returncode < 0:
        return f"killed by signal {-process.returncode}"
    assert process.stderr is not None
    lines = process.stderr.read().strip().splitlines()
    codes = [match.group(1) for line in lines if (match := re.match(r"([a-z]+_[a-z_]+): ", line))]
    return codes[-1] if codes else (lines or ["nothing"])[-1][:60]


def _done(parts: Parts, batch_id: BatchId) -> int:
    try:
        return sum(len(report.results) for report in parts.transient.reports(batch_id))
    except StoreFault:
        return 0


def _kill(world: World, victim: str, random: Random, runner: subprocess.Popen[str]) -> None:
    match victim:
        case "actor":
            world.hosts.kill_an_actor(random.randrange(8))
        case "host":
            world.hosts.lose_one(random.randrange(8))
        case "frozen host":
            world.hosts.freeze_one(random.randrange(8), 2 + 3 * random.random())
        case "head":
            world.hosts.lose_the_head()
            runner.wait(timeout=300)  # it must find out by itself
            world.put_up_hosts()
        case "runner":
            runner.kill()
        case "records":
            world.records.kill()
            time.sleep(random.random() * 2)
            world.records.start()
        case "objects":
            world.objects.kill()
            time.sleep(random.random() * 2)
            world.objects.start()


def _count(parts: Parts, batch_id: BatchId, photos: int, seed: int) -> None:
    """Exactly one result for each photo, after duplicates of calls that were made twice are taken for what they are."""
    results: dict[int, list] = {}
    for report in parts.transient.reports(batch_id):
        for each in report.results:
            results.setdefault(each.number, []).append(each)
    assert sorted(results) == list(range(1, photos + 1)), f"seed {seed}: photos without a result"
    for number, told in results.items():
        assert all(isinstance(each, Done) for each in told), f"seed {seed}: photo {number} failed"
        cutout = parts.transient.read(cutout_key(batch_id, number, ".png"))
        assert cutout == parts.transient.read(source_key(batch_id, number)), f"seed {seed}: photo {number} is another's"
    assert steps.plan(parts, batch_id) == []
    with parts.records.transaction() as connection:
        record = get_batch(connection, batch_id)
    assert record.state is BatchState.COMPLETED
    assert (record.counts.items, record.counts.done, record.counts.failed) == (photos, photos, 0)


def _purge(parts: Parts, batch_id: BatchId, seed: int) -> None:
    """A day later nothing is left, and one receipt says so."""
    later = open_parts(parts.settings, ShiftedClock(timedelta(hours=24)))
    report = clean_up(cleaning(later))
    assert report.faults == [], f"seed {seed}"
    assert not list(later.transient.objects.walk("")), f"seed {seed}: something is left"
    with later.records.transaction() as connection:
        verify_receipts(list_receipts(connection))
        kinds = Counter(each.subject for each in list_receipts(connection))
    assert kinds[batch_id] == 1
    later.records.engine.dispose()
