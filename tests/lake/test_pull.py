"""A pull copies rows of live grants, and what was asked for."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lake.pull import pull
from lake.query import BadQuery, Query
from schemas.industries import Industry
from tests.lake.conftest import AUTO, World, a_photo


def ids(folder: Path) -> list[str]:
    return sorted(
        each for file in folder.rglob("*.parquet") for each in pq.read_table(file)["candidate_id"].to_pylist()
    )


def test_a_pull_takes_the_rows_of_live_grants_of_one_industry(world: World, tmp_path: Path) -> None:
    live, ended, other = world.grant(), world.grant(), world.grant(Industry.STUDIO)
    file = world.give(live, 3)
    world.give(ended)
    world.give(other)
    world.write(world.batch(live, [a_photo(1)]))  # not admitted
    world.withdraw(ended)
    pulled = pull(world.lake, world.records, world.live(), Query(AUTO), tmp_path / "copy", world.clock)
    assert (pulled.rows, pulled.grants) == (3, (live.grant_id,))
    assert ids(tmp_path / "copy") == [f"{file.batch_id}-{item:06d}" for item in (1, 2, 3)]


def test_a_grant_that_ends_during_the_pull_is_left_out_from_then_on(world: World, tmp_path: Path) -> None:
    first, second = sorted((world.grant(), world.grant()), key=lambda each: each.grant_id)
    world.give(first, 1)
    world.give(second, 1)

    def on_file(done: int, of: int) -> None:
        world.withdraw(second)

    pulled = pull(world.lake, world.records, world.live, Query(AUTO), tmp_path / "copy", world.clock, on_file)
    assert pulled.grants == (first.grant_id,)


def test_a_condition_and_a_limit(world: World, tmp_path: Path) -> None:
    world.give(world.grant(), 8)
    query = Query(AUTO, "edge_uncertainty > 0.3 AND item <> 5", limit=2)
    pulled = pull(world.lake, world.records, world.live(), query, tmp_path / "copy", world.clock)
    assert [each[-1] for each in ids(tmp_path / "copy")] == ["4", "6"]
    assert pulled.rows == 2


@pytest.mark.parametrize(
    "where",
    [
        "price > 3",
        "image = 'x'",
        "edge_uncertainty",
        "edge_uncertainty > 'high'",
        "__import__('os').system('true')",
        "width > 1 and (",
        "network in 'u2netp'",
        "width + 1 > 2",
        "",
    ],
)
def test_a_condition_that_cannot_be_is_refused_with_a_sentence(world: World, tmp_path: Path, where: str) -> None:
    with pytest.raises(BadQuery):
        pull(world.lake, world.records, world.live(), Query(AUTO, where), tmp_path, world.clock)
