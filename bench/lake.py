"""The lake against raw files, cp, WebDataset, LitData and Delta: side by side, in one run.

`python -m bench.lake` writes its section of bench/RESULTS.md, in about five minutes. The peers are in the dependency
group `bench`, or in another environment (`--peers PYTHON`) that sees bgbatch's own. Where two things are compared they
take turns, and the least time of some rounds counts, so that other work on the machine counts as little as can be.
"""

from __future__ import annotations

import argparse
import hashlib
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
from typing import TypeVar

import numpy as np
import pyarrow as pa
from sqlalchemy import insert

from bench.results import table, write_section
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
from schemas.receipt import Receipt
from store.objects.folder import Folder
from store.objects.object_store import ObjectStore, open_store
from store.records.database import Records, open_records
from store.records.tables import admissions
from store.settings import Settings

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "portal" / "demo_photos"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
AUTO = Industry.AUTOMOTIVE
ROWS = 64
"""In each file of photos."""
_Answer = TypeVar("_Answer")


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

    def fill(
        self,
        grants: int,
        files: int,
        rows: int,
        image: Callable[[int], bytes],
        mask: bytes = b"",
        are_alike: bool = False,
    ) -> int:
        """`grants` with `files` of `rows` each; returns all bytes. `are_alike`: one file's bytes under all names."""
        admitted, data = [], b""
        for _ in range(grants):
            self.grants.append(grant_id := new_grant_id(self.random.randbytes))
            for _ in range(files):
                batch_id, sha256 = new_batch_id(NOW, self.random.randbytes), f"{len(admitted):064x}"
                key = file_key(Place(AUTO, grant_id), batch_id, sha256)
                if not (are_alike and data):
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
                        "sha256": sha256,
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


def summed(data: memoryview | pa.Buffer) -> int:
    """Look at every byte but some at the ends: the sum of all 64-bit words that lie as the processor likes them."""
    view = np.frombuffer(data, np.uint8)
    skipped = -view.ctypes.data % 8
    return int(view[skipped : skipped + (len(view) - skipped) // 8 * 8].view(np.uint64).sum())


def timed(work: Callable[[], _Answer]) -> tuple[_Answer, tuple[float, float]]:
    """What it returns, and the (CPU, wall) seconds that it takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    answer = work()
    return answer, (time.process_time() - cpu, time.perf_counter() - wall)


def take_turns(
    rounds: int, between: Callable[[], None] = lambda: None, **works: Callable[[], object]
) -> dict[str, tuple[float, float]]:
    """Least (CPU, wall) seconds of each, run in turn, with `between` before each."""
    best = {name: (float("inf"), float("inf")) for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            between()
            _, spent = timed(work)
            best[name] = min(best[name][0], spent[0]), min(best[name][1], spent[1])
    return best


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=Path, default=sys.executable, help="a Python that has the peers, too")
    parser.add_argument("--files", type=int, default=5000, help="of the scan of labels, each with 200 rows")
    parser.add_argument("--rounds", type=int, default=3, help="of training")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bgbatch-bench-"))
    parts: dict[str, Callable[[], list[str]]] = {
        "photos": lambda: photos(home / "photos"),
        "training": lambda: training(home / "training", arguments.peers, arguments.rounds),
        "labels": lambda: labels(home / "labels", arguments.files),
        "erasure among many": lambda: among_many(home / "many"),
        "erasure beside Delta": lambda: beside_delta(home / "delta", arguments.peers),
    }
    body = []
    try:
        for name, part in parts.items():
            begun = time.perf_counter()
            body += [*part(), ""]
            print(f"{name}: {time.perf_counter() - begun:.0f} s")
            shutil.rmtree(home)
            home.mkdir()
    finally:
        shutil.rmtree(home, ignore_errors=True)
    load = f"{os.getloadavg()[0]:.0f}"
    write_section("Lake", [f"The machine's load at the end: {load} (of which one is this bench).", "", *body[:-1]])


def photos(home: Path) -> list[str]:
    """Real photos: reading all bytes, and pulling them."""
    bench = Bench(home)
    sources = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))]
    varied = Random(2)

    def image(number: int) -> bytes:
        """Each its own: a tail behind the image's end, so that no store can keep one for all."""
        source = varied.choice(sources)
        return source + varied.randbytes(200_000)

    size = bench.fill(grants=20, files=1, rows=ROWS, image=image, mask=b"\x89PNG" + bytes(20_000))
    paths = bench.lake.paths(AUTO)
    return [
        f"{size / 1e6:.0f} MB of candidates in {len(paths)} files, local disk, everything in the page cache.",
        "",
        *reading(bench, paths),
        "",
        *copying(bench, home),
    ]


def reading(bench: Bench, paths: list[str]) -> list[str]:
    """All image bytes, against the same files raw."""
    columns = ["image", "mask_png"]

    def raw() -> int:
        return sum(len(Path(path).read_bytes()) for path in paths)

    def images() -> int:
        return sum(each.image.size + each.mask_png.size for each in bench.lake.images(AUTO))

    def arrow() -> int:
        return sum(batch.nbytes for batch in bench.lake.dataset(AUTO).to_batches(columns=columns))

    def raw_summed() -> int:
        """In as many pieces as the files hold images and masks."""
        total = 0
        for path in paths:
            data = memoryview(Path(path).read_bytes())
            wide = len(data) // (2 * ROWS) + 1
            total += sum(summed(data[start : start + wide]) for start in range(0, len(data), wide))
        return total

    def images_summed() -> int:
        return sum(summed(each.image) + summed(each.mask_png) for each in bench.lake.images(AUTO))

    def arrow_summed() -> int:
        batches = bench.lake.dataset(AUTO).to_batches(columns=columns)
        return sum(summed(batch[name].buffers()[2]) for batch in batches for name in columns)

    given = take_turns(20, raw=raw, images=images, arrow=arrow)
    seen = take_turns(20, raw=raw_summed, images=images_summed, arrow=arrow_summed)
    ways = {
        "raw": "the lake's files, raw",
        "images": "`lake.images()`",
        "arrow": "`lake.dataset()`, image columns",
    }
    return [
        *table(
            ["all image bytes", "read: CPU-s", "wall s", "read and summed up: CPU-s", "wall s"],
            [[words, *seconds(given[name]), *seconds(seen[name])] for name, words in ways.items()],
        ),
        "",
        *(
            f"Speed of raw reading: {ways[name]} {ratios(given['raw'], given[name])}; when each byte is looked at, "
            f"{ratios(seen['raw'], seen[name])} (goal 0.8)."
            for name in ("images", "arrow")
        ),
        "`lake.images()` maps the files and copies nothing; `lake.dataset()` is pyarrow's own reader, which copies "
        "all values into arrays.",
    ]


def copying(bench: Bench, home: Path) -> list[str]:
    """A pull, against `cp`."""

    def cp() -> None:
        shutil.copytree(home / "lake", home / "cp")

    def cp_summed() -> None:
        """What a copy costs that says what is in it."""
        cp()
        for path in (home / "cp").rglob("*.parquet"):
            hashlib.sha256(path.read_bytes()).hexdigest()

    def pulled() -> None:
        order = Order(Kind.WEBDATASET)
        pull(bench.lake, Query(AUTO), ObjectStore(Folder(str(home / "pull"))), lambda: NOW, order=order)

    def clear() -> None:
        for name in ("cp", "pull"):
            shutil.rmtree(home / name, ignore_errors=True)

    spent = take_turns(5, clear, cp=cp, cp_summed=cp_summed, pull=pulled)
    words = {
        "cp": "`cp` (shutil) of the lake's folder",
        "cp_summed": "the same, and SHA-256 of each copied file, one after the other",
        "pull": "pull as WebDataset, with hashes, card and record",
    }
    return [
        *table(["copying", "CPU-s", "wall s"], [[words[name], *seconds(spent[name])] for name in words]),
        "",
        f"The pull takes {spent['pull'][0] / spent['cp'][0]:.1f} times the CPU time of `cp` and "
        f"{spent['pull'][1] / spent['cp'][1]:.1f} times its wall time; of `cp` and SHA-256, "
        f"{spent['pull'][0] / spent['cp_summed'][0]:.1f} and {spent['pull'][1] / spent['cp_summed'][1]:.1f} times.",
    ]


def training(home: Path, peers: Path, rounds: int) -> list[str]:
    """Passes over decoded photos, against WebDataset and LitData."""
    sources = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))]
    bench = Bench(home / "lake-home")
    bench.fill(grants=20, files=1, rows=64, image=lambda n: sources[n % len(sources)], mask=b"\x89PNG")
    (bench.home / "grants").write_text("\n".join(bench.grants))
    tars, order = home / "tars", Order(Kind.WEBDATASET)
    pull(bench.lake, Query(AUTO), ObjectStore(Folder(str(tars))), lambda: NOW, order=order)
    spent = ask(peers, "loaders", str(tars), str(bench.home), str(rounds))
    rows = [
        [name, workers, f"{each['images'] / each['cpu']:.0f}", f"{each['images'] / each['wall']:.0f}"]
        for (name, _, workers), each in ((key.partition("/"), each) for key, each in spent.items())
    ]
    return [
        *table(["training", "DataLoader workers", "images per CPU-s", "images per s"], rows),
        "",
        f"{len(sources)} photos again and again, decoded by simplejpeg in all three, shuffled; "
        f"the best of {rounds} passes of each, in turn; each image comes out as a tensor. With workers most of the "
        "time goes into the way of decoded pixels between processes: ours hands over its samples, which go through "
        "a pipe, theirs arrays, which torch puts into shared memory.",
    ]


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
    done, merging = timed(lambda: compact(bench.lake, lambda connection, grant_id: True, lambda: NOW, os.urandom))
    after = take_turns(2, scan=scan)["scan"]
    return [
        *table(
            [f"scan of four labels of {rows:,} rows", "files", "CPU-s", "wall s"],
            [
                ["before compaction", f"{files:,}", *seconds(before)],
                ["after compaction", f"{files - done.files + done.merged:,}", *seconds(after)],
            ],
        ),
        "",
        f"Compaction took {merging[1]:.1f} s ({merging[0]:.1f} CPU-s). Images are tiny here, so that the disk "
        "holds them, and row groups are as large as they get; of photos one holds 32 rows and costs a scan 0.07 ms.",
    ]


def among_many(home: Path) -> list[str]:
    """An erasure in lakes of several sizes: its own files are 50 in each."""
    rows = []
    for grants in (1, 20, 200):
        bench = Bench(home / f"erase-{grants}")
        bench.fill(grants, files=50, rows=1, image=lambda n: b"an image", mask=b"a mask", are_alike=True)
        spent = []
        for place in (grants // 2, 0)[:grants]:
            receipt, took = timed(erasure(bench, bench.grants.pop(place)))
            spent.append(took)
            assert receipt is not None
            assert receipt.objects == 50
        rows.append([f"one of {grants}", f"{grants * 50:,}", *seconds(min(spent))])
    return table(["erasing one customer of 50 files", "files in the lake", "CPU-s", "wall s"], rows)


def beside_delta(home: Path, peers: Path) -> list[str]:
    """One grant of 200, against Delta."""
    bench = Bench(home)
    grants, rows, size = 200, 20, 100_000
    bench.fill(grants, files=1, rows=rows, image=lambda n: bench.random.randbytes(size), mask=b"")
    _, spent = timed(erasure(bench, bench.grants.pop(7)))
    theirs = ask(peers, "delta", str(home / "delta"), str(grants), str(rows), str(size))
    return table(
        [
            f"erasing one of {grants} customers, {rows} rows of {size // 1000} KB each",
            "CPU-s",
            "wall s",
            "MB rewritten",
        ],
        [
            ["bgbatch, with its receipt", *seconds(spent), "0"],
            *(
                [
                    f"{name}: delete and vacuum",
                    *seconds((each["cpu"], each["wall"])),
                    f"{each['rewritten'] / 1e6:.1f}",
                ]
                for name, each in theirs.items()
            ),
        ],
    )


def seconds(spent: tuple[float, float]) -> list[str]:
    """CPU and wall time, for a table."""
    return [f"{each:.3f}" for each in spent]


def ratios(of: tuple[float, float], spent: tuple[float, float]) -> str:
    """How fast `spent` is, by the speed of `of`."""
    return f"{of[1] / spent[1]:.2f} by wall time and {of[0] / spent[0]:.2f} by CPU time"


def erasure(bench: Bench, grant_id: GrantId) -> Callable[[], Receipt | None]:
    """Erases what a grant gave, an hour after it was withdrawn."""
    ended = Grant(
        grant_id=grant_id,
        account_id=AccountId("a" + "0" * 32),
        industry=AUTO,
        granted_at=NOW - timedelta(days=1),
        withdrawn_at=NOW,
        notice_version="1",
    )
    return lambda: erase_grant(bench.objects, bench.records, ended, lambda: NOW + timedelta(hours=1))


def ask(python: Path, *arguments: str) -> dict[str, dict[str, float]]:
    """Run the other side."""
    command = [python, "-m", "bench.lake_peers_side", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    found: dict[str, dict[str, float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
