"""The promise, held against the real code: by hypothesis, by seeded walks, and by bugs made on purpose."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from schemas.industries import Industry
from tests.promise.mutants import MUTANTS, Mutant
from tests.promise.trouble import Kind
from tests.promise.walk import walk
from tests.promise.world import INDUSTRIES, Broken, World

_OWNERS, _BATCHES, _TAGS = st.integers(0, 1), st.integers(0, 3), st.sampled_from(INDUSTRIES)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Promise(RuleBasedStateMachine):
    """Anything may happen in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._home = tempfile.TemporaryDirectory(prefix="bgbatch-promise-")
        self.world = World(0, Path(self._home.name))
        self._clock = self.world.its_clock()
        self._clock.__enter__()

    @rule(owner=_OWNERS, industry=st.none() | _TAGS, photos=st.integers(1, 3))
    def submit(self, owner: int, industry: Industry | None, photos: int) -> None:
        self.world.submit(owner, industry, photos)

    @rule(batch=_BATCHES)
    def process(self, batch: int) -> None:
        self.world.process(batch)

    @rule(owner=_OWNERS, industry=_TAGS)
    def press_button(self, owner: int, industry: Industry) -> None:
        self.world.press_button(owner, industry)

    @rule(owner=_OWNERS, industry=_TAGS)
    def withdraw(self, owner: int, industry: Industry) -> None:
        self.world.withdraw(owner, industry)

    @rule(batch=_BATCHES)
    def write_late(self, batch: int) -> None:
        self.world.write_late(batch)

    @rule()
    def stray(self) -> None:
        self.world.stray()

    @rule(batch=_BATCHES)
    def download(self, batch: int) -> None:
        self.world.download(batch)

    @rule(machine=st.sampled_from(["portal", "worker", "cleaner"]), minutes=st.integers(-10, 10))
    def set_clock(self, machine: str, minutes: int) -> None:
        self.world.set_clock(machine, minutes)

    @rule()
    def lose_database(self) -> None:
        self.world.lose_database()

    @rule(kind=st.sampled_from(Kind), after=st.integers(1, 25))
    def plan_trouble(self, kind: Kind, after: int) -> None:
        self.world.plan_trouble(kind, after)

    @rule()
    def clean_up(self) -> None:
        self.world.clean_up()

    @rule()
    def reconcile(self) -> None:
        self.world.reconcile()

    @rule(ticks=st.sampled_from([1, 3, 60, 130, 140]))
    def advance(self, ticks: int) -> None:
        self.world.advance(ticks)

    @invariant()
    def the_promise_holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        try:
            self.world.check_end()
        finally:
            self._clock.__exit__(None, None, None)
            self._home.cleanup()


def test_the_promise_holds_whatever_happens() -> None:
    run_state_machine_as_test(
        Promise,
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_the_world_is_not_empty(tmp_path: Path) -> None:
    """A promise about nothing would be easy to keep: a batch with a grant really ends in store and lake."""
    world = World(0, tmp_path)
    with world.its_clock():
        world.press_button(0, Industry.AUTOMOTIVE)
        world.submit_and_process(0, Industry.AUTOMOTIVE, 3)
        assert len({thing.found.key for thing in world.bucket.things}) >= 3 * 3
        assert len(world.lake.things) == 1
        world.check_readers()
        world.check_end()
        assert len(world.lake.things) == 1


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_the_promise_holds_on_seeded_walks(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        walk(seed, tmp_path)


@pytest.mark.parametrize("seed", [6420, 7351])
def test_walks_that_once_broke_the_promise_hold(seed: int, tmp_path: Path) -> None:
    """A listing that lagged showed nothing of a young batch, and a receipt said that it was gone."""
    walk(seed, tmp_path)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[each.rule for each in MUTANTS])
def test_a_bug_in_a_rule_is_caught(mutant: Mutant, tmp_path: Path) -> None:
    for seed in range(mutant.seed, mutant.seed + 400):
        try:
            with patch.object(mutant.place, mutant.name, mutant.bug):
                walk(seed, tmp_path)
        except Broken:
            return
    pytest.fail("the promise was broken on purpose, and nobody noticed")
