"""Trials: a batch runs on several hosts, something is killed or cut off at a random moment, and then all is counted.

`python -m tests.cluster.trials --record FILE` runs them and appends one line of JSON for each; start it `apart`
(tests.cluster.network). A seed decides what happens to whom and when, and what the customer allows meanwhile:
nothing, training, or training until they withdraw in the middle. A trial passes when `tests.cluster.batch` says so.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from sqlalchemy.exc import SQLAlchemyError

from schemas.clock import system_clock
from schemas.errors import BgbatchError
from schemas.ids import BatchId
from store.records.batches import get_batch
from store.records.line import find_submission
from tests.cluster import batch
from tests.cluster.world import INDUSTRY, World

VICTIMS = (
    "actor",
    "raylet",
    "host",
    "GCS",
    "flow runner",
    "Prefect server",
    "PostgreSQL",
    "S3 server",
    "portal",
    "host cut off",
    "host slowed",
    "host frozen",
)
CONSENTS = ("none", "live", "withdrawn")
_PATIENCE = 600.0
_LOOK_EVERY = 0.1


@dataclass
class Outcome:
    """What it took. `again`: what had to be started again meanwhile. `broken`: what went wrong, or nothing."""

    seed: int
    victim: str
    consent: str
    photos: int
    at: int
    again: list[str] = field(default_factory=list)
    seconds: float = 0.0
    broken: str = ""


def outcome_of(world: World, seed: int, photos: int, victims: Sequence[str] = VICTIMS) -> Outcome:
    """Run the trial of this seed."""
    random, began = Random(seed), time.monotonic()
    victim = victims[seed % len(victims)]
    trial = Outcome(seed, victim, random.choice(CONSENTS), photos, random.randrange(1, photos + 1))
    try:
        _run(world, trial, random)
    except Exception as fault:  # noqa: BLE001  # a broken promise, or a harness that does not know what it sees
        where = traceback.extract_tb(fault.__traceback__)[-1]
        trial.broken = f"{type(fault).__name__}: {fault} ({Path(where.filename).name}:{where.lineno})"
    trial.seconds = round(time.monotonic() - began, 1)
    return trial


def _run(world: World, trial: Outcome, random: Random) -> None:
    grant_id = world.grant() if trial.consent != "none" else None
    withdraw_at = random.randrange(trial.photos + 1) if trial.consent == "withdrawn" else None
    until = time.monotonic() + _PATIENCE
    industry = INDUSTRY if random.random() < 0.8 or grant_id else None

    def tend() -> None:
        trial.again.extend(world.tend())
        time.sleep(_LOOK_EVERY)

    if trial.victim == "portal":
        with world.portal.client(world.key) as client:
            batch_id = batch.send_to_the_portal(client, industry, trial.photos, trial.at, world.portal.kill, tend)
        harm, moment = None, 0
    else:
        batch_id = batch.send(world.parts, world.account, industry, trial.photos)
        harm, moment = _harm(world, trial.victim, random), trial.at
    while not _has_ended(world, batch_id):
        assert time.monotonic() < until, f"not done in {_PATIENCE:.0f} s\n{world.state(batch_id)}"
        done = _done(world, batch_id)
        if harm is not None and done >= moment:
            harm()
            harm = None
        if withdraw_at is not None and done >= withdraw_at:
            world.withdraw()
            withdraw_at = None
        tend()
    if withdraw_at is not None:
        world.withdraw()
    tend()
    batch.count(world.parts, batch_id, trial.photos)
    batch.count_candidates(world.parts, batch_id, grant_id, trial.photos, trial.consent == "live")
    if trial.consent == "live":
        world.withdraw()
    batch.purge(world.parts, batch_id)
    assert harm is None, "the batch was done before anything was killed"


def _harm(world: World, victim: str, random: Random) -> Callable[[], None]:
    """What is done to it, with kill -9 where nothing else is said."""
    number, seconds = random.randrange(8), random.random()
    hosts = world.hosts
    match victim:
        case "actor":
            return lambda: _kill(hosts.actors(), number)
        case "raylet":
            return lambda: _kill(hosts.raylets(), number)
        case "host":
            return lambda: hosts.host(number).end()
        case "GCS":
            return lambda: _kill(hosts.gcs(), 0)
        case "host cut off":
            host = hosts.host(number)
            return lambda: _for(1 + 59 * seconds**2, host.cut, host.join)
        case "host slowed":
            host = hosts.host(number)
            return lambda: _for(5 + 15 * seconds, host.slow, host.hurry)
        case "host frozen":
            pids = hosts.host(number).pids
            return lambda: _for(1 + 29 * seconds**2, lambda: _tell(pids(), signal.SIGSTOP), lambda: _go_on(pids()))
    server = {
        "flow runner": world.runner,
        "Prefect server": world.engine,
        "PostgreSQL": world.records,
        "S3 server": world.objects,
    }[victim]

    def power_cut() -> None:
        server.kill()
        time.sleep(3 * seconds)

    return power_cut


def _for(seconds: float, begin: Callable[[], None], end: Callable[[], None]) -> None:
    begin()
    time.sleep(seconds)
    end()


def _kill(pids: Sequence[int], number: int) -> None:
    assert pids, "there is none that could be killed"
    _tell([pids[number % len(pids)]], signal.SIGKILL)


def _go_on(pids: Sequence[int]) -> None:
    _tell(pids, signal.SIGCONT)


def _tell(pids: Sequence[int], signum: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


def _done(world: World, batch_id: BatchId) -> int:
    """How many photos the records know to be done; -1 while they are down."""
    try:
        with world.parts.records.transaction() as connection:
            counts = get_batch(connection, batch_id).counts
    except SQLAlchemyError:
        return -1
    return counts.done + counts.failed


def _has_ended(world: World, batch_id: BatchId) -> bool:
    """Its stay in line is over, and nobody holds it."""
    try:
        with world.parts.records.transaction() as connection:
            stands = find_submission(connection, batch_id)
    except (SQLAlchemyError, BgbatchError):
        return False
    if stands is None or stands.ended_at is None:
        return False
    return stands.lease_until is None or stands.lease_until <= system_clock()


def main() -> None:
    """Run those that the record does not have yet, until one is broken, which costs its world."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--record", type=Path, required=True)
    asked.add_argument("--seeds", type=int, nargs="+", required=True)
    asked.add_argument("--photos", type=int, default=2000)
    asked.add_argument("--victims", nargs="*", default=list(VICTIMS))
    how = asked.parse_args()
    left = [each for each in how.seeds if each not in recorded(how.record)]
    world, is_broken = World(), False
    try:
        for seed in left:
            trial = outcome_of(world, seed, how.photos, how.victims)
            with how.record.open("a") as lines:
                lines.write(json.dumps(asdict(trial)) + "\n")
            if trial.broken:
                is_broken = True
                break
    finally:
        world.end(keep=is_broken)
    sys.exit(int(is_broken))


def recorded(record: Path) -> dict[int, Outcome]:
    """By seed, what a record holds."""
    lines: Collection[str] = record.read_text().splitlines() if record.exists() else ()
    return {each.seed: each for each in (Outcome(**json.loads(line)) for line in lines)}


if __name__ == "__main__":
    main()
