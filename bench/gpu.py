"""From stored file to stored file through the segmenter actor: photos per second, stage by stage, and the GPU's idling.

    python -m bench.gpu [--device cuda] [--photos 12288] [--actors 4] [--call 64] [--kinds jpg png edges isnet]
        [--mps] [--latency 30]

Actors are processes without Ray, 8 of them (6 with IS-Net) or `--actors` at once on the one device, each given calls
of `--call` photos, two at a time, as a pool would give them. `--mps` measures once more with NVIDIA's Multi-Process
Service, by which the processes use the GPU at the same time instead of in turn. IS-Net has random weights: what it
costs does not depend on them. TMPDIR says where the store lies; `--latency` has it answer each time so many
milliseconds later, as a store across a network does. On a CPU it runs too, with few photos, to show that it runs;
bench/RESULTS.md is written only for a GPU, and without latency.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty
from statistics import mean
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

from bench.results import table, write_section
from schemas.batch import Item, Manifest, Stamp
from schemas.errors import DeviceAbsent
from schemas.ids import new_batch_id
from schemas.options import CutoutOptions, Format
from store.objects.folder import Folder
from store.settings import Settings
from store.transient.transient_store import open_transient, source_key
from workers.actor import SegmenterActor
from workers.limits import calls_at_once
from workers.networks.registry import find_network
from workers.plan import Shard
from workers.segmenter import find_device

PHOTOS = Path(__file__).parents[1] / "portal" / "demo_photos"
TWO_MEGAPIXELS = (1600, 1200)

STAGES = ("decode", "network and device", "put together and encode")


@dataclass(frozen=True)
class Kind:
    """One thing to measure. `goal`: photos per second on one H100 with 16 cores, if there is one."""

    title: str
    network: str
    options: CutoutOptions
    goal: int | None = None


ACTORS = {"u2netp": 8, "isnet": 6}
"""How many get the most out of an H100 with 16 cores."""


KINDS = {
    "jpg": Kind("U²-Netp, 2 MP JPEG to JPEG on white", "u2netp", CutoutOptions(format=Format.JPG), 1500),
    "png": Kind("U²-Netp, 2 MP JPEG to PNG", "u2netp", CutoutOptions(), 450),
    "edges": Kind(
        "U²-Netp, 2 MP JPEG to JPEG on white, refined and despilled",
        "u2netp",
        CutoutOptions(format=Format.JPG, refine=True, despill=True),
    ),
    "isnet": Kind("IS-Net's shape, 2 MP JPEG to JPEG on white", "isnet", CutoutOptions(format=Format.JPG), 650),
}


@dataclass(frozen=True)
class Measured:
    """`stages`: seconds inside each; `cpu`: seconds of processors; `idle`: percent of the time, of a GPU only."""

    seconds: float
    stages: dict[str, float]
    cpu: float
    idle: float | None


def main() -> None:
    """Measure each kind, print, and write if it was a GPU."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--photos", type=int, help="of each kind; else 12,288 on a GPU and 8 on a CPU")
    arguments.add_argument("--actors", type=int, help="else 8 on a GPU, 6 with IS-Net, and 1 on a CPU")
    arguments.add_argument("--call", type=int, help="photos in a call; else as many as BGBATCH_SHARD_ITEMS says")
    arguments.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    arguments.add_argument("--mps", action="store_true", help="measure with NVIDIA's Multi-Process Service, too")
    arguments.add_argument("--latency", type=float, default=0.0, help="milliseconds until the store answers")
    chosen = arguments.parse_args()
    try:
        find_device(chosen.device)  # here: actors that cannot start would be waited for in vain
    except DeviceAbsent as absent:
        raise SystemExit(str(absent)) from None
    if chosen.mps and shutil.which("nvidia-cuda-mps-control") is None:
        raise SystemExit("nvidia-cuda-mps-control is not on this machine. Install NVIDIA's driver, or leave out --mps.")
    on_gpu = chosen.device.startswith("cuda")
    photos = chosen.photos or (12_288 if on_gpu else 8)
    call = chosen.call or Settings(device=chosen.device).items_per_call
    by_network: dict[str, list[Kind]] = defaultdict(list)
    for name in chosen.kinds:
        by_network[KINDS[name].network].append(KINDS[name])
    rows = []
    for network, kinds in by_network.items():
        actors = chosen.actors or (ACTORS[network] if on_gpu else 1)
        for is_shared in (False, True) if chosen.mps else (False,):
            with tempfile.TemporaryDirectory() as folder, multi_process_service(is_shared):
                measured = measure(kinds, chosen.device, photos, actors, call, Path(folder), chosen.latency / 1e3)
            rows += [row(kind, is_shared, actors, photos, each) for kind, each in zip(kinds, measured, strict=True)]
            print(rows[-len(kinds) :], flush=True)
    name = torch.cuda.get_device_name(chosen.device) if on_gpu else "CPU: not what the goals are for"
    at_once = calls_at_once(chosen.device)
    head = ["", "photos/s", "goal", *(f"{stage}, ms" for stage in STAGES), "CPU-ms", "GPU idle"]
    lines = [
        f"{photos} photos of each kind on {name}, calls of {call}, {at_once} at a time for "
        f"each actor, {os.cpu_count()} CPUs, torch {torch.__version__}, stored file to stored file, warm. A stage's ms "
        "are the time inside it per photo, over all threads: stages overlap, so they add up to more than a photo "
        "takes.",
        "",
        *table(head, rows),
    ]
    print("\n".join(lines))
    if on_gpu and not chosen.latency:
        write_section("On a GPU", lines, device=name)


def row(kind: Kind, is_shared: bool, actors: int, photos: int, measured: Measured) -> list[str]:
    """A line of the table."""
    spent = [f"{measured.stages[stage] / photos * 1e3:.1f}" for stage in STAGES]
    idle = "–" if measured.idle is None else f"{measured.idle:.0f} %"
    title = ", ".join((kind.title, *(("with MPS",) if is_shared else ()), f"{actors} actor{'s' if actors > 1 else ''}"))
    rate, cpu = photos / measured.seconds, measured.cpu / photos * 1e3
    return [
        title,
        f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}",
        f"{kind.goal:,}" if kind.goal else "",
        *spent,
        f"{cpu:.1f}",
        idle,
    ]


@contextmanager
def multi_process_service(is_wanted: bool) -> Iterator[None]:
    """NVIDIA's daemon, for the processes that are started within."""
    if not is_wanted:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True)
        try:
            yield
        finally:
            subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, check=False)
            del os.environ["CUDA_MPS_PIPE_DIRECTORY"], os.environ["CUDA_MPS_LOG_DIRECTORY"]


def measure(
    kinds: list[Kind], device: str, photos: int, actors: int, call: int, home: Path, latency: float = 0.0
) -> list[Measured]:
    """Each of these kinds, which have the network in common, by the same actors."""
    settings = settings_for(kinds[0], device, actors, home)
    batches = [stored(kind, settings, photos).stamp.batch_id for kind in kinds]
    context = multiprocessing.get_context("spawn")
    start, ready, answers = context.Barrier(actors + 1), context.Queue(), context.Queue()
    shares = [range(1 + number, photos + 1, actors) for number in range(actors)]
    calls = [[tuple(share[first : first + call]) for first in range(0, len(share), call)] for share in shares]
    given = [(settings.without_secrets(), batches, each, start, ready, answers, latency) for each in calls]
    processes = [context.Process(target=act, args=each) for each in given]
    for process in processes:
        process.start()
    measured = []
    try:
        for _ in kinds:
            told(ready, processes)
            start.wait()
            began = time.monotonic()
            with watched(device) as busy:
                parts = told(answers, processes)
                seconds = time.monotonic() - began
            done = sum(part["done"] for part in parts)
            if done != photos:
                raise SystemExit(f"{photos - done} of {photos} photos were not cut.")
            stages = {stage: sum(part[stage] for part in parts) for stage in STAGES}
            cpu = sum(part["cpu"] for part in parts)
            measured.append(Measured(seconds, stages, cpu, 100 - mean(busy) if busy else None))
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
    return measured


def told(words: Any, processes: list[Any]) -> list[dict[str, float]]:
    """A word of each process; one that has died would be waited for in vain."""
    parts: list[dict[str, float]] = []
    while len(parts) < len(processes):
        try:
            parts.append(words.get(timeout=1))
        except Empty:
            if any(process.exitcode for process in processes):
                raise SystemExit("An actor died. What it said of that stands above.") from None
    return parts


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
    batch_id = new_batch_id(received, os.urandom)
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


def act(
    settings: dict[str, Any],
    batches: list[Any],
    calls: list[Shard],
    start: Any,
    ready: Any,
    answers: Any,
    latency: float,
) -> None:
    """One actor's process: warm up, and for each batch wait for the others and cut its share."""
    if latency:
        answer_later(latency)
    actor = SegmenterActor(settings)
    spent = timed(actor._cutter, {"open": STAGES[0], "segment": STAGES[1], "finish": STAGES[2]})
    with ThreadPoolExecutor(calls_at_once(settings["device"])) as some:
        for batch_id in batches:
            ready.put({})
            start.wait()
            spent.clear()
            cpu = time.process_time()
            reports = list(some.map(lambda call, batch_id=batch_id: actor.process(batch_id, call, now).report, calls))
            used = time.process_time() - cpu
            done = sum(result["outcome"] == "done" for report in reports for result in json.loads(report)["results"])
            answers.put({"done": done, "cpu": used, **{stage: spent[stage] for stage in STAGES}})


def answer_later(latency: float) -> None:
    """Have the store of this process read and write as slowly as one across a network."""
    get, put = Folder.get, Folder.put

    def later(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            time.sleep(latency)
            return call(*arguments)

        return run

    Folder.get, Folder.put = later(get), later(put)  # type: ignore[method-assign]


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
