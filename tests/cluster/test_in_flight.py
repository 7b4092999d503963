"""A worker that goes away costs the calls that it had in its hands, and no other: calls are counted, not results."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from flows import steps
from flows.parts import open_parts
from flows.receive import seal, stamp_batch
from schemas.batch import Item
from schemas.clock import system_clock
from schemas.options import CutoutOptions
from schemas.results import standing
from store.records.people import create_account
from store.settings import Settings
from store.transient.transient_store import source_key
from tests.cluster.rehearsal import RehearsalActor
from workers.limits import CALLS_PER_ACTOR
from workers.placement import connect
from workers.pool import Pool

PHOTOS, ACTORS = 120, 3


class CountedActor(RehearsalActor):
    """Notes each photo that it begins, and which process it is."""

    def process(self, batch_id, numbers, clock):
        with (self._settings.home / "begun").open("a") as notes:
            notes.write("".join(f"{os.getpid()} {number}\n" for number in numbers))
        return super().process(batch_id, numbers, clock)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    connect(Settings(home=tmp_path), cpus=ACTORS)
    yield tmp_path
    ray.shutdown()


def test_a_worker_that_is_lost_costs_no_more_than_its_calls_in_flight(home: Path) -> None:
    parts = open_parts(Settings(home=home, shard_items=4, actors=ACTORS), system_clock)
    with parts.records.transaction() as connection:
        account, _ = create_account(connection, "Acme", "a@acme.example", system_clock(), os.urandom)
    stamp = stamp_batch(parts, account, None, CutoutOptions())
    for number in range(1, PHOTOS + 1):
        parts.transient.write(stamp, source_key(stamp.batch_id, number), b"photo")
    seal(parts, stamp, [Item(number=n, path=f"{n}.jpg", size=5) for n in range(1, PHOTOS + 1)])
    pool = Pool(parts.settings, ACTORS, CountedActor)
    killed: list[int] = []

    def begun() -> list[list[str]]:
        return [line.split() for line in (home / "begun").read_text().splitlines()]

    def kill_one(*how) -> Iterator:
        for done, report in enumerate(pool.run(*how)):
            if done == 5:
                killed.append(int(begun()[-1][0]))
                os.kill(killed[0], signal.SIGKILL)
            yield report

    counts = steps.cut(parts, steps.plan(parts, stamp.batch_id), kill_one)
    assert (counts.done, len(killed)) == (PHOTOS, 1)
    assert standing(parts.transient.reports(stamp.batch_id)).done == set(range(1, PHOTOS + 1))
    times = Counter(number for _, number in begun())
    assert set(times) == {str(number) for number in range(1, PHOTOS + 1)}
    again = times.total() - PHOTOS
    assert 0 <= again <= CALLS_PER_ACTOR * parts.settings.shard_items
    parts.records.engine.dispose()
