"""The lake against raw files, cp, WebDataset, LitData and Delta: side by side, in one run.

`python -m bench.lake` writes its section of bench/RESULTS.md. The peers get an environment of their own (.venv-bench,
or `--peers PYTHON`). Where two things are compared they take turns, and the least CPU time of some rounds counts, so
that other work on the machine counts as little as can be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
from sqlalchemy import insert

from bench.results import write_section
from lake.compact import compact
from lake.copies.manifest import Kind
from lake.erase import erase_grant
from lake.layout import Place, file_key
from lake.parquet import to_parquet
from lake.pull import Order, pull
from lake.query import Query
from lake.reading import Lake
from schemas.candidate import CANDIDATE, LICENCE, SCHEMA_VERSION
from schemas.consent import Grant
from schemas.ids import AccountId, GrantId, new_batch_id, new_grant_id
from schemas.industries import Industry
from store.objects import open_store
from store.records import Records, open_records
from store.settings import Settings
from store.tables import admissions

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "portal" / "demo_photos"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
AUTO = Industry.AUTOMOTIVE


class Bench:
    """A lake of its own, filled without a transient store."""

    def __init__(self, home: Path) -> None:
        self.home = home
        settings = Settings(home=home)
        self.records: Records = open_records(settings)
        self.objects = open_store(settings.lake_root, settings)
        self.random = Random(1)
        self.grants: list[GrantId] = []
        self.lake = Lake(self.objects, self.records, lambda: self.grants)

    def fill(self, grants: int, files: int, rows: int, image: Callable[[int], bytes], mask: bytes = b"") -> int:
        """`grants` with `files` of `rows` each; returns all bytes."""
        admitted = []
        for _ in range(grants):
            self.grants.append(grant_id := new_grant_id(self.random.randbytes))
            for shard in range(files):
                batch_id = new_batch_id(NOW, self.random.randbytes)
                key = file_key(Place(AUTO, grant_id), batch_id, shard)
                data = to_parquet(table_of(batch_id, rows, image, mask, self.random))
                self.objects.write(key, data)
                admitted.append(
                    {
                        "key": key,
                        "grant_id": grant_id,
                        "batch_id": batch_id,
                        "industry": AUTO,
                        "rows": rows,
                        "bytes": len(data),
                        "sha256": f"{len(admitted):064x}",
                        "items": [],
                        "admitted_at": NOW,
                    }
                )
        with self.records.transaction() as connection:
            connection.execute(insert(admissions), admitted)
        return sum(int(each["bytes"]) for each in admitted)  # type: ignore[call-overload]


def table_of(batch_id: str, rows: int, image: Callable[[int], bytes], mask: bytes, random: Random) -> pa.Table:
    """Candidates with made-up labels."""
    numbers = range(1, rows + 1)
    columns: dict[str, object] = {
        "candidate_id": [f"{batch_id}-{n:06d}" for n in numbers],
        "batch_id": [batch_id] * rows,
        "item": list(numbers),
        "received_at": [NOW] * rows,
        "admitted_at": [NOW] * rows,
        "width": [1600] * rows,
        "height": [1200] * rows,
        "network": ["u2netp"] * rows,
        "weights_sha256": ["ab" * 32] * rows,
        "device": ["cpu"] * rows,
        **{
            name: np.random.default_rng(random.randrange(10**9)).random(rows, np.float32)
            for name in ("coverage", "edge_uncertainty", "pieces", "cut_by_frame", "sharpness", "exposure")
        },
        "image_sha256": [random.randbytes(32).hex() for _ in numbers],
        "phash": [random.randbytes(8).hex() for _ in numbers],
        "licence": [LICENCE] * rows,
        "schema_version": [SCHEMA_VERSION] * rows,
        "mask_png": [mask] * rows,
        "image": [image(n) for n in numbers],
    }
    return pa.table({name: pa.array(columns[name], CANDIDATE.field(name).type) for name in CANDIDATE.names}, CANDIDATE)


def summed(data: bytes | pa.Buffer) -> int:
    """Look at every byte: the sum of all 64-bit words."""
    return int(np.frombuffer(data, np.uint64, len(data) // 8).sum())


def take_turns(
    rounds: int, between: Callable[[], None] = lambda: None, **works: Callable[[], object]
) -> dict[str, tuple[float, float]]:
    """Least (CPU, wall) seconds of each, run in turn, with `between` before each."""
    best = {name: (float("inf"), float("inf")) for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            between()
            cpu, wall = time.process_time(), time.perf_counter()
            work()
            spent = time.process_time() - cpu, time.perf_counter() - wall
            best[name] = min(best[name][0], spent[0]), min(best[name][1], spent[1])
    return best


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=Path, help="Python that has webdataset, litdata, deltalake, simplejpeg")
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    peers = arguments.peers or peers_python()
    home = Path(tempfile.mkdtemp(prefix="bgbatch-bench-"))
    try:
        body = [*photos(home / "photos", peers, arguments.rounds), *labels(home / "labels", arguments.files)]
        body += erasure(home / "erasure", peers)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    write_section("Lake", body)


def photos(home: Path, peers: Path, rounds: int) -> list[str]:
    """Real photos: reading all bytes, pulling, training."""
    bench = Bench(home)
    sources = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))]
    varied = Random(2)

    def image(number: int) -> bytes:
        """Each its own: a tail behind the image's end, so that no store can keep one for all."""
        source = varied.choice(sources)
        return source + varied.randbytes(200_000)

    size = bench.fill(grants=20, files=1, rows=64, image=image, mask=b"\x89PNG" + bytes(20_000))
    paths = bench.lake.paths(AUTO)

    def raw() -> int:
        return sum(len(Path(path).read_bytes()) for path in paths)

    def arrow() -> int:
        return sum(batch.nbytes for batch in bench.lake.dataset(AUTO).to_batches(columns=["image", "mask_png"]))

    def images() -> int:
        return sum(each.image.size + each.mask_png.size for each in bench.lake.images(AUTO))

    def raw_summed() -> int:
        return sum(summed(Path(path).read_bytes()) for path in paths)

    def arrow_summed() -> int:
        columns = ["image", "mask_png"]
        batches = bench.lake.dataset(AUTO).to_batches(columns=columns)
        return sum(summed(batch[name].buffers()[2]) for batch in batches for name in columns)

    def images_summed() -> int:
        return sum(summed(each.image) + summed(each.mask_png) for each in bench.lake.images(AUTO))

    reading = take_turns(2 * rounds, raw=raw, images=images, arrow=arrow)
    looking = take_turns(2 * rounds, raw=raw_summed, images=images_summed, arrow=arrow_summed)

    def copied() -> None:
        shutil.copytree(home / "lake", home / "cp")

    def pulled() -> None:
        place = home / "pull"
        pull(
            bench.objects,
            bench.records,
            lambda: bench.grants,
            Query(AUTO),
            place,
            lambda: NOW,
            order=Order(Kind.WEBDATASET),
        )

    def clear() -> None:
        """Each into an empty place, when the disk has nothing more to write of what came before."""
        for name in ("cp", "pull"):
            shutil.rmtree(home / name, ignore_errors=True)
        os.sync()

    copying = take_turns(3, clear, cp=copied, pull=pulled)
    small = Bench(home / "small")
    small.fill(grants=10, files=1, rows=64, image=lambda n: sources[n % len(sources)], mask=b"\x89PNG")
    tars = home / "tars"
    pull(
        small.objects, small.records, lambda: small.grants, Query(AUTO), tars, lambda: NOW, order=Order(Kind.WEBDATASET)
    )
    (home / "small" / "grants").write_text("\n".join(small.grants))
    loaders = ask(peers, "loaders", str(tars), str(home / "small"), str(rounds))
    lines = [
        f"{size / 1e6:.0f} MB of candidates in {len(paths)} files, local disk, everything in the page cache.",
        "",
        "| all image bytes | read: CPU-s | wall s | read and summed up: CPU-s | wall s |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {words} | {reading[name][0]:.3f} | {reading[name][1]:.3f} | {looking[name][0]:.3f} "
            f"| {looking[name][1]:.3f} |"
            for name, words in (
                ("raw", "the lake's files, raw"),
                ("images", "`lake.images()`"),
                ("arrow", "`lake.dataset()`, image columns"),
            )
        ),
        "",
        *(
            f"Against raw: `{words}` {reading['raw'][1] / reading[name][1]:.2f} by wall time and "
            f"{reading['raw'][0] / reading[name][0]:.2f} by CPU time; when each byte is looked at, "
            f"{looking['raw'][1] / looking[name][1]:.2f} and {looking['raw'][0] / looking[name][0]:.2f} (goal 0.8)."
            for name, words in (("images", "lake.images()"), ("arrow", "lake.dataset()"))
        ),
        "",
        "| copying | CPU-s | wall s |",
        "|---|---:|---:|",
        f"| `cp` (shutil) of the lake's folder | {copying['cp'][0]:.2f} | {copying['cp'][1]:.2f} |",
        f"| pull as WebDataset, with hashes, card and record | {copying['pull'][0]:.2f} | {copying['pull'][1]:.2f} |",
        "",
        f"| training: photos decoded by simplejpeg, shuffled; medians of {rounds} rounds in turn | DataLoader workers "
        "| images per CPU-s | images per s |",
        "|---|---:|---:|---:|",
        *(
            f"| {name.partition('/')[0]} | {name.partition('/')[2]} | {each['images'] / each['cpu']:.0f} "
            f"| {each['images'] / each['wall']:.0f} |"
            for name, each in sorted(loaders.items(), key=lambda item: item[0].partition("/")[::-2])
        ),
        "",
    ]
    return lines


def labels(home: Path, files: int) -> list[str]:
    """A scan of labels before and after compaction."""
    bench = Bench(home)
    per_grant = 100
    bench.fill(grants=files // per_grant, files=per_grant, rows=200, image=lambda n: b"an image", mask=b"a mask")
    columns = ("candidate_id", "edge_uncertainty", "coverage", "width")

    def scan() -> int:
        return bench.lake.labels(AUTO, columns).num_rows

    rows = scan()
    before = take_turns(2, scan=scan)["scan"]
    cpu, wall = time.process_time(), time.perf_counter()
    done = compact(bench.lake, lambda connection, grant_id: True, lambda: NOW, os.urandom)
    merging = time.process_time() - cpu, time.perf_counter() - wall
    after = take_turns(2, scan=scan)["scan"]
    return [
        f"| scan of four labels of {rows:,} rows | files | CPU-s | wall s |",
        "|---|---:|---:|---:|",
        f"| before compaction | {files:,} | {before[0]:.2f} | {before[1]:.2f} |",
        f"| after compaction | {files - done.files + done.merged:,} | {after[0]:.2f} | {after[1]:.2f} |",
        "",
        f"Compaction took {merging[1]:.1f} s ({merging[0]:.1f} CPU-s). Images are tiny here, so that the disk "
        "holds them, and row groups are as large as they get; of photos one holds 32 rows and costs a scan 0.07 ms.",
        "",
        *among_many(home),
    ]


def among_many(home: Path) -> list[str]:
    """An erasure in lakes of several sizes: its own files are 50 in each."""
    lines = ["| erasing one customer of 50 files | files in the lake | CPU-s | wall s |", "|---|---:|---:|---:|"]
    for grants in (1, 20, 200):
        bench = Bench(home / f"erase-{grants}")
        bench.fill(grants, files=50, rows=1, image=lambda n: b"an image", mask=b"a mask")
        grant_id = bench.grants.pop(grants // 2)
        os.sync()
        cpu, wall = time.process_time(), time.perf_counter()
        receipt = erase_grant(bench.objects, bench.records, ended(grant_id), lambda: NOW + timedelta(hours=1))
        spent = time.process_time() - cpu, time.perf_counter() - wall
        assert receipt is not None
        assert receipt.objects == 50
        lines.append(f"| one of {grants} | {grants * 50:,} | {spent[0]:.3f} | {spent[1]:.3f} |")
    return [*lines, ""]


def erasure(home: Path, peers: Path) -> list[str]:
    """One grant of 200, against Delta."""
    bench = Bench(home)
    grants, rows, size = 200, 20, 100_000
    bench.fill(grants, files=1, rows=rows, image=lambda n: bench.random.randbytes(size), mask=b"")
    grant_id = bench.grants.pop(7)
    cpu, wall = time.process_time(), time.perf_counter()
    erase_grant(bench.objects, bench.records, ended(grant_id), lambda: NOW + timedelta(hours=1))
    spent = time.process_time() - cpu, time.perf_counter() - wall
    theirs = ask(peers, "delta", str(home / "delta"), str(grants), str(rows), str(size))
    return [
        f"| erasing one of {grants} customers, {rows} rows of {size // 1000} KB each | wall s | CPU-s | MB rewritten |",
        "|---|---:|---:|---:|",
        f"| bgbatch, with its receipt | {spent[1]:.3f} | {spent[0]:.3f} | 0 |",
        *(
            f"| {name}: delete and vacuum | {each['seconds']:.3f} | {each['cpu']:.3f} | {each['rewritten'] / 1e6:.1f} |"
            for name, each in theirs.items()
        ),
    ]


def ended(grant_id: GrantId) -> Grant:
    """A grant that was withdrawn."""
    return Grant(
        grant_id=grant_id,
        account_id=AccountId("a" + "0" * 32),
        industry=AUTO,
        granted_at=NOW - timedelta(days=1),
        withdrawn_at=NOW,
        notice_version="1",
    )


def ask(python: Path, *arguments: str) -> dict[str, dict[str, float]]:
    """Run the other side."""
    command = [python, "-m", "bench.lake_peers_side", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    found: dict[str, dict[str, float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def peers_python() -> Path:
    """The environment of the peers, made on the first run."""
    folder = ROOT / ".venv-bench"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        own = next(Path(path) for path in sys.path if path.endswith("site-packages"))
        (folder / "lib" / own.parent.name / "site-packages" / "bgbatch.pth").write_text(f"{own}\n{ROOT}\n")
    wanted = ["webdataset", "litdata", "deltalake"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


if __name__ == "__main__":
    main()
