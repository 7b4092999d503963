"""A real `bgbatch serve --portal-only` and a worker that cuts nothing, each in a process of its own, on one home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flows.dispatch import Dispatcher
from flows.parts import Parts, open_parts
from schemas.batch import Counts
from schemas.clock import Clock, system_clock
from schemas.ids import BatchId
from schemas.results import ShardReport
from store.settings import Settings
from store.transient.transient_store import cutout_key
from tests.batches import done, run_batch
from tests.ports import free_port, wait_for
from workers.plan import Shard

BGBATCH = "from portal.cli.app import main; main()"
_SAMPLE_EVERY = 0.25


@dataclass
class Memory:
    """Resident megabytes of a process, sampled while the block ran."""

    samples: list[float] = field(default_factory=list)

    def thirds(self) -> tuple[float, float]:
        """The most of the first and of the last third."""
        third = max(1, len(self.samples) // 3)
        return max(self.samples[:third]), max(self.samples[-third:])


@contextmanager
def running(home: Path, *code: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -c CODE` on this home until the end of the block; then SIGTERM. What it says goes to HOME.log."""
    with home.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", *code],
            env=os.environ | {"BGBATCH_HOME": str(home), **env},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=300)


@contextmanager
def portal(home: Path, port: int = 0, **env: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The portal's address and its process."""
    port = port or free_port()
    with running(home, BGBATCH, "serve", "--portal-only", "--port", str(port), **env) as process:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def memory_of(process: subprocess.Popen[bytes]) -> Iterator[Memory]:
    """Watch a process."""
    memory, over = Memory(), threading.Event()

    def watch() -> None:
        while not over.wait(_SAMPLE_EVERY):
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            memory.samples.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield memory
    finally:
        over.set()
        watcher.join()


def work() -> None:
    """Take turns by fair share until SIGTERM; what is cut is a few bytes."""
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    parts = open_parts(Settings(), system_clock)
    Dispatcher(parts, f"stand-in {os.getpid()}", _process, ending).run(pause=0.2)


def _process(parts: Parts, batch_id: BatchId) -> Counts:
    def run_shards(
        batch_id: BatchId,
        shards: Sequence[Shard],
        clock: Clock,
        keep: Callable[[ShardReport], None],
        stop: Callable[[], bool],
    ) -> Iterator[ShardReport]:
        stamp = parts.transient.manifest(batch_id).stamp
        for shard in shards:
            if stop():
                return
            for number in shard:
                parts.transient.write(stamp, cutout_key(batch_id, number, stamp.options.format.suffix), b"a cutout")
            results = tuple(done(number, clock()) for number in shard)
            report = ShardReport(first=shard[0], last=shard[-1], results=results)
            parts.transient.write_report(stamp, report)
            yield report

    return run_batch(parts, batch_id, run_shards)
