"""What is left to do, and what a dead worker costs."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from schemas.results import Failed
from workers.plan import OUR_CODES, after_loss, plan_shards

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def failed(number: int, code: str) -> Failed:
    return Failed(number=number, code=code, sentence="It did not work.", finished_at=NOON)


@given(left=st.sets(st.integers(1, 500)), bad=st.sets(st.integers(1, 500)), size=st.integers(1, 64))
def test_what_is_left_is_planned_once_and_nothing_else(left: set[int], bad: set[int], size: int) -> None:
    shards = plan_shards(left, {number: failed(number, "not_an_image") for number in bad}, size, OUR_CODES)
    planned = [number for shard in shards for number in shard]
    assert planned == sorted(left - bad)
    assert all(1 <= len(shard) <= size for shard in shards)


def test_a_failure_of_ours_is_tried_again_and_a_bad_file_is_not() -> None:
    results = {1: failed(1, "worker_lost"), 2: failed(2, "not_an_image")}
    assert plan_shards([1, 2], results, 8, OUR_CODES) == [(1,)]
    assert plan_shards([1, 2], results, 8, ("not_an_image",)) == [(2,)]


def test_a_shard_whose_worker_dies_twice_is_taken_apart_and_an_item_that_killed_two_while_alone_is_given_up() -> None:
    assert after_loss((1, 2, 3), losses=1) == [(1, 2, 3)]
    assert after_loss((1, 2, 3), losses=2) == [(1,), (2,), (3,)]
    assert after_loss((2,), losses=2) == [(2,)]
    assert after_loss((2,), losses=3) == []
