"""An actor that does all that the real one does, but for the pixels: it reads each photo, sleeps, writes it back.

It asks the real store and writes the real reports, so what is lost or doubled when something is killed shows there.
"""

from __future__ import annotations

import os
import time

from schemas.batch import Manifest
from schemas.clock import Clock
from schemas.ids import BatchId
from schemas.results import Done, Failed, Scores, ShardReport
from store.transient.transient_store import TransientStore, cutout_key, open_transient
from workers.actor import Answer, SegmenterActor
from workers.identity import identity, require_same

SCORES = Scores(coverage=0.5, edge_uncertainty=0.0, pieces=1, cut_by_frame=0.0, sharpness=0.5, exposure=0.5)


class RehearsalActor(SegmenterActor):
    """`pause`: seconds of the sleeping network, per photo."""

    pause = 0.01

    def ready(self, driver: str) -> str:
        require_same(driver, identity(self._settings))
        folder = self._settings.home / "actors"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(os.getpid())).touch()
        return "cpu"

    def process(self, batch_id: BatchId, numbers: tuple[int, ...], clock: Clock) -> Answer:
        transient = open_transient(self._settings, clock)
        manifest = transient.manifest(batch_id)
        results = tuple(self.cut(transient, manifest, number, clock) for number in numbers)
        report = ShardReport(first=numbers[0], last=numbers[-1], results=results)
        transient.write_report(manifest.stamp, report)
        self._items += len(numbers)
        return Answer(report.model_dump_json().encode(), self._is_worn())

    def cut(self, transient: TransientStore, manifest: Manifest, number: int, clock: Clock) -> Done | Failed:
        stamp, item = manifest.stamp, manifest.items[number - 1]
        photo = transient.source(stamp, item)
        time.sleep(self.pause)
        transient.write(stamp, cutout_key(stamp.batch_id, number, stamp.options.format.suffix), photo)
        return Done(
            number=number,
            width=1,
            height=1,
            bytes=len(photo),
            source_width=1,
            source_height=1,
            scores=SCORES,
            network="none",
            weights_sha256="0" * 64,
            device="cpu",
            finished_at=clock(),
        )
