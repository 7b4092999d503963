"""What a night of ten million photos needs, by a small simulation from unit costs; it writes docs/scale.md.

`python -m bench.night` writes the page; a test holds the page to what this says. Every unit cost names where it was
measured. Nothing here was run at that size.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bench.results import table

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
PHOTOS, HOURS, PHOTOS_PER_BATCH, PHOTOS_PER_CALL = 10_000_000, 8.0, 500, 64
CORES_PER_MACHINE, ACTORS_PER_GPU = 16, 8


@dataclass(frozen=True)
class Work:
    """One network and format. `gpu_per_second`: photos that one GPU's network, or whole pipeline, gives a second.

    `core_ms`: of a CPU core per photo beside it. `sent`, `given`: megabytes of a source and a cutout.
    """

    name: str
    gpu_per_second: float
    core_ms: float
    sent: float
    given: float


# bench/RESULTS.md, "On a GPU": an H100 with 16 cores, from stored file to stored file; JPEG with MPS and eight actors,
# PNG without and in an earlier state. Of 12 MP nvJPEG alone decoded 998 a second there before: half of that is counted.
# IS-Net to JPEG gave 647; a PNG's rows take 0.36 ms more of the GPU, and of 12 MP six times that. Its JPEGs took
# 13.7 ms more of a core than U²-Netp's, whose masks are a tenth of the size: so do its PNGs here.
# CPU of 12 MP: "Against rembg", the whole call less the network, on one thread. A JPEG that a GPU made keeps full
# colour resolution, which makes it 1.27 times as large as a CPU's of 0.24 MB (five photos, quality 90).
WORKS = (
    Work("u2netp, JPEG on white, 2 MP", 1739, 6.9, 0.6, 0.31),
    Work("u2netp, PNG, 2 MP", 512, 26.5, 0.6, 1.86),
    Work("u2netp, PNG, 12 MP", 499, 105, 4.0, 8.96),
    Work("IS-Net shape, PNG, 2 MP", 525, 40.2, 0.6, 1.86),
    Work("IS-Net shape, PNG, 12 MP", 270, 119, 4.0, 8.96),
)
CPU_ONLY_MS = {"PNG, 2 MP": 255.0, "PNG, 12 MP": 332.0}  # bench/RESULTS.md, "Against rembg": whole call, one thread

OVERHEAD = 1.012  # dispatch, bench.scale
SPOT_LOSS_PER_HOUR = 0.05  # assumed: of machines; each takes its calls in flight with it
START_MINUTES = 5.0  # assumed: a machine with a GPU, its image and the network compiled
PREFECT_REQUESTS_PER_BATCH = 61  # bench.scale, 400 photos
PUT_DOLLARS, GET_DOLLARS = 5e-6, 4e-7  # assumed: a large cloud's list price per request in 2026


def how_many(seconds: float) -> float:
    """So many GPUs or cores, busy all night, do all photos when each takes one of them so long."""
    return PHOTOS * OVERHEAD * seconds / (HOURS * 3600)


def machines_for(work: Work) -> tuple[int, int]:
    """GPUs, and machines of one GPU and 16 cores, if all goes well: the scarcer of both decides."""
    gpus = math.ceil(how_many(1 / work.gpu_per_second))
    return gpus, max(gpus, math.ceil(how_many(work.core_ms / 1e3) / CORES_PER_MACHINE))


def hours_with(work: Work, machines: int) -> tuple[float, int]:
    """Simulated: machines come up, some are lost and replaced, and calls that were lost are made again."""
    random = Random(1)
    rate = min(work.gpu_per_second, CORES_PER_MACHINE * 1e3 / work.core_ms) / OVERHEAD
    now, done, again, up = 0.0, 0.0, 0, 0
    events = [(START_MINUTES * 60 * random.uniform(0.7, 1.3), 1) for _ in range(machines)]
    heapq.heapify(events)
    while done < PHOTOS:
        moment, change = events[0] if events else (math.inf, 0)
        needed = (PHOTOS - done) / (up * rate) if up else math.inf
        if now + needed <= moment:
            return (now + needed) / 3600, again
        done += up * rate * (moment - now)
        now = moment
        heapq.heappop(events)
        up += change
        if change == 1:
            heapq.heappush(events, (now + random.expovariate(SPOT_LOSS_PER_HOUR / 3600), -1))
        else:
            lost = 2 * PHOTOS_PER_CALL * ACTORS_PER_GPU  # two calls per actor in flight
            done, again = max(0.0, done - lost), again + lost
            heapq.heappush(events, (now + START_MINUTES * 60, 1))
    return now / 3600, again


def enough_for(work: Work) -> tuple[int, float, int]:
    """The fewest machines with which the simulated night ends in time, its hours, and photos that were cut twice."""
    machines = machines_for(work)[1]
    while True:
        hours, again = hours_with(work, machines)
        if hours <= HOURS:
            return machines, hours, again
        machines += 1


def page() -> str:
    """The whole of docs/scale.md."""
    rows = []
    for work in WORKS:
        gpus, _ = machines_for(work)
        machines, hours, again = enough_for(work)
        cores = math.ceil(how_many(work.core_ms / 1e3))
        rows.append([work.name, str(gpus), str(cores), str(machines), f"{hours:.2f}", f"{again:,}"])
    cpu = [[name, str(math.ceil(how_many(ms / 1e3)))] for name, ms in CPU_ONLY_MS.items()]
    batches, calls = PHOTOS // PHOTOS_PER_BATCH, PHOTOS // PHOTOS_PER_CALL
    puts = 2 * PHOTOS + calls + batches  # a source, a cutout; a report per call; a manifest per batch
    gets = 2 * PHOTOS + 3 * calls + 4 * batches  # read by the worker, by the customer; reports thrice; manifests
    dollars = puts * PUT_DOLLARS + gets * GET_DOLLARS
    seconds = HOURS * 3600
    stored = [[work.name, f"{PHOTOS * (work.sent + work.given) / 1e6:.1f}"] for work in WORKS[:3]]
    lines = [
        "# A night of ten million photos",
        "",
        f"Computed by `python -m bench.night`, which names where each unit cost was measured; nothing was run at this "
        f"size. {HOURS:.0f} hours, batches of {PHOTOS_PER_BATCH} photos, calls of {PHOTOS_PER_CALL}, machines "
        f"of one GPU and {CORES_PER_MACHINE} cores.",
        "",
        f"Assumed and not measured: {SPOT_LOSS_PER_HOUR:.0%} of machines are lost an hour, a new one needs "
        f"{START_MINUTES:.0f} minutes, prices of requests. A GPU is an H100, with what actors reached on it from end "
        "to end with files in memory (bench/RESULTS.md, On a GPU; JPEG with NVIDIA's Multi-Process Service): what it "
        "reaches with a store across a network was not measured. 12 MP and IS-Net's PNGs by extrapolation.",
        "",
        "## Machines",
        "",
        *table(["work", "GPUs by rate", "cores", "machines, simulated", "hours", "photos cut twice"], rows),
        "",
        "Cores decide for large PNGs: more cores per GPU, or a leaner format, before more GPUs.",
        "",
        "Without a GPU (u2netp, whole call on one core):",
        "",
        *table(["work", "cores"], cpu),
        "",
        "## Object store",
        "",
        f"{puts:,} writes and {gets:,} reads in the night, {puts / seconds:,.0f} and {gets / seconds:,.0f} a "
        f"second; about {dollars:,.0f} dollars. Deleting is free of charge there, at 1,000 keys a request: "
        f"{(puts + 999) // 1000:,} requests.",
        "",
        *table(["work", "TB that stand there until the purge"], stored),
        "",
        "Hours are prefixes of their own, so load spreads as time goes on; within one hour ids are random from the "
        "13th digit, and stores that split by prefix may need a warning before the first such night.",
        "",
        "## Records and engine",
        "",
        f"{calls:,} progress updates and {batches:,} batches: {calls / seconds:.0f} transactions a second. "
        f"{batches * PREFECT_REQUESTS_PER_BATCH:,} requests to Prefect's server, "
        f"{batches * PREFECT_REQUESTS_PER_BATCH / seconds:.0f} a second.",
        "",
        "## What is deleted when",
        "",
        "A batch's row (numbers only) stays as history; what is asked at each receipt and each cleanup goes by "
        "indexes of what is not purged yet, so it does not grow with the years (bench/RESULTS.md, Scale). Receipts and "
        "consent events stay for ever: they are the proof. Answers to repeated requests go after a day, cleanups' rows "
        "after 90.",
        "",
        "## What does not scale yet",
        "",
        "- A batch of a million photos costs its driver and each of its actors about 100 bytes a photo for the "
        "manifest. When cutouts go into the lake, at the end of a turn, all that is known of all of them is held: "
        "3.3 KB a photo, 3.3 GB of a million. Send batches that may train of at most 100,000.",
        "- A first look at a customer's place holds 1.6 KB a photo until its batch is sealed: 250,000 took 0.4 GB and "
        "8 s of CPU. What looks at nights has 4 GB in our manifests, for the four that it works on at once: give it "
        "more before places of over two million.",
        "- Each page of `GET /v1/batches/{id}/items` reads the whole list of the batch's photos, 12 MB of 100,000: "
        "a program that follows 500 pages of 200 to the end costs 22 s of CPU, 8 s if it asks for 1,000 at a time. "
        "A page with photos that have one name but for the suffix (`1.jpg`, `1.heic`) names all of them, for 0.35 s.",
        "- The first look at a batch's page or list of failures in a portal's process, and each `bgbatch status "
        "BATCH`, which names every failure, reads all of the batch's reports, gathered hundreds in an object once the "
        "batch was worked on. 100,000 photos of 12,500 reports took 1 s on a disk and 1 to 4 s on an S3 server beside "
        "it, on two cores; while they are not gathered 20 s there. To gather them took 12 to 18 s.",
        "- `bgbatch receipts` verifies the whole chain, a time that grows with all batches ever purged.",
        "- Ray's head without an external store is one machine: when it dies, runs end, say so, and go on where they "
        "stood once a new cluster is up.",
        "- Of a GPU node's cold start only the actor's part was measured (20 s where its network was compiled before, "
        "most of a minute where not); what a cloud takes to give a machine, and a warm pool costs, was not.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
