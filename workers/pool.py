"""A batch on Ray: a bounded pool of warm actors, a few calls in flight each, every item with exactly one result.

Calls are at least once: an actor that dies costs its calls in flight, which are made again; writes are whole objects
under the same keys, so a second time changes nothing. What a photo that kills its worker costs is its own result:
nobody can tell which of an actor's calls it died over, so each of them is made again with an actor of its own.
An actor gets work once it has answered, so one that waits for a machine holds nothing up; one that takes longer than
any healthy one could is stopped; one that is worn is replaced between calls.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from threading import RLock
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from schemas.clock import Clock
from schemas.errors import BgbatchError, StoreFault, WorkerLost, WorkersLost
from schemas.ids import BatchId
from schemas.results import Failed, ShardReport
from store.settings import Settings
from workers.actor import SegmenterActor
from workers.identity import identity
from workers.limits import CALLS_PER_ACTOR, STARTS_WITHIN, actors_worth, calls_at_once, seconds_for
from workers.networks.weights_file import weights_file
from workers.placement import connect, places, require_device, require_joined, retire_others, start, stop
from workers.plan import Shard, after_loss

_MAX_DEATHS_IN_A_ROW = 8
_STORE_TRIES = 3
_LOOK_AFTER = 5.0  # seconds without a report, after which it asks whether there still is a cluster
_LAST_CALLS = 5.0  # seconds that calls under way get to end after a cancel

Cancelled = Callable[[], bool]
Limit = Callable[[int], float]
"""Seconds within which a call with so many items must have ended."""


@dataclass(eq=False)
class _Place:
    """An actor and what it has to do. When it dies, another place with the same number takes over."""

    number: int
    actor: ActorHandle[Any]
    hello: ray.ObjectRef[str]
    since: float
    """When the first of its calls became the first; before there is any, when it was last greeted."""
    is_ready: bool = False
    was_ready: bool = False
    is_worn: bool = False
    has_died: bool = False
    is_reserved: bool = False
    """It has a call that was lost before: nothing else may be there when it ends."""
    queue: dict[ray.ObjectRef[Any], int] = field(default_factory=dict)
    """Calls and how many items each has, in the order in which it begins them."""


@dataclass
class _Calls:
    """What one batch has under way."""

    waiting: deque[Shard]
    keep: Callable[[ShardReport], None]
    running: dict[ray.ObjectRef[Any], tuple[Shard, _Place]] = field(default_factory=dict)
    losses: Counter[Shard] = field(default_factory=Counter)
    store_faults: Counter[Shard] = field(default_factory=Counter)
    deaths_in_a_row: int = 0


class Pool:
    """Segmenter actors for one kind of settings. Opened once per process; see `open_pool`.

    It begins with `size` actors and grows to `most` as the queue asks. `limit`: how long a call may take.
    """

    def __init__(
        self,
        settings: Settings,
        size: int,
        kind: type[SegmenterActor] = SegmenterActor,
        most: int = 0,
        limit: Limit | None = None,
    ) -> None:
        self._settings = settings
        self._kind = kind
        self._most = max(most, size)
        self._limit = limit or (lambda items: seconds_for(items, settings.max_megapixels))
        self._identity = identity(settings)
        self._lock = RLock()  # several batches may share a pool
        self._places = [self._open(number) for number in range(size)]

    @property
    def size(self) -> int:
        """How many actors there are."""
        return len(self._places)

    @property
    def actors(self) -> tuple[ActorHandle[Any], ...]:
        """The actors, for whoever watches them."""
        return tuple(place.actor for place in self._places)

    def run(
        self,
        batch_id: BatchId,
        shards: Sequence[Shard],
        clock: Clock,
        keep: Callable[[ShardReport], None],
        cancelled: Cancelled = lambda: False,
    ) -> Iterator[ShardReport]:
        """Yield a report for each shard as it ends; a shard that was split yields several.

        Workers keep their reports themselves; `keep` is given those that a dead one could not.

        Raises `StoreFault`, `PastDeadline` and others that concern the whole batch, `WorkersLost` when actors keep
        dying or none starts, `VersionSkew`, `DeviceAbsent` and `WeightsInvalid` when they cannot be used. Stops
        giving out work once `cancelled()`, and returns some seconds later, whatever still runs.
        """
        calls = _Calls(deque(shards), keep)
        self._greet_again()
        began = looked = time.monotonic()
        try:
            while calls.waiting or calls.running:
                if time.monotonic() - max(began, looked) > _LOOK_AFTER:
                    require_joined()
                    looked = time.monotonic()
                if cancelled():
                    yield from self._wind_up(calls, clock)
                    return
                self._grow(len(calls.waiting))
                self._give_out(calls, batch_id, clock)
                self._stop_hung()
                self._meet(calls)
                if not calls.running and time.monotonic() - began > STARTS_WITHIN:
                    raise WorkersLost("No worker has started for 15 minutes. Look at the cluster, then run it again.")
                for call in self._wait(calls):
                    yield from self._take_back(calls, call, clock)
                    began = time.monotonic()
                self._replace_worn()
        finally:
            for call in calls.running:
                ray.cancel(call)
            with self._lock:
                for unfinished, (_, place) in calls.running.items():
                    self._leave_queue(place, unfinished)

    def _open(self, number: int) -> _Place:
        actor = start(self._kind, self._settings, number)
        return _Place(number, actor, actor.ready.remote(self._identity), time.monotonic())

    def _reopen(self, place: _Place) -> None:
        """Put a new actor in this one's place, unless another batch did."""
        with self._lock:
            if self._places[place.number] is place:
                self._places[place.number] = self._open(place.number)

    def _greet_again(self) -> None:
        """An idle actor may have gone since the last batch; better that a greeting finds out than a call."""
        with self._lock:
            for place in self._places:
                if place.is_ready and not place.queue:
                    place.is_ready, place.hello = False, place.actor.ready.remote(self._identity)
                    place.since = time.monotonic()

    def _grow(self, shards: int) -> None:
        with self._lock:
            for number in range(self.size, actors_worth(shards, self._most)):
                self._places.append(self._open(number))

    def _give_out(self, calls: _Calls, batch_id: BatchId, clock: Clock) -> None:
        with self._lock:
            while calls.waiting:
                able = [each for each in self._places if each.is_ready and not each.is_worn and not each.is_reserved]
                place = min(able, key=lambda each: len(each.queue), default=None)
                alone = calls.losses[calls.waiting[0]] > 0
                if place is None or len(place.queue) >= (1 if alone else CALLS_PER_ACTOR):
                    return
                shard = calls.waiting.popleft()
                call: ray.ObjectRef[Any] = place.actor.process.remote(batch_id, shard, clock)
                place.is_reserved = alone
                if not place.queue:
                    place.since = time.monotonic()
                place.queue[call] = len(shard)
                calls.running[call] = (shard, place)

    def _wait(self, calls: _Calls) -> list[ray.ObjectRef[Any]]:
        """Calls that have ended, within a second; sooner when an actor answers its greeting."""
        greetings = [place.hello for place in self._places if not place.is_ready]
        if not calls.running and not greetings:  # another batch has all of them in its hands
            time.sleep(0.05)
            return []
        ended, _ = ray.wait([*calls.running, *greetings], num_returns=1, timeout=1.0)
        return [call for call in ended if call in calls.running]

    def _meet(self, calls: _Calls) -> None:
        """Take up those that have answered their greeting; replace those that died over it."""
        for place in [each for each in self._places if not each.is_ready]:
            ended, _ = ray.wait([place.hello], timeout=0)
            if not ended:
                continue
            try:
                ray.get(place.hello)
            except ActorUnavailableError:
                time.sleep(0.2)
                place.hello = place.actor.ready.remote(self._identity)
            except RayTaskError as fault:
                raise ours(fault.cause) from None
            except RayError as death:  # the actor died, or Ray ended it for want of memory
                if not place.was_ready:
                    self._count_death(calls, death)
                self._reopen(place)
            else:
                place.is_ready = place.was_ready = True
                place.has_died = False

    def _stop_hung(self) -> None:
        """An actor whose first call takes longer than any healthy one's is stopped; its calls end as lost ones do.

        So is one that does not answer its greeting: a sick GPU may hang whoever opens it.
        """
        with self._lock:
            now = time.monotonic()
            for place in list(self._places):
                limit = self._limit(next(iter(place.queue.values()))) if place.queue else STARTS_WITHIN
                if (place.queue or not place.is_ready) and now - place.since > limit:
                    place.since = now
                    stop(place.actor, self._settings, place.number)
                    self._reopen(place)

    def _take_back(self, calls: _Calls, call: ray.ObjectRef[Any], clock: Clock) -> Iterator[ShardReport]:
        shard, place = calls.running.pop(call)
        with self._lock:
            self._leave_queue(place, call)
        try:
            answer = ray.get(call)
            report = ShardReport.model_validate_json(answer.report)
        except RayTaskError as fault:
            self._after_fault(calls, shard, fault)
        except RayError as death:  # the actor or its machine died, or could not be reached
            yield from self._after_death(calls, shard, place, death, clock)
        else:
            calls.deaths_in_a_row = 0
            place.is_worn = place.is_worn or answer.is_worn
            yield report

    def _leave_queue(self, place: _Place, call: ray.ObjectRef[Any]) -> None:
        if call == next(iter(place.queue)):
            place.since = time.monotonic()
        del place.queue[call]
        place.is_reserved = False

    def _replace_worn(self) -> None:
        """Those that are worn and have nothing more to do, however their last call ended."""
        with self._lock:
            for place in [each for each in self._places if each.is_worn and not each.queue]:
                stop(place.actor, self._settings, place.number)
                self._reopen(place)

    def _after_death(
        self, calls: _Calls, shard: Shard, place: _Place, death: RayError, clock: Clock
    ) -> Iterator[ShardReport]:
        if not place.has_died:
            place.has_died = True
            self._count_death(calls, death)
        if isinstance(death, ActorUnavailableError):  # a death often begins so
            place.is_ready, place.hello = False, place.actor.ready.remote(self._identity)
        else:
            self._reopen(place)
        calls.losses[shard] += 1
        portions = after_loss(shard, calls.losses[shard])
        calls.waiting.extendleft(reversed(portions))
        if not portions:
            calls.deaths_in_a_row = 0  # the culprit is found
            report = _lost(shard, clock)
            calls.keep(report)
            yield report

    def _count_death(self, calls: _Calls, death: RayError) -> None:
        cause = getattr(death, "cause", None) or death.__cause__
        if isinstance(cause, BgbatchError):
            raise cause
        calls.deaths_in_a_row += 1
        if calls.deaths_in_a_row >= _MAX_DEATHS_IN_A_ROW * self.size:  # each may be at a deadly photo of its own
            raise WorkersLost(
                f"{calls.deaths_in_a_row} segmenter actors died one after another. Look into Ray's logs, then run the "
                "batch again: what is done stays done."
            )

    def _after_fault(self, calls: _Calls, shard: Shard, fault: RayTaskError) -> None:
        calls.store_faults[shard] += 1
        if isinstance(fault.cause, StoreFault) and calls.store_faults[shard] < _STORE_TRIES:
            calls.waiting.append(shard)
            return
        raise ours(fault.cause) from None

    def _wind_up(self, calls: _Calls, clock: Clock) -> Iterator[ShardReport]:
        """After a cancel: what waits is not begun, what runs has some seconds to end; it keeps its report itself."""
        calls.waiting.clear()
        for call, (_, place) in calls.running.items():
            if call not in islice(place.queue, calls_at_once(self._settings.device)):
                ray.cancel(call)
        until = time.monotonic() + _LAST_CALLS
        while calls.running and (left := until - time.monotonic()) > 0:
            ended, _ = ray.wait(list(calls.running), num_returns=1, timeout=left)
            for call in ended:
                try:
                    ray.get(call)
                except RayError:
                    _, place = calls.running.pop(call)
                    with self._lock:
                        self._leave_queue(place, call)
                else:
                    yield from self._take_back(calls, call, clock)


def open_pool(settings: Settings) -> Pool:
    """Warm actors: one at first, and as many as the settings say, or as the cluster has places, when there is work.

    Raises `WeightsInvalid`, `DeviceAbsent`.
    """
    if not settings.ray_address:  # on a cluster the file lies on its machines
        weights_file(settings.network, settings.weights)
    connect(settings)
    require_device(settings)
    if settings.ray_address:
        retire_others(settings)
    return Pool(settings, 1, most=places(settings))


def _lost(shard: Shard, clock: Clock) -> ShardReport:
    sentence = "The worker died each time that it had this photo. Send it again in another format, or tell us."
    results = tuple(
        Failed(number=number, code=WorkerLost.code, sentence=sentence, finished_at=clock()) for number in shard
    )
    return ShardReport(first=shard[0], last=shard[-1], results=results)


def ours(cause: BaseException) -> BgbatchError:
    """What a worker raised may quote what it worked on; its class is enough to look further in the worker's log."""
    if isinstance(cause, BgbatchError):
        return cause
    return BgbatchError(f"A worker failed with {type(cause).__name__}. This is a defect of bgbatch.")
