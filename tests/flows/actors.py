"""Actors that hang, leak, break or die, each in its own way.

They have a module of their own because each process of Ray imports it: with the tests' own imports that takes thrice as
long as it does without.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from schemas.errors import StoreFault
from schemas.ids import BatchId
from schemas.results import Done, Failed, ShardReport
from store.transient.transient_store import open_transient, source_key
from tests.cluster.rehearsal import SCORES, RehearsalActor
from workers.actor import Answer, SegmenterActor
from workers.identity import identity, require_same

POISON = b"a photo that takes its worker down with it"


class QuickActor(SegmenterActor):
    """Writes reports as the real one does, of photos that it does not look at; its process is told apart by its pid."""

    def ready(self, driver: str) -> str:
        require_same(driver, identity(self._settings))
        return "cpu"

    def process(self, batch_id: BatchId, numbers: tuple[int, ...], clock) -> Answer:
        self.before(numbers)
        transient = open_transient(self._settings, clock)
        results = tuple(self.result(number, clock) for number in numbers)
        report = ShardReport(first=numbers[0], last=numbers[-1], results=results)
        transient.write_report(transient.manifest(batch_id).stamp, report)
        if any(isinstance(each, Failed) for each in results):
            self._leave_when_broken()
        self._items += len(numbers)
        with self.mark("pids").open("a") as pids:
            pids.write(f"{os.getpid()}\n")
        return Answer(report.model_dump_json().encode(), self._is_worn())

    def before(self, numbers: tuple[int, ...]) -> None:
        pass

    def result(self, number: int, clock) -> Done | Failed:
        size = {"width": 1, "height": 1, "source_width": 1, "source_height": 1, "bytes": 1}
        told = {"network": "none", "weights_sha256": "0" * 64, "device": "cpu", "finished_at": clock()}
        return Done(number=number, scores=SCORES, **size, **told)

    def mark(self, name: str) -> Path:
        return self._settings.home / name

    def is_first(self, name: str) -> bool:
        """Whether no actor has come here before."""
        try:
            self.mark(name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def hang_once(self) -> None:
        """For ever; who comes here again marks that."""
        if self.is_first("hung"):
            time.sleep(3600)
        self.mark("again").touch()


class HangingActor(QuickActor):
    def before(self, numbers) -> None:
        if 3 in numbers:
            self.hang_once()


class MuteActor(QuickActor):
    """The first one never gets so far as to answer."""

    def ready(self, driver: str) -> str:
        if self.is_first("mute"):
            time.sleep(3600)
        return super().ready(driver)


class StumblingActor(QuickActor):
    """Cannot read items 3 and 4 the first time."""

    def before(self, numbers) -> None:
        if 3 in numbers and self.is_first("stumbled"):
            raise StoreFault("The store is away.")


class LateFaultActor(QuickActor):
    """Cannot read items 3 and 4, and says so once somebody wants no more of them."""

    def before(self, numbers) -> None:
        while 3 in numbers:
            if self.mark("off").exists():
                raise StoreFault("The store is away.")
            time.sleep(0.02)


class WatchedActor(QuickActor):
    """Marks it when a call begins while another is under way."""

    inside = 0

    def before(self, numbers) -> None:
        self.inside += 1
        time.sleep(0.3)
        if self.inside > 1:
            self.mark("overlapped").touch()
        self.inside -= 1


class BrokenDeviceActor(QuickActor):
    """From item 3 on nothing succeeds in this process, as after an error inside CUDA."""

    broken = False

    def result(self, number, clock):
        self.broken = self.broken or (number == 3 and self.is_first("broken"))
        if self.broken:
            return Failed(number=number, code="item_failed", sentence="No reason of the item's.", finished_at=clock())
        return super().result(number, clock)

    def _try_device(self) -> None:
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")


class OldActor(QuickActor):
    def ready(self, driver: str) -> str:
        require_same(driver, "0.0.9")
        return "cpu"


class SlowActor(QuickActor):
    def before(self, numbers) -> None:
        time.sleep(60)


class LeavingActor(QuickActor):
    retired_idle, look_every = 0.5, 0.1

    def process(self, batch_id, numbers, clock):
        with self._under_way():
            time.sleep(3)
        return Answer(b"done", False)


class MeetingActor(QuickActor):
    """Its first call ends when its second has begun."""

    def before(self, numbers) -> None:
        self.mark(f"began-{numbers[0]}").touch()
        while 1 in numbers and not self.mark("began-3").exists():
            time.sleep(0.02)


class DyingActor(QuickActor):
    """The first one dies in its second call, while its first is under way."""

    def before(self, numbers) -> None:
        self.mark(f"began-{numbers[0]}").touch()
        if 3 in numbers and self.is_first("dead"):
            os.kill(os.getpid(), signal.SIGKILL)
        while 1 in numbers and not self.mark("dead").exists():
            time.sleep(0.02)


class FirstCallHangsActor(QuickActor):
    """The first one hangs in its first call, and goes on with all others."""

    def before(self, numbers) -> None:
        if 1 in numbers:
            self.hang_once()
        time.sleep(0.5)


class EndingActor(QuickActor):
    """Its calls end a moment after somebody wants no more of them."""

    def before(self, numbers) -> None:
        self.mark(f"began-{numbers[0]}").touch()
        while not self.mark("may-end").exists():
            time.sleep(0.02)


class KnownActor(SegmenterActor):
    """Tells which process it is."""

    def pid(self) -> int:
        return os.getpid()


class FragileActor(SegmenterActor):
    """Dies as a process does when a codec crashes: in the middle of a call, without a word."""

    def process(self, batch_id, numbers, clock) -> bytes:
        transient = open_transient(self._settings, clock)
        if any(transient.read(source_key(batch_id, number)) == POISON for number in numbers):
            os._exit(139)
        return super().process(batch_id, numbers, clock)


class FragileRehearsal(RehearsalActor):
    """As above, with no network to load; its photos are done in a moment, so an answer may be lost with the worker."""

    pause = 0.0

    def cut(self, transient, manifest, number, clock) -> Done | Failed:
        if transient.source(manifest.stamp, manifest.items[number - 1]) == POISON:
            os._exit(139)
        return super().cut(transient, manifest, number, clock)


class SlowRehearsal(RehearsalActor):
    pause = 1.0


class BrokenContextActor(SegmenterActor):
    """Its network fails once as a GPU does whose context is gone."""

    def process(self, batch_id, numbers, clock) -> Answer:
        mark = self._settings.home / "broken"
        if 3 in numbers and not mark.exists():
            mark.write_text(str(os.getpid()))
            self._cutter.segmenter._run = _illegal_access
        with (self._settings.home / "pids").open("a") as pids:
            pids.write(f"{os.getpid()}\n")
        return super().process(batch_id, numbers, clock)


def _illegal_access(image):
    import torch

    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
