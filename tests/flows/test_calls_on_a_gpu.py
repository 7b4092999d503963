"""Calls of one actor on a GPU overlap. The GPU is Ray's word for it alone: nothing here calculates."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import ray

from flows import steps
from schemas.results import Done
from store.settings import Settings
from tests.flows.actors import DyingActor, EndingActor, FirstCallHangsActor, MeetingActor
from tests.flows.conftest import Place
from tests.flows.test_sick_actors import cut_all, pids, short_while_one_hangs
from workers.placement import NAMESPACE
from workers.pool import _LAST_CALLS, Pool


@pytest.fixture(scope="module", autouse=True)
def on_ray() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=1,
        num_gpus=1,
        namespace=NAMESPACE,
        log_to_driver=False,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
    )
    yield
    ray.shutdown()


def settings_of(place: Place) -> Settings:
    return place.parts.settings.model_copy(update={"device": "cuda", "gpu_share": 1.0})


def test_a_call_runs_while_the_last_photos_of_the_one_before_it_are_written(place: Place) -> None:
    pool = Pool(settings_of(place), 1, MeetingActor, limit=lambda items: 300.0)
    assert sorted(cut_all(place, pool, photos=4)) == [1, 2, 3, 4]
    assert len(set(pids(place))) == 1, "none was stopped because its first call waited for its second"


def test_both_calls_of_an_actor_that_dies_are_made_again(place: Place) -> None:
    results = cut_all(place, Pool(settings_of(place), 1, DyingActor), photos=6)
    assert sorted(results) == [1, 2, 3, 4, 5, 6]
    assert all(isinstance(each, Done) for each in results.values())


def test_a_call_that_hangs_is_found_though_those_beside_it_end(place: Place) -> None:
    pool = Pool(settings_of(place), 1, FirstCallHangsActor, limit=short_while_one_hangs(place))
    results = cut_all(place, pool, photos=30)
    assert sorted(results) == list(range(1, 31))
    by = pids(place)
    assert by[0] != by[-1]
    assert by.count(by[-1]) > 1, "it was not waited for until there was nothing else to do"


def test_when_a_batch_is_called_off_both_calls_that_run_have_some_seconds_to_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.pool._LAST_CALLS", 60 * _LAST_CALLS)
    pool = Pool(settings_of(place), 1, EndingActor, limit=lambda items: 600.0)
    stamp, home, off = place.send({f"{n}.jpg": b"a photo" for n in range(8)}), place.parts.settings.home, []
    shards, done = steps.plan(place.parts, stamp.batch_id).shards, []
    run = threading.Thread(
        target=lambda: done.extend(
            pool.run(stamp.batch_id, shards, place.parts.clock, lambda report: None, lambda: bool(off))
        )
    )
    run.start()
    while not all((home / f"began-{first}").exists() for first in (1, 3)):
        time.sleep(0.05)
    off.append(True)
    time.sleep(2)  # it looks each second
    (home / "may-end").touch()
    run.join()
    assert sorted(report.numbers for report in done) == [(1, 2), (3, 4)]
