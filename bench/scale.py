"""What distributing costs: dispatch, efficiency, a million photos in one driver, a long history, Prefect's requests.

`python -m bench.scale` writes its section of bench/RESULTS.md; parts can be named (`starts dispatch store efficiency
driver history requests`), and then only theirs are measured and written anew. The network sleeps, so that two cores can
stand for many.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import psycopg
import ray

from bench.results import section, table, write_section
from flows import steps
from flows.parts import Parts, open_parts, using
from flows.receive import seal, stamp_batch
from schemas.batch import Item, Stamp
from schemas.clock import Clock, system_clock
from schemas.ids import AccountId, BatchId, new_batch_id, received_at
from schemas.options import CutoutOptions
from schemas.results import Done, ShardReport
from store.records import batches, line
from store.records.batches import due_early, list_batches, overdue, page_of
from store.records.database import Records, open_records
from store.records.people import create_account
from store.settings import Settings
from store.transient.transient_store import source_key
from tests.cluster.rehearsal import SCORES, RehearsalActor
from tests.consent.postgres import new_database
from tests.store.conftest import rclone_bucket
from workers.placement import connect
from workers.plan import Shard
from workers.pool import Pool

Lines = list[str]


class Photo40ms(RehearsalActor):
    """About a photo on a GPU with its decoding and encoding."""

    pause = 0.04


class Photo0ms(RehearsalActor):
    """Nothing but the store's share."""

    pause = 0.0


class Photo200ms(RehearsalActor):
    """About a photo on a core."""

    pause = 0.2


def main(asked: Sequence[str]) -> None:
    """Measure what was asked for, or all, and write each part in place of what stood there."""
    parts = {
        "starts": starts,
        "dispatch": dispatch,
        "store": store,
        "efficiency": efficiency,
        "driver": driver,
        "history": history,
        "requests": requests,
    }
    for name in asked or parts:
        print(name, flush=True)
        found = parts[name]()
        print("\n".join(found), flush=True)
        write_section("Scale", with_part(section("Scale"), found))


def with_part(lines: Lines, part: Lines) -> Lines:
    """The section's lines with one part anew, and the day it was measured; a part begins with its name in bold."""
    head, _, rest = part[0].partition("**: ")
    part = [f"{head}** ({datetime.now(UTC):%Y-%m-%d}): {rest}", *part[1:]]
    starts = [number for number, each in enumerate(lines) if each.startswith("**")]
    for start, end in pairwise([*starts, len(lines)]):
        if lines[start].startswith(f"{head}**"):
            return [*lines[:start], *part, *([""] if lines[end:] else []), *lines[end:]]
    return [*lines, *([""] if lines else []), *part]


def starts() -> Lines:
    """What a batch of one photo waits for, with the network as shipped: on a cold machine, and with a warm pool."""
    photo = (Path(__file__).parents[1] / "portal" / "demo_photos" / "chelsea.jpg").read_bytes()
    began = time.perf_counter()
    with embedded(1) as place:
        ray_up = time.perf_counter() - began
        pool = Pool(place.settings, 1)
        ray.get(pool.actors[0].ready.remote(pool._identity))
        ready = time.perf_counter() - began
        took = []
        for _ in range(4):
            batch_id = place.send(1, photo)
            shards = steps.plan(place.parts, batch_id).shards
            asked = time.perf_counter()
            (report,) = pool.run(batch_id, shards, system_clock, lambda report: None)
            assert isinstance(report.results[0], Done)
            took.append(time.perf_counter() - asked)
    return [
        f"**Starts**: from nothing to Ray {ray_up:.1f} s, to an actor with a warm network {ready:.1f} s; then a batch "
        f"of one photo takes {took[0] * 1e3:.0f} ms the first time and {min(took[1:]) * 1e3:.0f} ms afterwards. On "
        "this machine's CPU; a node with a GPU to be had from a cloud comes on top.",
    ]


def dispatch() -> Lines:
    """The pool against a bare loop over the same calls in one process, alternately; medians of three."""
    photos, rounds = 160, 3
    bare, pooled = [], []
    with embedded(1) as place:
        pool = Pool(place.settings, 1, Photo40ms)
        run_through(place, pool, 16)
        actor = Photo40ms(place.settings.without_secrets())
        for _ in range(rounds):
            batch_id = place.send(photos)
            shards = steps.plan(place.parts, batch_id).shards
            began = time.perf_counter()
            for shard in shards:
                ShardReport.model_validate_json(actor.process(batch_id, shard, system_clock).report)
            bare.append((time.perf_counter() - began) / photos)
            pooled.append(run_through(place, pool, photos) / photos)
    loop, through = sorted(bare)[rounds // 2], sorted(pooled)[rounds // 2]
    overhead = (through - loop) / loop * 100
    return [
        f"**Dispatch**: a photo of 40 ms takes {loop * 1e3:.2f} ms in a bare loop and {through * 1e3:.2f} ms through "
        f"Ray to one actor: {overhead:+.1f} % (goal: at most 5 %). Calls of 8 photos, folder store, {photos} photos, "
        f"median of {rounds} alternating rounds."
    ]


def store() -> Lines:
    """What reading a photo and writing its cutout and reports costs an actor, on a folder and on S3."""
    photos, told = 400, []
    address, on_s3 = rclone_bucket()
    os.environ["BGBATCH_S3_SECRET"] = on_s3.s3_secret.get_secret_value()  # as an actor has it
    for name, settings in (("a folder", Settings()), ("S3", on_s3.model_copy(update={"transient_url": address}))):
        with tempfile.TemporaryDirectory(prefix="bgbatch-scale-") as home:
            place = Place(settings.model_copy(update={"home": Path(home)}))
            actor = Photo0ms(place.settings.without_secrets())
            batch_id = place.send(photos)
            first, *shards = steps.plan(place.parts, batch_id).shards
            actor.process(batch_id, first, system_clock)
            began = time.process_time()
            for shard in shards:
                actor.process(batch_id, shard, system_clock)
            cost = (time.process_time() - began) / (photos - len(first))
            told.append(f"{cost * 1e3:.1f} CPU-ms on {name}")
    return [
        f"**Store**: to an actor, reading a photo and writing its cutout and its share of a report costs "
        f"{' and '.join(told)}. Files of 100 bytes, calls of 8 photos, {photos} photos, an rclone server.",
    ]


def efficiency() -> Lines:
    """Photos of 200 ms on 1, 2, 4, 8 warm actors, as many per actor each time."""
    per_actor, pause = 32, 0.2
    rows = []
    with embedded(8) as place:
        for actors in (1, 2, 4, 8):
            pool = Pool(place.settings, actors, Photo200ms)
            for each in pool.actors:
                ray.get(each.ready.remote(pool._identity))
            seconds = run_through(place, pool, per_actor * actors)
            rows.append([str(actors), f"{per_actor * actors / seconds:.1f}", f"{per_actor * pause / seconds:.1%}"])
            for each in pool.actors:
                ray.kill(each)
    return [
        f"**Efficiency**: photos of {pause * 1e3:.0f} ms, {per_actor} per actor, all on this machine's two cores; the "
        "store and the records are in the time.",
        "",
        *table(["actors", "photos/s", "of what sleeping alone would give"], rows),
    ]


def driver() -> Lines:
    """A batch of a million photos planned, and its reports taken in, in a process of its own kind: memory at each."""
    rows = []
    for photos in (100_000, 1_000_000):
        pid = os.fork()  # memory of one size must not hide that of the next
        if pid == 0:
            _driver_in_this_process(photos)
            os._exit(0)
        os.waitpid(pid, 0)
        rows.append(Path(tempfile.gettempdir(), f"bgbatch-driver-{photos}").read_text().split(","))
    return [
        "**One driver, one batch**: the manifest read and planned, then a report for every 64 photos "
        "taken in, then all of them read again to finish; records in SQLite, the store a folder.",
        "",
        *table(
            [
                "photos",
                "MB before",
                "MB with the plan",
                "MB after all reports",
                "MB at the end",
                "plan s",
                "ms per report",
            ],
            rows,
        ),
    ]


def _driver_in_this_process(photos: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Settings(home=Path(folder), shard_items=64))
        batch_id = place.seal_without_sources(photos)
        before = resident()
        began = time.perf_counter()
        planned = steps.plan(place.parts, batch_id)
        with_plan, planning = resident(), time.perf_counter() - began

        def reports(_id: BatchId, todo: Sequence[Shard], clock: Clock, *_: object) -> Iterator[ShardReport]:
            stamp = place.parts.transient.manifest(_id).stamp
            for shard in todo:
                report = ShardReport(first=shard[0], last=shard[-1], results=tuple(done(n, clock()) for n in shard))
                place.parts.transient.write_report(stamp, report)
                yield report

        began = time.perf_counter()
        counts = steps.cut(place.parts, planned, reports)
        per_report = (time.perf_counter() - began) / len(planned.shards)
        taken = resident()
        assert counts.done == steps.finish(place.parts, batch_id).done == photos
        sizes = [f"{each:.0f}" for each in (before, with_plan, taken, resident())]
        found = (f"{photos:,}".replace(",", "\u202f"), *sizes)
        figures = ",".join((*found, f"{planning:.1f}", f"{per_report * 1e3:.2f}"))
        Path(tempfile.gettempdir(), f"bgbatch-driver-{photos}").write_text(figures)


def history() -> Lines:
    """PostgreSQL with years of purged batches: what is asked at each receipt and each cleanup."""
    sizes = (10_000, 1_000_000, 5_000_000)
    url = new_database()
    records = open_records(Settings(records_url=url))
    with records.transaction() as connection:
        account, _ = create_account(connection, "Acme", "a@acme.example", system_clock(), os.urandom)
    _add_waiting(records, account, 1000)
    rows, had = [], 0
    for size in sizes:
        seconds = _add_history(url, account, had, size)
        had = size
        now = datetime.now(UTC)
        asked: dict[str, Callable] = {
            "overdue": lambda c, now=now: overdue(c, now),
            "due early": lambda c, now=now: due_early(c, now, timedelta(minutes=30)),
            "newest 20": lambda c: list_batches(c, account),
            "the line": lambda c, now=now: line.in_line(c, now),
            "its load": lambda c, now=now: line.load_of(c, now),
            "a page": lambda c: page_of(c, account, list_batches(c, account)[-1].stamp.batch_id, 50),
        }
        took, scans = [], _whole_scans(url)
        for question in asked.values():
            best = 1e9
            for _ in range(5):
                with records.transaction() as connection:
                    began = time.perf_counter()
                    question(connection)
                    best = min(best, time.perf_counter() - began)
            took.append(f"{best * 1e3:.1f}")
        records.engine.dispose()  # counters are told when a connection ends
        scans = _whole_scans(url) - scans
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            query = "SELECT pg_total_relation_size('batches') + pg_total_relation_size('submissions')"
            (disk,) = connection.execute(query).fetchone()
        print(size, took, scans, flush=True)
        rows.append([f"{size:,}".replace(",", "\u202f"), *took, str(scans), f"{disk / size:.0f}", f"{seconds:.0f}"])
    records.engine.dispose()
    per_row = int(rows[-1][-2])
    return [
        "**History**: purged batches of one account in PostgreSQL, and a thousand that wait; ms per question, best of "
        "five.",
        "",
        *table(["batches", *asked, "scans of a whole table", "bytes per batch", "s to add"], rows),
        "",
        f"Not measured: 100 million. By these figures that is {per_row * 1e8 / 1e9:.0f} GB for the batches with their "
        "indexes; questions go by index and grow by its depth, not by the history.",
    ]


def _add_waiting(records: Records, account: AccountId, count: int) -> None:
    """Batches that came in just now, sealed and in line."""
    with records.transaction() as connection:
        for _ in range(count):
            batch_id = new_batch_id(system_clock(), os.urandom)
            received = received_at(batch_id)
            times = {"received_at": received, "purge_at": received + timedelta(hours=23)}
            stamp = Stamp(batch_id=batch_id, industry=None, grant_id=None, options=CutoutOptions(), **times)
            batches.open_batch(connection, stamp, account)
            line.enter(connection, batch_id, account)
            batches.seal(connection, batch_id, 500)
            line.make_ready(connection, batch_id, received)


def _whole_scans(url: str) -> int:
    """How often the server has read a whole table of batches or of the line so far."""
    time.sleep(2)  # it counts a moment later
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        names = "relname IN ('batches', 'submissions')"
        (scans,) = connection.execute(f"SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE {names}").fetchone()
    return int(scans)


def _add_history(url: str, account: AccountId, first: int, last: int) -> float:
    began = time.perf_counter()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO batches (batch_id, account_id, options, received_at, purge_at, state, items, done, failed, "
            "refusals, purged_at) SELECT overlay(hex placing '-' from 9 for 0) || '-7000-8000-000000000000', %s, %s, "
            "t, t + interval '23 hours', 'purged', 1000, 1000, 0, '{}', t + interval '23 hours' FROM "
            "(SELECT t, lpad(to_hex((extract(epoch FROM t) * 1000)::bigint), 12, '0') AS hex FROM (SELECT "
            "date_trunc('day', now()) - interval '2 days' - n * interval '1 second' AS t FROM "
            "generate_series(%s::int, %s::int) n) s) h",
            (account, CutoutOptions().model_dump_json(), first + 1, last),
        )
        connection.execute(
            "INSERT INTO submissions (batch_id, account_id, ready_at, started_at, ended_at) "
            "SELECT batch_id, account_id, received_at, received_at, purged_at FROM batches "
            "WHERE received_at < date_trunc('day', now()) - interval '2 days' - %s * interval '1 second'",
            (first,),
        )
        connection.execute("VACUUM ANALYZE batches, submissions")
    return time.perf_counter() - began


def requests() -> Lines:
    """HTTP requests to Prefect's server that one batch costs, small and larger."""
    from flows.engine import prepare

    found = []
    with embedded(1) as place:
        prepare(place.settings)
        from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient

        from flows import process_batch as flow_module

        pool = Pool(place.settings, 1, RehearsalActor)
        flow_module._pool = lambda settings: pool  # the network is not what is counted here
        counted = [0]
        _count_sends(PrefectHttpxAsyncClient, PrefectHttpxSyncClient, counted)
        for photos in (8, 80, 400):
            batch_id = place.send(photos)
            counted[0] = 0
            with using(place.parts):
                flow_module.process_batch(batch_id)
            found.append([str(photos), str(counted[0]), f"{counted[0] / photos:.2f}"])
    return [
        "**Prefect**: HTTP requests that the flow of one batch makes.",
        "",
        *table(["photos", "requests", "per photo"], found),
    ]


def _count_sends(asynchronous: type, synchronous: type, counted: list[int]) -> None:
    send_async, send_sync = asynchronous.send, synchronous.send

    async def counting(self: object, *args: object, **named: object) -> object:
        counted[0] += 1
        return await send_async(self, *args, **named)

    def counting_too(self: object, *args: object, **named: object) -> object:
        counted[0] += 1
        return send_sync(self, *args, **named)

    asynchronous.send, synchronous.send = counting, counting_too


class Place:
    """A home with an account, and batches of it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.parts: Parts = open_parts(settings, system_clock)
        with self.parts.records.transaction() as connection:
            self.account, _ = create_account(connection, "Acme", "a@acme.example", system_clock(), os.urandom)

    def send(self, photos: int, photo: bytes = b"photo" * 20) -> BatchId:
        """A batch of small files."""
        stamp = stamp_batch(self.parts, self.account, None, CutoutOptions())
        for number in range(1, photos + 1):
            self.parts.transient.write(stamp, source_key(stamp.batch_id, number), photo)
        seal(self.parts, stamp, [Item(number=n, path=f"{n}.jpg", size=len(photo)) for n in range(1, photos + 1)])
        return stamp.batch_id

    def seal_without_sources(self, photos: int) -> BatchId:
        """A batch of which there is only the manifest."""
        stamp = stamp_batch(self.parts, self.account, None, CutoutOptions())
        seal(self.parts, stamp, [Item(number=n, path=f"VIN{n}/1.jpg", size=100) for n in range(1, photos + 1)])
        return stamp.batch_id


@contextmanager
def embedded(cpus: int) -> Iterator[Place]:
    """A place, and Ray on this machine with so many CPUs, real or not."""
    with tempfile.TemporaryDirectory(prefix="bgbatch-scale-") as folder:
        settings = Settings(home=Path(folder))
        connect(settings, cpus)  # on the loopback address alone
        try:
            yield Place(settings)
        finally:
            ray.shutdown()


def run_through(place: Place, pool: Pool, photos: int) -> float:
    """Seconds from the first call to the last report."""
    batch_id = place.send(photos)
    shards = steps.plan(place.parts, batch_id).shards
    began = time.perf_counter()
    reported = sum(
        len(each.results) for each in pool.run(batch_id, shards, system_clock, lambda report: None, lambda: False)
    )
    assert reported == photos
    return time.perf_counter() - began


def done(number: int, now: datetime) -> Done:
    """A result like any other."""
    sizes = {"width": 1, "height": 1, "source_width": 1, "source_height": 1, "bytes": 1}
    return Done(
        number=number, scores=SCORES, network="none", weights_sha256="0" * 64, device="cpu", finished_at=now, **sizes
    )


def resident() -> float:
    """Megabytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


if __name__ == "__main__":
    main(sys.argv[1:])
