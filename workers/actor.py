"""The segmenter actor: one process with a warm network that reads, cuts and writes a few items per call.

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
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from schemas.clock import Clock
from schemas.errors import DeviceBroken, ItemError
from schemas.ids import BatchId
from schemas.results import Failed
from store.settings import Settings
from store.spans import span
from workers.identity import identity, require_same
from workers.limits import is_worn, seconds_for_a_step

if TYPE_CHECKING:
    from schemas.batch import Manifest
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

    def __init__(self, settings: dict[str, object]) -> None:
        self._settings = Settings(**settings)  # type: ignore[arg-type]
        self._manifest: Manifest | None = None
        self._items = 0
        self._is_busy = False
        self._last_call = self._moved_at = time.monotonic()
        threading.Thread(target=self._leave_when_stuck, daemon=True).start()
        self._idle_limit = self._settings.actor_idle_minutes * 60 or math.inf
        if self._settings.ray_address:
            threading.Thread(target=self._leave_when_idle, daemon=True).start()

    @cached_property
    def _cutter(self) -> Cutter:
        import torch

        from workers.cutter import open_cutter

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        return open_cutter(self._settings)

    def ready(self, driver: str) -> str:
        """Load the network; answers with the device that it runs on. `driver`: who asks, as `identity` says.

        Raises `VersionSkew`, `DeviceAbsent`, `WeightsInvalid`, `NotCompiled`.
        """
        require_same(driver, identity(self._settings))
        self._last_call = time.monotonic()
        return self._cutter.device

    def process(self, batch_id: BatchId, numbers: tuple[int, ...], clock: Clock) -> Answer:
        """Cut these items.

        Raises `StoreFault`, `PastDeadline`, `BatchNotSealed`, `DeviceAbsent`, `WeightsInvalid`.
        """
        from store.transient import open_transient
        from workers.shard import process_shard

        self._moved()
        self._is_busy = True
        try:
            transient = open_transient(self._settings, clock)
            if self._manifest is None or self._manifest.stamp.batch_id != batch_id:
                self._manifest = transient.manifest(batch_id)
            with span(self._settings, batch_id, "shard", items=len(numbers)):
                report = process_shard(transient, self._cutter, self._manifest, numbers, clock, self._moved)
        except DeviceBroken:
            os._exit(_DEVICE_BROKEN)
        finally:
            self._is_busy, self._last_call = False, time.monotonic()
        if any(isinstance(each, Failed) and each.code == ItemError.code for each in report.results):
            self._leave_when_broken()
        self._items += len(numbers)
        return Answer(report.model_dump_json().encode(), self._is_worn())

    def retire(self) -> None:
        """A driver of another version has come, whose actors need the room: leave after some seconds without work."""
        self._idle_limit = min(self._idle_limit, self.retired_idle)

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

    def _moved(self) -> None:
        self._moved_at = time.monotonic()

    def _leave_when_stuck(self) -> None:
        """A call of many items may take half an hour, but none of its steps does: a device hangs long before that."""
        limit = seconds_for_a_step(self._settings.max_megapixels)
        while not (self._is_busy and time.monotonic() - self._moved_at > limit):
            time.sleep(min(limit, 5.0))
        _log.error("no item got any further for %.0f seconds: this worker hangs and ends", limit)
        os._exit(_DEVICE_BROKEN)

    def _leave_when_idle(self) -> None:
        """So that the cluster can give the machine back."""
        while self._is_busy or time.monotonic() - self._last_call < self._idle_limit:
            time.sleep(min(self._idle_limit, 5.0))
        os._exit(_IDLE)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
