"""Actors that hang, leak, break or differ, on a real Ray: each is dealt with, and every item ends with one result."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import OutOfMemoryError

from flows import steps
from schemas.batch import BatchState
from schemas.errors import VersionSkew
from schemas.ids import BatchId
from schemas.results import Done, Failed, ShardReport, results_by_number
from store.settings import Settings
from tests.flows.actors import (
    BrokenDeviceActor,
    HangingActor,
    LateFaultActor,
    LeavingActor,
    MuteActor,
    OldActor,
    QuickActor,
    SlowActor,
    StumblingActor,
    WatchedActor,
)
from tests.flows.conftest import Place
from tests.promise.world import StandInCutter
from workers.actor import SegmenterActor
from workers.identity import identity
from workers.limits import CALLS_PER_ACTOR, seconds_for
from workers.placement import connect, retire_others, start
from workers.pool import Pool, _Calls


@pytest.fixture(scope="module", autouse=True)
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    connect(Settings(home=tmp_path_factory.mktemp("ray")))
    yield
    ray.shutdown()


def cut_all(place: Place, pool: Pool, photos: int = 8) -> dict[int, Done | Failed]:
    stamp = place.send({f"{n}.jpg": b"a photo" for n in range(photos)})
    steps.cut(place.parts, steps.plan(place.parts, stamp.batch_id), pool.run)
    assert steps.finish(place.parts, stamp.batch_id).state is BatchState.COMPLETED
    return results_by_number(place.parts.transient.reports(stamp.batch_id))


def pids(place: Place) -> list[str]:
    return (place.parts.settings.home / "pids").read_text().split()


def short_while_one_hangs(place: Place) -> Callable[[int], float]:
    """How long a call may take: on a busy machine a healthy one may need some seconds, too."""
    hung, again = (place.parts.settings.home / name for name in ("hung", "again"))
    return lambda items: 2.0 if hung.exists() and not again.exists() else 120.0


def test_an_actor_that_hangs_is_stopped_and_its_calls_are_made_again(place: Place) -> None:
    pool = Pool(place.parts.settings, 2, HangingActor, limit=short_while_one_hangs(place))
    assert sorted(cut_all(place, pool)) == list(range(1, 9))
    assert (place.parts.settings.home / "hung").exists()


def test_a_call_has_the_time_that_its_own_items_may_take(place: Place) -> None:
    asked, limit = list[int](), short_while_one_hangs(place)
    pool = Pool(place.parts.settings, 1, HangingActor, limit=lambda items: asked.append(items) or limit(items))  # type: ignore[func-returns-value]
    assert sorted(cut_all(place, pool, photos=3)) == [1, 2, 3]
    assert 1 in asked, "the call with the third photo alone, over which the actor hung"


def test_an_actor_that_is_never_without_calls_is_not_taken_for_one_that_hangs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("workers.pool.time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    stamp = place.send({f"{n}.jpg": b"a photo" for n in range(12)})
    pool = Pool(place.parts.settings, 1, QuickActor, limit=lambda items: 50.0)
    for _ in pool.run(
        stamp.batch_id, steps.plan(place.parts, stamp.batch_id).shards, place.parts.clock, lambda report: None
    ):
        now[0] += 30
    assert now[0] > 3 * 50
    assert len(set(pids(place))) == 1


def test_an_actor_that_hangs_before_it_answers_is_stopped_and_another_does_its_work(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool(place.parts.settings, 2, MuteActor)
    while not any(each.is_ready for each in pool._places):
        pool._meet(_Calls(deque(), lambda report: None))
        time.sleep(0.05)
    (mute,) = [each for each in pool._places if not each.is_ready]
    with monkeypatch.context() as patch:
        patch.setattr("workers.pool.STARTS_WITHIN", 0.0)
        pool._stop_hung()
    assert mute not in pool._places
    assert sorted(cut_all(place, pool)) == list(range(1, 9))


def test_an_actor_that_ray_ends_for_want_of_memory_before_it_answers_is_replaced(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, ended = ray.get, []

    def short_of_memory(asked: object, **how: object) -> object:
        if not ended:
            ended.append(asked)
            raise OutOfMemoryError("1 worker(s) were killed due to the node running low on memory.")
        return get(asked, **how)

    monkeypatch.setattr(ray, "get", short_of_memory)
    assert sorted(cut_all(place, Pool(place.parts.settings, 1, QuickActor))) == list(range(1, 9))
    assert ended


def test_an_actor_ends_itself_when_no_item_of_a_call_gets_any_further_though_those_of_another_do(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp, goes_on, codes = place.send({"1.jpg": b"a photo", "2.jpg": b"a photo"}), threading.Event(), []

    def process(transient, cutter, manifest, numbers, clock, moved) -> ShardReport:
        until = time.monotonic() + 30
        while not goes_on.wait(0.005 if numbers == (2,) else 30) and time.monotonic() < until:
            moved()
        return ShardReport(first=numbers[0], last=numbers[0], results=())

    monkeypatch.setattr("workers.actor.seconds_for_a_step", lambda megapixels: 0.5)
    monkeypatch.setattr("workers.actor.os._exit", lambda code: codes.append(code) or goes_on.set())
    monkeypatch.setattr("workers.shard.process_shard", process)
    monkeypatch.setattr(SegmenterActor, "_cutter", StandInCutter())
    actor = SegmenterActor(place.parts.settings.without_secrets())
    calls = [threading.Thread(target=actor.process, args=(stamp.batch_id, (n,), place.parts.clock)) for n in (1, 2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert codes == [70]


def test_each_call_has_the_manifest_of_its_own_batch_and_an_actor_keeps_no_more_than_it_needs(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    had: list[BatchId] = []

    def process(transient, cutter, manifest, numbers, clock, moved) -> ShardReport:
        had.append(manifest.stamp.batch_id)
        return ShardReport(first=numbers[0], last=numbers[0], results=())

    monkeypatch.setattr("workers.shard.process_shard", process)
    monkeypatch.setattr(SegmenterActor, "_cutter", StandInCutter())
    batches = [place.send({"1.jpg": b"a photo"}).batch_id for _ in range(4)]
    actor = SegmenterActor(place.parts.settings.without_secrets())
    wanted = [batches[number] for number in (0, 1, 0, 2, 1, 3, 0)]
    for batch_id in wanted:
        actor.process(batch_id, (1,), place.parts.clock)
    assert had == wanted
    assert len(actor._manifests) == CALLS_PER_ACTOR


def test_an_actor_is_not_idle_at_the_moment_at_which_its_call_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(dict[object, float]):
        def __delitem__(self, call: object) -> None:
            super().__delitem__(call)
            time.sleep(0.5)  # so that it looks at this moment

    codes, now = list[int](), [0.0]
    own_time = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: time.sleep(0.01))
    monkeypatch.setattr("workers.actor.time", own_time)
    monkeypatch.setattr("workers.actor.os._exit", codes.append)
    cluster = place.parts.settings.model_copy(update={"ray_address": "this:6379", "actor_idle_minutes": 1})
    actor = SegmenterActor(cluster.without_secrets())
    actor._moved_at = Slow()
    with actor._under_way():
        now[0] += 100
    assert codes == []
    now[0] += 60
    while not codes:  # it goes later, and not once `os._exit` is itself again
        time.sleep(0.05)


def test_an_actor_is_not_idle_while_it_loads_its_network_however_long_that_takes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(settings: Settings) -> StandInCutter:
        now[0] += 100
        time.sleep(0.5)  # so that it looks meanwhile
        return StandInCutter()

    codes, now = list[int](), [0.0]
    own_time = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: time.sleep(0.01))
    monkeypatch.setattr("workers.actor.time", own_time)
    monkeypatch.setattr("workers.actor.os._exit", codes.append)
    monkeypatch.setattr("workers.cutter.open_cutter", load)
    cluster = place.parts.settings.model_copy(update={"ray_address": "this:6379", "actor_idle_minutes": 1})
    actor = SegmenterActor(cluster.without_secrets())
    actor.ready(identity(cluster))
    time.sleep(0.2)
    assert codes == []
    now[0] += 60
    while not codes:  # it goes later, and not once `os._exit` is itself again
        time.sleep(0.05)


def test_what_was_lost_before_is_put_beside_no_other_call_and_none_beside_it(place: Place) -> None:
    """Nobody could tell which of them an actor dies over."""
    stamp, pool = place.send({f"{n}.jpg": b"a photo" for n in range(3)}), Pool(place.parts.settings, 1, SlowActor)
    (only,) = pool._places
    ray.get(only.hello)
    only.is_ready = True
    for waiting, lost in (([(1,), (2,)], (2,)), ([(2,), (3,)], (2,))):
        calls = _Calls(deque(waiting), lambda report: None)
        calls.losses[lost] = 1
        pool._give_out(calls, stamp.batch_id, place.parts.clock)
        assert [shard for shard, _ in calls.running.values()] == waiting[:1]
        for call in calls.running:
            pool._leave_queue(only, call)
    ray.kill(only.actor)


def test_calls_of_an_actor_on_a_cpu_come_one_after_the_other(place: Place) -> None:
    assert sorted(cut_all(place, Pool(place.parts.settings, 1, WatchedActor))) == list(range(1, 9))
    assert not (place.parts.settings.home / "overlapped").exists()


def test_an_actor_whose_device_broke_leaves_and_its_items_are_cut_elsewhere(place: Place) -> None:
    results = cut_all(place, Pool(place.parts.settings, 1, BrokenDeviceActor))
    assert all(isinstance(each, Done) for each in results.values())
    assert (place.parts.settings.home / "broken").exists()


def test_a_worn_actor_is_replaced_between_calls(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "_after_death", lambda *_: pytest.fail("a call was lost"))
    worn = place.parts.settings.model_copy(update={"recycle_items": 4})
    assert sorted(cut_all(place, Pool(worn, 1, WatchedActor), photos=12)) == list(range(1, 13))
    assert max(pids(place).count(each) for each in pids(place)) <= 3  # two calls of two items, and the one in line
    assert len(set(pids(place))) >= 2


def test_a_worn_actor_is_replaced_though_its_last_call_ended_in_a_fault(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.pool.STARTS_WITHIN", 300.0)  # as long as it would wait for an actor that never comes
    worn = place.parts.settings.model_copy(update={"recycle_items": 2})
    assert sorted(cut_all(place, Pool(worn, 1, StumblingActor), photos=6)) == list(range(1, 7))
    assert (place.parts.settings.home / "stumbled").exists()


def test_a_call_that_fails_once_its_batch_is_called_off_leaves_a_whole_place_to_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.pool.STARTS_WITHIN", 300.0)
    pool = Pool(place.parts.settings.model_copy(update={"recycle_items": 2}), 1, LateFaultActor)
    stamp, done = place.send({f"{n}.jpg": b"a photo" for n in range(4)}), []
    for report in pool.run(stamp.batch_id, [(1, 2), (3, 4)], place.parts.clock, done.append, lambda: bool(done)):
        done.append(report)
        (place.parts.settings.home / "off").touch()
    assert [each.numbers for each in done] == [(1, 2)]
    assert not any(each.queue for each in pool._places)
    assert sorted(cut_all(place, pool, photos=2)) == [1, 2], "the worn actor is replaced"


def test_an_actor_of_another_version_is_refused_by_name(place: Place) -> None:
    with pytest.raises(VersionSkew, match=r"0\.0\.9"):
        cut_all(place, Pool(place.parts.settings, 1, OldActor))


def test_the_pool_grows_with_the_queue_and_no_further(place: Place) -> None:
    pool = Pool(place.parts.settings, 1, QuickActor, most=2)
    cut_all(place, pool, photos=2)
    assert pool.size == 1
    cut_all(place, pool, photos=12)
    assert pool.size == 2


def test_actors_of_another_version_end_their_work_and_leave_when_a_new_driver_comes(place: Place) -> None:
    cluster = place.parts.settings.model_copy(update={"ray_address": "this:6379", "actor_idle_minutes": 0})
    old, new = (cluster.model_copy(update={"shard_items": items}) for items in (3, 4))
    theirs, ours = start(LeavingActor, old, 0), start(LeavingActor, new, 0)
    under_way = theirs.process.remote("", (1,), None)
    ray.get(ours.ready.remote(identity(new)))
    before = ray.util.list_named_actors()
    retire_others(new)
    assert ray.get(under_way).report == b"done"
    assert len(before) == 2
    for _ in range(1200):
        if len(left := ray.util.list_named_actors()) < 2:
            break
        time.sleep(0.1)
    assert len(left) == 1
    assert ray.get(ours.ready.remote(identity(new))) == "cpu"
    ray.kill(ours)


def test_a_cancel_returns_though_a_call_still_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.pool._LAST_CALLS", 0.5)
    stamp = place.send({f"{n}.jpg": b"a photo" for n in range(8)})
    pool = Pool(place.parts.settings, 1, SlowActor)
    off = threading.Event()
    done = []

    def run() -> None:
        shards = steps.plan(place.parts, stamp.batch_id).shards
        done.append(list(pool.run(stamp.batch_id, shards, place.parts.clock, lambda report: None, off.is_set)))

    thread = threading.Thread(target=run)
    thread.start()
    while not any(each.queue for each in pool._places):
        time.sleep(0.05)
    off.set()
    thread.join(timeout=seconds_for(8, 50))  # a hung one would take that long
    assert not thread.is_alive()
    assert done == [[]]
    assert not any(each.queue for each in pool._places)
