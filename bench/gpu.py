"""From stored file to stored file through the segmenter actor: photos per second, stage by stage, and the GPU's idling.

    python -m bench.gpu [--device cuda] [--photos 2000] [--actors 4] [--kinds jpg png isnet]

Actors are processes without Ray, `--actors` of them at once on the one device, each doing shards of 64 as a pool would
give them. IS-Net has random weights: what it costs does not depend on them. On a CPU it runs too, with few photos, to
show that it runs; bench/RESULTS.md is written only for a GPU.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

from bench.results import write_section
from bench.tables import table
from schemas.batch import Item, Manifest, Stamp
from schemas.ids import new_batch_id
from schemas.options import CutoutOptions, Format
from store.settings import Settings
from store.transient import open_transient, source_key
from workers.actor import SegmenterActor
from workers.networks.registry import find_network

PHOTOS = Path(__file__).parents[1] / "portal" / "demo_photos"
TWO_MEGAPIXELS = (1600, 1200)
SHARD = 64

STAGES = ("decode", "network and device", "put together and encode")


@dataclass(frozen=True)
class Kind:
    """One thing to measure. `goal`: photos per second on one H100 with 16 cores."""

    title: str
    network: str
    options: CutoutOptions
    goal: int


KINDS = {
    "jpg": Kind("U²-Netp, 2 MP JPEG to JPEG on white", "u2netp", CutoutOptions(format=Format.JPG), 1500),
    "png": Kind("U²-Netp, 2 MP JPEG to PNG", "u2netp", CutoutOptions(), 450),
    "isnet": Kind("IS-Net's shape, 2 MP JPEG to JPEG on white", "isnet", CutoutOptions(format=Format.JPG), 650),
}


def main() -> None:
    """Measure each kind, print, and write if it was a GPU."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--photos", type=int, help="of each kind; else 4,000 on a GPU and 8 on a CPU")
    arguments.add_argument("--actors", type=int, help="else 4 on a GPU and 1 on a CPU")
    arguments.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    chosen = arguments.parse_args()
    on_gpu = chosen.device.startswith("cuda")
    photos, actors = chosen.photos or (4000 if on_gpu else 8), chosen.actors or (4 if on_gpu else 1)
    rows = []
    for name in chosen.kinds:
        kind = KINDS[name]
        with tempfile.TemporaryDirectory() as folder:
            rate, stages, idle = measure(kind, chosen.device, photos, actors, Path(folder))
        spent = [f"{stages[stage] / photos * 1e3:.1f}" for stage in STAGES]
        rows.append([kind.title, f"{rate:.1f}", str(kind.goal), *spent, "–" if idle is None else f"{idle:.0f} %"])
    name = torch.cuda.get_device_name(chosen.device) if on_gpu else "CPU: not what the goals are for"
    head = ["", "photos/s", "goal", *(f"{stage}, ms" for stage in STAGES), "GPU idle"]
    lines = [
        f"{photos} photos of each kind, {actors} actors on {name}, stored file to stored file, warm. A stage's ms are "
        "the time inside it per photo, over all threads: stages overlap, so they add up to more than a photo takes.",
        "",
        *table(head, rows),
    ]
    print("\n".join(lines))
    if on_gpu:
        write_section("On a GPU", lines, device=name)


def measure(
    kind: Kind, device: str, photos: int, actors: int, home: Path
) -> tuple[float, dict[str, float], float | None]:
    """Photos per second, seconds inside each stage, and how many percent of the time the GPU was idle."""
    settings = settings_for(kind, device, actors, home)
    manifest = stored(kind, settings, photos)
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(actors + 1), context.Queue()
    shares = [range(1 + number, photos + 1, actors) for number in range(actors)]
    given = [(settings.without_secrets(), manifest.stamp.batch_id, tuple(share), start, answers) for share in shares]
    processes = [context.Process(target=act, args=each) for each in given]
    for process in processes:
        process.start()
    start.wait()
    began = time.monotonic()
    with watched(device) as busy:
        parts = [answers.get() for _ in processes]
        seconds = time.monotonic() - began
    for process in processes:
        process.join()
    done = sum(part["done"] for part in parts)
    if done != photos:
        raise SystemExit(f"{photos - done} of {photos} photos were not cut.")
    stages = {stage: sum(part[stage] for part in parts) for stage in STAGES}
    return photos / seconds, stages, 100 - mean(busy) if busy else None


def settings_for(kind: Kind, device: str, actors: int, home: Path) -> Settings:
    """The settings of an actor; IS-Net gets weights of no meaning."""
    weights = None
    if kind.network == "isnet":
        weights = home / "isnet.safetensors"
        save_file(find_network("isnet").build().state_dict(), str(weights))
    compiled = Path(tempfile.gettempdir()) / "bgbatch-bench-compiled"
    share = {"gpu_share": 1 / actors} if device.startswith("cuda") else {"actors": actors}
    return Settings(home=home, device=device, network=kind.network, weights=weights, compiled_in=compiled, **share)


def stored(kind: Kind, settings: Settings, photos: int) -> Manifest:
    """A sealed batch of the demo photos, 2 MP each, again and again."""
    received = now().replace(microsecond=0)
    transient = open_transient(settings, now)
    batch_id = new_batch_id(received, lambda n: bytes(n))
    stamp = Stamp(
        batch_id=batch_id,
        received_at=received,
        purge_at=received + timedelta(hours=23),
        industry=None,
        grant_id=None,
        options=kind.options,
    )
    sources = [large(path, settings.home / path.name) for path in sorted(PHOTOS.glob("*.jpg"))]
    items = []
    for number in range(1, photos + 1):
        source = sources[number % len(sources)]
        transient.write(stamp, source_key(batch_id, number), source)
        items.append(Item(number=number, path=f"{number}.jpg", size=len(source)))
    manifest = Manifest(stamp=stamp, items=tuple(items))
    transient.seal(manifest)
    return manifest


def large(photo: Path, to: Path) -> bytes:
    """The photo as a JPEG of 2 MP and quality 90."""
    Image.open(photo).convert("RGB").resize(TWO_MEGAPIXELS, Image.Resampling.LANCZOS).save(to, "JPEG", quality=90)
    return to.read_bytes()


def act(settings: dict[str, Any], batch_id: Any, numbers: tuple[int, ...], start: Any, answers: Any) -> None:
    """One actor's process: warm up, wait for the others, cut its share."""
    actor = SegmenterActor(settings)
    cutter = actor._cutter
    spent = timed(cutter, {"open": STAGES[0], "segment": STAGES[1], "finish": STAGES[2]})
    start.wait()
    done = 0
    for first in range(0, len(numbers), SHARD):
        report = json.loads(actor.process(batch_id, numbers[first : first + SHARD], now).report)
        done += sum(result["outcome"] == "done" for result in report["results"])
    answers.put({"done": done, **{stage: spent[stage] for stage in STAGES}})


def now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


def timed(cutter: Any, stages: dict[str, str]) -> dict[str, float]:
    """Seconds inside the cutter's steps, gathered as they are called."""
    spent: dict[str, float] = defaultdict(float)
    lock = threading.Lock()

    def wrapped(step: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            began = time.monotonic()
            try:
                return step(*given)
            finally:
                with lock:
                    spent[stage] += time.monotonic() - began

        return run

    for name, stage in stages.items():
        setattr(cutter, name, wrapped(getattr(cutter, name), stage))
    return spent


@contextmanager
def watched(device: str) -> Iterator[list[float]]:
    """How busy the GPU is, in percent, as nvidia-smi says twice a second; nothing for a CPU."""
    busy: list[float] = []
    over = threading.Event()
    ask = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]

    def look() -> None:
        while not over.wait(0.5):
            answer = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
            busy.append(float(answer.splitlines()[torch.device(device).index or 0]))

    watcher = threading.Thread(target=look, daemon=True)
    if device.startswith("cuda"):
        watcher.start()
    yield busy
    over.set()
    if watcher.is_alive():
        watcher.join()


if __name__ == "__main__":
    main()
