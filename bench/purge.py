"""How fast a purge deletes, beside a bare bulk delete on the same server; and whether what lives costs anything.

`python -m bench.purge` starts its own Ceph gateway and writes its section of bench/RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from bench.results import table, write_section
from schemas.ids import new_batch_id
from store.objects.folder import Folder
from store.objects.object_store import ObjectStore
from store.objects.s3 import S3
from store.purging.purge import Purge
from store.records.database import Records, open_records
from store.settings import Settings
from store.transient.transient_store import source_key
from tests.store.conftest import ceph_bucket, open_store

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(hours=23)


def fill(store: ObjectStore, batches: int, items: int, hours_ago: float, seed: int) -> list[str]:
    """Write `batches` of `items` objects that were received so long ago. Returns their keys."""
    randomness = Random(seed).randbytes
    received = NOW - timedelta(hours=hours_ago)
    keys = []
    for _ in range(batches):
        batch_id = new_batch_id(received, randomness)
        keys += [source_key(batch_id, number) for number in range(1, items + 1)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.write(key, b"x"), keys))
    return keys


@dataclass(frozen=True)
class Cost:
    """What something took: `wall` and `cpu` in seconds (this process and the server's), and requests to the store."""

    wall: float
    cpu: float
    requests: int


@contextmanager
def measuring(store: ObjectStore, costs: list[Cost]) -> Iterator[None]:
    """Add to `costs` what happens meanwhile."""
    requests = 0
    storage = store.storage
    if isinstance(storage, S3):
        call = storage.call

        def counted(method: str, **arguments: object) -> dict[str, Any]:
            nonlocal requests
            requests += 1
            return call(method, **arguments)

        storage.call = counted  # type: ignore[method-assign]
    with_server = isinstance(storage, S3)
    wall, cpu = time.perf_counter(), _cpu(with_server)
    yield
    costs.append(Cost(time.perf_counter() - wall, _cpu(with_server) - cpu, requests))
    if isinstance(storage, S3):
        storage.call = call  # type: ignore[method-assign]


def _cpu(with_server: bool) -> float:
    """Seconds of this process, and of those that it started: Ceph's."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat") if with_server else ():
        with suppress(OSError):  # it ended meanwhile
            _state, parent, *rest = stat.read_text().rpartition(")")[2].split()
            if int(parent) == os.getpid():
                ticks += int(rest[9]) + int(rest[10])  # proc(5): utime and stime
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def bare(store: ObjectStore, keys: list[str]) -> None:
    """Nothing but `delete_objects`, a thousand keys a request, as many at once as the purge uses."""
    s3 = store.storage
    assert isinstance(s3, S3)
    chunks = [keys[start : start + 1000] for start in range(0, len(keys), 1000)]

    def delete(chunk: list[str]) -> None:
        named = [{"Key": f"transient/{key}"} for key in chunk]
        s3.call("delete_objects", Delete={"Objects": named, "Quiet": True})

    with ThreadPoolExecutor(s3.AT_ONCE) as pool:
        list(pool.map(delete, chunks))


def purge(store: ObjectStore, records: Records) -> None:
    """One purge, listings, verification and receipts included."""
    report = Purge(store, records, DAY, lambda: NOW).run()
    assert not report.faults, report.faults


def fill_folder(store: ObjectStore, keys: int) -> None:
    """Living keys by the million: empty files, a thousand a batch, five hours old."""
    assert isinstance(store.storage, Folder)
    randomness = Random(3000).randbytes
    for _ in range(keys // 1000):
        batch_id = new_batch_id(NOW - timedelta(hours=5), randomness)
        folder = Path(store.storage.root, source_key(batch_id, 1)).parent
        folder.mkdir(parents=True)
        for number in range(1, 1001):
            os.close(os.open(Path(store.storage.root, source_key(batch_id, number)), os.O_CREAT | os.O_WRONLY))


def with_and_without_living(
    store: ObjectStore, records: Records, live: Callable[[], object], rounds: int
) -> tuple[list[Cost], list[Cost]]:
    """What the purge of 1,000 expired keys costs with none living, and beside those that `live` writes."""
    alone: list[Cost] = []
    crowded: list[Cost] = []
    for costs in (alone, crowded):
        for each in range(rounds):
            fill(store, 2, 500, 23.5, 2000 + each)
            with measuring(store, costs):
                purge(store, records)
        if costs is alone:
            live()
    return alone, crowded


def main() -> None:
    """Measure side by side, several times, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--live", type=int, default=1_000_000, help="living keys in a folder")
    parser.add_argument("--live-s3", type=int, default=20_000, help="living keys on the S3 server")
    asked = parser.parse_args()
    by_hand: list[Cost] = []
    purged: list[Cost] = []
    with tempfile.TemporaryDirectory() as home:
        records = open_records(Settings(home=Path(home)))
        store = open_store(*ceph_bucket())
        for each in range(asked.rounds):
            keys = fill(store, asked.batches, asked.items, 23.5, each)
            with measuring(store, by_hand):
                bare(store, keys)
            fill(store, asked.batches, asked.items, 23.5, 1000 + each)
            with measuring(store, purged):
                purge(store, records)
        on_s3 = with_and_without_living(
            store, records, lambda: fill(store, max(1, asked.live_s3 // 1000), 1000, 5, 3000), asked.rounds
        )
        folder = open_store(f"{home}/transient", Settings(home=Path(home)))
        in_folder = with_and_without_living(folder, records, lambda: fill_folder(folder, asked.live), asked.rounds)
    keys_each = asked.batches * asked.items
    write_section(
        "Purge",
        [
            f"Ceph RGW (memstore) on this machine, {keys_each:,} keys in {asked.batches} batches, {asked.rounds} "
            "rounds in turn with a bare",
            "`delete_objects` of as many keys with as many requests at once. CPU: server and client, which share it.",
            "",
            *table(
                ["", "best keys/s", "least CPU-s", "requests"],
                [
                    _row("bare bulk delete", by_hand, keys_each),
                    _row("purge: list, note, delete, list again, receipts", purged, keys_each),
                    ["speed of the purge (goal 0.9)", *_ratios(by_hand, purged), ""],
                ],
            ),
            "",
            "A purge of 1,000 expired keys, beside living ones and with none (goal: at most 1.2 times):",
            "",
            *table(
                ["store", "living", "wall", "CPU", "requests"],
                [_beside("a folder", asked.live, *in_folder), _beside("Ceph RGW", asked.live_s3, *on_s3)],
            ),
        ],
    )


def _best(costs: list[Cost]) -> tuple[float, float]:
    """The least wall and CPU seconds of all rounds: what else the machine does only ever adds."""
    return min(each.wall for each in costs), min(each.cpu for each in costs)


def _ratios(one: list[Cost], other: list[Cost]) -> list[str]:
    """By wall time and by CPU time."""
    return [f"{mine / theirs:.2f}" for mine, theirs in zip(_best(one), _best(other), strict=True)]


def _row(name: str, costs: list[Cost], keys: int) -> list[str]:
    wall, cpu = _best(costs)
    return [name, f"{keys / wall:,.0f}", f"{cpu:.1f}", str(costs[-1].requests)]


def _beside(store: str, living: int, alone: list[Cost], crowded: list[Cost]) -> list[str]:
    requests = f"{alone[-1].requests} → {crowded[-1].requests}" if alone[-1].requests else "none"
    return [store, f"{living:,}", *_ratios(crowded, alone), requests]


if __name__ == "__main__":
    main()
