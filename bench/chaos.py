"""Many trials: a batch on several hosts, something killed or cut off at a random moment, and a count afterwards.

`python -m bench.chaos --trials 200 --photos 2000` goes on where its record stops, and writes its section of
bench/RESULTS.md. The trials run in namespaces of their own (tests.cluster.network). A broken one makes it exit with 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.results import table, write_section
from tests.cluster.network import apart
from tests.cluster.trials import VICTIMS, Outcome, recorded

RECORD = Path("build/chaos.jsonl")


def main() -> None:
    """Run them, and say how many there were."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--trials", type=int, default=200)
    asked.add_argument("--photos", type=int, default=2000)
    asked.add_argument("--first-seed", type=int, default=1)
    asked.add_argument("--victims", nargs="*", default=list(VICTIMS))
    asked.add_argument("--record", type=Path, default=RECORD)
    how = asked.parse_args()
    how.record.parent.mkdir(parents=True, exist_ok=True)
    seeds = range(how.first_seed, how.first_seed + how.trials)
    while left := [seed for seed in seeds if seed not in recorded(how.record)]:
        run(how.record, left, how.photos, how.victims)
    outcomes = [each for each in recorded(how.record).values() if each.photos == how.photos]
    write_section("Chaos", body(outcomes))
    sys.exit(int(any(each.broken for each in outcomes)))


def run(record: Path, seeds: Sequence[int], photos: int, victims: Sequence[str] = VICTIMS) -> None:
    """Those trials, until one is broken; the record shows which were done."""
    program = [sys.executable, "-m", "tests.cluster.trials", "--record", record.absolute()]
    asked = ["--photos", photos, "--seeds", *seeds, "--victims", *victims]
    done = len(recorded(record))
    subprocess.run(apart([*map(str, [*program, *asked])]), check=False)
    if len(recorded(record)) == done:
        sys.exit("the trials did not begin; they need root, or a kernel that lets anybody have namespaces")


def body(outcomes: Sequence[Outcome]) -> list[str]:
    """What each victim cost."""
    by_victim: dict[str, list[Outcome]] = defaultdict(list)
    for each in outcomes:
        by_victim[each.victim].append(each)
    rows = []
    for victim in sorted(by_victim, key=VICTIMS.index):
        some = by_victim[victim]
        again = Counter(what for each in some for what in set(each.again))
        told = ", ".join(f"{what} ({count})" for what, count in again.most_common()) or "nothing"
        broken = sum(bool(each.broken) for each in some)
        seconds = f"{median(each.seconds for each in some):.0f}"
        rows.append([victim, str(len(some)), str(len(some) - broken), told, seconds])
    consents = Counter(each.consent for each in outcomes)
    allowed = ", ".join(f"{consents[each]} {each}" for each in sorted(consents))
    bad = [f"- seed {each.seed}, {each.victim}: {each.broken}" for each in outcomes if each.broken]
    return [
        f"{len(outcomes)} trials of {outcomes[0].photos} photos: `bgbatch work` with its flows, the portal, Prefect's "
        "server with a password, PostgreSQL, an S3 server, a Ray head and three hosts with Ray's token, each host in a "
        "network namespace; photos of 64 × 48 pixels, a network that does nothing. Permission to train: "
        f"{allowed} in the middle. A trial is good when nobody had to do more than start again what had ended, each "
        "photo had exactly one result and its own cutout, the lake held each photo once under a live grant and nothing "
        "otherwise, and a day later nothing was left and one receipt said so.",
        "",
        *table(["killed or cut", "trials", "good", "started again (in how many)", "median s"], rows),
        *(["", "What was broken:", "", *bad] if bad else []),
    ]


if __name__ == "__main__":
    main()
