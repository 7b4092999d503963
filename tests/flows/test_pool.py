"""A real Ray on this machine: workers are killed, photos kill workers, and every item ends with exactly one result."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from threading import Event, Thread, Timer

import pytest
import ray
from prefect.exceptions import TerminationSignal
from prefect.utilities.engine import _prefect_sigterm_handler

from flows import steps
from flows.parts import Parts
from flows.process_batch import _write_on_ray
from flows.unforeseen import without_its_text
from lake.write import CandidateFacts
from schemas.batch import BatchState
from schemas.errors import DeviceAbsent, NotFound, WeightsInvalid
from schemas.ids import BatchId, new_grant_id
from schemas.industries import Industry
from schemas.options import CutoutOptions
from schemas.results import Done, ShardReport, results_by_number
from store.transient.transient_store import cutout_key
from tests.flows.actors import (
    POISON,
    BrokenContextActor,
    FragileActor,
    FragileRehearsal,
    KnownActor,
    SlowRehearsal,
)
from tests.flows.conftest import Place, photo
from tests.lake.conftest import some_scores
from workers.placement import connect
from workers.pool import Pool, open_pool


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from store.settings import Settings

    connect(Settings(home=tmp_path_factory.mktemp("ray")))
    yield
    ray.shutdown()


def numbers_of(parts: Parts, batch_id: BatchId) -> list[int]:
    return [item.number for item in parts.transient.manifest(batch_id).items]


def test_a_worker_killed_in_mid_batch_costs_no_item_and_doubles_none(place: Place, on_ray: None) -> None:
    stamp = place.send({f"VIN{n}/1.jpg": photo() for n in range(8)})
    pool = Pool(place.parts.settings, 2, KnownActor)
    victim, _ = ray.get([actor.pid.remote() for actor in pool.actors])
    killed = []

    def kill_one(*args) -> Iterator:
        for report in pool.run(*args):
            if not killed:
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)
            yield report

    counts = steps.cut(place.parts, steps.plan(place.parts, stamp.batch_id), kill_one)
    assert killed
    assert counts.done == 8
    results = results_by_number(place.parts.transient.reports(stamp.batch_id))
    assert sorted(results) == numbers_of(place.parts, stamp.batch_id)
    for number, result in results.items():
        assert isinstance(result, Done)
        assert place.parts.transient.objects.exists(cutout_key(stamp.batch_id, number, ".png"))
    assert steps.plan(place.parts, stamp.batch_id).shards == []


def culprits(parts: Parts, batch_id: BatchId) -> set[int]:
    results = results_by_number(parts.transient.reports(batch_id))
    return {number for number, each in results.items() if getattr(each, "code", "") == "worker_lost"}


def test_a_photo_that_kills_its_worker_costs_its_own_result_only(place: Place, on_ray: None) -> None:
    """Nor does it cost its folder anything, whose other photos are to be consistent with it."""
    files = {f"VIN1/{n}.jpg": POISON if n == 2 else photo("motorcycle") for n in range(1, 5)}
    stamp = place.send(files, options=CutoutOptions(consistent=True))
    pool = Pool(place.parts.settings, 2, FragileActor)
    steps.cut(place.parts, steps.plan(place.parts, stamp.batch_id), pool.run)
    counts = steps.finish(place.parts, stamp.batch_id)
    assert (counts.done, counts.failed, counts.state) == (3, 1, BatchState.PARTIALLY_COMPLETED)
    assert culprits(place.parts, stamp.batch_id) == {2}
    results = results_by_number(place.parts.transient.reports(stamp.batch_id)).values()
    assert not any("not_consistent" in each.flags for each in results if isinstance(each, Done))


@pytest.mark.parametrize(("shard_items", "poisoned"), [(1, {2, 3, 7, 12}), (4, {2, 3})])
def test_no_photo_is_blamed_for_what_its_neighbour_did(
    place: Place, on_ray: None, shard_items: int, poisoned: set[int]
) -> None:
    stamp = place.send({f"{n:02d}.jpg": POISON if n in poisoned else photo() for n in range(1, 17)})
    settings = place.parts.settings.model_copy(update={"shard_items": shard_items})
    parts = replace(place.parts, settings=settings)
    pool = Pool(settings, 2, FragileRehearsal)
    counts = steps.cut(parts, steps.plan(parts, stamp.batch_id), pool.run)
    assert (counts.done, counts.failed) == (16 - len(poisoned), len(poisoned))
    assert culprits(parts, stamp.batch_id) == poisoned


def test_what_was_lost_with_its_worker_gets_a_worker_of_its_own(place: Place, on_ray: None) -> None:
    """A worker that has two calls is killed: a second call beside one that was lost would cost it its result."""
    stamp = place.send({f"{n}.jpg": photo() for n in range(1, 4)})
    pool = Pool(place.parts.settings, 1, SlowRehearsal)
    actors, is_over = place.parts.settings.home / "actors", Event()

    def kill_who_has_two() -> None:
        while not is_over.wait(0.05):
            if any(len(each.queue) > 1 for each in pool._places):
                for pid in actors.iterdir():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid.name), signal.SIGKILL)
                    pid.unlink()

    killer = Thread(target=kill_who_has_two)
    killer.start()
    planned = replace(steps.plan(place.parts, stamp.batch_id), shards=[(1,), (2,), (3,)])
    try:
        counts = steps.cut(place.parts, planned, pool.run)
    finally:
        is_over.set()
        killer.join()
    assert (counts.done, counts.failed) == (3, 0)


def test_a_batch_of_nothing_but_deadly_photos_comes_to_its_end(place: Place, on_ray: None) -> None:
    """If it ended with a fault of ours it would be run again, and again, until its purge."""
    stamp = place.send({f"{n}.jpg": POISON for n in range(1, 5)})
    pool = Pool(place.parts.settings, 1, FragileRehearsal)
    steps.cut(place.parts, steps.plan(place.parts, stamp.batch_id), pool.run)
    counts = steps.finish(place.parts, stamp.batch_id)
    assert (counts.failed, counts.state) == (4, BatchState.FAILED)
    assert culprits(place.parts, stamp.batch_id) == {1, 2, 3, 4}


def test_a_broken_cuda_context_ends_its_actor_and_another_one_cuts_the_photos(place: Place, on_ray: None) -> None:
    stamp = place.send({f"{n}.jpg": photo() for n in range(6)})
    pool = Pool(place.parts.settings, 1, BrokenContextActor)
    seen: list[ShardReport] = []

    def run(*args) -> Iterator[ShardReport]:
        for report in pool.run(*args):
            seen.append(report)
            yield report

    steps.cut(place.parts, steps.plan(place.parts, stamp.batch_id), run)
    assert all(isinstance(result, Done) for report in seen for result in report.results)
    assert sorted(number for report in seen for number in report.numbers) == list(range(1, 7))
    home = place.parts.settings.home
    broken, pids = (home / "broken").read_text(), (home / "pids").read_text().split()
    assert broken in pids
    assert pids[-1] != broken


def test_a_gpu_that_this_machine_has_not_is_told_instead_of_waited_for(place: Place, on_ray: None) -> None:
    if ray.cluster_resources().get("GPU"):  # type: ignore[no-untyped-call]
        pytest.skip("this machine has one")
    with pytest.raises(DeviceAbsent, match="Ray finds no GPU on this machine"):
        open_pool(place.parts.settings.model_copy(update={"device": "cuda"}))


def test_weights_that_are_not_there_end_the_batch_with_their_name(place: Place, on_ray: None) -> None:
    settings = place.parts.settings.model_copy(update={"weights": place.folder / "nowhere.safetensors"})
    stamp = place.send({"1.jpg": photo()})
    pool = Pool(settings, 1)
    with pytest.raises(WeightsInvalid):
        steps.cut(place.parts, steps.plan(place.parts, stamp.batch_id), pool.run)


def test_ray_started_here_listens_on_this_machine_only(on_ray: None) -> None:
    assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}


def test_what_a_worker_could_not_write_to_the_lake_is_told_in_its_own_sentence(place: Place, on_ray: None) -> None:
    """Ray says the whole traceback of its worker where only the sentence is for people, and for Prefect to keep."""
    stamp = place.send({"1.jpg": photo()})
    no_mask = CandidateFacts(
        batch_id=stamp.batch_id,
        item=1,
        received_at=stamp.received_at,
        industry=Industry.AUTOMOTIVE,
        grant_id=new_grant_id(os.urandom),
        network="u2netp",
        weights_sha256="",
        device="cpu",
        scores=some_scores(1),
    )
    with pytest.raises(NotFound) as told:
        list(_write_on_ray(place.parts)([(no_mask,)], place.parts.clock()))
    assert "\n" not in str(told.value)


def test_a_stop_is_heard_while_ray_is_waited_for(on_ray: None) -> None:
    """Ray wraps what a signal's handler raises in a `SystemError`, for which a task would be tried again."""

    @ray.remote(num_cpus=0)
    def unending() -> None:
        time.sleep(3600)

    call = unending.remote()

    @without_its_text
    def wait() -> None:
        Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        for _ in range(60):
            ray.wait([call], timeout=1.0)

    before = signal.signal(signal.SIGTERM, _prefect_sigterm_handler)
    try:
        with pytest.raises(TerminationSignal):
            wait()
    finally:
        signal.signal(signal.SIGTERM, before)
        ray.cancel(call, force=True)
