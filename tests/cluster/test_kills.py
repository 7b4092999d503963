"""A handful of what `make chaos` does by the hundred: several hosts, every part a real process, one kill -9 each."""

from __future__ import annotations

import subprocess

import pytest

from bench.chaos import body, run
from tests.cluster.network import apart, can_be_apart
from tests.cluster.trials import Outcome, recorded

VICTIMS = ("raylet", "PostgreSQL", "actor")
SEEDS = (36, 10, 2)
"""One for each of them, and for each consent, by which it is killed after a few photos: long before the last one."""

pytestmark = pytest.mark.skipif(not can_be_apart(), reason="needs namespaces: root, or a kernel that lets anybody")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Outcome]:
    """Of all trials: they share one world, which takes longer to put up than a trial takes."""
    record = tmp_path_factory.mktemp("trials") / "record.jsonl"
    while left := [seed for seed in SEEDS if seed not in recorded(record)]:  # a broken one costs a world
        run(record, left, photos=60, victims=VICTIMS)
    return recorded(record)


@pytest.mark.parametrize("seed", SEEDS, ids=VICTIMS)
def test_every_photo_ends_with_one_result_whatever_is_killed(outcomes: dict[int, Outcome], seed: int) -> None:
    assert outcomes[seed].victim == VICTIMS[seed % len(VICTIMS)]
    assert not outcomes[seed].broken


def test_what_is_started_again_is_only_what_was_killed(outcomes: dict[int, Outcome]) -> None:
    for each in outcomes.values():
        assert "cluster" not in each.again
        assert "host" in each.again or each.victim != "raylet"


def test_the_table_of_the_trials_shows_each_kind(outcomes: dict[int, Outcome]) -> None:
    assert [line for line in body(list(outcomes.values())) if line.startswith("| PostgreSQL | 1 | 1 |")]


def test_a_program_apart_reaches_nothing_but_itself() -> None:
    seen = subprocess.run(apart(["ip", "-brief", "addr"]), capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in seen.splitlines()] == ["lo"]
