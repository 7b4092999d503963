"""The segmenter actor: one process with a warm network that reads, cuts and writes a few items per call.

Only ids, item numbers and a clock come in, and a report without names goes back. Settings come in without their
secrets; each process finds those in its own environment, because Ray may write what it is given to disk.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from schemas.clock import Clock
from schemas.ids import BatchId
from store.settings import Settings

if TYPE_CHECKING:
    from schemas.batch import Manifest
    from workers.cutter import Cutter


class SegmenterActor:
    """What runs inside the Ray actor.

    The network is loaded by the first call, not by the constructor: what is wrong with it then comes back as an error.
    """

    def __init__(self, settings: dict[str, object]) -> None:
        self._settings = Settings(**settings)  # type: ignore[arg-type]
        self._manifest: Manifest | None = None

    @cached_property
    def _cutter(self) -> Cutter:
        import torch

        from workers.cutter import open_cutter

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        return open_cutter(self._settings)

    def process(self, batch_id: BatchId, numbers: tuple[int, ...], clock: Clock) -> bytes:
        """Cut these items; returns the `ShardReport` as JSON.

        Raises `StoreFault`, `PastDeadline`, `BatchNotSealed`, `DeviceAbsent`, `WeightsInvalid`.
        """
        from store.transient import open_transient
        from workers.shard import process_shard

        transient = open_transient(self._settings, clock)
        if self._manifest is None or self._manifest.stamp.batch_id != batch_id:
            self._manifest = transient.manifest(batch_id)
        report = process_shard(transient, self._cutter, self._manifest, numbers, clock)
        return report.model_dump_json().encode()

    def ready(self) -> str:
        """Load the network; answers with the device that it runs on. Raises `DeviceAbsent`, `WeightsInvalid`."""
        return self._cutter.device
