"""A handful of what `make chaos` does by the hundred: several hosts, real servers, one kill -9 each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.trials import VICTIMS, World, trial


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("world"))
    yield world
    world.end()


@pytest.mark.parametrize(("seed", "victim"), enumerate(VICTIMS, start=1))
def test_every_photo_ends_with_one_result_whatever_is_killed(world: World, seed: int, victim: str) -> None:
    outcome = trial(world, seed, victim, photos=120)
    if victim in ("actor", "host"):  # the pool makes up for it without anybody's help
        assert (outcome.runs, outcome.said) == (1, ())


def test_hosts_are_several_and_the_head_has_no_work(world: World) -> None:
    assert len(world.hosts.nodes) == 3
    assert Path(f"/proc/{world.records.process.pid}").exists()
