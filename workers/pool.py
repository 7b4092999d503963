"""A batch on Ray: a bounded pool of warm actors, a few calls in flight each, every item with exactly one result.

Calls are at least once: an actor that dies costs its calls in flight, which are made again; writes are whole objects
under the same keys, so a second time changes nothing. What a photo that kills its worker costs is its own result.
On a cluster the actors are named and detached: they stay warm between batches and outlive this process.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import ray
import ray._private.services
from ray.actor import ActorHandle

from schemas.clock import Clock
from schemas.errors import BgbatchError, StoreFault, WorkerLost, WorkersLost
from schemas.ids import BatchId
from schemas.results import Failed, ShardReport
from store.settings import Settings
from workers.actor import SegmenterActor
from workers.plan import Shard, after_loss

_NAMESPACE = "bgbatch"
_CALLS_PER_ACTOR = 2  # one runs, one waits: the actor never idles, and little is lost or left over on a cancel
_MAX_DEATHS_IN_A_ROW = 8
_STORE_TRIES = 3

Cancelled = Callable[[], bool]


def connect(settings: Settings) -> None:
    """Join the cluster that the settings name, or start Ray on this machine; it ends with this process. Idempotent."""
    if ray.is_initialized():
        return
    quiet: Any = {"log_to_driver": False, "include_dashboard": False, "configure_logging": False}
    if settings.ray_address:
        ray.init(address=settings.ray_address, namespace=_NAMESPACE, log_to_driver=False)
    else:
        # "local": never another cluster that happens to run here. Images do not pass through the object store.
        # Ray turns 127.0.0.1 into the machine's outer address and listens on all of them; here nobody else should call.
        with patch.object(ray._private.services, "resolve_ip_for_localhost", lambda host: host):
            ray.init(
                address="local",
                _node_ip_address="127.0.0.1",
                namespace=_NAMESPACE,
                object_store_memory=80 * 2**20,
                **quiet,
            )


@dataclass
class _Calls:
    """What is under way."""

    waiting: deque[Shard]
    keep: Callable[[ShardReport], None]
    running: dict[ray.ObjectRef[bytes], tuple[Shard, int]] = field(default_factory=dict)
    losses: Counter[Shard] = field(default_factory=Counter)
    store_faults: Counter[Shard] = field(default_factory=Counter)
    deaths_in_a_row: int = 0


class Pool:
    """Segmenter actors for one kind of settings. Opened once per process; see `open_pool`."""

    def __init__(self, settings: Settings, size: int, kind: type[SegmenterActor] = SegmenterActor) -> None:
        self._settings = settings
        self._kind = kind
        self._actors: list[ActorHandle[Any]] = [self._start(place) for place in range(size)]

    @property
    def size(self) -> int:
        """How many actors there are."""
        return len(self._actors)

    @property
    def actors(self) -> tuple[ActorHandle[Any], ...]:
        """The actors, for whoever watches them."""
        return tuple(self._actors)

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
        dying, `DeviceAbsent` and `WeightsInvalid` when none can start. Stops giving out work once `cancelled()`.
        """
        calls = _Calls(deque(shards), keep)
        try:
            while calls.waiting or calls.running:
                if cancelled():
                    calls.waiting.clear()
                self._give_out(calls, batch_id, clock)
                if not calls.running:
                    continue
                ready, _ = ray.wait(list(calls.running), num_returns=1, timeout=1.0)
                for call in ready:
                    yield from self._take_back(calls, call, clock)
        finally:
            for call in calls.running:
                ray.cancel(call)

    def _give_out(self, calls: _Calls, batch_id: BatchId, clock: Clock) -> None:
        load = Counter(place for _, place in calls.running.values())
        while calls.waiting:
            place = min(range(len(self._actors)), key=lambda each: load[each])
            if load[place] >= _CALLS_PER_ACTOR:
                return
            shard = calls.waiting.popleft()
            calls.running[self._actors[place].process.remote(batch_id, shard, clock)] = (shard, place)
            load[place] += 1

    def _take_back(self, calls: _Calls, call: ray.ObjectRef[bytes], clock: Clock) -> Iterator[ShardReport]:
        shard, place = calls.running.pop(call)
        try:
            report = ShardReport.model_validate_json(ray.get(call))
        except ray.exceptions.RayActorError as death:
            yield from self._after_death(calls, shard, place, death, clock)
        except ray.exceptions.RayTaskError as fault:
            self._after_fault(calls, shard, fault)
        else:
            calls.deaths_in_a_row = 0
            yield report

    def _after_death(
        self, calls: _Calls, shard: Shard, place: int, death: ray.exceptions.RayActorError, clock: Clock
    ) -> Iterator[ShardReport]:
        cause = getattr(death, "cause", None) or death.__cause__
        _raise_ours(cause)
        calls.deaths_in_a_row += 1
        if calls.deaths_in_a_row >= _MAX_DEATHS_IN_A_ROW:
            raise WorkersLost(
                f"{_MAX_DEATHS_IN_A_ROW} segmenter actors died one after another. Look into Ray's logs, then run the "
                "batch again: what is done stays done."
            )
        if not isinstance(death, ray.exceptions.ActorUnavailableError):
            self._actors[place] = self._start(place)
        calls.losses[shard] += 1
        portions = after_loss(shard, calls.losses[shard])
        calls.waiting.extendleft(reversed(portions))
        if not portions:
            report = _lost(shard, clock)
            calls.keep(report)
            yield report

    def _after_fault(self, calls: _Calls, shard: Shard, fault: ray.exceptions.RayTaskError) -> None:
        cause = fault.cause
        calls.store_faults[shard] += 1
        if isinstance(cause, StoreFault) and calls.store_faults[shard] < _STORE_TRIES:
            calls.waiting.append(shard)
            return
        _raise_ours(cause)
        # What a worker raised may quote what it worked on; its class is enough to look further in the worker's log.
        raise BgbatchError(f"A worker failed with {type(cause).__name__}. This is a defect of bgbatch.") from None

    def _start(self, place: int) -> ActorHandle[Any]:
        settings = self._settings
        on_gpu = settings.device.startswith("cuda")
        options: dict[str, object] = {
            "num_cpus": 0 if on_gpu else 1,
            "num_gpus": settings.gpu_share if on_gpu else 0,
            "max_restarts": 0,  # the pool starts a new one itself, so that it knows which call was lost
            "max_task_retries": 0,
            "max_concurrency": 1,
        }
        if settings.ray_address:
            name = f"segmenter-{_kind(settings)}-{place}"
            options |= {"name": name, "get_if_exists": True, "lifetime": "detached", "namespace": _NAMESPACE}
        remote: Any = ray.remote(self._kind)
        handle: ActorHandle[Any] = remote.options(**options).remote(settings.without_secrets())
        return handle


def open_pool(settings: Settings) -> Pool:
    """Warm actors: as many as the settings say, or one for each CPU or GPU share."""
    connect(settings)
    return Pool(settings, settings.actors or _places(settings))


def _places(settings: Settings) -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if settings.device.startswith("cuda"):
        return max(1, math.floor(resources.get("GPU", 0) / settings.gpu_share))
    return max(1, int(resources.get("CPU", 1)))


def _kind(settings: Settings) -> str:
    """Actors of other settings are other actors: a driver never meets one that was started with something else."""
    return hashlib.sha256(json.dumps(settings.without_secrets(), sort_keys=True).encode()).hexdigest()[:12]


def _lost(shard: Shard, clock: Clock) -> ShardReport:
    sentence = "The worker died each time that it had this photo. Send it again in another format, or tell us."
    results = tuple(
        Failed(number=number, code=WorkerLost.code, sentence=sentence, finished_at=clock()) for number in shard
    )
    return ShardReport(first=shard[0], last=shard[-1], results=results)


def _raise_ours(cause: object) -> None:
    if isinstance(cause, BgbatchError):
        raise cause
