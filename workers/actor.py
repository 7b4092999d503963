"""The segmenter actor: one process with a warm network that reads, cuts and writes a few items per call.

On a GPU calls overlap: while the last photos of one are written, those of the next keep the device at work.

Only ids, item numbers and a clock come in, and a report without names goes back. Settings come in without their
secrets; each process finds those in its own environment, because Ray may write what it is given to disk.

A process that can no longer be trusted ends itself: the pool makes its calls again elsewhere.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from schemas.clock import Clock
from schemas.errors import DeviceBroken, ItemError
from schemas.ids import BatchId
from schemas.results import Failed
from store.settings import Settings
from store.spans import span
from workers.identity import identity, require_same
from workers.limits import CALLS_PER_ACTOR, is_worn, seconds_for_a_step

if TYPE_CHECKING:
    from schemas.batch import Manifest
    from store.transient.transient_store import TransientStore
    from workers.cutter import Cutter

_log = logging.getLogger(__name__)

_DEVICE_BROKEN, _IDLE = 70, 0  # exit codes, for whoever reads Ray's log


class Answer(NamedTuple):
    """What a call gives back: the `ShardReport` as JSON, and whether the actor should be replaced when it is idle."""

    report: bytes
    is_worn: bool


class SegmenterActor:
    """What runs inside the Ray actor.

    The network is loaded by the first call, not by the constructor: what is wrong with it then comes back as an error.
    """

    retired_idle = 30.0
    """Seconds: a driver that still uses it has the next call ready at once."""
    look_every = 5.0
    """Seconds between two looks at whether it hangs, or is idle."""

    def __init__(self, settings: dict[str, object]) -> None:
        self._settings = Settings(**settings)  # type: ignore[arg-type]
        self._opening, self._reading, self._lock = threading.Lock(), threading.Lock(), threading.Lock()
        self._opened: Cutter | None = None
        self._manifests: dict[BatchId, Manifest] = {}
        self._items = 0
        self._moved_at: dict[object, float] = {}
        """Of each call under way: when an item of it last got further."""
        self._last_call = time.monotonic()
        threading.Thread(target=self._leave_when_stuck, daemon=True).start()
        self._idle_limit = self._settings.actor_idle_minutes * 60 or math.inf
        if self._settings.ray_address:
            threading.Thread(target=self._leave_when_idle, daemon=True).start()

    @property
    def _cutter(self) -> Cutter:
        from workers.cutter import open_cutter

        with self._opening:
            if self._opened is None:
                self._opened = open_cutter(self._settings)
            return self._opened

    def ready(self, driver: str) -> str:
        """Load the network; answers with the device that it runs on. `driver`: who asks, as `identity` says.

        Raises `VersionSkew`, `DeviceAbsent`, `WeightsInvalid`, `NotCompiled`.
        """
        require_same(driver, identity(self._settings))
        device = self._cutter.device
        self._last_call = time.monotonic()
        return device

    def process(self, batch_id: BatchId, numbers: tuple[int, ...], clock: Clock) -> Answer:
        """Cut these items.

        Raises `StoreFault`, `PastDeadline`, `BatchNotSealed`, `DeviceAbsent`, `WeightsInvalid`.
        """
        from store.transient.transient_store import open_transient
        from workers.shard import process_shard

        with self._under_way() as call:
            try:
                transient = open_transient(self._settings, clock)
                manifest = self._manifest(transient, batch_id)
                with span(self._settings, batch_id, "shard", items=len(numbers)):
                    report = process_shard(transient, self._cutter, manifest, numbers, clock, lambda: self._moved(call))
            except DeviceBroken:
                os._exit(_DEVICE_BROKEN)
        if any(isinstance(each, Failed) and each.code == ItemError.code for each in report.results):
            self._leave_when_broken()
        with self._lock:
            self._items += len(numbers)
        return Answer(report.model_dump_json().encode(), self._is_worn())

    def retire(self) -> None:
        """A driver of another version has come, whose actors need the room: leave after some seconds without work."""
        self._idle_limit = min(self._idle_limit, self.retired_idle)

    @contextmanager
    def _under_way(self) -> Iterator[object]:
        """Within, a call is; by what comes it is told apart from others at the same time."""
        call = object()
        self._moved(call)
        try:
            yield call
        finally:
            with self._lock:
                del self._moved_at[call]
                self._last_call = time.monotonic()

    def _manifest(self, transient: TransientStore, batch_id: BatchId) -> Manifest:
        """Read once for all calls of a batch; as many are kept as calls can be under way."""
        with self._reading:
            manifest = self._manifests.get(batch_id)
            if manifest is None:
                manifest = self._manifests[batch_id] = transient.manifest(batch_id)
                if len(self._manifests) > CALLS_PER_ACTOR:
                    del self._manifests[next(iter(self._manifests))]
            return manifest

    def _is_worn(self) -> bool:
        most = int(self._settings.recycle_gigabytes * 1e9)
        return is_worn(self._items, _resident_bytes(), self._settings.recycle_items, most)

    def _try_device(self) -> None:
        """Raises when the device does not calculate any more: a CUDA context stays broken until its process ends."""
        import torch

        torch.ones(8, device=self._cutter.device).sum().item()

    def _leave_when_broken(self) -> None:
        """What failed for no reason of the item's may have failed by the device; then the next would, too."""
        try:
            self._try_device()
        except Exception:  # noqa: BLE001  # of whatever kind: a sound device adds eight ones
            os._exit(_DEVICE_BROKEN)

    def _moved(self, call: object) -> None:
        with self._lock:
            self._moved_at[call] = time.monotonic()

    def _leave_when_stuck(self) -> None:
        """A call of many items may take half an hour, but none of its steps does: a device hangs long before that."""
        limit = seconds_for_a_step(self._settings.max_megapixels)
        while not self._has_a_call_since(time.monotonic() - limit):
            time.sleep(min(limit, self.look_every))
        _log.error("no item got any further for %.0f seconds: this worker hangs and ends", limit)
        os._exit(_DEVICE_BROKEN)

    def _has_a_call_since(self, then: float) -> bool:
        """Whether a call is under way of which no item has got further since."""
        with self._lock:
            return any(moved_at < then for moved_at in self._moved_at.values())

    def _leave_when_idle(self) -> None:
        """So that the cluster can give the machine back."""
        while not self._is_idle():
            time.sleep(min(self._idle_limit, self.look_every))
        os._exit(_IDLE)

    def _is_idle(self) -> bool:
        with self._lock:
            is_at_work = self._moved_at or self._opening.locked()  # to load a network takes a GPU minutes
            return not is_at_work and time.monotonic() - self._last_call >= self._idle_limit


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
