"""Readers, a compactor and somebody who admits, withdraws and erases, all at the same time and on one lake.

What a reader finds: no row twice; every row that was admitted before it began and is live when it has ended; none
whose grant had ended before it began.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from lake.compact import compact
from lake.erase import reconcile
from lake.reading import Lake
from lake.write import candidate_id
from schemas.errors import StoreFault
from schemas.ids import GrantId
from tests.lake.conftest import AUTO, World, a_photo

PHOTOS = [a_photo(seed) for seed in range(3)]
ROUNDS = 15


def _labels(lake: Lake) -> list[str]:
    found: list[str] = lake.labels(AUTO, ("candidate_id",))["candidate_id"].to_pylist()
    return found


def _images(lake: Lake) -> list[str]:
    return [each.candidate_id for each in lake.images(AUTO)]


def _dataset(lake: Lake) -> list[str]:
    found: list[str] = lake.dataset(AUTO).to_table(["candidate_id", "image"])["candidate_id"].to_pylist()
    return found


def _training(lake: Lake) -> list[str]:
    return [each.candidate_id for each in lake.torch_dataset(AUTO, decoders=0)]  # type: ignore[attr-defined]


READERS: dict[str, Callable[[Lake], list[str]]] = {
    "labels": _labels,
    "images": _images,
    "dataset": _dataset,
    "training": _training,
}


@dataclass
class Life:
    """A lake in which something happens all the time. `grant_of`: every candidate that was ever admitted."""

    world: World
    days_go_by: bool
    grant_of: dict[str, GrantId] = field(default_factory=dict)
    merged: int = 0
    times_read: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def live_rows(self) -> set[str]:
        live = set(self.world.live())
        return {row for row, grant_id in list(self.grant_of.items()) if grant_id in live}

    def change(self) -> None:
        """Admit, and now and then withdraw and erase, or let a day go by after which merged files' sources go.

        On a busy machine until the others have come to it, too.
        """
        until = time.monotonic() + 300
        try:
            for number in itertools.count():
                if number >= ROUNDS and ((self.merged and self.times_read) or time.monotonic() > until):
                    break
                if len(self.world.live()) < 3:
                    self.world.grant()
                for grant_id in self.world.live():
                    file = self.world.write(self.world.batch(self.world.grants[grant_id], PHOTOS[:2]))
                    self.world.admit(file)
                    self.grant_of.update({candidate_id(file.batch_id, item): grant_id for item in file.items})
                if number % 4 == 3:
                    self.world.withdraw(self.world.grants[self.world.live()[0]])
                    self.sweep()
                if number % 7 == 6 and self.days_go_by:
                    self.world.pass_time(hours=25)
                    self.sweep()
        finally:
            self.over.set()

    def sweep(self) -> None:
        world = self.world
        reconcile(world.lake, world.records, world.live(), world.ended(), world.clock)

    def merge(self) -> None:
        while not self.over.is_set():
            done = compact(self.world.reader(), self._is_live, self.world.clock, os.urandom, least_files=2)
            self.merged += done.merged

    def read(self, read: Callable[[Lake], list[str]]) -> None:
        while not self.over.is_set():
            sure, ended = self.live_rows(), {each.grant_id for each in self.world.ended()}
            try:
                found = read(self.world.reader())
            except (StoreFault, FileNotFoundError):  # a day went by meanwhile: the reader is told to begin again
                continue
            assert len(set(found)) == len(found), "a row was seen twice"
            assert not {row for row in found if row in self.grant_of and self.grant_of[row] in ended}
            missing = (sure & self.live_rows()) - set(found)
            assert not missing
            self.times_read += 1

    def _is_live(self, connection: object, grant_id: GrantId) -> bool:
        return grant_id in self.world.live()


@pytest.mark.parametrize("how", READERS)
def test_a_reader_beside_merges_and_erasures_finds_each_live_row_once(world: World, how: str) -> None:
    life = Life(world, days_go_by=how != "training")  # a pass leaves out what is gone, and the next has it again
    with ThreadPoolExecutor(4) as pool:
        merging = pool.submit(life.merge)
        reading = [pool.submit(life.read, READERS[how]) for _ in range(2)]
        pool.submit(life.change).result()
        for each in (merging, *reading):
            each.result()
    assert life.merged > 0
    assert life.times_read > 0
    assert sorted(_labels(world.reader())) == sorted(life.live_rows())
