"""Limits, wear and places as tables."""

from __future__ import annotations

import pytest

from schemas.errors import VersionSkew
from store.settings import Settings
from workers.identity import identity, own_code, require_same
from workers.limits import actors_worth, calls_at_once, is_worn, places_in, seconds_for


@pytest.mark.parametrize(
    ("items", "memory", "most_items", "most_memory", "worn"),
    [(9, 1, 10, 0, False), (10, 1, 10, 0, True), (99, 9, 0, 10, False), (99, 10, 0, 10, True), (99, 99, 0, 0, False)],
)
def test_an_actor_is_worn_by_items_or_by_memory(
    items: int, memory: int, most_items: int, most_memory: int, worn: bool
) -> None:
    assert is_worn(items, memory, most_items, most_memory) is worn


@pytest.mark.parametrize(("shards", "most", "actors"), [(0, 8, 1), (2, 8, 1), (3, 8, 2), (16, 8, 8), (999, 8, 8)])
def test_the_pool_is_as_large_as_the_queue_is_long(shards: int, most: int, actors: int) -> None:
    assert actors_worth(shards, most) == actors


@pytest.mark.parametrize(
    ("cpus", "gpus", "share", "places"),
    [(8, 0, None, 8), (0, 0, None, 1), (8, 2, 0.5, 4), (8, 10, 0.3, 30), (8, 1, 0.1, 10), (64, 0, 0.5, 1)],
)
def test_no_actor_spans_two_gpus(cpus: float, gpus: float, share: float | None, places: int) -> None:
    assert places_in(cpus, gpus, share) == places


@pytest.mark.parametrize(("device", "said", "items"), [("cpu", 0, 8), ("cuda:1", 0, 64), ("cuda", 5, 5), ("cpu", 5, 5)])
def test_a_call_has_as_many_photos_as_its_device_is_worth_unless_somebody_says_so(
    device: str, said: int, items: int
) -> None:
    assert Settings(device=device, shard_items=said).items_per_call == items


def test_a_gpu_has_its_next_call_beside_the_one_that_runs() -> None:
    assert [calls_at_once(device) for device in ("cpu", "cuda", "cuda:1")] == [1, 2, 2]


def test_more_and_larger_photos_may_take_longer() -> None:
    assert seconds_for(1, 50) < seconds_for(8, 50) < seconds_for(8, 100)


def test_other_settings_are_somebody_else_and_secrets_are_not_looked_at() -> None:
    here = Settings(ray_address="127.0.0.1:6379")
    assert identity(here) == identity(here.model_copy(update={"s3_secret": "x", "records_url": "y"}))
    assert identity(here) != identity(here.model_copy(update={"exact": True}))
    assert own_code() in identity(here)
    require_same(identity(here), identity(here))
    with pytest.raises(VersionSkew, match=r"0\.0\.9"):
        require_same(identity(here), "bgbatch 0.0.9")
